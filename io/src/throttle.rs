//! A token bucket: how many bytes may go now, and when the next may.
//!
//! Pure arithmetic on the time handed in, exact in integers: the level counts bytes times
//! nanoseconds per second, so nothing is lost to rounding however often it is asked.
//!
//! Invariant: over any window the grants are at most `rate x window + burst`. Only a request
//! larger than the burst may exceed it, by its own excess: it is granted from a full bucket, which
//! then owes the rest, because refusing it would starve it for ever.

use wal::Time;

/// Nanoseconds in a second: the unit of the level is a byte divided by it.
const SECOND: i128 = 1_000_000_000;

/// Bytes per second; 0 is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Rate(pub u64);

/// Bytes that may go at once after a pause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Burst(pub u64);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Throttle {
    rate: Rate,
    burst: Burst,
    level: i128,
    at: Time,
}

impl Throttle {
    /// A full bucket.
    pub fn new(rate: Rate, burst: Burst, now: Time) -> Throttle {
        let burst = Burst(burst.0.max(1));
        Throttle {
            rate,
            burst,
            level: i128::from(burst.0) * SECOND,
            at: now,
        }
    }

    /// Takes `bytes`, or says when they may be taken. Time that goes backwards is taken as
    /// standing.
    pub fn take(&mut self, now: Time, bytes: usize) -> Result<(), Time> {
        if self.rate.0 == 0 {
            return Ok(());
        }
        self.fill(now);
        let cost = bytes as i128 * SECOND;
        let needed = cost.min(self.capacity());
        if self.level >= needed {
            self.level -= cost;
            return Ok(());
        }
        let rate = i128::from(self.rate.0);
        let wait = (needed - self.level + rate - 1) / rate;
        Err(Time(
            self.at
                .0
                .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)),
        ))
    }

    /// Changes the rate; what has been saved or is owed stays.
    pub fn set_rate(&mut self, rate: Rate, now: Time) {
        self.fill(now);
        self.rate = rate;
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    fn capacity(&self) -> i128 {
        i128::from(self.burst.0) * SECOND
    }

    fn fill(&mut self, now: Time) {
        let passed = i128::from((now - self.at).0);
        self.at = self.at.max(now);
        self.level = (self.level + passed * i128::from(self.rate.0)).min(self.capacity());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wal::Span;

    use super::*;

    proptest! {
        #[test]
        fn no_window_gets_more_than_its_rate_and_one_burst(
            rate in 1u64..10_000_000,
            burst in 1u64..1_000_000,
            asks in prop::collection::vec((0u64..50_000_000, 1u64..1_000_000), 1..60),
        ) {
            let mut throttle = Throttle::new(Rate(rate), Burst(burst), Time(0));
            let mut now = Time(0);
            let mut grants = Vec::new();
            for (pause, bytes) in asks {
                now = now + Span(pause);
                let bytes = bytes.min(burst);
                if throttle.take(now, bytes as usize).is_ok() {
                    grants.push((now, bytes));
                }
            }
            for first in 0..grants.len() {
                for last in first..grants.len() {
                    let window = (grants[last].0 - grants[first].0).0;
                    let sum: u64 = grants[first..=last].iter().map(|(_, bytes)| bytes).sum();
                    let allowed = u128::from(rate) * u128::from(window) / 1_000_000_000;
                    prop_assert!(u128::from(sum) <= allowed + u128::from(burst));
                }
            }
        }

        #[test]
        fn what_is_refused_is_granted_at_the_moment_told(
            rate in 1u64..10_000_000,
            burst in 1u64..100_000,
            asks in prop::collection::vec(1usize..1_000_000, 1..40),
        ) {
            let mut throttle = Throttle::new(Rate(rate), Burst(burst), Time(5));
            let mut now = Time(5);
            for bytes in asks {
                if let Err(at) = throttle.take(now, bytes) {
                    prop_assert!(at > now);
                    prop_assert!(throttle.take(Time(at.0 - 1), bytes).is_err());
                    prop_assert!(throttle.take(at, bytes).is_ok());
                    now = at;
                }
            }
        }
    }

    #[test]
    fn a_steady_taker_gets_the_rate() {
        let mut throttle = Throttle::new(Rate(1_000_000), Burst(64 << 10), Time(0));
        let (mut now, mut granted) = (Time(0), 0);
        while now < Time(10_000_000_000) {
            match throttle.take(now, 4096) {
                Ok(()) => granted += 4096,
                Err(at) => now = at,
            }
        }
        assert!(
            (10_000_000..10_000_000 + (64 << 10) + 4096).contains(&granted),
            "{granted}"
        );
    }

    #[test]
    fn a_rate_of_zero_is_unlimited() {
        let mut throttle = Throttle::new(Rate(0), Burst(1), Time(0));
        assert!((0..1000).all(|_| throttle.take(Time(0), usize::MAX).is_ok()));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_fills_nothing() {
        let mut throttle = Throttle::new(Rate(1000), Burst(1000), Time(1_000_000_000));
        assert!(throttle.take(Time(1_000_000_000), 1000).is_ok());
        assert!(throttle.take(Time(0), 1).is_err());
        assert!(throttle.take(Time(1_000_000_000), 1).is_err());
        assert!(throttle.take(Time(1_001_000_000), 1).is_ok());
    }
}
