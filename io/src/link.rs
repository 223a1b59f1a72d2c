//! Frames to and from a peer: ordered per class, bounded, urgent ones first.
//!
//! | module | what it does |
//! |---|---|
//! | [`outbox`] | frames waiting to be sent, by class; builds what goes out next |
//! | [`inbox`] | bytes received, cut into records and frames |
//! | [`pace`] | how fast the link is, and what one send may carry |
//! | [`zerocopy`] | whether sends go out without a copy |
//! | [`socket`] | TCP sockets as links want them, and the listener |
//! | [`tcp`] | one connection: connect, move frames, close in order |
//!
//! A link moves frames and knows nothing of what they mean; handshakes and heartbeats live above.
//! It is driven by its shard's loop: `pump` starts operations on the ring, `on_completion` takes
//! their answers. On the wire there are records: a 4-byte head (length, squeezed or not), then one
//! frame of 4 KiB or more as it is, or smaller frames together through one zstd stream.
pub mod inbox;
pub mod outbox;
pub mod pace;
pub mod socket;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod zerocopy;

use std::fmt;

use crate::error::Error;
pub use outbox::{Backpressure, Bounds};
pub use pace::Pace;
pub use socket::Listener;
pub use tcp::TcpLink;
pub use zerocopy::Verdict;

/// What goes first when several frames wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Switchover: nobody may stand in front of it.
    Urgent,
    /// Deltas, acknowledgements, control.
    Live,
    /// Pages of a first copy; must fit [`outbox::BULK_LEN_MAX`] each.
    Bulk,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Urgent, Class::Live, Class::Bulk];
}

/// What a completion meant for its link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Nothing that the caller must act on.
    Nothing,
    /// The connection stands; frames queued before are on their way.
    Connected,
    /// This many frames were added to the caller's list.
    Frames(usize),
    /// A class that had answered with backpressure has room again.
    Writable,
    /// The link is over; frames received before it are in the caller's list.
    Closed(Reason),
}

/// Why a link is over.
#[derive(Debug)]
pub enum Reason {
    /// Both ends had said all they had to say, and this end asked for the end.
    Finished,
    /// The peer closed in order.
    PeerFinished,
    /// No connection came about.
    Unreachable(Error),
    /// The connection broke, or ended in the middle of a record.
    Lost(Error),
    /// The peer sent what is no frame; nothing after it may be believed.
    Corrupt(Error),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Finished => f.write_str("closed in order"),
            Reason::PeerFinished => f.write_str("closed in order by the peer"),
            Reason::Unreachable(error) | Reason::Lost(error) | Reason::Corrupt(error) => {
                error.fmt(f)
            }
        }
    }
}

/// What a link has moved since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Bytes on the wire, record heads included.
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub frames_out: u64,
    pub frames_in: u64,
}
