//! What a source may be doing about a switchover. docs/PROTOCOL.md draws it.

use wal::lsn::{Epoch, Position};
use wal::{NodeId, Time};

use crate::event::LinkId;

/// Where a partition is to go, and by when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Plan {
    pub link: LinkId,
    /// Give up converging at this time.
    pub give_up_at: Time,
}

/// What the source is doing about a switchover.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum State {
    Serving,
    Reserving {
        plan: Plan,
    },
    Preparing {
        plan: Plan,
        epoch: Epoch,
        resend_at: Time,
    },
    Intending {
        plan: Plan,
        epoch: Epoch,
    },
    /// Shadow and source converge until the estimated pause fits.
    Converging {
        plan: Plan,
        epoch: Epoch,
    },
    Freezing {
        plan: Plan,
        epoch: Epoch,
        abort_at: Time,
    },
    /// Frozen: the rest is on its way, the target has to prove that it holds it.
    Shipping {
        plan: Plan,
        epoch: Epoch,
        position: Position,
        abort_at: Time,
        finished: bool,
    },
    /// The fence is being made durable; there is no way back but `Lift`.
    Fencing {
        plan: Plan,
        epoch: Epoch,
        position: Position,
    },
    /// The fence failed half-way and is being taken back.
    Lifting {
        plan: Plan,
        epoch: Epoch,
        reason: String,
        retry_at: Option<Time>,
    },
    /// The fence is durable: the epoch is granted, whether or not anyone heard it.
    Granting {
        link: LinkId,
        epoch: Epoch,
        /// The target said that it serves; the release is being noted.
        served: bool,
        /// `None` while the note is being written.
        retry_at: Option<Time>,
    },
    Released {
        to: NodeId,
        epoch: Epoch,
    },
}

/// What the owner of this machine has to know after a call.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Going,
    /// The source is frozen here: ship everything up to it, then call [`Source::shipped`].
    Froze(Position),
    Aborted(String),
    /// The fence is durable.
    Granted,
    Released,
}
