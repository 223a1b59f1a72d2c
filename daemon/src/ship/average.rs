//! A running average of delays, with their mean deviation.
//!
//! A new sample weighs one eighth, as TCP weighs its round trip (RFC 6298, section 2).

use wal::Span;

/// A running average with its mean deviation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Average {
    mean: u64,
    deviation: u64,
    samples: u32,
}

impl Average {
    pub fn add(&mut self, sample: Span) {
        if self.samples == 0 {
            self.mean = sample.0;
            self.deviation = sample.0 / 2;
        } else {
            let error = sample.0.abs_diff(self.mean);
            self.deviation = self.deviation - self.deviation / 4 + error / 4;
            self.mean = self.mean - self.mean / 8 + sample.0 / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// Mean plus deviation; `unknown` before the first sample.
    pub fn cautious(&self, unknown: Span) -> Span {
        if self.samples == 0 {
            unknown
        } else {
            Span(self.mean + self.deviation)
        }
    }

    pub fn mean(&self) -> Option<Span> {
        (self.samples > 0).then_some(Span(self.mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_its_samples_and_fears_jitter() {
        let mut steady = Average::default();
        let mut jittery = Average::default();
        for n in 0..100 {
            steady.add(Span::millis(10));
            jittery.add(Span::millis(if n % 2 == 0 { 1 } else { 19 }));
        }
        assert!(steady.cautious(Span::ZERO) < Span::millis(11));
        assert!(jittery.cautious(Span::ZERO) > Span::millis(15));
    }
}
