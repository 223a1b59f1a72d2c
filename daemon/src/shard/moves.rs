//! Moves: what people asked for, followed from the first byte to the last message.
//!
//! A move waits until the target's shadow streams, then drives the partition's switch machine and
//! keeps the times of its steps. The write pause is counted from the write lock to the moment the
//! target says that it serves.

use std::collections::{BTreeMap, VecDeque};

use wal::lsn::{Epoch, Position};
use wal::{NodeId, PartitionId, Span, Time};

use super::links::{Link, LinkKey};
use super::partition::{Partition, Role};
use super::publish;
use crate::effect::{Effects, NoticeKind};
use crate::mutation::{self, Mutation};
use crate::serve::query::MoveId;
use crate::serve::reply::MoveState as Stage;
use crate::switch::estimate::{self, Parts};
use crate::switch::source::{Outcome, Plan, State};

/// Moves that are remembered; the oldest finished ones go first.
const MOVES_MAX: usize = 1024;

/// One move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    pub id: MoveId,
    pub partition: PartitionId,
    pub from: NodeId,
    pub to: NodeId,
    pub stage: Stage,
    pub reason: Option<String>,
    pub estimate: Option<Span>,
    pub pause: Option<Span>,
    pub epoch: Option<Epoch>,
    pub position: Option<Position>,
    pub started_at: Time,
    pub give_up_at: Time,
    pub steps: Vec<(Stage, Time)>,
    frozen_at: Option<Time>,
}

/// The moves of one shard.
#[derive(Clone, Debug)]
pub struct Moves {
    shard: u16,
    next: u64,
    moves: BTreeMap<MoveId, Move>,
    active: BTreeMap<PartitionId, MoveId>,
    finished: VecDeque<MoveId>,
}

impl Moves {
    pub fn new(shard: u16) -> Moves {
        Moves {
            shard,
            next: 1,
            moves: BTreeMap::new(),
            active: BTreeMap::new(),
            finished: VecDeque::new(),
        }
    }

    pub fn get(&self, id: MoveId) -> Option<&Move> {
        self.moves.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Move> {
        self.moves.values()
    }

    pub fn active(&self, partition: PartitionId) -> Option<MoveId> {
        self.active.get(&partition).copied()
    }

    /// The partitions that a move is about.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.active.keys().copied()
    }

    /// Whether some move waits for its moment and has to be looked at again soon.
    pub fn is_waiting(&self) -> bool {
        self.active
            .values()
            .filter_map(|id| self.moves.get(id))
            .any(|entry| matches!(entry.stage, Stage::Copying | Stage::Preparing))
    }

    pub fn begin(
        &mut self,
        now: Time,
        partition: PartitionId,
        from: NodeId,
        to: NodeId,
        give_up_at: Time,
    ) -> MoveId {
        let id = MoveId(self.next << 8 | u64::from(self.shard));
        self.next += 1;
        let entry = Move {
            id,
            partition,
            from,
            to,
            stage: Stage::Copying,
            reason: None,
            estimate: None,
            pause: None,
            epoch: None,
            position: None,
            started_at: now,
            give_up_at,
            steps: vec![(Stage::Copying, now)],
            frozen_at: None,
        };
        self.moves.insert(id, entry);
        self.active.insert(partition, id);
        id
    }

    /// Ends a move that has not begun to freeze; the switch machine is told by the caller.
    pub fn abort(&mut self, now: Time, partition: PartitionId, reason: &str) {
        if let Some(id) = self.active.get(&partition).copied()
            && let Some(entry) = self.moves.get_mut(&id)
        {
            entry.reason = Some(reason.to_owned());
            entry.reach(now, Stage::Aborted);
            self.finish(partition, id);
        }
    }

    /// Drives the move of `partition`, if there is one, after a batch of events.
    pub(super) fn follow(
        &mut self,
        now: Time,
        id: PartitionId,
        partition: &mut Partition,
        links: &BTreeMap<LinkKey, Link>,
        out: &mut Effects,
    ) {
        let Some(move_id) = self.active.get(&id).copied() else {
            return;
        };
        let Some(entry) = self.moves.get_mut(&move_id) else {
            return;
        };
        entry.follow(now, partition, links, out);
        if entry.stage.is_final() {
            publish(out, id, entry.notice(), entry.summary(&partition.name));
            self.finish(id, move_id);
        }
    }

    fn finish(&mut self, partition: PartitionId, id: MoveId) {
        self.active.remove(&partition);
        self.finished.push_back(id);
        if self.finished.len() > MOVES_MAX
            && let Some(oldest) = self.finished.pop_front()
        {
            self.moves.remove(&oldest);
        }
    }
}

impl Move {
    fn follow(
        &mut self,
        now: Time,
        partition: &mut Partition,
        links: &BTreeMap<LinkKey, Link>,
        out: &mut Effects,
    ) {
        match &partition.role {
            Role::Owner(_) => {}
            Role::Retiring { .. } | Role::Shadow(_) => {
                self.served(now);
                self.reach(now, Stage::Done);
                return;
            }
            _ => {
                self.reason = Some("the partition is no longer attached here".to_owned());
                self.reach(now, Stage::Aborted);
                return;
            }
        }
        if self.stage == Stage::Copying {
            self.begin_switch(now, partition, out);
        } else {
            self.watch_switch(now, partition, links, out);
        }
    }

    /// Begins only once the coordinator knows that this node owns it: the intent replaces the note
    /// that says so, and after a crash nobody would.
    fn begin_switch(&mut self, now: Time, partition: &mut Partition, out: &mut Effects) {
        let early = mutation::is(Mutation::SecondMoveTooEarly);
        let is_known = partition.passing.is_none() || early;
        let Some(owner) = partition.owner_mut() else {
            return;
        };
        let Some(sender) = owner.senders.get(&self.to) else {
            return;
        };
        if is_known && sender.is_streaming() && owner.source.is_serving() {
            let plan = Plan {
                link: sender.link(),
                give_up_at: self.give_up_at,
            };
            owner.source.start(plan, out);
            self.reach(now, Stage::Preparing);
        } else if now >= self.give_up_at {
            let why = sender.reason.as_deref().unwrap_or("no answer");
            self.reason = Some(match is_known {
                true => format!("the shadow was not ready in time: {why}"),
                false => "the coordinator has not heard of the last move yet".to_owned(),
            });
            self.reach(now, Stage::Aborted);
        }
    }

    fn watch_switch(
        &mut self,
        now: Time,
        partition: &mut Partition,
        links: &BTreeMap<LinkKey, Link>,
        out: &mut Effects,
    ) {
        let to = self.to;
        let Some(owner) = partition.owner_mut() else {
            return;
        };
        self.epoch = owner.source.epoch().or(self.epoch);
        let stage = match owner.source.state().clone() {
            State::Serving | State::Released { .. } => {
                self.reason = self.reason.take().or(owner.last_abort.take());
                Stage::Aborted
            }
            State::Converging { .. } => {
                let sender = owner.senders.get(&to);
                if sender.is_some_and(|sender| sender.is_streaming()) {
                    let parts = parts_of(owner, to, links);
                    let pause = estimate::pause(&parts);
                    self.estimate = Some(pause);
                    let outcome = owner.source.converge(now, pause, out);
                    self.note(&outcome);
                    partition.after_switch(outcome, out);
                } else {
                    let why = sender.and_then(|sender| sender.reason.clone());
                    let why = why.unwrap_or_else(|| "it is being compared".to_owned());
                    let outcome = owner.source.converge(now, Span(u64::MAX), out);
                    if matches!(outcome, Outcome::Aborted(_)) {
                        self.reason = Some(format!("the shadow stopped following: {why}"));
                    }
                    partition.after_switch(outcome, out);
                }
                return;
            }
            State::Reserving { .. } | State::Preparing { .. } | State::Intending { .. } => {
                Stage::Preparing
            }
            State::Freezing { .. } => Stage::Freezing,
            State::Shipping { position, .. } => {
                self.position = Some(position);
                self.frozen_at.get_or_insert(now);
                Stage::Shipping
            }
            State::Fencing { .. } | State::Lifting { .. } => Stage::Fencing,
            State::Granting { served, .. } => {
                if served {
                    self.served(now);
                }
                Stage::Granting
            }
        };
        self.reach(now, stage);
    }

    /// The target serves: the pause is over, whatever is still to be noted here.
    fn served(&mut self, now: Time) {
        if self.pause.is_none() {
            self.pause = self.frozen_at.map(|frozen_at| now - frozen_at);
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        if let Outcome::Aborted(reason) = outcome {
            self.reason = Some(reason.clone());
        }
    }

    fn reach(&mut self, now: Time, stage: Stage) {
        if self.stage != stage {
            self.stage = stage;
            self.steps.push((stage, now));
        }
    }

    fn notice(&self) -> NoticeKind {
        if self.stage == Stage::Done {
            NoticeKind::MoveDone
        } else {
            NoticeKind::MoveAborted
        }
    }

    fn summary(&self, name: &wal::PartitionName) -> String {
        match (&self.reason, self.pause) {
            (_, Some(pause)) if self.stage == Stage::Done => {
                format!("{name}: moved, write_pause_ms={:.3}", pause.as_millis_f64())
            }
            (Some(reason), _) => format!("{name}: {reason}"),
            _ => format!("{name}: {}", self.stage.word()),
        }
    }
}

/// What a pause to `to` would be made of.
pub(super) fn parts_of(
    owner: &super::partition::Owner,
    to: NodeId,
    links: &BTreeMap<LinkKey, Link>,
) -> Parts {
    let sender = owner.senders.get(&to);
    Parts {
        bytes_left: owner.bytes_left(to),
        round_trip: sender
            .and_then(|sender| links.get(&sender.link()))
            .map(|link| link.round_trip)
            .unwrap_or_default(),
        acknowledgement: sender
            .map(|sender| sender.acknowledgement)
            .unwrap_or_default(),
    }
}
