//! Node B: the shell around the target machine, its crash and its recovery.

use foreshadow::effect::{Effect, Effects, Note, ShadowOperation};
use foreshadow::switch::target::{Outcome, State, Target};
use wal::lsn::Epoch;

use super::source_node::{LATE, failed};
use super::variants::Variant;
use super::world::{
    Limits, PARTITION, ShadowJob, TARGET, TO_SOURCE, TargetNode, TargetNote, TargetRole, Used,
    World, epoch_of, lsn_of, position,
};
use super::{Action, Crash, Fate};

/// What runs its jobs in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetQueue {
    Shadow,
    Journal,
}

impl TargetNode {
    pub fn add_actions(
        &self,
        limits: &Limits,
        used: &Used,
        may_ask: bool,
        actions: &mut Vec<Action>,
    ) {
        match &self.role {
            TargetRole::Down => {
                actions.push(Action::TargetRestarts);
                return;
            }
            TargetRole::Shadow(machine) if may_ask && machine.deadline().is_some() => {
                actions.push(Action::TargetTimer);
            }
            TargetRole::Shadow(_) => {}
            TargetRole::Owner(_) => actions.push(Action::TargetPasses),
        }
        self.add_jobs(limits, used, actions);
        if used.crashes < limits.crashes {
            actions.push(Action::TargetCrashes(Crash::Killed));
            let unsynced = self.landing.is_some() && self.synced != self.applied;
            if unsynced || self.exchanged {
                actions.push(Action::TargetCrashes(Crash::PowerCut));
            }
        }
    }

    fn add_jobs(&self, limits: &Limits, used: &Used, actions: &mut Vec<Action>) {
        let may_fail = used.failures < limits.failures;
        let mut runs = |queue, fallible| {
            actions.push(Action::TargetRuns(queue, Fate::Done));
            if may_fail && fallible {
                actions.push(Action::TargetRuns(queue, Fate::Failed));
            }
        };
        if let Some(job) = self.shadow.front() {
            runs(TargetQueue::Shadow, *job != ShadowJob::Abandon);
        }
        if !self.journal.is_empty() {
            runs(TargetQueue::Journal, true);
        }
        if !self.shadow_answers.is_empty() {
            actions.push(Action::TargetHears(TargetQueue::Shadow));
        }
        if !self.journal_answers.is_empty() {
            actions.push(Action::TargetHears(TargetQueue::Journal));
        }
    }
}

impl World {
    /// Calls the target's machine, then takes its effects and its outcome in.
    pub fn target_does(
        &mut self,
        call: impl FnOnce(&mut Target, &mut Effects) -> Outcome,
    ) -> Outcome {
        let mut out = Effects::default();
        let TargetRole::Shadow(machine) = &mut self.target.role else {
            return Outcome::Going;
        };
        let outcome = call(machine, &mut out);
        for effect in out.0 {
            self.take_target_effect(effect);
        }
        if let Outcome::Landed(epoch, _) = outcome {
            self.target.role = TargetRole::Owner(epoch_of(epoch));
        }
        outcome
    }

    fn take_target_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Record { note, .. } => self.target.journal.push_back(match note {
                Note::Prepared { epoch, .. } => TargetNote::Prepared(epoch_of(epoch)),
                Note::Abandoned { epoch } => TargetNote::Abandoned(epoch_of(epoch)),
                Note::Landed { epoch, .. } => TargetNote::Landed(epoch_of(epoch)),
                other => unreachable!("a target does not note {other:?}"),
            }),
            Effect::Shadow { ticket, operation } => {
                let epoch = u8::try_from(ticket.number).expect("few epochs");
                let job = match operation {
                    ShadowOperation::PrepareLanding { .. } => ShadowJob::PrepareLanding(epoch),
                    ShadowOperation::SyncLanding => ShadowJob::SyncLanding(epoch),
                    ShadowOperation::Remap { .. } => ShadowJob::Remap(epoch),
                    ShadowOperation::Abandon => ShadowJob::Abandon,
                    other => unreachable!("a target machine does not ask for {other:?}"),
                };
                self.target.shadow.push_back(job);
            }
            Effect::Send { message, .. } => self.send(&message),
            other => unreachable!("a target machine does not do {other:?}"),
        }
    }

    pub fn target_timer(&mut self, limits: &Limits) {
        let waits = match self.target.machine().map(Target::state) {
            Some(State::Ready { epoch, .. }) => Some(*epoch),
            _ => None,
        };
        self.target_does(|machine, out| match waits {
            Some(epoch) if limits.variant == Variant::TargetGivesUp => machine.on_abort(epoch, out),
            _ => {
                machine.on_time(LATE, out);
                Outcome::Going
            }
        });
    }

    /// The next delta arrives: journalled and applied by a job of its own.
    pub fn stream(&mut self, limits: &Limits) {
        let expected = self.target.expected.expect("offered only to a whole copy") + 1;
        self.target.expected = Some(expected);
        self.target.shadow.push_back(ShadowJob::Accept(expected));
        let seen = self.seen_by_target(limits, expected);
        self.target_does(|machine, out| {
            machine.on_applied(position(seen), out);
            Outcome::Going
        });
    }

    /// Where the target believes to stand; a variant believes what it is told.
    pub fn seen_by_target(&self, limits: &Limits, applied: u8) -> u8 {
        match self.target.machine().map(Target::state) {
            Some(State::Draining { position, .. }) if limits.variant == Variant::Unchecked => {
                lsn_of(*position)
            }
            _ => applied,
        }
    }

    pub fn refill(&mut self) {
        let content = self.source.content;
        let target = &mut self.target;
        (target.applied, target.synced, target.expected) = (content, content, Some(content));
    }

    /// An effect takes place; the machine does not know it yet.
    pub fn target_runs(&mut self, queue: TargetQueue, fate: Fate) {
        let done = fate == Fate::Done;
        self.used.failures += u8::from(!done);
        match queue {
            TargetQueue::Journal => {
                let note = self.target.journal.pop_front().expect("a job");
                if done {
                    self.target.note = note;
                }
                self.target.journal_answers.push_back((note, done));
            }
            TargetQueue::Shadow => {
                let job = self.target.shadow.pop_front().expect("a job");
                self.target_shadow_runs(job, done);
            }
        }
    }

    fn target_shadow_runs(&mut self, job: ShadowJob, done: bool) {
        let epoch_served = self.coordinator.epoch;
        let target = &mut self.target;
        match job {
            ShadowJob::Accept(lsn) => {
                if done && lsn == target.applied + 1 {
                    target.applied = lsn;
                    if target.landing.is_none() {
                        target.synced = lsn;
                    }
                } else {
                    target.expected = None;
                }
                return;
            }
            ShadowJob::Abandon => {
                if target.exchanged {
                    self.broken = Some("I2: a copy that applications write to is not abandoned");
                }
                target.landing = None;
                target.synced = target.applied;
                return;
            }
            ShadowJob::PrepareLanding(epoch) if done => {
                target.landing = Some(epoch);
                target.synced = target.applied;
            }
            ShadowJob::SyncLanding(_) if done => target.synced = target.applied,
            ShadowJob::Remap(epoch) if done => {
                if epoch < epoch_served {
                    self.broken = Some("I4: epochs only grow");
                }
                target.exchanged = true;
            }
            _ => {}
        }
        let result = done.then_some(target.applied).ok_or(());
        target.shadow_answers.push_back((job, result));
    }

    /// The machine hears how an effect ended.
    pub fn target_hears(&mut self, limits: &Limits, queue: TargetQueue) {
        match queue {
            TargetQueue::Journal => {
                let (note, done) = self.target.journal_answers.pop_front().expect("an answer");
                let epoch = match note {
                    TargetNote::Prepared(epoch)
                    | TargetNote::Abandoned(epoch)
                    | TargetNote::Landed(epoch) => Epoch(u64::from(epoch)),
                    TargetNote::Nothing => return,
                };
                let result = done.then_some(()).ok_or_else(failed);
                self.target_does(|machine, out| {
                    machine.on_noted(LATE, epoch, result, out);
                    Outcome::Going
                });
            }
            TargetQueue::Shadow => {
                let (job, result) = self.target.shadow_answers.pop_front().expect("an answer");
                self.target_hears_shadow(limits, job, result);
            }
        }
    }

    fn target_hears_shadow(&mut self, limits: &Limits, job: ShadowJob, result: Result<u8, ()>) {
        let plain = result.map(|_| ()).map_err(|()| failed());
        let asked = match self.target.machine().map(Target::state) {
            Some(State::Syncing { position, .. }) => *position,
            _ => position(0),
        };
        let synced = result
            .map_err(|()| failed())
            .map(|at| match limits.variant {
                Variant::Unproven | Variant::Unchecked => asked,
                _ => position(at),
            });
        self.target_does(|machine, out| match job {
            ShadowJob::PrepareLanding(epoch) => {
                machine.on_landing_prepared(LATE, Epoch(u64::from(epoch)), plain, out);
                Outcome::Going
            }
            ShadowJob::SyncLanding(epoch) => {
                machine.on_synced(LATE, Epoch(u64::from(epoch)), synced, out);
                Outcome::Going
            }
            ShadowJob::Remap(epoch) => {
                machine.on_remapped(LATE, Epoch(u64::from(epoch)), plain, out)
            }
            ShadowJob::Accept(_) | ShadowJob::Abandon => Outcome::Going,
        });
    }

    pub fn target_crashes(&mut self, crash: Crash) {
        self.used.crashes += 1;
        let target = &mut self.target;
        target.role = TargetRole::Down;
        target.shadow.clear();
        target.shadow_answers.clear();
        target.journal.clear();
        target.journal_answers.clear();
        if crash == Crash::PowerCut {
            target.applied = target.synced;
            // The directory is synced after the target serves.
            target.exchanged = false;
        }
    }

    /// As `Shard::on_recovered`, and `on_claimed` after a landing.
    pub fn target_restarts(&mut self, limits: &Limits) {
        let target = &mut self.target;
        if let (TargetNote::Landed(epoch), true) = (target.note, target.exchanged) {
            target.role = TargetRole::Owner(epoch);
            return;
        }
        target.expected = Some(target.applied);
        let machine = match (target.note, target.landing) {
            (TargetNote::Prepared(_), Some(epoch)) => {
                let at = position(target.applied);
                if limits.variant == Variant::TargetStraightIntoServing {
                    target.exchanged = true;
                    target.role = TargetRole::Owner(epoch);
                    return;
                }
                Target::recover(PARTITION, TO_SOURCE, Epoch(u64::from(epoch)), at, LATE)
            }
            (TargetNote::Landed(landed), Some(epoch)) if landed == epoch => {
                let at = position(target.applied);
                Target::land_again(PARTITION, TO_SOURCE, Epoch(u64::from(epoch)), at, LATE)
            }
            _ => Target::new(PARTITION, Epoch(0)),
        };
        target.role = TargetRole::Shadow(machine);
    }

    /// The coordinator learns of the landing: a compare-and-set on owner and epoch.
    pub fn target_passes(&mut self) {
        let TargetRole::Owner(epoch) = self.target.role else {
            return;
        };
        if self.coordinator.owner == TARGET {
            return;
        }
        if epoch <= self.coordinator.epoch || epoch > self.coordinator.reserved {
            self.broken = Some("I4: epochs only grow");
        }
        self.coordinator.owner = TARGET;
        self.coordinator.epoch = epoch;
    }
}
