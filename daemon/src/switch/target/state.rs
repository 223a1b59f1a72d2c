//! What a target may be doing about a switchover. docs/PROTOCOL.md draws it.

use wal::Time;
use wal::lsn::{Epoch, Position};

use crate::event::LinkId;

/// What the target is doing about a switchover.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum State {
    Following,
    /// The durable promise to ask is being written.
    Noting {
        link: LinkId,
        epoch: Epoch,
    },
    /// The shadow is made ready to land.
    Preparing {
        link: LinkId,
        epoch: Epoch,
    },
    Prepared {
        link: LinkId,
        epoch: Epoch,
        ask_at: Time,
    },
    /// The source is frozen; the last deltas are on their way.
    Draining {
        link: LinkId,
        epoch: Epoch,
        position: Position,
        ask_at: Time,
    },
    Syncing {
        link: LinkId,
        epoch: Epoch,
        position: Position,
    },
    Ready {
        link: LinkId,
        epoch: Epoch,
        position: Position,
        ask_at: Time,
    },
    /// After a restart: a landing was prepared, its outcome is not known.
    Asking {
        link: LinkId,
        epoch: Epoch,
        position: Position,
        ask_at: Time,
    },
    /// Taken over: that the coordinator gave it is being noted, before anything is exchanged.
    Seized {
        link: LinkId,
        epoch: Epoch,
        position: Position,
        /// `None` while the note is being written.
        retry_at: Option<Time>,
    },
    /// Granted, or taken over: the path is being exchanged.
    Landing {
        link: LinkId,
        epoch: Epoch,
        position: Position,
        retry_at: Option<Time>,
    },
    Serving {
        link: LinkId,
        epoch: Epoch,
        position: Position,
    },
}

/// What the owner of this machine has to know after a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Going,
    /// Not for this time: an ordinary shadow again.
    Abandoned,
    /// Applications open this copy from now on.
    Landed(Epoch, Position),
}
