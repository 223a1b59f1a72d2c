//! How fast a link is, and what one send may carry because of it.
//!
//! An urgent frame waits for the send that is under way and for what the socket holds unsent. Both
//! are kept to what the link carries in [`Pace::turn`]; on a slow link each is [`SEND_LEN_MIN`],
//! and on a fast one large sends save processor time (a third of it from 64 KiB to 1 MiB).
//!
//! The rate is the kernel's own estimate (`tcpi_delivery_rate`): bytes acknowledged over the time
//! in which they were under way. Times in which the sender had nothing to send can only raise it.

use wal::{Span, Time};

use crate::throttle::Rate;

/// Least and most that one send gathers.
pub const SEND_LEN_MIN: usize = 64 << 10;
pub const SEND_LEN_MAX: usize = 1 << 20;
/// What one send gathers while nothing is known.
pub const SEND_LEN: usize = 256 << 10;
/// The time that one send may take: a quarter of the round trip, within these bounds, because an
/// urgent frame travels for the round trip anyway.
const TURN_MIN: Span = Span::millis(1);
const TURN_MAX: Span = Span::millis(10);
/// How often the kernel is asked, and after how many bytes at the earliest: a link that carries
/// small deltas only says nothing about its rate.
const ASK_EVERY: Span = Span::millis(100);
const ASK_AFTER: usize = 256 << 10;
/// A new sample weighs one eighth.
const WEIGHT: u64 = 8;

/// What the kernel says about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    pub rate: Rate,
    pub round_trip: Span,
}

/// Rate and round trip of a link, and the sizes that follow from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pace {
    rate: Option<Rate>,
    round_trip: Span,
    sent: usize,
    ask_at: Time,
}

impl Pace {
    /// Bytes were sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// Whether it is time to ask the kernel; a `true` is followed by [`Pace::sampled`].
    pub fn is_due(&self, now: Time) -> bool {
        self.sent >= ASK_AFTER && self.ask_at <= now
    }

    /// Takes what the kernel said.
    pub fn sampled(&mut self, now: Time, sample: Sample) {
        (self.sent, self.ask_at) = (0, now + ASK_EVERY);
        self.round_trip = sample.round_trip;
        let rate = sample.rate.0;
        let rate = self.rate.map_or(rate, |average| {
            average.0 - average.0 / WEIGHT + rate / WEIGHT
        });
        self.rate = (rate > 0).then_some(Rate(rate));
    }

    /// Bytes per second that the link carries; `None` until enough was sent.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// How long one send may take.
    pub fn turn(&self) -> Span {
        Span(self.round_trip.0 / 4).clamp(TURN_MIN, TURN_MAX)
    }

    /// Bytes that one send gathers, whole 4 KiB: what the link carries in a turn.
    pub fn send_len(&self) -> usize {
        let Some(rate) = self.rate else {
            return SEND_LEN;
        };
        let carried = u128::from(rate.0) * u128::from(self.turn().0) / 1_000_000_000;
        let whole = carried.min(SEND_LEN_MAX as u128) as usize & !4095;
        whole.max(SEND_LEN_MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(rate: u64, round_trip: Span) -> Pace {
        let mut pace = Pace::default();
        let rate = Rate(rate);
        pace.sampled(Time(0), Sample { rate, round_trip });
        pace
    }

    #[test]
    fn a_link_is_asked_after_enough_bytes_and_not_too_often() {
        let mut pace = Pace::default();
        assert!(!pace.is_due(Time(0)));
        pace.sent(ASK_AFTER);
        assert!(pace.is_due(Time(0)));
        let (rate, round_trip) = (Rate(1), Span::ZERO);
        pace.sampled(Time(0), Sample { rate, round_trip });
        pace.sent(ASK_AFTER);
        assert!(!pace.is_due(Time(0) + Span::millis(99)));
        assert!(pace.is_due(Time(0) + Span::millis(100)));
    }

    #[test]
    fn slow_links_send_little_at_a_time_and_fast_ones_much() {
        assert_eq!(Pace::default().send_len(), SEND_LEN);
        assert_eq!(pace(1_000_000, Span::millis(1)).send_len(), SEND_LEN_MIN);
        assert_eq!(pace(300_000_000, Span::micros(50)).send_len(), 292 << 10);
        assert_eq!(
            pace(12_000_000_000, Span::micros(50)).send_len(),
            SEND_LEN_MAX
        );
        let far = pace(100_000_000, Span::millis(20));
        assert_eq!((far.turn(), far.send_len()), (Span::millis(5), 488 << 10));
    }

    proptest! {
        #[test]
        fn a_send_takes_no_longer_than_a_turn_or_is_the_smallest(
            rate in 1u64..100_000_000_000, round_trip in 0u64..1_000_000_000,
        ) {
            let pace = pace(rate, Span(round_trip));
            let takes = pace.send_len() as u128 * 1_000_000_000 / u128::from(rate);
            prop_assert!(pace.turn() <= TURN_MAX);
            prop_assert!((SEND_LEN_MIN..=SEND_LEN_MAX).contains(&pace.send_len()));
            prop_assert!(
                takes <= u128::from(pace.turn().0) || pace.send_len() == SEND_LEN_MIN
            );
        }
    }
}
