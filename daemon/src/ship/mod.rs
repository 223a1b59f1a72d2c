//! Shipping: the two ends of a shadow, and when to try a link again.
//!
//! A sender runs at the owner for each peer that keeps a shadow; a receiver runs at the peer. Both
//! are pure. The completeness of every shadow is the position last acknowledged as durable; the
//! version vector over all shadows of a partition is [`completeness`].

pub mod average;
pub mod backoff;
pub mod codec;
pub mod receiver;
pub mod sender;

use wal::lsn::Lsn;
use wal::{NodeId, Span, VersionVector};

/// Limits of shipping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// Unacknowledged bytes per partition and peer.
    pub window: u64,
    /// Shadows per partition that are kept without being asked for.
    pub copies: u16,
    pub reconnect_min: Span,
    pub reconnect_max: Span,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            window: 4 << 20,
            copies: 1,
            reconnect_min: Span::millis(50),
            reconnect_max: Span::secs(5),
        }
    }
}

/// How complete each copy of a partition is: the owner's own position and every acknowledged one.
pub fn completeness(
    owner: NodeId,
    consumed: Lsn,
    acknowledged: impl Iterator<Item = (NodeId, Lsn)>,
) -> VersionVector {
    let mut vector = VersionVector::default();
    vector.observe(owner, consumed);
    for (node, lsn) in acknowledged {
        vector.observe(node, lsn);
    }
    vector
}
