//! Chances: how likely it is that something happens within each of some horizons.
//!
//! Time is cut at the horizons. Of each interval the *hazard* is foretold: the chance that it
//! happens there if it did not before. Chances follow from hazards, so they grow with the horizon,
//! and what was cut short by the end of what is known can still be learned from.

mod calibrate;
mod logistic;
mod occurrences;
mod shrink;

pub use calibrate::{Calibration, Calibrator, Judged};
pub use logistic::Logistic;
pub use occurrences::{OCCURRENCE_INPUTS, OCCURRENCE_NAMES, Occurrences};
pub use shrink::{Count, shrunk};

/// Where hazards are cut, in bins: strictly ascending, none of them 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Horizons(Vec<usize>);

impl Horizons {
    /// Sorts; 0 counts as 1, what is there twice counts once. `None` of nothing.
    pub fn new(bins: impl IntoIterator<Item = usize>) -> Option<Horizons> {
        let mut bins: Vec<usize> = bins.into_iter().map(|bins| bins.max(1)).collect();
        bins.sort_unstable();
        bins.dedup();
        (!bins.is_empty()).then_some(Horizons(bins))
    }

    pub fn bins(&self) -> &[usize] {
        &self.0
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn longest(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// The bins that each interval covers, counted from the bin after now.
    fn intervals(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let begins = std::iter::once(0).chain(self.0.iter().copied());
        begins.zip(&self.0).map(|(begin, end)| begin..*end)
    }

    /// What there is to learn of the bins after now: per interval 1 or 0, or NaN where it had
    /// happened before, or is not known.
    pub fn labels(&self, after: &[Option<bool>]) -> Vec<f32> {
        let mut before = Some(false);
        let mut labels = Vec::with_capacity(self.count());
        for interval in self.intervals() {
            let here = happened(after, interval);
            labels.push(match (before, here) {
                (Some(false), Some(true)) => 1.0,
                (Some(false), Some(false)) => 0.0,
                _ => f32::NAN,
            });
            before = match (before, here) {
                (Some(true), _) => Some(true),
                (Some(false), here) => here,
                (None, _) => None,
            };
        }
        labels
    }

    /// Whether it happened within each horizon; `None` where that is not known.
    pub fn truths(&self, after: &[Option<bool>]) -> Vec<Option<bool>> {
        let within = self.0.iter().map(|end| happened(after, 0..*end));
        within.collect()
    }

    /// The hazards of something that happens at `rate` a bin, whenever it happened last.
    pub fn hazards_at(&self, rate: f32) -> Vec<f32> {
        let rate = if rate.is_nan() { 0.0 } else { rate };
        let calm = 1.0 - rate.clamp(0.0, 1.0);
        let interval = |bins: std::ops::Range<usize>| 1.0 - calm.powi(bins.len() as i32);
        self.intervals().map(interval).collect()
    }
}

/// Whether it happened in `bins`: once is enough, and for never all have to be known.
fn happened(after: &[Option<bool>], bins: std::ops::Range<usize>) -> Option<bool> {
    let known = |bin: usize| after.get(bin).copied().flatten();
    let mut all = Some(false);
    for bin in bins {
        match known(bin) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all = None,
        }
    }
    all
}

/// Chances within each horizon, from the hazards of the intervals. What is no number is no hazard.
pub fn within(hazards: &[f32]) -> Vec<f32> {
    let mut calm = 1.0_f32;
    let chances = hazards.iter().map(|hazard| {
        let hazard = if hazard.is_nan() { 0.0 } else { *hazard };
        calm *= 1.0 - hazard.clamp(0.0, 1.0);
        1.0 - calm
    });
    chances.collect()
}

/// Chances this near to 0 or 1 count as sure.
const SURE: f32 = 1e-6;

/// The logarithm of the odds.
pub fn logit(chance: f32) -> f32 {
    let chance = if chance.is_nan() { 0.5 } else { chance };
    let chance = chance.clamp(SURE, 1.0 - SURE);
    (chance / (1.0 - chance)).ln()
}

/// The chance of some odds, given their logarithm.
pub fn chance(logit: f32) -> f32 {
    if logit.is_nan() {
        return 0.5;
    }
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn horizons() -> Horizons {
        Horizons::new([4, 1, 2, 4, 0]).expect("some")
    }

    #[test]
    fn what_happened_before_is_no_label() {
        assert_eq!(horizons().bins(), [1, 2, 4]);
        let labels = |after: &[Option<bool>]| horizons().labels(after);
        let (yes, no) = (Some(true), Some(false));
        let after = labels(&[no, yes, yes, yes]);
        assert_eq!(after[..2], [0.0, 1.0]);
        assert!(after[2].is_nan());
        assert_eq!(labels(&[no, no, no, no]), [0.0; 3]);
        let cut = labels(&[no, no, no]);
        assert!(cut[..2] == [0.0, 0.0] && cut[2].is_nan());
        let gap = labels(&[None, no, no, yes]);
        assert!(gap.iter().all(|label| label.is_nan()));
        assert_eq!(horizons().truths(&[None, no, no, yes]), [None, None, yes]);
    }

    #[test]
    fn a_steady_rate_has_the_chances_that_it_has() {
        let chances = within(&horizons().hazards_at(0.5));
        assert_eq!(chances, [0.5, 0.75, 0.9375]);
    }

    proptest! {
        #[test]
        fn chances_are_chances_and_grow_with_the_horizon(
            hazards in prop::collection::vec(prop::num::f32::ANY, 1..8),
        ) {
            let chances = within(&hazards);
            prop_assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
            prop_assert!(chances.is_sorted(), "{chances:?}");
        }

        #[test]
        fn odds_are_chances_whatever_they_are(odds in prop::num::f32::ANY, p in 0.0_f32..1.0) {
            prop_assert!((0.0..=1.0).contains(&chance(odds)));
            prop_assert!((chance(logit(p)) - p).abs() < 1e-3);
        }
    }
}
