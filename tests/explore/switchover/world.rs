//! The world of one switchover: two nodes, their disks, the network between, the coordinator.
//!
//! The machines are the product's own. Everything around them is as hostile as the budgets allow:
//! any order of messages, loss, duplicates, failures of every effect, crashes between an effect's
//! execution and its answer. Content is a count of writes; its digest is a function of the count.

use std::collections::{BTreeSet, VecDeque};

use foreshadow::event::LinkId;
use foreshadow::switch::source::Source;
use foreshadow::switch::target::Target;
use foreshadow::switch::{self};
use wal::{Digest, Epoch, Lsn, NodeId, PartitionId, Position};

use super::variants::Variant;

pub const PARTITION: PartitionId = PartitionId(1);
pub const SOURCE: NodeId = NodeId(1);
pub const TARGET: NodeId = NodeId(2);
pub const TO_TARGET: LinkId = LinkId {
    peer: TARGET,
    lane: 0,
};
pub const TO_SOURCE: LinkId = LinkId {
    peer: SOURCE,
    lane: 0,
};

/// How much may happen in one model.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub attempts: u8,
    pub writes_at_source: u8,
    pub writes_at_target: u8,
    pub cancels: u8,
    pub crashes: u8,
    pub losses: u8,
    pub duplicates: u8,
    pub breaks: u8,
    pub failures: u8,
    /// The target asks only while nothing is under way: fewer states for longer stories.
    pub patient: bool,
    pub variant: Variant,
}

/// What has been used up of the [`Limits`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Used {
    pub attempts: u8,
    pub cancels: u8,
    pub crashes: u8,
    pub losses: u8,
    pub duplicates: u8,
    pub breaks: u8,
    pub failures: u8,
}

/// The whole state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub source: SourceNode,
    pub target: TargetNode,
    pub network: BTreeSet<Packet>,
    pub coordinator: Coordinator,
    pub used: Used,
    /// A promise broken by the last step itself.
    pub broken: Option<&'static str>,
}

/// Node A, where the partition lives at first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SourceNode {
    pub role: SourceRole,
    /// Durable: the newest line of the switch journal.
    pub note: SourceNote,
    /// Durable: transactions in the database, all of them acknowledged to applications.
    pub content: u8,
    pub fence: Fence,
    /// Durable: the path is a tombstone.
    pub retired: bool,
    /// Volatile: the daemon holds the write lock.
    pub locked: bool,
    /// Effects of one queue run in order; the answers come in order.
    pub engine: VecDeque<EngineJob>,
    pub engine_answers: VecDeque<(EngineJob, bool)>,
    pub journal: VecDeque<SourceNote>,
    pub journal_answers: VecDeque<(SourceNote, bool)>,
    pub reserving: bool,
    pub reserved: Option<Option<u8>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SourceRole {
    Down,
    Owner(Source),
    /// The database is left alone: the journal does not explain what is found.
    Refused,
    /// Handed over; the old copy is being made a shadow, or is one.
    Retiring,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SourceNote {
    Nothing,
    Intent(u8),
    Released(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fence {
    Absent,
    /// Published to applications, but a power cut takes it away.
    Published,
    Durable,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EngineJob {
    Freeze(u8),
    Thaw,
    Fence,
    Lift,
    Retire,
}

/// Node B, where the partition is to go.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TargetNode {
    pub role: TargetRole,
    /// Durable: the newest line of the switch journal.
    pub note: TargetNote,
    /// Where the copy stands: transactions of the source applied to it.
    pub applied: u8,
    /// What of them survives a power cut.
    pub synced: u8,
    /// Durable: a landing was prepared under this epoch.
    pub landing: Option<u8>,
    /// Applications open this copy; a power cut undoes it, a restart does it again.
    pub exchanged: bool,
    /// Writes that applications made here and saw acknowledged.
    pub writes: u8,
    /// The receiver's view: where the copy will stand; `None` when it has to be compared again.
    pub expected: Option<u8>,
    pub shadow: VecDeque<ShadowJob>,
    pub shadow_answers: VecDeque<(ShadowJob, Result<u8, ()>)>,
    pub journal: VecDeque<TargetNote>,
    pub journal_answers: VecDeque<(TargetNote, bool)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TargetRole {
    Down,
    Shadow(Target),
    Owner(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TargetNote {
    Nothing,
    Prepared(u8),
    Abandoned(u8),
    Landed(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ShadowJob {
    Accept(u8),
    PrepareLanding(u8),
    SyncLanding(u8),
    Remap(u8),
    Abandon,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Coordinator {
    pub owner: NodeId,
    pub epoch: u8,
    pub reserved: u8,
}

/// A message under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Packet {
    Prepare(u8),
    Prepared(u8),
    Unable(u8),
    Finish(u8, u8),
    Ready(u8, u8),
    Abort(u8),
    Grant(u8),
    Serving(u8),
    Ask(u8),
    TellGranted(u8),
    TellNotGranted(u8),
}

impl Packet {
    pub fn goes_to_target(self) -> bool {
        matches!(
            self,
            Packet::Prepare(_)
                | Packet::Finish(..)
                | Packet::Abort(_)
                | Packet::Grant(_)
                | Packet::TellGranted(_)
                | Packet::TellNotGranted(_)
        )
    }
}

impl World {
    /// The source serves one transaction, the target has a shadow of nothing yet.
    pub fn new() -> World {
        World {
            source: SourceNode::new(),
            target: TargetNode::new(),
            network: BTreeSet::new(),
            coordinator: Coordinator {
                owner: SOURCE,
                epoch: 1,
                reserved: 1,
            },
            used: Used::default(),
            broken: None,
        }
    }
}

impl SourceNode {
    fn new() -> SourceNode {
        SourceNode {
            role: SourceRole::Owner(Source::new(PARTITION, switch::Settings::default())),
            note: SourceNote::Nothing,
            content: 0,
            fence: Fence::Absent,
            retired: false,
            locked: false,
            engine: VecDeque::new(),
            engine_answers: VecDeque::new(),
            journal: VecDeque::new(),
            journal_answers: VecDeque::new(),
            reserving: false,
            reserved: None,
        }
    }

    /// Whether an application's write would be acknowledged here. The daemon's life does not
    /// matter: applications are unmodified, and the lock dies with the daemon.
    pub fn acknowledges(&self) -> bool {
        !self.locked && self.fence == Fence::Absent && !self.retired
    }

    pub fn machine(&self) -> Option<&Source> {
        match &self.role {
            SourceRole::Owner(source) => Some(source),
            _ => None,
        }
    }

    pub fn is_idle(&self) -> bool {
        let quiet = self.engine.is_empty() && self.engine_answers.is_empty();
        let noted = self.journal.is_empty() && self.journal_answers.is_empty();
        quiet && noted && !self.reserving && self.reserved.is_none()
    }
}

impl TargetNode {
    fn new() -> TargetNode {
        TargetNode {
            role: TargetRole::Shadow(Target::new(PARTITION, Epoch(1))),
            note: TargetNote::Nothing,
            applied: 0,
            synced: 0,
            landing: None,
            exchanged: false,
            writes: 0,
            expected: Some(0),
            shadow: VecDeque::new(),
            shadow_answers: VecDeque::new(),
            journal: VecDeque::new(),
            journal_answers: VecDeque::new(),
        }
    }

    pub fn machine(&self) -> Option<&Target> {
        match &self.role {
            TargetRole::Shadow(target) => Some(target),
            _ => None,
        }
    }

    pub fn is_idle(&self) -> bool {
        let quiet = self.shadow.is_empty() && self.shadow_answers.is_empty();
        quiet && self.journal.is_empty() && self.journal_answers.is_empty()
    }
}

/// The position after `lsn` transactions of the source.
pub fn position(lsn: u8) -> Position {
    Position {
        epoch: Epoch(1),
        lsn: Lsn(u64::from(lsn)),
        digest: Digest(u64::from(lsn) * 0x9E37_79B9 + 7),
    }
}

pub fn lsn_of(position: Position) -> u8 {
    u8::try_from(position.lsn.0).expect("few transactions in a model")
}

pub fn epoch_of(epoch: Epoch) -> u8 {
    u8::try_from(epoch.0).expect("few epochs in a model")
}
