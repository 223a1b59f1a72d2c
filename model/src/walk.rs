//! Walking forward through series: at each bin all members and the mix say what comes, and are
//! scored when it has come. Nothing that lies ahead of a forecast is ever seen by it.

use crate::history::Grid;
use crate::member::{Ewma, Forecaster, HoltWinters, Last, Linear, Seasonal, SlotEwma};
use crate::mix::Hedge;
use crate::score::Errors;
use crate::series::Series;
use crate::track::Track;

/// A member and its name.
pub type Named = (&'static str, Box<dyn Forecaster>);

/// The members that need no training beforehand, for a series cut as `grid` says.
pub fn untrained(grid: Grid, ahead: usize) -> Vec<Named> {
    vec![
        ("last", Box::new(Last)),
        ("ewma", Box::new(Ewma::new(0.5))),
        ("ewma-slow", Box::new(Ewma::new(0.1))),
        ("slot-ewma", Box::new(SlotEwma::new(ahead))),
        ("seasonal", Box::new(Seasonal::new(ahead, 1))),
        ("weekly", Box::new(Seasonal::new(ahead, 7))),
        ("holt-winters", Box::new(HoltWinters::new(grid, ahead))),
        ("linear", Box::new(Linear::new(ahead))),
    ]
}

/// One series, its members and their mix.
#[derive(Debug)]
pub struct Walker {
    track: Track,
    members: Vec<Named>,
    hedge: Hedge,
}

/// What was said at one bin of the bin `ahead`.
#[derive(Clone, PartialEq, Debug)]
pub struct Said {
    pub members: Vec<Option<f32>>,
    pub mix: Option<f32>,
}

impl Walker {
    pub fn new(grid: Grid, start: i64, ahead: usize, members: Vec<Named>) -> Walker {
        Walker {
            track: Track::new(grid, start),
            hedge: Hedge::new(members.len(), ahead),
            members,
        }
    }

    /// Takes the next bin in and says what comes.
    pub fn step(&mut self, value: f32) -> Said {
        self.track.push(value);
        for (_, member) in &mut self.members {
            member.observe(&self.track);
        }
        let said = self.members.iter();
        let said: Vec<_> = said
            .map(|(_, member)| member.forecast(&self.track))
            .collect();
        self.hedge
            .observe(Some(value).filter(|value| value.is_finite()), said.clone());
        Said {
            mix: self.hedge.mix(&said),
            members: said,
        }
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.members.iter().map(|(name, _)| *name).collect()
    }

    pub fn weights(&self) -> Vec<f64> {
        self.hedge.weights()
    }
}

/// Errors of all members, then of the mix, on the bins of `series` from `from` on.
pub fn walk(series: &Series, ahead: usize, from: usize, members: Vec<Named>) -> Errors {
    let mut errors = Errors::new(members.len() + 1);
    let mut walker = Walker::new(series.grid(), series.start, ahead, members);
    let mut pending = std::collections::VecDeque::new();
    for (at, value) in series.values.iter().enumerate() {
        if pending.len() == ahead
            && let Some(said) = pending.pop_front()
            && at >= from
        {
            add(&mut errors, &said, *value);
        }
        pending.push_back(walker.step(*value));
    }
    errors
}

/// A bin counts if the mix and all members but those that can't say anything yet said something;
/// such a member is counted as the mix.
fn add(errors: &mut Errors, said: &Said, truth: f32) {
    let Some(mix) = said.mix else { return };
    let own = said.members.iter().map(|said| said.unwrap_or(mix));
    let all: Vec<f32> = own.chain([mix]).collect();
    errors.add(&all, truth);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily(days: usize) -> Series {
        let value = |hour: usize| {
            let noise = ((hour * 7919) % 11) as f32 / 11.0;
            10.0 + 8.0 * ((hour % 24) as f32 / 24.0 * std::f32::consts::TAU).sin() + noise
        };
        Series {
            name: "daily".to_owned(),
            start: 0,
            step: 3600,
            values: (0..24 * days).map(value).collect(),
        }
    }

    #[test]
    fn the_mix_is_about_as_good_as_the_best_member() {
        let series = daily(40);
        let errors = walk(&series, 1, 24 * 20, untrained(series.grid(), 1));
        let count = untrained(series.grid(), 1).len();
        let best = (0..count)
            .map(|member| errors.mean(member))
            .fold(f64::INFINITY, f64::min);
        assert!(
            errors.mean(count) < 1.2 * best,
            "{} of {best}",
            errors.mean(count)
        );
        assert_eq!(errors.count(), 24 * 20);
    }

    #[test]
    fn nothing_that_lies_ahead_is_seen() {
        let series = daily(20);
        let mut other = series.clone();
        for value in &mut other.values[300..] {
            *value += 1000.0;
        }
        let walk = |series: &Series| {
            let members = untrained(series.grid(), 3);
            let mut walker = Walker::new(series.grid(), series.start, 3, members);
            let said = series
                .values
                .iter()
                .take(300)
                .map(|value| walker.step(*value));
            said.collect::<Vec<_>>()
        };
        assert_eq!(walk(&series), walk(&other));
    }

    #[test]
    fn an_item_that_vanishes_and_returns_is_foretold_again() {
        let mut series = daily(30);
        for value in &mut series.values[200..400] {
            *value = f32::NAN;
        }
        let mut walker = Walker::new(series.grid(), 0, 1, untrained(series.grid(), 1));
        let mut last = None;
        for value in &series.values {
            last = walker.step(*value).mix;
            assert!(last.is_none_or(f32::is_finite));
        }
        let truth = series.values[0];
        assert!((last.expect("a forecast") - truth).abs() < 3.0);
    }
}
