//! What a series was: its last weeks in bins, and where in day and week it stands.

use std::collections::VecDeque;

use crate::series::Series;

/// Seconds.
const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;

/// How time is cut into bins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Seconds of a bin.
    step: u32,
    /// Bins of a season.
    season: u32,
    /// Slots of a season: bins, or minutes where bins are shorter.
    slots: u32,
}

/// Slots of a season, at most: what is usual is known to the minute.
const SLOTS_MAX: u32 = 1_440;
/// Bins that are kept, at most: a week of minutes, or three hours of seconds.
const KEPT_MAX: usize = 10_080;

impl Grid {
    /// Bins of `step` seconds and seasons of a day. A day is cut into whole bins, or the season is
    /// the number of bins that comes nearest.
    pub fn daily(step: u32) -> Grid {
        let step = step.clamp(1, DAY as u32);
        let season = (DAY as f64 / f64::from(step)).round() as u32;
        let slots = season.min(SLOTS_MAX);
        Grid {
            step,
            season,
            slots,
        }
    }

    pub fn step(&self) -> u32 {
        self.step
    }

    pub fn season(&self) -> usize {
        self.season as usize
    }

    /// Bins that `seconds` take, at least one.
    pub fn bins(&self, seconds: u32) -> usize {
        (f64::from(seconds) / f64::from(self.step)).round().max(1.0) as usize
    }

    /// The place in the season of the bin that begins at `time`.
    pub fn slot(&self, time: i64) -> usize {
        let bin = time.div_euclid(i64::from(self.step));
        let bin = bin.rem_euclid(i64::from(self.season));
        (bin * i64::from(self.slots) / i64::from(self.season)) as usize
    }

    pub fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Angles of the hour and of the weekday, 0 to 2π.
    pub fn angles(&self, time: i64) -> [f32; 2] {
        [DAY, WEEK].map(|period| {
            let share = time.rem_euclid(period) as f32 / period as f32;
            share * std::f32::consts::TAU
        })
    }
}

/// The newest values of a series; what was missing is NaN.
#[derive(Clone, Debug)]
pub struct History {
    grid: Grid,
    kept: usize,
    values: VecDeque<f32>,
    /// When the newest bin began.
    now: i64,
}

impl History {
    /// Keeps `seasons` of values, or as many as there is room for, and none before `start`.
    pub fn new(grid: Grid, seasons: usize, start: i64) -> History {
        let kept = (grid.season() * seasons.max(1)).min(KEPT_MAX) + 1;
        History {
            grid,
            kept,
            values: VecDeque::new(),
            now: start - i64::from(grid.step),
        }
    }

    pub fn push(&mut self, value: f32) {
        if self.values.len() == self.kept {
            self.values.pop_front();
        }
        let value = if value.is_finite() { value } else { f32::NAN };
        self.values.push_back(value);
        self.now += i64::from(self.grid.step);
    }

    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// All that is kept, as a series.
    pub fn series(&self, name: String) -> Series {
        let (step, count) = (self.grid.step, self.values.len() as i64);
        Series {
            name,
            start: self.now - (count - 1) * i64::from(step),
            step,
            values: self.values.iter().copied().collect(),
        }
    }

    /// When the newest bin began.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// When the bin `ahead` of the newest begins.
    pub fn later(&self, ahead: usize) -> i64 {
        self.now + ahead as i64 * i64::from(self.grid.step)
    }

    /// The value `back` bins before the newest.
    pub fn back(&self, back: usize) -> Option<f32> {
        let at = self.values.len().checked_sub(back + 1)?;
        Some(self.values[at]).filter(|value| value.is_finite())
    }

    /// The newest value that is there, and how many bins ago.
    pub fn newest(&self) -> Option<(usize, f32)> {
        let mut newest_first = self.values.iter().rev().enumerate();
        let found = newest_first.find(|(_, value)| value.is_finite());
        found.map(|(back, value)| (back, *value))
    }

    /// The value of the slot that lies `ahead`, `seasons` ago.
    pub fn season_ago(&self, ahead: usize, seasons: usize) -> Option<f32> {
        self.back((self.grid.season() * seasons).checked_sub(ahead)?)
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_slot_is_found_a_season_ago() {
        let grid = Grid::daily(3600);
        let mut history = History::new(grid, 7, 0);
        for hour in 0..200 {
            history.push(hour as f32);
        }
        assert_eq!(grid.season(), 24);
        assert_eq!(history.back(0), Some(199.0));
        assert_eq!(history.season_ago(1, 1), Some(176.0), "200 - 24");
        assert_eq!(history.season_ago(1, 7), Some(32.0));
        assert_eq!(history.season_ago(1, 8), None, "not kept");
        assert_eq!(grid.slot(history.later(1)), 200 % 24);
    }

    #[test]
    fn what_is_missing_is_passed_over() {
        let mut history = History::new(Grid::daily(60), 1, 0);
        assert_eq!(history.newest(), None);
        for value in [3.0, f32::NAN, f32::INFINITY] {
            history.push(value);
        }
        assert_eq!(history.newest(), Some((2, 3.0)));
        assert_eq!(history.back(0), None);
    }

    #[test]
    fn times_before_the_epoch_have_slots() {
        let grid = Grid::daily(3600);
        assert_eq!(grid.slot(-3600), 23);
        assert!(grid.angles(-1).iter().all(|angle| *angle >= 0.0));
    }

    #[test]
    fn steps_that_do_not_divide_a_day_still_have_a_season() {
        assert_eq!(Grid::daily(840).season(), 103);
        assert_eq!(Grid::daily(0).season(), 86_400);
        assert_eq!(Grid::daily(u32::MAX).season(), 1);
        let seconds = Grid::daily(1);
        assert_eq!((seconds.slots(), seconds.slot(86_399)), (1_440, 1_439));
        assert_eq!((seconds.slot(59), seconds.slot(60)), (0, 1));
        assert_eq!(Grid::daily(840).bins(3600), 4);
        assert_eq!(Grid::daily(86_400).bins(60), 1);
    }
}
