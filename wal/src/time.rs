//! Plain numbers for time. Nothing here reads a clock: the caller hands time in.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Monotonic time in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span(pub u64);

/// UTC time in milliseconds since 1970, for people and for conflict rules.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Wall(pub u64);

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn micros(count: u64) -> Span {
        Span(count * 1_000)
    }

    pub const fn millis(count: u64) -> Span {
        Span(count * 1_000_000)
    }

    pub const fn secs(count: u64) -> Span {
        Span(count * 1_000_000_000)
    }

    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    pub fn from_duration(duration: Duration) -> Span {
        Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Span> for Time {
    type Output = Time;

    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Sub<Time> for Time {
    type Output = Span;

    fn sub(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}
