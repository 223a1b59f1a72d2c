//! The demo's own random numbers: equal seeds give equal loads on every machine.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain, good enough for arrival times
//! and choices, and small enough that the Python writers could use the same if they ever must.

/// A seeded sequence of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A sequence of its own for `stream`, independent of the draws made here.
    pub fn fork(&self, stream: u64) -> Random {
        let mut random = Random(self.0 ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        Random(random.draw())
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no member");
        self.draw() % bound
    }

    /// Evenly in `(0, 1]`.
    pub fn unit(&mut self) -> f64 {
        ((self.draw() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Seconds until the next of events that come `rate` times a second (a Poisson process).
    pub fn wait(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }
}

/// Shares of `count` members by Zipf's law with this exponent, the largest first; they sum to 1.
pub fn zipf_shares(count: usize, exponent: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=count)
        .map(|rank| (rank as f64).powf(-exponent))
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        assert!((0..100).all(|_| a.draw() == b.draw()));
        assert_ne!(Random::new(7).fork(1).draw(), Random::new(7).fork(2).draw());
    }

    #[test]
    fn arrivals_come_at_the_asked_rate() {
        let mut random = Random::new(1);
        let sum: f64 = (0..20_000).map(|_| random.wait(50.0)).sum();
        assert!(
            (sum - 400.0).abs() < 12.0,
            "20,000 arrivals at 50/s took {sum} s"
        );
    }

    #[test]
    fn zipf_is_skewed_and_whole() {
        let shares = zipf_shares(24, 1.2);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(shares[0] > 10.0 * shares[23]);
    }
}
