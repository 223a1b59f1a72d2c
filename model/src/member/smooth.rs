//! Rules that need no training: the last value, running means, seasons.

use super::Forecaster;
use crate::history::Grid;
use crate::track::Track;

/// What is now will be.
#[derive(Clone, Copy, Default, Debug)]
pub struct Last;

impl Forecaster for Last {
    fn observe(&mut self, _track: &Track) {}

    fn forecast(&self, track: &Track) -> Option<f32> {
        track.history().newest().map(|(_, value)| value)
    }

    fn boxed(&self) -> Box<dyn Forecaster> {
        Box::new(*self)
    }
}

/// What was one season ago at this time will be; the last value while there was no season.
#[derive(Clone, Copy, Debug)]
pub struct Seasonal {
    ahead: usize,
    seasons: usize,
}

impl Seasonal {
    pub fn new(ahead: usize, seasons: usize) -> Seasonal {
        Seasonal { ahead, seasons }
    }
}

impl Forecaster for Seasonal {
    fn observe(&mut self, _track: &Track) {}

    fn forecast(&self, track: &Track) -> Option<f32> {
        let history = track.history();
        let ago = history.season_ago(self.ahead, self.seasons);
        ago.or_else(|| history.newest().map(|(_, value)| value))
    }

    fn boxed(&self) -> Box<dyn Forecaster> {
        Box::new(*self)
    }
}

/// The exponentially weighted mean.
#[derive(Clone, Copy, Debug)]
pub struct Ewma {
    share: f32,
    mean: Option<f32>,
}

impl Ewma {
    /// `share` is what the newest value counts, 0 to 1.
    pub fn new(share: f32) -> Ewma {
        Ewma { share, mean: None }
    }
}

impl Forecaster for Ewma {
    fn observe(&mut self, track: &Track) {
        let Some(value) = track.history().back(0) else {
            return;
        };
        self.mean = Some(match self.mean {
            Some(mean) => mean + self.share * (value - mean),
            None => value,
        });
    }

    fn forecast(&self, _track: &Track) -> Option<f32> {
        self.mean
    }

    fn boxed(&self) -> Box<dyn Forecaster> {
        Box::new(*self)
    }
}

/// The running level, and what is usual for the slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotEwma {
    ahead: usize,
}

impl SlotEwma {
    pub fn new(ahead: usize) -> SlotEwma {
        SlotEwma { ahead }
    }
}

impl Forecaster for SlotEwma {
    fn observe(&mut self, _track: &Track) {}

    fn forecast(&self, track: &Track) -> Option<f32> {
        track.history().newest()?;
        Some(
            track
                .running()
                .restore(track.usual(self.ahead).unwrap_or(0.0)),
        )
    }

    fn boxed(&self) -> Box<dyn Forecaster> {
        Box::new(*self)
    }
}

/// Level, damped trend and additive season, each smoothed.
#[derive(Clone, Debug)]
pub struct HoltWinters {
    ahead: usize,
    grid: Grid,
    level: Option<f32>,
    trend: f32,
    seasons: Vec<f32>,
}

const LEVEL_SHARE: f32 = 0.3;
const TREND_SHARE: f32 = 0.05;
const SEASON_SHARE: f32 = 0.2;
/// What is left of the trend after each bin: one that was read from noise must not run away.
const DAMPED: f32 = 0.9;

impl HoltWinters {
    pub fn new(grid: Grid, ahead: usize) -> HoltWinters {
        HoltWinters {
            ahead,
            grid,
            level: None,
            trend: 0.0,
            seasons: vec![0.0; grid.slots()],
        }
    }
}

impl Forecaster for HoltWinters {
    fn observe(&mut self, track: &Track) {
        let history = track.history();
        let Some(value) = history.back(0) else {
            return;
        };
        let slot = self.grid.slot(history.now());
        let before = self.level.unwrap_or(value);
        let (season, trend) = (self.seasons[slot], DAMPED * self.trend);
        let expected = before + trend;
        let level = expected + LEVEL_SHARE * (value - season - expected);
        self.trend = trend + TREND_SHARE * (level - before - trend);
        self.seasons[slot] = season + SEASON_SHARE * (value - level - season);
        self.level = Some(level);
    }

    fn forecast(&self, track: &Track) -> Option<f32> {
        let slot = self.grid.slot(track.history().later(self.ahead));
        // The sum of a geometric series.
        let steps = DAMPED * (1.0 - DAMPED.powi(self.ahead as i32)) / (1.0 - DAMPED);
        let level = self.level? + self.trend * steps;
        Some(level + self.seasons[slot])
    }

    fn boxed(&self) -> Box<dyn Forecaster> {
        Box::new(self.clone())
    }
}
