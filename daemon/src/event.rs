//! Everything that can happen to a shard.
//!
//! An event is a fact in the past tense. Every effect that has a result is answered by exactly one
//! [`Event::Done`] carrying its ticket, failure included. Events name ranges and frames; the bytes
//! stay with the shell.

use wal::lsn::{Epoch, Lsn, Position};
use wal::message::{Attributes, Hello, Message};
use wal::{NodeId, PartitionId, PartitionName};

use crate::effect::Note;
use crate::serve::query::Query;

/// One of the connections to a peer: the partitions with `id % lanes == lane` travel on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId {
    pub peer: NodeId,
    pub lane: u16,
}

/// What a [`Ticket`] asks for; one of each may be outstanding per partition and number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Task {
    Attach,
    Claim,
    Reserve,
    Pass,
    Seize,
    Record,
    Freeze,
    Fence,
    Lift,
    Retire,
    Create,
    Accept,
    Fill,
    Restore,
    PrepareLanding,
    SyncLanding,
    Remap,
    Abandon,
    Compare(NodeId),
    Copy(NodeId),
    Ship(NodeId),
}

/// Names an effect so that its result finds the machine that asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket {
    pub partition: PartitionId,
    pub task: Task,
    /// Tells attempts apart: the epoch for a switchover, a counter elsewhere.
    pub number: u64,
}

/// Names a question of the control thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Asked(pub u64);

/// A data frame that the shell holds while the shard decides what to do with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameKey(pub u64);

/// What a data frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cargo {
    /// The changes from one position to another.
    Delta { from: Position, to: Position },
    /// Whole pages of a copy that is being filled.
    Pages,
    /// The last pages of a fill: the copy then stands at this position.
    LastPages { at: Position },
}

/// Who owns a partition, as the coordinator knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ownership {
    pub owner: NodeId,
    pub epoch: Epoch,
    pub previous: Option<NodeId>,
    /// This node owned it under an earlier epoch.
    pub formerly: bool,
    /// An epoch reserved by the owner for a switchover that has not been told yet.
    pub reserved: Epoch,
}

/// What the engine found when it attached to a live database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attachment {
    pub position: Position,
    pub page_size: u32,
    pub page_count: u32,
    pub attributes: Attributes,
    /// The fence is the newest transaction: writers are locked out.
    pub fenced: bool,
}

/// What the shell found of a shadow on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Remains {
    /// Pages of no known position.
    Partial,
    /// A shadow at this position.
    At(Position),
    /// A landing was prepared; its outcome is not known here.
    Landing { epoch: Epoch, position: Position },
}

/// The result of an effect that succeeded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Nothing,
    Attached(Attachment),
    Owned(Ownership),
    Reserved(Epoch),
    /// Someone else owns it: the compare-and-set lost.
    Conflict(Ownership),
    /// Frozen with everything consumed up to here.
    Frozen(Position),
    /// The copy stands durably here.
    Durable(Position),
    /// Deltas up to `to` were handed to the link.
    Shipped {
        to: Lsn,
        bytes: u64,
    },
    /// Pages were handed to the link; this many still differ.
    Copied {
        pages_left: u64,
    },
    /// The last pages were handed to the link; the copy will stand at this position.
    CopiedAll(Position),
}

/// Why an effect failed, by what to do about it; the text is for people.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// The same effect may succeed later.
    Retry(String),
    /// It will not be done as things stand.
    Refused(String),
    /// What was asked for is no longer there: fall back to a comparison.
    Gone(String),
    /// This copy can't be believed any more.
    Corrupt(String),
}

impl Failure {
    pub fn reason(&self) -> &str {
        match self {
            Failure::Retry(text)
            | Failure::Refused(text)
            | Failure::Gone(text)
            | Failure::Corrupt(text) => text,
        }
    }
}

/// Everything that can happen to a shard.
#[derive(Clone, Debug)]
pub enum Event {
    /// Discovery or `add` found a database.
    Found {
        name: PartitionName,
    },
    /// A database is no longer there, or is to be left alone.
    Vanished {
        partition: PartitionId,
        reason: String,
    },
    /// A database can't be attached.
    Rejected {
        name: PartitionName,
        reason: String,
    },
    /// At start: a shadow was found on disk.
    Recovered {
        name: PartitionName,
        remains: Remains,
    },
    /// At start: the newest switch note of a partition.
    Noted {
        partition: PartitionId,
        note: Note,
    },
    /// The tail consumed transactions up to `position` and logged them as one frame.
    Advanced {
        partition: PartitionId,
        position: Position,
        bytes: u64,
    },
    /// The engine lost the database: replaced, corrupt, gone.
    Broken {
        partition: PartitionId,
        reason: String,
    },
    LinkUp {
        link: LinkId,
        hello: Hello,
    },
    LinkDown {
        link: LinkId,
        reason: String,
    },
    Received {
        link: LinkId,
        message: Message,
    },
    Arrived {
        link: LinkId,
        partition: PartitionId,
        frame: FrameKey,
        cargo: Cargo,
    },
    /// The coordinator's newest record of a partition.
    Owned {
        name: PartitionName,
        ownership: Ownership,
    },
    Asked {
        asked: Asked,
        query: Query,
    },
    Done {
        ticket: Ticket,
        result: Result<Outcome, Failure>,
    },
}
