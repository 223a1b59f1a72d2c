//! Planned switchover: the grant protocol, as two pure machines that share nothing but messages.
//!
//! The commit point is the moment the fence becomes durable at the source. Before it only abort is
//! possible, after it only completion; nobody resumes by a local timeout after it. docs/PROTOCOL.md
//! draws both machines with the names used here; tests/explore runs these very machines through
//! every interleaving.

pub mod estimate;
pub mod source;
pub mod target;

use wal::{Span, Time};

/// Limits of a switchover.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// A freeze is refused while the estimated pause is above this.
    pub pause_max: Span,
    /// A freeze that has not reached its fence by then is undone.
    pub pause_timeout: Span,
    /// The old copy is kept as a shadow of the new owner, warm for `rollback`.
    pub keep_reverse: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            pause_max: Span::millis(50),
            pause_timeout: Span::millis(250),
            keep_reverse: true,
        }
    }
}

/// How long to wait before saying something again that got no answer.
pub const RESEND_AFTER: Span = Span::millis(500);

/// When to say something again.
pub(crate) fn resend_at(now: Time) -> Time {
    now + RESEND_AFTER
}
