//! Random choices that one number repeats.

/// A sequence that follows from its seed (SplitMix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From `FORESHADOW_SEED`, else 1; says how to repeat `test`.
    pub fn new(test: &str) -> Dice {
        let seed = number("FORESHADOW_SEED", 1);
        let rounds = std::env::var("FORESHADOW_ROUNDS");
        let rounds = rounds.map_or(String::new(), |text| format!("FORESHADOW_ROUNDS={text} "));
        println!(
            "replay: FORESHADOW_SEED={seed} {rounds}cargo test -p foreshadow --test crash {test}"
        );
        Dice(seed)
    }

    /// A sequence of its own, for one part of a run.
    #[cfg(feature = "failpoints")]
    pub fn of(seed: u64) -> Dice {
        Dice(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}
