//! When to try again: exponential back-off with jitter.
//!
//! The jitter comes from a hash of who waits and how often it failed, not from a generator: the
//! same history gives the same times, and two nodes that lost each other do not knock in step.

use wal::{Span, Time};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The wait of one thing that keeps failing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Backoff {
    seed: u64,
    failures: u32,
    min: Span,
    max: Span,
}

impl Backoff {
    pub fn new(seed: u64, min: Span, max: Span) -> Backoff {
        assert!(
            min.0 > 0 && min <= max,
            "a back-off has a positive minimum below its maximum"
        );
        Backoff {
            seed,
            failures: 0,
            min,
            max,
        }
    }

    /// When to try again after one more failure at `now`: between half and all of the doubled wait.
    pub fn on_failure(&mut self, now: Time) -> Time {
        let doubled = self
            .min
            .0
            .saturating_mul(1 << self.failures.min(20))
            .min(self.max.0);
        self.failures = self.failures.saturating_add(1);
        let hash = xxh3_64_with_seed(&self.failures.to_le_bytes(), self.seed);
        now + Span(doubled / 2 + hash % (doubled / 2 + 1))
    }

    pub fn on_success(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_maximum_and_start_over_after_success() {
        let (min, max) = (Span::millis(50), Span::secs(5));
        let mut backoff = Backoff::new(7, min, max);
        let first = backoff.on_failure(Time(0)).0;
        assert!((min.0 / 2..=min.0).contains(&first));
        for _ in 0..40 {
            backoff.on_failure(Time(0));
        }
        let last = backoff.on_failure(Time(0)).0;
        assert!((max.0 / 2..=max.0).contains(&last));
        backoff.on_success();
        assert!(backoff.on_failure(Time(0)).0 <= min.0);
    }

    #[test]
    fn two_waiters_do_not_knock_in_step() {
        let mut one = Backoff::new(1, Span::secs(1), Span::secs(1));
        let mut two = Backoff::new(2, Span::secs(1), Span::secs(1));
        assert_ne!(one.on_failure(Time(0)), two.on_failure(Time(0)));
    }
}
