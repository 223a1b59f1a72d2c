//! How long a pause would be if the source froze now, from what was measured here.
//!
//! pause = lock + what is not yet acknowledged / link rate + 1.5 round trips + both syncs. The
//! figures are running averages plus their mean deviation, so that a jittery disk is not promised
//! as its own best case.

use wal::Span;

use crate::ship::average::Average;

/// Time to get the write lock from well-behaved writers (measured: p50 23 us, p99 9.8 ms).
const LOCK: Span = Span::micros(200);
/// Assumed until the first sample: a disk of the slow kind.
const SYNC_UNKNOWN: Span = Span::millis(5);
const RTT_UNKNOWN: Span = Span::millis(1);
/// Bytes per second assumed for a link that has moved too little to tell.
const RATE_UNKNOWN: u64 = 50_000_000;

/// What a pause is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Parts {
    /// Bytes that the target has not acknowledged as durable.
    pub bytes_left: u64,
    pub round_trip: Average,
    /// From shipping a delta to its durable acknowledgement.
    pub acknowledgement: Average,
}

/// The pause to expect from freezing now.
pub fn pause(parts: &Parts) -> Span {
    let transfer = parts.bytes_left.saturating_mul(1_000_000_000) / RATE_UNKNOWN;
    let round_trips = parts.round_trip.cautious(RTT_UNKNOWN).0 * 3 / 2;
    // The acknowledgement already holds one round trip and the target's sync; the source's own
    // sync is taken to cost as much.
    let syncs = parts.acknowledgement.cautious(SYNC_UNKNOWN).0 * 2;
    Span(LOCK.0 + transfer + round_trips + syncs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(bytes_left: u64) -> Parts {
        let mut acknowledgement = Average::default();
        acknowledgement.add(Span::millis(1));
        Parts {
            bytes_left,
            round_trip: Average::default(),
            acknowledgement,
        }
    }

    #[test]
    fn more_bytes_left_mean_a_longer_pause() {
        assert!(pause(&parts(100_000_000)) > pause(&parts(0)));
        assert!(pause(&parts(100_000_000)) > Span::secs(1));
    }
}
