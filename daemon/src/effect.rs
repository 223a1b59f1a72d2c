//! Everything that a shard may do to the world.
//!
//! Effects are imperative and name ranges, never bytes. The shell (runtime) executes them in order;
//! the simulator and the explorer are their other executors.

use wal::lsn::{Epoch, Lsn, Position};
use wal::message::{Attributes, Message};
use wal::{Digest, NodeId, PartitionId, Span};

use crate::event::{Asked, FrameKey, LinkId, Ticket};
use crate::serve::problem::Problem;
use crate::serve::reply::Reply;

/// Which queue of a link: a later class never delays an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// The pause of a switchover.
    Urgent,
    /// Deltas, acknowledgements, conversation.
    Live,
    /// Pages of copies, under the token bucket.
    Bulk,
}

/// What the engine does to a live database.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum EngineOperation {
    /// Attach, hash every page, start to tail under `epoch`.
    Attach {
        epoch: Epoch,
    },
    Detach,
    /// Take the write lock within `budget` and consume the rest of the log.
    Freeze {
        budget: Span,
    },
    /// Let the write lock go; the database is as it was.
    Thaw,
    /// Make the fence durable as the last transaction.
    Fence,
    /// Take a fence back that was never granted.
    Lift,
    /// After the grant: the old copy becomes a reverse shadow, the path a tombstone.
    Retire {
        position: Position,
        keep: bool,
    },
}

/// What is done to a shadow.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ShadowOperation {
    Create {
        page_size: u32,
        attributes: Attributes,
    },
    /// Write the frame's pages into a copy that is being filled.
    Fill {
        frame: FrameKey,
    },
    /// Journal the frame's delta, then apply it.
    Accept {
        frame: FrameKey,
    },
    /// Bring the copy back to a known state after a failure: compare again.
    Restart,
    PrepareLanding {
        epoch: Epoch,
    },
    /// Make everything applied durable in the database itself.
    SyncLanding,
    /// Exchange the path: applications open this copy from now on.
    Remap {
        epoch: Epoch,
        position: Position,
    },
    Abandon,
    Discard,
}

/// What is asked of the coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Own this partition if nobody does.
    Claim,
    /// Reserve the next epoch for a switchover to `to`.
    Reserve { to: NodeId },
    /// The switchover happened: owner and epoch change together, or not at all.
    Pass {
        from: NodeId,
        expected: Epoch,
        to: NodeId,
        epoch: Epoch,
    },
    /// Unplanned takeover by this node.
    Seize { from: NodeId, epoch: Epoch },
}

/// A durable line in the node's switch journal.
#[derive(
    rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug,
)]
pub enum Note {
    /// Source: `epoch` may be granted to `to`; with the fence in place it was.
    Intent { epoch: Epoch, to: NodeId },
    /// Source: the partition was handed over.
    Released { epoch: Epoch, to: NodeId },
    /// Target: getting ready to land under `epoch`; ask `from` for the outcome.
    Prepared { epoch: Epoch, from: NodeId },
    /// Target: that landing will not happen.
    Abandoned { epoch: Epoch },
    /// Target: serving under `epoch` since `position`.
    Landed { epoch: Epoch, position: Position },
    /// Owner: a shadow at `node` was asked for, or sent away.
    Shadow { node: NodeId, wanted: bool },
    /// Takeover: the coordinator gave it to this node under `epoch`, without the word of `from`.
    Seized { epoch: Epoch, from: NodeId },
}

impl Note {
    /// Whether a landing that the files of a copy tell of, under `epoch`, may still have to happen
    /// when this is the newest note. A takeover lands what was prepared for an older epoch, too.
    pub fn expects_landing(self, epoch: Epoch) -> bool {
        match self {
            Note::Prepared { epoch: noted, .. } | Note::Landed { epoch: noted, .. } => {
                noted == epoch
            }
            Note::Seized { epoch: noted, .. } => epoch <= noted,
            _ => false,
        }
    }

    /// Whether a path that was exchanged under `epoch` is what this note announced: what it became
    /// was not noted any more.
    pub fn announces_landing(self, epoch: Epoch) -> bool {
        match self {
            Note::Prepared { epoch: noted, .. } | Note::Seized { epoch: noted, .. } => {
                noted == epoch
            }
            _ => false,
        }
    }
}

/// Something worth telling people and metrics.
#[derive(Clone, PartialEq, Debug)]
pub struct Notice {
    pub partition: PartitionId,
    pub kind: NoticeKind,
    pub text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoticeKind {
    Attached,
    Refused,
    ShadowReady,
    ShadowLost,
    MoveStep,
    MoveDone,
    MoveAborted,
    Served,
    Released,
    Peer,
}

/// Everything that a shard may do.
#[derive(Clone, Debug)]
pub enum Effect {
    Engine {
        ticket: Ticket,
        operation: EngineOperation,
    },
    Shadow {
        ticket: Ticket,
        operation: ShadowOperation,
    },
    Dial {
        link: LinkId,
    },
    Hangup {
        link: LinkId,
        reason: String,
    },
    Send {
        link: LinkId,
        class: Class,
        message: Message,
    },
    /// Hand deltas after `from` to the link, at most `bytes_max` of them.
    Ship {
        ticket: Ticket,
        link: LinkId,
        class: Class,
        from: Lsn,
        /// The peer's digest at `from`, where it was away: it has to be in our own log exactly so.
        digest: Option<Digest>,
        bytes_max: u64,
    },
    /// Hand pages that differ at the peer to the link; with `last`, all of them at one position.
    Copy {
        ticket: Ticket,
        link: LinkId,
        last: bool,
    },
    /// Take in a part of the peer's page-hash table; an empty table where the peer has nothing.
    Compare {
        ticket: Ticket,
        peer: NodeId,
        first: u32,
        hashes: Vec<u64>,
        last: bool,
    },
    /// Send the page-hash table of our shadow.
    SendHashes {
        link: LinkId,
        partition: PartitionId,
    },
    Record {
        ticket: Ticket,
        note: Note,
    },
    Coordinate {
        ticket: Ticket,
        request: Request,
    },
    /// This node serves the partition now: tell routing.
    Route {
        partition: PartitionId,
    },
    Reply {
        asked: Asked,
        reply: Result<Reply, Problem>,
    },
    Publish {
        notice: Notice,
    },
}

/// The effects of a step, in the order in which they must be executed.
#[derive(Default, Debug)]
pub struct Effects(pub Vec<Effect>);

impl Effects {
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    pub fn send(&mut self, link: LinkId, message: Message) {
        self.push(Effect::Send {
            link,
            class: Class::Live,
            message,
        });
    }

    pub fn send_urgent(&mut self, link: LinkId, message: Message) {
        self.push(Effect::Send {
            link,
            class: Class::Urgent,
            message,
        });
    }
}
