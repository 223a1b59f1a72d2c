//! One series as its forecasters see it: history, level, the usual shape of a season, and inputs.

use crate::history::{Grid, History};
use crate::running::Running;

/// Seasons that are kept: the same day of last week is one of them.
const SEASONS: usize = 7;
/// How much the newest season counts in the usual shape of one.
const SHAPE_SHARE: f32 = 0.3;

/// Inputs of a learned forecaster, all near 0 to 1 in size.
pub const INPUTS: usize = 20;

/// What each input is, for people.
pub const INPUT_NAMES: [&str; INPUTS] = [
    "value now",
    "change since the bin before",
    "mean of the last hour",
    "same slot one season ago",
    "same slot one week ago",
    "usual value of the slot",
    "bins since a value was there",
    "deviation against level",
    "hour (sine)",
    "hour (cosine)",
    "weekday (sine)",
    "weekday (cosine)",
    "one bin ago",
    "two bins ago",
    "three bins ago",
    "mean of the last three hours",
    "now against its slot's usual value",
    "one season ago against the season before",
    "highest of the last hour",
    "lowest of the last hour",
];

/// A series up to now.
#[derive(Clone, Debug)]
pub struct Track {
    history: History,
    running: Running,
    hour: Running,
    three_hours: Running,
    /// Of each slot the usual distance from the level, in deviations.
    shape: Vec<f32>,
    /// Whether a slot was ever seen.
    seen: Vec<bool>,
}

impl Track {
    pub fn new(grid: Grid, start: i64) -> Track {
        Track {
            history: History::new(grid, SEASONS, start),
            running: Running::new(grid.slots()),
            hour: Running::new(grid.bins(3600)),
            three_hours: Running::new(grid.bins(3 * 3600)),
            shape: vec![0.0; grid.slots()],
            seen: vec![false; grid.slots()],
        }
    }

    /// Takes the next bin in; NaN if nothing is known of it.
    pub fn push(&mut self, value: f32) {
        self.history.push(value);
        if !value.is_finite() {
            return;
        }
        let slot = self.history.grid().slot(self.history.now());
        let off = self.running.normalise(value);
        match &mut self.seen[slot] {
            true => self.shape[slot] += SHAPE_SHARE * (off - self.shape[slot]),
            seen => {
                *seen = true;
                self.shape[slot] = off;
            }
        }
        self.running.observe(value);
        self.hour.observe(value);
        self.three_hours.observe(value);
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The value that lies `off` deviations off the newest; `None` while there is none.
    pub fn off_newest(&self, off: f32) -> Option<f32> {
        let (_, newest) = self.history.newest()?;
        Some(self.running.restore(self.running.normalise(newest) + off))
    }

    /// The usual distance from the level of the slot that lies `ahead`, if it was ever seen.
    pub fn usual(&self, ahead: usize) -> Option<f32> {
        let slot = self.history.grid().slot(self.history.later(ahead));
        self.seen[slot].then(|| self.shape[slot])
    }

    /// What a learned forecaster is given to say what comes `ahead` bins from now.
    pub fn inputs(&self, ahead: usize) -> [f32; INPUTS] {
        let history = &self.history;
        let normal = |value: f32| self.running.normalise(value);
        let newest = history.newest();
        let back = |back: usize| history.back(back).map_or(0.0, normal);
        let (age, now) = newest.map_or((0, 0.0), |(age, value)| (age, normal(value)));
        let usual = self.usual(ahead).unwrap_or(0.0);
        let ago = |seasons: usize| history.season_ago(ahead, seasons).map(normal);
        let season = ago(1).unwrap_or(usual);
        let week = ago(SEASONS).unwrap_or(season);
        let [hour, day] = history.grid().angles(history.later(ahead));
        let spread = self.running.deviation() / self.running.level().abs().max(f32::MIN_POSITIVE);
        let last_hour = 0..history.grid().bins(3600);
        let range = last_hour.filter_map(|bin| history.back(bin)).map(normal);
        let (low, high) = range.fold((now, now), |(low, high), v| (low.min(v), high.max(v)));
        [
            now,
            now - history.back(1).map_or(now, normal),
            normal(self.hour.level()),
            season,
            week,
            usual,
            (age as f32).ln_1p(),
            spread.min(1e6).ln_1p(),
            hour.sin(),
            hour.cos(),
            day.sin(),
            day.cos(),
            back(1),
            back(2),
            back(3),
            normal(self.three_hours.level()),
            now - self.usual(0).unwrap_or(now),
            season - ago(2).unwrap_or(season),
            high,
            low,
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_season_is_learned() {
        let mut track = Track::new(Grid::daily(3600), 0);
        for hour in 0..24 * 10 {
            track.push(if hour % 24 == 5 { 100.0 } else { 10.0 });
        }
        let at_five = 24 + 5 - 23;
        assert!(track.usual(at_five).expect("seen") > 2.0);
        assert!(track.usual(at_five + 1).expect("seen") < 0.5);
        assert!(track.inputs(at_five)[3] > 2.0, "yesterday at five");
    }

    proptest! {
        #[test]
        fn inputs_are_numbers_whatever_came(
            values in prop::collection::vec(prop::num::f32::ANY, 0..300),
            step in 1_u32..200_000,
            start in -1_000_000_000_i64..4_000_000_000,
            ahead in 1_usize..50,
        ) {
            let mut track = Track::new(Grid::daily(step), start);
            for value in values {
                track.push(value.clamp(-1e30, 1e30));
                for input in track.inputs(ahead) {
                    prop_assert!(input.is_finite() && input.abs() <= 32.0, "{input}");
                }
            }
        }
    }
}
