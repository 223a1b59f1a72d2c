//! The mix: members are weighted by how well each did on this very series lately.
//!
//! Hedge with discounted losses: a member's weight falls exponentially with what it lost against
//! the others, and what was lost long ago counts less. No member can ruin the mix for longer than
//! it takes to notice, and the mix needs no training. What is said is the weighted mean, or the
//! weighted median where that did better: of what is mostly nothing the mean is always wrong.

use std::collections::VecDeque;

/// How fast weights follow losses; a loss of one is an error as large as the members' usual one.
const RATE: f64 = 0.5;
/// How much a loss counts after each later one.
const KEEP: f64 = 0.98;
/// An error counts no more than this many usual ones.
const WIDEST: f64 = 5.0;
/// How fast the usual error follows.
const SHARE: f64 = 0.05;

/// What was said at one bin.
#[derive(Clone, Debug)]
struct Said {
    members: Vec<Option<f32>>,
    middles: Option<Middles>,
}

/// Two ways to say what the members say together.
#[derive(Clone, Copy, Debug)]
struct Middles {
    mean: f32,
    median: f32,
}

/// The weights of the members for one series.
#[derive(Clone, Debug)]
pub struct Hedge {
    ahead: usize,
    lost: Vec<f64>,
    /// What the mean and the median lost.
    middles_lost: [f64; 2],
    usual: f64,
    /// What was said when, until the truth is known.
    said: VecDeque<Said>,
}

impl Hedge {
    pub fn new(members: usize, ahead: usize) -> Hedge {
        Hedge {
            ahead,
            lost: vec![0.0; members],
            middles_lost: [0.0; 2],
            usual: 0.0,
            said: VecDeque::new(),
        }
    }

    /// The weights, which sum to one.
    pub fn weights(&self) -> Vec<f64> {
        let least = self.lost.iter().copied().fold(f64::INFINITY, f64::min);
        let raw = self.lost.iter().map(|lost| (-RATE * (lost - least)).exp());
        let raw: Vec<f64> = raw.collect();
        let all: f64 = raw.iter().sum();
        raw.iter().map(|weight| weight / all).collect()
    }

    /// What the members say together; `None` if none of them says anything.
    pub fn mix(&self, said: &[Option<f32>]) -> Option<f32> {
        let middles = self.middles(said)?;
        let [by_mean, by_median] = self.middles_lost;
        Some(match by_median < by_mean {
            true => middles.median,
            false => middles.mean,
        })
    }

    fn middles(&self, said: &[Option<f32>]) -> Option<Middles> {
        // A member that says nothing, or nonsense, is left out.
        let weighted = self.weights().into_iter().zip(said);
        let mut known: Vec<(f64, f64)> = weighted
            .filter_map(|(weight, said)| Some((f64::from((*said)?), weight)))
            .filter(|(said, _)| said.is_finite())
            .collect();
        known.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all: f64 = known.iter().map(|(_, weight)| weight).sum();
        if all <= 0.0 {
            return None;
        }
        let mean = known
            .iter()
            .map(|(said, weight)| said * weight)
            .sum::<f64>()
            / all;
        let mut below = 0.0;
        let middle = known.iter().find(|(_, weight)| {
            below += weight;
            below >= all / 2.0
        });
        let median = middle.map_or(mean, |(said, _)| *said);
        Some(Middles {
            mean: mean as f32,
            median: median as f32,
        })
    }

    /// Takes in the newest value, then what the members say now of the one that comes `ahead`.
    pub fn observe(&mut self, value: Option<f32>, members: Vec<Option<f32>>) {
        if self.said.len() == self.ahead {
            let then = self.said.pop_front();
            if let (Some(then), Some(value)) = (then, value) {
                self.learn(&then, value);
            }
        }
        let middles = self.middles(&members);
        self.said.push_back(Said { members, middles });
    }

    fn learn(&mut self, said: &Said, truth: f32) {
        let error = |said: &Option<f32>| {
            let said = said.filter(|said| said.is_finite())?;
            Some(f64::from((said - truth).abs()))
        };
        let errors: Vec<Option<f64>> = said.members.iter().map(error).collect();
        let mut known: Vec<f64> = errors.iter().copied().flatten().collect();
        if known.is_empty() {
            return;
        }
        known.sort_by(f64::total_cmp);
        let median = known[known.len() / 2];
        self.usual = match self.usual > 0.0 {
            true => self.usual + SHARE * (median - self.usual),
            false => median,
        };
        // Who said nothing did neither well nor badly.
        let loss = |error: f64| (error / self.usual.max(f64::MIN_POSITIVE)).min(WIDEST);
        let middle = loss(median);
        for (lost, error) in self.lost.iter_mut().zip(errors) {
            *lost = KEEP * *lost + error.map_or(middle, loss);
        }
        if let Some(Middles { mean, median }) = said.middles {
            for (lost, said) in self.middles_lost.iter_mut().zip([mean, median]) {
                *lost = KEEP * *lost + loss(f64::from((said - truth).abs()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_weight_goes_to_who_is_right_and_comes_back() {
        let mut hedge = Hedge::new(2, 1);
        let turn = |hedge: &mut Hedge, right: usize| {
            for step in 0..300 {
                let mut said = vec![Some(step as f32 + 1.0 + 10.0); 2];
                said[right] = Some(step as f32 + 1.1);
                hedge.observe(Some(step as f32), said);
            }
            hedge.weights()[right]
        };
        assert!(turn(&mut hedge, 0) > 0.95);
        assert!(turn(&mut hedge, 1) > 0.95, "it changed its mind");
    }

    #[test]
    fn who_says_nonsense_is_left_out() {
        let mut hedge = Hedge::new(3, 1);
        let said = vec![Some(f32::NAN), None, Some(3.0)];
        assert_eq!(hedge.mix(&said), Some(3.0));
        hedge.observe(Some(1.0), said.clone());
        hedge.observe(Some(3.0), said.clone());
        assert_eq!(hedge.mix(&said), Some(3.0));
        assert_eq!(hedge.mix(&[None, Some(f32::INFINITY), None]), None);
    }

    proptest! {
        #[test]
        fn the_mix_lies_between_what_was_said(
            rounds in prop::collection::vec(
                (prop::option::of(-1e6_f32..1e6), prop::collection::vec(
                    prop::option::of(-1e6_f32..1e6), 4)), 1..60),
            ahead in 1_usize..5,
        ) {
            let mut hedge = Hedge::new(4, ahead);
            for (value, said) in rounds {
                let sum: f64 = hedge.weights().iter().sum();
                prop_assert!((sum - 1.0).abs() < 1e-9);
                let known: Vec<f32> = said.iter().copied().flatten().collect();
                let mixed = hedge.mix(&said);
                prop_assert_eq!(mixed.is_some(), !known.is_empty());
                if let Some(mixed) = mixed {
                    let low = known.iter().copied().fold(f32::INFINITY, f32::min);
                    let high = known.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let slack = 1e-3 * (1.0 + high.abs().max(low.abs()));
                    prop_assert!((low - slack..=high + slack).contains(&mixed));
                }
                hedge.observe(value, said);
            }
        }
    }
}
