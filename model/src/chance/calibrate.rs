//! Calibration: of what is said to be likely by so much, that much has to happen.

use std::collections::VecDeque;

use super::chance;

/// Rounds of Newton's method; it ends sooner when nothing changes.
const ROUNDS: usize = 30;
/// Forecasts as many as these would speak for leaving everything as it was.
const PRIOR: f64 = 20.0;
/// As many speak for the calibration that came with what was learned.
const PRIOR_OF_LEARNED: f64 = 200.0;
/// Forecasts of an interval that are remembered; older ones were of another time.
const REMEMBERED: usize = 4_000;
/// A forecast tells less of the shift than of the scale: chances are small.
const OF_SHIFT: f64 = 0.1;
/// Scales beyond these are an accident of few examples.
const SCALES: std::ops::RangeInclusive<f64> = 0.1..=4.0;
const SHIFT_MAX: f64 = 4.0;

/// Odds are taken to a power, the inverse of a *temperature*, and multiplied.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Calibration {
    pub scale: f32,
    pub shift: f32,
}

impl Default for Calibration {
    fn default() -> Calibration {
        Calibration {
            scale: 1.0,
            shift: 0.0,
        }
    }
}

impl Calibration {
    /// Fits to what was said, as logits, and what then happened.
    pub fn fit<'a>(said: impl Iterator<Item = &'a (f32, bool)> + Clone) -> Calibration {
        Calibration::default().moved(PRIOR, said)
    }

    /// This one, as what was said and then happened moves it away from where it is, which weighs
    /// as much as `weight` forecasts.
    fn moved<'a>(
        self,
        weight: f64,
        said: impl Iterator<Item = &'a (f32, bool)> + Clone,
    ) -> Calibration {
        let begin = (f64::from(self.scale), f64::from(self.shift));
        let (mut scale, mut shift) = begin;
        for _ in 0..ROUNDS {
            // The gradient and the curvature of the logarithmic loss, and of the prior.
            let mut gs = weight * (scale - begin.0);
            let mut gt = OF_SHIFT * weight * (shift - begin.1);
            let (mut ss, mut st, mut tt) = (weight, 0.0, OF_SHIFT * weight);
            for (logit, happened) in said.clone().filter(|(logit, _)| logit.is_finite()) {
                let logit = f64::from(*logit);
                let p = 1.0 / (1.0 + (-(scale * logit + shift)).exp());
                let off = p - f64::from(u8::from(*happened));
                let curve = p * (1.0 - p);
                gs += off * logit;
                gt += off;
                ss += curve * logit * logit;
                st += curve * logit;
                tt += curve;
            }
            let determinant = ss * tt - st * st;
            if determinant <= f64::EPSILON {
                break;
            }
            let step = (tt * gs - st * gt) / determinant;
            let other = (ss * gt - st * gs) / determinant;
            scale = (scale - step).clamp(*SCALES.start(), *SCALES.end());
            shift = (shift - other).clamp(-SHIFT_MAX, SHIFT_MAX);
            if step.abs() + other.abs() < 1e-6 {
                break;
            }
        }
        Calibration {
            scale: scale as f32,
            shift: shift as f32,
        }
    }

    /// The chance of what is said as the logarithm of the odds.
    pub fn apply(&self, logit: f32) -> f32 {
        chance(self.scale * logit + self.shift)
    }
}

/// One forecast of an interval that can be judged now.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Judged {
    pub interval: usize,
    /// What was said before it was calibrated, as the logarithm of the odds.
    pub logit: f32,
    pub happened: bool,
}

/// Goes on calibrating by what became of forecasts.
#[derive(Clone, Debug, Default)]
pub struct Calibrator {
    said: Vec<VecDeque<(f32, bool)>>,
}

impl Calibrator {
    pub fn add(&mut self, judged: Judged) {
        if judged.interval >= self.said.len() {
            self.said.resize(judged.interval + 1, VecDeque::new());
        }
        let said = &mut self.said[judged.interval];
        if said.len() == REMEMBERED {
            said.pop_front();
        }
        said.push_back((judged.logit, judged.happened));
    }

    /// The calibrations that came with what was learned, as what is remembered moves them.
    pub fn fit(&self, learned: &[Calibration]) -> Vec<Calibration> {
        let fitted = learned.iter().enumerate().map(|(interval, calibration)| {
            let said = self.said.get(interval).into_iter().flatten();
            calibration.moved(PRIOR_OF_LEARNED, said)
        });
        fitted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn who_is_too_sure_is_taken_at_less_than_his_word() {
        let mut random = Random::new(5);
        let mut said = Vec::new();
        for _ in 0..20_000 {
            let truth = random.unit() as f32 * 4.0 - 2.0;
            let happened = (random.unit() as f32) < chance(truth);
            said.push((2.0 * truth + 1.0, happened));
        }
        let fitted = Calibration::fit(said.iter());
        assert!((fitted.scale - 0.5).abs() < 0.03, "{fitted:?}");
        assert!((fitted.shift + 0.5).abs() < 0.06, "{fitted:?}");
        assert!((fitted.apply(1.0) - 0.5).abs() < 0.02);
    }

    #[test]
    fn of_little_little_is_concluded() {
        assert_eq!(Calibration::fit([].iter()), Calibration::default());
        let few = Calibration::fit([(3.0, false), (f32::NAN, true)].iter());
        assert!((0.8..=1.0).contains(&few.scale), "{few:?}");
        let same = Calibration::fit([(1e30, true); 1000].iter());
        assert!(same.scale.is_finite() && same.shift.is_finite());
    }

    #[test]
    fn what_becomes_of_forecasts_goes_on_calibrating() {
        let learned = [Calibration::default(); 2];
        let mut calibrator = Calibrator::default();
        assert_eq!(calibrator.fit(&learned), learned);
        for turn in 0..10_000 {
            let (interval, logit) = (1, 0.0);
            let happened = turn % 10 == 0;
            calibrator.add(Judged {
                interval,
                logit,
                happened,
            });
        }
        let fitted = calibrator.fit(&learned);
        assert_eq!(fitted[0], learned[0]);
        assert!((fitted[1].apply(0.0) - 0.1).abs() < 0.02, "{fitted:?}");
    }
}
