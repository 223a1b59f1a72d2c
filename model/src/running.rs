//! The running level and deviation of a series, in whose units everything else is said.
//!
//! A fixed mean and deviation, learned once, explode when a series changes its regime; these go
//! along. What is not a number is passed over.

/// Widest normalised value: one outlier must not drown what the models learned.
const WIDEST: f32 = 8.0;
/// Below this share of the level, or of one, a deviation is rounding.
const LEAST: f32 = 1e-3;

/// Level and mean absolute deviation, exponentially weighted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Running {
    /// Values that the weights reach back to.
    reach: f32,
    seen: f32,
    level: f32,
    deviation: f32,
}

impl Running {
    /// `reach`: how many values count; the first ones count alike.
    pub fn new(reach: usize) -> Running {
        Running {
            reach: (reach as f32).max(1.0),
            seen: 0.0,
            level: 0.0,
            deviation: 0.0,
        }
    }

    pub fn observe(&mut self, value: f32) {
        if !value.is_finite() {
            return;
        }
        self.seen = (self.seen + 1.0).min(self.reach);
        let share = 2.0 / (self.seen + 1.0);
        let off = value - self.level;
        // Of the first value there is no deviation yet.
        if self.seen > 1.0 {
            self.deviation += share * (off.abs() - self.deviation);
        }
        self.level += share * off;
    }

    pub fn level(&self) -> f32 {
        self.level
    }

    /// Never zero, so a constant series can be divided by it.
    pub fn deviation(&self) -> f32 {
        self.deviation.max(LEAST * self.level.abs().max(1.0))
    }

    /// `value` as deviations from the level, within ±8; 0 if it is not a number.
    pub fn normalise(&self, value: f32) -> f32 {
        let normal = (value - self.level) / self.deviation();
        if normal.is_nan() {
            return 0.0;
        }
        normal.clamp(-WIDEST, WIDEST)
    }

    /// The value that lies `normal` deviations off the level.
    pub fn restore(&self, normal: f32) -> f32 {
        self.level + normal * self.deviation()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_constant_series_is_at_its_level() {
        let mut running = Running::new(48);
        for _ in 0..100 {
            running.observe(7.0);
        }
        assert_eq!(running.level(), 7.0);
        assert_eq!(running.normalise(7.0), 0.0);
        assert!(running.deviation() > 0.0);
    }

    #[test]
    fn it_follows_a_regime_shift() {
        let mut running = Running::new(24);
        for step in 0..400 {
            let base = if step < 200 { 10.0 } else { 1000.0 };
            running.observe(base + (step % 3) as f32);
        }
        assert!((running.level() - 1001.0).abs() < 2.0, "{running:?}");
        assert!(running.deviation() < 5.0, "{running:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_what_comes_out_is_bounded(
            values in prop::collection::vec(prop::num::f32::ANY, 0..200),
            last in prop::num::f32::ANY,
        ) {
            let mut running = Running::new(24);
            for value in values {
                // Sums of extremes overflow in any arithmetic; rates and sizes are far smaller.
                running.observe(value.clamp(-1e30, 1e30));
                prop_assert!(running.deviation() > 0.0 && running.deviation().is_finite());
                let normal = running.normalise(last);
                prop_assert!((-WIDEST..=WIDEST).contains(&normal));
                prop_assert!(running.restore(normal).is_finite());
            }
        }
    }
}
