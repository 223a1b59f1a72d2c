//! When something happened: the value of a bin went above a limit. Rates, slots, distances.

use crate::history::Grid;
use crate::track::Track;

/// What the newest bin counts in the quick rate, the slow rate, and the rate of its slot.
const QUICK: f32 = 0.3;
const SLOW: f32 = 0.02;
const SLOT: f32 = 0.2;
/// Widest distance to the limit, in deviations.
const WIDEST: f32 = 8.0;
/// Bins after which it does not matter any more how long ago it was.
const LONG_AGO: u32 = 1_000_000;

/// Inputs that tell of occurrences, beside those of the track.
pub const OCCURRENCE_INPUTS: usize = 9;

/// What each input is, for people.
pub const OCCURRENCE_NAMES: [&str; OCCURRENCE_INPUTS] = [
    "distance to the limit",
    "happened just now",
    "how often lately",
    "how often ever",
    "how often at this time of day",
    "how often within the longest horizon's time of day",
    "time since it happened last",
    "time between the last two",
    "how often for what is akin",
];

/// What is known of occurrences up to now.
#[derive(Clone, Debug)]
pub struct Occurrences {
    limit: f32,
    quick: f32,
    slow: f32,
    slots: Vec<f32>,
    /// Bins that were known, and in how many of them it happened.
    known: u32,
    times: u32,
    since: u32,
    between: u32,
    newest: Option<bool>,
}

impl Occurrences {
    /// It happens in a bin whose value is above `limit`.
    pub fn new(grid: Grid, limit: f32) -> Occurrences {
        Occurrences {
            limit,
            quick: 0.0,
            slow: 0.0,
            slots: vec![0.0; grid.slots()],
            known: 0,
            times: 0,
            since: LONG_AGO,
            between: LONG_AGO,
            newest: None,
        }
    }

    pub fn limit(&self) -> f32 {
        self.limit
    }

    /// Whether it happened in a bin of this value.
    pub fn happens(&self, value: f32) -> Option<bool> {
        (!value.is_nan()).then_some(value > self.limit)
    }

    /// Takes in the bin that `track` has just taken in.
    pub fn push(&mut self, value: f32, track: &Track) {
        self.newest = self.happens(value);
        self.since = self.since.saturating_add(1).min(LONG_AGO);
        let Some(happened) = self.newest else {
            return;
        };
        let slot = track.history().grid().slot(track.history().now());
        let now = f32::from(u8::from(happened));
        self.known = self.known.saturating_add(1);
        // The first bins count alike, or the rate would begin at nothing.
        let first = 1.0 / self.known as f32;
        self.quick += QUICK.max(first) * (now - self.quick);
        self.slow += SLOW.max(first) * (now - self.slow);
        self.slots[slot] += SLOT * (now - self.slots[slot]);
        if happened {
            self.times = self.times.saturating_add(1);
            self.between = self.since;
            self.since = 0;
        }
    }

    /// How often it happens, of bins that were known.
    pub fn rate(&self) -> f32 {
        self.slow
    }

    pub fn quick_rate(&self) -> f32 {
        self.quick
    }

    /// In how many of the known bins it happened.
    pub fn counts(&self) -> (u32, u32) {
        (self.times, self.known)
    }

    /// Bins since it happened; 0 if it did in the newest.
    pub fn since(&self) -> Option<u32> {
        (self.times > 0).then_some(self.since)
    }

    pub fn happened_now(&self) -> Option<bool> {
        self.newest
    }

    /// How often it happens in the slots of the next `bins`.
    pub fn slot_rate(&self, track: &Track, bins: usize) -> f32 {
        let (grid, history) = (track.history().grid(), track.history());
        let bins = bins.clamp(1, self.slots.len());
        let rates = (1..=bins).map(|bin| self.slots[grid.slot(history.later(bin))]);
        rates.sum::<f32>() / bins as f32
    }

    /// Inputs of a learned forecaster of chances up to `longest` bins ahead; `akin` is how often
    /// it happens to what is akin.
    pub fn inputs(
        &self,
        track: &Track,
        ahead: usize,
        longest: usize,
        akin: f32,
    ) -> [f32; OCCURRENCE_INPUTS] {
        let off = self.limit - track.running().level();
        let distance = off / track.running().deviation();
        let distance = if distance.is_nan() { 0.0 } else { distance };
        let long = |bins: u32| (bins as f32).ln_1p() / 4.0;
        [
            distance.clamp(-WIDEST, WIDEST),
            f32::from(u8::from(self.newest == Some(true))),
            self.quick,
            self.slow,
            self.slot_rate(track, ahead),
            self.slot_rate(track, longest),
            long(self.since),
            long(self.between),
            akin.clamp(0.0, 1.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(values: &[f32], limit: f32) -> (Track, Occurrences) {
        let grid = Grid::daily(3600);
        let (mut track, mut seen) = (Track::new(grid, 0), Occurrences::new(grid, limit));
        for value in values {
            track.push(*value);
            seen.push(*value, &track);
        }
        (track, seen)
    }

    #[test]
    fn what_happens_at_six_is_known_to_happen_at_six() {
        let day = |hour: usize| if hour % 24 == 6 { 5.0 } else { 1.0 };
        let values: Vec<_> = (0..24 * 20 + 5).map(day).collect();
        let (track, seen) = feed(&values, 3.0);
        assert!(seen.slot_rate(&track, 1) < 0.01, "five");
        assert!(seen.slot_rate(&track, 2) > 0.4, "five and six");
        assert_eq!(seen.counts(), (20, 485));
        assert!((seen.rate() - 1.0 / 24.0).abs() < 0.05);
    }

    #[test]
    fn what_is_not_known_did_not_happen_and_did_not_not_happen() {
        let (_, seen) = feed(&[5.0, f32::NAN, f32::NAN], 3.0);
        assert_eq!((seen.happened_now(), seen.counts()), (None, (1, 1)));
        let (_, none) = feed(&[], 3.0);
        assert_eq!((none.rate(), none.counts()), (0.0, (0, 0)));
        assert_eq!((seen.since(), none.since()), (Some(2), None));
    }

    proptest! {
        #[test]
        fn inputs_are_numbers_whatever_came(
            values in prop::collection::vec(prop::num::f32::ANY, 0..200),
            limit in prop::num::f32::ANY,
            akin in 0.0_f32..1.0,
        ) {
            let (track, seen) = feed(&values, limit);
            for input in seen.inputs(&track, 3, 24, akin) {
                prop_assert!(input.is_finite() && input.abs() <= 8.0, "{input}");
            }
        }
    }
}
