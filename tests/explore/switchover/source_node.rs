//! Node A: the shell around the source machine, its crash and its recovery.

use foreshadow::effect::{Effect, Effects, EngineOperation, Note, Request};
use foreshadow::event::Failure;
use foreshadow::switch::source::{Outcome, Plan, Source, State};
use foreshadow::switch::{self};
use wal::lsn::Epoch;
use wal::message::{Message, Verdict};
use wal::{Span, Time};

use super::variants::Variant;
use super::world::{
    EngineJob, Fence, Limits, PARTITION, Packet, SOURCE, SourceNode, SourceNote, SourceRole,
    TARGET, TO_TARGET, Used, World, epoch_of, lsn_of, position,
};
use super::{Action, Crash, Fate};

/// Every deadline has passed: a timer may fire at any moment.
pub const LATE: Time = Time(u64::MAX);

/// What runs its jobs in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceQueue {
    Engine,
    Journal,
    Coordinator,
}

impl SourceNode {
    pub fn add_actions(&self, limits: &Limits, used: &Used, actions: &mut Vec<Action>) {
        let SourceRole::Owner(machine) = &self.role else {
            self.add_other_actions(limits, used, actions);
            return;
        };
        if matches!(machine.state(), State::Converging { .. }) {
            actions.push(Action::Converge);
        } else if machine.deadline().is_some() {
            actions.push(Action::SourceTimer);
        }
        self.add_jobs(limits, used, actions);
        self.add_crashes(limits, used, actions);
    }

    fn add_other_actions(&self, limits: &Limits, used: &Used, actions: &mut Vec<Action>) {
        if self.role == SourceRole::Down {
            actions.push(Action::SourceRestarts);
        } else {
            self.add_jobs(limits, used, actions);
            self.add_crashes(limits, used, actions);
        }
    }

    fn add_crashes(&self, limits: &Limits, used: &Used, actions: &mut Vec<Action>) {
        if used.crashes < limits.crashes {
            actions.push(Action::SourceCrashes(Crash::Killed));
            // A power cut differs from a kill by what was not synced: half a fence.
            if self.fence == Fence::Published {
                actions.push(Action::SourceCrashes(Crash::PowerCut));
            }
        }
    }

    fn add_jobs(&self, limits: &Limits, used: &Used, actions: &mut Vec<Action>) {
        let may_fail = used.failures < limits.failures;
        let mut runs = |queue, fallible, halfway| {
            actions.push(Action::SourceRuns(queue, Fate::Done));
            if may_fail && fallible {
                actions.push(Action::SourceRuns(queue, Fate::Failed));
            }
            if may_fail && halfway {
                actions.push(Action::SourceRuns(queue, Fate::FailedHalfway));
            }
        };
        if let Some(job) = self.engine.front() {
            let halfway = *job == EngineJob::Fence;
            runs(SourceQueue::Engine, *job != EngineJob::Thaw, halfway);
        }
        if !self.journal.is_empty() {
            runs(SourceQueue::Journal, true, false);
        }
        if self.reserving {
            runs(SourceQueue::Coordinator, true, false);
        }
        if !self.engine_answers.is_empty() {
            actions.push(Action::SourceHears(SourceQueue::Engine));
        }
        if !self.journal_answers.is_empty() {
            actions.push(Action::SourceHears(SourceQueue::Journal));
        }
        if self.reserved.is_some() {
            actions.push(Action::SourceHears(SourceQueue::Coordinator));
        }
    }
}

impl World {
    /// Calls the source's machine, then takes its effects and its outcome in.
    pub fn source_does(
        &mut self,
        limits: &Limits,
        call: impl FnOnce(&mut Source, &mut Effects) -> Outcome,
    ) {
        let mut out = Effects::default();
        let SourceRole::Owner(machine) = &mut self.source.role else {
            return;
        };
        let outcome = call(machine, &mut out);
        if matches!(outcome, Outcome::Froze(_)) {
            // The sender has handed everything to the link; any order of arrival is explored.
            machine.shipped(&mut out);
        }
        for effect in out.0 {
            self.take_source_effect(limits, effect);
        }
        if outcome == Outcome::Released {
            self.source.engine.push_back(EngineJob::Retire);
            self.source.role = SourceRole::Retiring;
        }
    }

    fn take_source_effect(&mut self, limits: &Limits, effect: Effect) {
        let source = &mut self.source;
        match effect {
            Effect::Coordinate {
                request: Request::Reserve { .. },
                ..
            } => source.reserving = true,
            Effect::Record { note, .. } => source.journal.push_back(match note {
                Note::Intent { epoch, .. } => SourceNote::Intent(epoch_of(epoch)),
                Note::Released { epoch, .. } => SourceNote::Released(epoch_of(epoch)),
                other => unreachable!("a source does not note {other:?}"),
            }),
            Effect::Engine { ticket, operation } => {
                let epoch = u8::try_from(ticket.number).expect("few epochs");
                let job = match operation {
                    EngineOperation::Freeze { .. } => EngineJob::Freeze(epoch),
                    EngineOperation::Thaw => EngineJob::Thaw,
                    EngineOperation::Fence => EngineJob::Fence,
                    EngineOperation::Lift => EngineJob::Lift,
                    other => unreachable!("a source machine does not ask for {other:?}"),
                };
                if job == EngineJob::Fence && limits.variant == Variant::GrantBeforeFence {
                    self.network.insert(Packet::Grant(epoch));
                }
                self.source.engine.push_back(job);
            }
            Effect::Send { message, .. } => self.send(&message),
            other => unreachable!("a source machine does not do {other:?}"),
        }
    }

    /// Puts what a machine says on the network.
    pub fn send(&mut self, message: &Message) {
        let packet = match *message {
            Message::Prepare { epoch, .. } => Packet::Prepare(epoch_of(epoch)),
            Message::Prepared { epoch, .. } => Packet::Prepared(epoch_of(epoch)),
            Message::Unable { epoch, .. } => Packet::Unable(epoch_of(epoch)),
            Message::Finish {
                epoch, position, ..
            } => Packet::Finish(epoch_of(epoch), lsn_of(position)),
            Message::Ready {
                epoch, position, ..
            } => Packet::Ready(epoch_of(epoch), lsn_of(position)),
            Message::Abort { epoch, .. } => Packet::Abort(epoch_of(epoch)),
            Message::Grant { epoch, .. } => Packet::Grant(epoch_of(epoch)),
            Message::Serving { epoch, .. } => Packet::Serving(epoch_of(epoch)),
            Message::Ask { epoch, .. } => Packet::Ask(epoch_of(epoch)),
            Message::Tell { epoch, verdict, .. } => match verdict {
                Verdict::Granted => Packet::TellGranted(epoch_of(epoch)),
                Verdict::NotGranted => Packet::TellNotGranted(epoch_of(epoch)),
                // Changes nothing at the target.
                Verdict::Undecided => return,
            },
            ref other => unreachable!("a switch machine does not say {other:?}"),
        };
        self.network.insert(packet);
    }

    pub fn start_attempt(&mut self, limits: &Limits) {
        self.used.attempts += 1;
        let plan = Plan {
            link: TO_TARGET,
            give_up_at: LATE,
        };
        self.source_does(limits, |machine, out| {
            machine.start(plan, out);
            Outcome::Going
        });
    }

    pub fn cancel(&mut self, limits: &Limits) {
        self.used.cancels += 1;
        self.source_does(limits, |machine, out| {
            machine.cancel("people", out).unwrap_or(Outcome::Going)
        });
    }

    pub fn converge(&mut self, limits: &Limits) {
        self.source_does(limits, |machine, out| {
            machine.converge(LATE, Span::ZERO, out)
        });
    }

    pub fn source_timer(&mut self, limits: &Limits) {
        let granting = matches!(
            self.source.machine().map(Source::state),
            Some(State::Granting { .. })
        );
        if granting && limits.variant == Variant::SourceRevokes {
            self.source.engine.push_back(EngineJob::Lift);
            self.source.role =
                SourceRole::Owner(Source::new(PARTITION, switch::Settings::default()));
            return;
        }
        self.source_does(limits, |machine, out| machine.on_time(LATE, out));
    }

    pub fn link_breaks(&mut self, limits: &Limits) {
        self.used.breaks += 1;
        self.network.clear();
        self.source_does(limits, |machine, out| machine.on_link_down(TARGET, out));
    }

    /// An effect takes place; the machine does not know it yet.
    pub fn source_runs(&mut self, queue: SourceQueue, fate: Fate) {
        self.used.failures += u8::from(fate != Fate::Done);
        let done = fate == Fate::Done;
        let source = &mut self.source;
        match queue {
            SourceQueue::Engine => {
                let job = source.engine.pop_front().expect("offered only with a job");
                self.source_engine_runs(job, fate);
            }
            SourceQueue::Journal => {
                let note = source.journal.pop_front().expect("offered only with a job");
                if done {
                    source.note = note;
                }
                source.journal_answers.push_back((note, done));
            }
            SourceQueue::Coordinator => {
                source.reserving = false;
                if done {
                    self.coordinator.reserved += 1;
                }
                source.reserved = Some(done.then_some(self.coordinator.reserved));
            }
        }
    }

    fn source_engine_runs(&mut self, job: EngineJob, fate: Fate) {
        let source = &mut self.source;
        let done = fate == Fate::Done;
        match (job, fate) {
            (EngineJob::Freeze(_), Fate::Done) => source.locked = true,
            (EngineJob::Thaw, _) => {
                source.locked = false;
                return;
            }
            (EngineJob::Fence, Fate::Done) => {
                if !source.locked {
                    self.broken = Some("I2: the fence follows the frozen position at once");
                }
                source.fence = Fence::Durable;
                source.locked = false;
            }
            (EngineJob::Fence, Fate::FailedHalfway) => source.fence = Fence::Published,
            (EngineJob::Lift, Fate::Done) => source.fence = Fence::Absent,
            (EngineJob::Retire, Fate::Done) => source.retired = true,
            _ => {}
        }
        source.engine_answers.push_back((job, done));
    }

    /// The machine hears how an effect ended.
    pub fn source_hears(&mut self, limits: &Limits, queue: SourceQueue) {
        let content = self.source.content;
        match queue {
            SourceQueue::Engine => {
                let (job, done) = self.source.engine_answers.pop_front().expect("an answer");
                let plain = || done.then_some(()).ok_or_else(failed);
                self.source_does(limits, |machine, out| match job {
                    EngineJob::Freeze(epoch) => {
                        let frozen = plain().map(|()| position(content));
                        machine.on_frozen(Epoch(u64::from(epoch)), frozen, out)
                    }
                    EngineJob::Fence => machine.on_fenced(LATE, plain(), out),
                    EngineJob::Lift => machine.on_lifted(LATE, plain(), out),
                    EngineJob::Thaw | EngineJob::Retire => Outcome::Going,
                });
            }
            SourceQueue::Journal => {
                let (note, done) = self.source.journal_answers.pop_front().expect("an answer");
                let (SourceNote::Intent(epoch) | SourceNote::Released(epoch)) = note else {
                    return;
                };
                let result = done.then_some(()).ok_or_else(failed);
                self.source_does(limits, |machine, _| {
                    machine.on_recorded(LATE, Epoch(u64::from(epoch)), result)
                });
            }
            SourceQueue::Coordinator => {
                let reserved = self.source.reserved.take().expect("an answer");
                let result = reserved
                    .map(|epoch| Epoch(u64::from(epoch)))
                    .ok_or_else(failed);
                self.source_does(limits, |machine, out| {
                    machine.on_reserved(LATE, result, out)
                });
            }
        }
    }

    pub fn source_crashes(&mut self, crash: Crash) {
        self.used.crashes += 1;
        let source = &mut self.source;
        source.role = SourceRole::Down;
        source.locked = false;
        source.engine.clear();
        source.engine_answers.clear();
        source.journal.clear();
        source.journal_answers.clear();
        source.reserving = false;
        source.reserved = None;
        if crash == Crash::PowerCut && source.fence == Fence::Published {
            source.fence = Fence::Absent;
        }
    }

    /// As `Partition::on_claimed`, `on_attached` and `become_owner` in daemon/src/shard/owner.rs.
    pub fn source_restarts(&mut self, limits: &Limits) {
        let source = &mut self.source;
        if self.coordinator.owner != SOURCE {
            let (SourceNote::Intent(epoch) | SourceNote::Released(epoch)) = source.note else {
                source.role = SourceRole::Refused;
                return;
            };
            if epoch <= self.coordinator.epoch {
                source.engine.push_back(EngineJob::Retire);
                source.role = SourceRole::Retiring;
            } else {
                source.role = SourceRole::Refused;
            }
            return;
        }
        if matches!(source.note, SourceNote::Released(epoch) if epoch > self.coordinator.epoch) {
            source.engine.push_back(EngineJob::Retire);
            source.role = SourceRole::Retiring;
            return;
        }
        if source.retired {
            source.role = SourceRole::Refused;
            return;
        }
        let mut fenced = source.fence != Fence::Absent;
        let mut intent = match source.note {
            SourceNote::Intent(epoch) if epoch > self.coordinator.epoch => {
                Some((Epoch(u64::from(epoch)), TO_TARGET))
            }
            _ => None,
        };
        match limits.variant {
            Variant::StraightIntoServing => {
                source.fence = Fence::Absent;
                (fenced, intent) = (false, None);
            }
            Variant::RecoveryIgnoresIntent => intent = None,
            _ => {}
        }
        if fenced && intent.is_none() {
            source.role = SourceRole::Refused;
            return;
        }
        let settings = switch::Settings::default();
        source.role = SourceRole::Owner(Source::recover(PARTITION, settings, intent, fenced, LATE));
    }

    /// As `Partition::verdict` in daemon/src/shard/shadow.rs.
    pub fn verdict(&self, epoch: u8) -> Verdict {
        match (&self.source.role, self.source.note) {
            (SourceRole::Owner(machine), _) => machine.verdict(Epoch(u64::from(epoch))),
            (_, SourceNote::Released(granted)) if granted == epoch => Verdict::Granted,
            (_, SourceNote::Intent(intended))
                if intended == epoch
                    && self.coordinator.owner == TARGET
                    && self.coordinator.epoch == epoch =>
            {
                Verdict::Granted
            }
            (_, SourceNote::Intent(intended)) if intended == epoch => Verdict::Undecided,
            _ => Verdict::NotGranted,
        }
    }
}

pub fn failed() -> Failure {
    Failure::Refused(String::new())
}
