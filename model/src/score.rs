//! Scores: how good forecasts were, of values and of chances.

/// Mean absolute errors of some forecasters on the same bins of one series.
#[derive(Clone, Debug)]
pub struct Errors {
    sums: Vec<f64>,
    count: u64,
}

/// What an error is of the largest one, if it is no error but a rounding.
const NO_ERROR: f64 = 1e-6;

impl Errors {
    pub fn new(forecasters: usize) -> Errors {
        Errors {
            sums: vec![0.0; forecasters],
            count: 0,
        }
    }

    /// One bin; of every forecaster, or it does not count.
    pub fn add(&mut self, said: &[f32], truth: f32) {
        let all = said.iter().chain([&truth]);
        if said.len() != self.sums.len() || !all.clone().all(|value| value.is_finite()) {
            return;
        }
        for (sum, said) in self.sums.iter_mut().zip(said) {
            *sum += f64::from((said - truth).abs());
        }
        self.count += 1;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn mean(&self, forecaster: usize) -> f64 {
        self.sums[forecaster] / self.count.max(1) as f64
    }

    /// 1 − error / error of the reference: 1 is perfect, 0 no better, below 0 worse. Of a series
    /// that the reference foretells with no error, or none to speak of beside those of others: 0
    /// for who does so too, else −1.
    pub fn skill(&self, forecaster: usize, reference: usize) -> f64 {
        let (own, other) = (self.sums[forecaster], self.sums[reference]);
        let largest = self.sums.iter().copied().fold(0.0, f64::max);
        let none = NO_ERROR * largest;
        match (own <= none, other <= none) {
            (true, true) => 0.0,
            (false, true) => -1.0,
            _ => 1.0 - own / other,
        }
    }
}

/// Median, mean and worst over series, and on how many of them it was above 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Summary {
    pub median: f64,
    pub mean: f64,
    pub worst: f64,
    pub share_won: f64,
}

impl Summary {
    /// `None` of nothing.
    pub fn of(skills: &[f64]) -> Option<Summary> {
        let mut sorted: Vec<f64> = skills.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, count) = (*sorted.first()?, sorted.len());
        let upper = sorted[count / 2];
        let lower = sorted[(count - 1) / 2];
        let won = sorted.iter().filter(|skill| **skill > 0.0).count();
        Some(Summary {
            median: (lower + upper) / 2.0,
            mean: sorted.iter().sum::<f64>() / count as f64,
            worst: first,
            share_won: won as f64 / count as f64,
        })
    }
}

/// Chances that were said, and what happened.
#[derive(Clone, Default, Debug)]
pub struct Chances(Vec<(f32, bool)>);

/// Bins of the calibration error, with equally many forecasts in each.
const BINS: usize = 15;

impl Chances {
    /// A chance that is not one does not count.
    pub fn add(&mut self, chance: f32, happened: bool) {
        if (0.0..=1.0).contains(&chance) {
            self.0.push((chance, happened));
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often it happened.
    pub fn rate(&self) -> f64 {
        let happened = self.0.iter().filter(|(_, happened)| *happened).count();
        happened as f64 / self.len().max(1) as f64
    }

    /// Mean squared difference between chance and what happened, 0 is perfect.
    pub fn brier(&self) -> f64 {
        let squares = self.0.iter().map(|(chance, happened)| {
            let off = f64::from(*chance) - f64::from(u8::from(*happened));
            off * off
        });
        squares.sum::<f64>() / self.len().max(1) as f64
    }

    /// Brier skill against always saying `rate`.
    pub fn brier_skill(&self, rate: f64) -> f64 {
        let own = self.rate();
        let reference = own * (1.0 - rate) * (1.0 - rate) + (1.0 - own) * rate * rate;
        if reference == 0.0 {
            return if self.brier() == 0.0 { 0.0 } else { -1.0 };
        }
        1.0 - self.brier() / reference
    }

    /// Expected calibration error: the mean distance between what was said and how often it
    /// happened, in bins of equally many forecasts.
    pub fn calibration_error(&self) -> f64 {
        let bins = self.reliability();
        let all = self.len().max(1) as f64;
        let off = |bin: &Bin| bin.count as f64 / all * (bin.said - bin.happened).abs();
        bins.iter().map(off).sum()
    }

    /// What was said and how often it happened, bin by bin. Equal chances are one bin: a cut
    /// between them would measure their order.
    pub fn reliability(&self) -> Vec<Bin> {
        let mut sorted = self.0.clone();
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        let least = sorted.len().div_ceil(BINS).max(1);
        let mut bins: Vec<Bin> = Vec::new();
        let mut begin = 0;
        while begin < sorted.len() {
            let mut end = (begin + least).min(sorted.len());
            while end < sorted.len() && sorted[end].0 == sorted[end - 1].0 {
                end += 1;
            }
            let part = &sorted[begin..end];
            let count = part.len();
            let said = part.iter().map(|(said, _)| f64::from(*said)).sum::<f64>();
            let happened = part.iter().filter(|(_, happened)| *happened).count();
            bins.push(Bin {
                count,
                said: said / count as f64,
                happened: happened as f64 / count as f64,
            });
            begin = end;
        }
        bins
    }

    /// The chance that of two, one of which happened, the one that did was said to be likelier;
    /// `None` if all or none happened.
    pub fn area_under_curve(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (mut ranks, mut happened, mut begin) = (0.0, 0_u64, 0);
        while begin < sorted.len() {
            let chance = sorted[begin].0;
            let tied = sorted[begin..].iter().take_while(|(c, _)| *c == chance);
            let count = tied.count();
            let with = sorted[begin..begin + count].iter().filter(|(_, h)| *h);
            let with = with.count() as u64;
            // The middle of the ranks that they share.
            ranks += with as f64 * (begin as f64 + (count as f64 + 1.0) / 2.0);
            happened += with;
            begin += count;
        }
        let without = sorted.len() as u64 - happened;
        if happened == 0 || without == 0 {
            return None;
        }
        let (with, without) = (happened as f64, without as f64);
        Some((ranks - with * (with + 1.0) / 2.0) / (with * without))
    }

    /// Of the `share` that were said to be likeliest, how many happened.
    pub fn precision_at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(|one, other| other.0.total_cmp(&one.0));
        let count = (sorted.len() as f64 * share).ceil() as usize;
        let taken = &sorted[..count.min(sorted.len())];
        let right = taken.iter().filter(|(_, happened)| *happened).count();
        right as f64 / taken.len().max(1) as f64
    }
}

/// Forecasts of about the same chance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bin {
    pub count: usize,
    /// Mean chance.
    pub said: f64,
    /// How often it happened.
    pub happened: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chances(all: &[(f32, bool)]) -> Chances {
        let mut chances = Chances::default();
        for (chance, happened) in all {
            chances.add(*chance, *happened);
        }
        chances
    }

    #[test]
    fn skill_is_against_the_reference() {
        let mut errors = Errors::new(2);
        errors.add(&[1.0, 4.0], 0.0);
        errors.add(&[f32::NAN, 4.0], 0.0);
        errors.add(&[1.0, 4.0], f32::NAN);
        assert_eq!(errors.count(), 1);
        assert_eq!(errors.skill(0, 1), 0.75);
        assert_eq!(errors.skill(1, 0), -3.0);
        let mut constant = Errors::new(2);
        constant.add(&[5.0, 5.0], 5.0);
        assert_eq!(constant.skill(0, 1), 0.0);
    }

    #[test]
    fn a_summary_says_the_worst_too() {
        let summary = Summary::of(&[0.5, -1.0, 0.1, 0.3]).expect("some");
        assert!((summary.median - 0.2).abs() < 1e-12);
        assert_eq!((summary.worst, summary.share_won), (-1.0, 0.75));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_perfect_oracle_has_perfect_scores() {
        let oracle = chances(&[(0.0, false), (1.0, true), (0.0, false), (1.0, true)]);
        assert_eq!(oracle.brier(), 0.0);
        assert_eq!(oracle.brier_skill(0.5), 1.0);
        assert_eq!(oracle.calibration_error(), 0.0);
        assert_eq!(oracle.area_under_curve(), Some(1.0));
        assert_eq!(oracle.precision_at(0.5), 1.0);
    }

    #[test]
    fn who_knows_nothing_has_no_skill_and_half_the_area() {
        let ignorant = chances(&[(0.25, true), (0.25, false), (0.25, false), (0.25, false)]);
        assert!(ignorant.brier_skill(0.25).abs() < 1e-12);
        assert_eq!(ignorant.area_under_curve(), Some(0.5));
        assert!(ignorant.calibration_error() < 1e-9);
    }

    #[test]
    fn who_is_too_sure_is_told_by_the_calibration_error() {
        let sure: Vec<_> = (0..1000).map(|n| (0.9, n % 2 == 0)).collect();
        let off = chances(&sure).calibration_error();
        assert!((off - 0.4).abs() < 1e-6, "{off}");
    }

    #[test]
    fn what_is_no_chance_does_not_count() {
        let none = chances(&[(f32::NAN, true), (-0.1, true), (1.1, false)]);
        assert!(none.is_empty());
        assert_eq!(none.area_under_curve(), None);
        assert_eq!((none.brier(), none.calibration_error()), (0.0, 0.0));
    }
}
