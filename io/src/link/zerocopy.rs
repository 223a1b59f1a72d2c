//! Whether sends of a connection go out without a copy: tried once, never assumed.
//!
//! Whether a zero-copy send copies after all depends on route and card, and only the kernel knows:
//! over the loopback it always does, and then costs 40 % more processor time than a plain send. So
//! the first large send of a connection is a trial with `IORING_SEND_ZC_REPORT_USAGE`. Only when
//! its notification says that nothing was copied do other large sends go the same way, and the
//! first one that was copied ends it.

use std::fmt;

/// A shorter send is cheaper to copy than to pin.
pub const LEN_MIN: usize = 64 << 10;
/// Bytes that may be pinned at a time: they count as locked memory, of which a user without
/// privileges has 8 MiB for everything.
pub const PINNED_MAX: usize = 2 << 20;

/// What is known about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verdict {
    /// No large frame was sent yet.
    #[default]
    Untried,
    /// The trial is under way.
    Trying,
    /// The kernel sends from our memory.
    Direct,
    /// The kernel copies after all: plain sends.
    Copied,
    /// The kernel refused the trial, or has no such operation: plain sends.
    Refused,
}

impl Verdict {
    /// In one word, as people are told.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Untried | Verdict::Trying => "untried",
            Verdict::Direct => "direct",
            Verdict::Copied => "copied",
            Verdict::Refused => "refused",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The decision for one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZeroCopy {
    verdict: Verdict,
    pinned: usize,
}

impl ZeroCopy {
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether a send of `len` bytes goes out without a copy, or tries to. A `true` is answered by
    /// [`ZeroCopy::refused`], or by [`ZeroCopy::notified`] once nobody reads the bytes any more.
    pub fn take(&mut self, len: usize) -> bool {
        let fits = len >= LEN_MIN && self.pinned + len <= PINNED_MAX;
        let wanted = fits && matches!(self.verdict, Verdict::Untried | Verdict::Direct);
        if wanted {
            self.pinned += len;
            if self.verdict == Verdict::Untried {
                self.verdict = Verdict::Trying;
            }
        }
        wanted
    }

    /// The kernel did not take a send of `len` bytes; it is sent plainly.
    pub fn refused(&mut self, len: usize) {
        self.release(len);
        self.verdict = Verdict::Refused;
    }

    /// The kernel is done with the memory of a send of `len` bytes, and says whether it copied.
    pub fn notified(&mut self, len: usize, copied: bool) {
        self.release(len);
        self.verdict = match (self.verdict, copied) {
            (Verdict::Trying | Verdict::Direct, false) => Verdict::Direct,
            (Verdict::Trying | Verdict::Direct, true) => Verdict::Copied,
            (decided, _) => decided,
        };
    }

    fn release(&mut self, len: usize) {
        debug_assert!(len <= self.pinned, "only what was pinned is let go");
        self.pinned = self.pinned.saturating_sub(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_large_send_is_tried_and_only_one_at_first() {
        let mut zero_copy = ZeroCopy::default();
        assert!(!zero_copy.take(LEN_MIN - 1));
        assert_eq!(zero_copy.verdict(), Verdict::Untried);
        assert!(zero_copy.take(LEN_MIN));
        assert_eq!(zero_copy.verdict(), Verdict::Trying);
        assert!(!zero_copy.take(LEN_MIN), "its answer is not here yet");
    }

    #[test]
    fn a_trial_that_was_copied_ends_it() {
        let mut zero_copy = ZeroCopy::default();
        assert!(zero_copy.take(LEN_MIN));
        zero_copy.notified(LEN_MIN, true);
        assert_eq!(zero_copy.verdict(), Verdict::Copied);
        assert!(!zero_copy.take(1 << 20));
    }

    #[test]
    fn a_trial_that_was_not_copied_is_followed_until_one_is() {
        let mut zero_copy = ZeroCopy::default();
        assert!(zero_copy.take(LEN_MIN));
        zero_copy.notified(LEN_MIN, false);
        assert!(zero_copy.take(1 << 20) && zero_copy.take(1 << 20));
        assert!(!zero_copy.take(LEN_MIN), "no more than the bound is pinned");
        zero_copy.notified(1 << 20, false);
        assert!(zero_copy.take(LEN_MIN));
        zero_copy.notified(1 << 20, true);
        assert_eq!(zero_copy.verdict(), Verdict::Copied);
        zero_copy.notified(LEN_MIN, false);
        assert_eq!(
            zero_copy.verdict(),
            Verdict::Copied,
            "a route that copies stays one"
        );
        assert_eq!(
            zero_copy,
            ZeroCopy {
                verdict: Verdict::Copied,
                pinned: 0
            }
        );
    }

    #[test]
    fn a_refusal_is_final() {
        let mut zero_copy = ZeroCopy::default();
        assert!(zero_copy.take(LEN_MIN));
        zero_copy.refused(LEN_MIN);
        assert_eq!(
            zero_copy,
            ZeroCopy {
                verdict: Verdict::Refused,
                pinned: 0
            }
        );
        assert!(!zero_copy.take(LEN_MIN));
    }
}
