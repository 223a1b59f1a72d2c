//! Whether inputs still lie where they lay when the model learned: the population stability index
//! of each input over the tenths of then.

/// Tenths.
const PARTS: usize = 10;
/// A tenth in which nothing lies counts as this share, so that no logarithm is infinite.
const LEAST: f64 = 1e-3;
/// An index above this is a different population; the usual rule of thumb.
pub const DRIFTED: f64 = 0.25;
/// Rows before an index means anything.
pub const ROWS_MIN: u64 = 1_000;

/// Where the rows of inputs lay that were learned from.
#[derive(Clone, PartialEq, Debug)]
pub struct Edges {
    /// The inner edges of the tenths of each input, `[inputs][9]`, ascending.
    pub edges: Vec<[f32; PARTS - 1]>,
    /// What share of the rows lay in each part: equal values lie in one, so not always a tenth.
    pub shares: Vec<[f32; PARTS]>,
}

impl Edges {
    /// Of rows of inputs, all of one width.
    pub fn of<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone) -> Edges {
        let width = rows.clone().next().map_or(0, <[f32]>::len);
        let edges = |input: usize| {
            let mut all: Vec<f32> = rows.clone().map(|row| row[input]).collect();
            all.sort_by(f32::total_cmp);
            std::array::from_fn(|part| all[(part + 1) * (all.len() - 1) / PARTS])
        };
        let edges: Vec<[f32; PARTS - 1]> = (0..width).map(edges).collect();
        let mut counts = vec![[0_u64; PARTS]; width];
        let mut count = 0;
        for row in rows {
            count += 1;
            add(&mut counts, &edges, row);
        }
        let share = |count_of: u64| count_of as f32 / count.max(1) as f32;
        let shares = counts.iter().map(|counts| counts.map(share)).collect();
        Edges { edges, shares }
    }
}

fn add(counts: &mut [[u64; PARTS]], edges: &[[f32; PARTS - 1]], row: &[f32]) {
    for ((counts, edges), input) in counts.iter_mut().zip(edges).zip(row) {
        counts[edges.partition_point(|edge| edge < input)] += 1;
    }
}

/// Counts of the rows that were seen since.
#[derive(Clone, Debug)]
pub struct Drift {
    edges: Edges,
    counts: Vec<[u64; PARTS]>,
    rows: u64,
}

impl Drift {
    pub fn new(edges: Edges) -> Drift {
        Drift {
            counts: vec![[0; PARTS]; edges.edges.len()],
            edges,
            rows: 0,
        }
    }

    pub fn add(&mut self, row: &[f32]) {
        self.rows += 1;
        add(&mut self.counts, &self.edges.edges, row);
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The input that moved most, and its index; `None` while too little was seen.
    pub fn most(&self) -> Option<(usize, f64)> {
        if self.rows < ROWS_MIN {
            return None;
        }
        let indices = (0..self.counts.len()).map(|input| (input, self.index(input)));
        indices.max_by(|one, other| one.1.total_cmp(&other.1))
    }

    fn index(&self, input: usize) -> f64 {
        let parts = self.counts[input].iter().zip(&self.edges.shares[input]);
        let index = parts.map(|(count, expected)| {
            let found = (*count as f64 / self.rows as f64).max(LEAST);
            let expected = f64::from(*expected).max(LEAST);
            (found - expected) * (found / expected).ln()
        });
        index.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn rows(shift: f32, seed: u64) -> Vec<Vec<f32>> {
        let mut random = Random::new(seed);
        let mut row = || vec![random.unit() as f32 + shift, 1.0, random.unit() as f32];
        (0..5_000).map(|_| row()).collect()
    }

    fn seen(shift: f32) -> (usize, f64) {
        let then = rows(0.0, 1);
        let mut drift = Drift::new(Edges::of(then.iter().map(Vec::as_slice)));
        for row in rows(shift, 2) {
            drift.add(&row);
        }
        drift.most().expect("enough rows")
    }

    #[test]
    fn what_stays_has_not_drifted_and_what_moves_has() {
        assert!(seen(0.0).1 < 0.05, "{:?}", seen(0.0));
        let (input, index) = seen(0.5);
        assert!(input == 0 && index > DRIFTED, "{input}: {index}");
    }

    #[test]
    fn of_little_nothing_is_said() {
        let none = Edges::of(std::iter::empty());
        let mut drift = Drift::new(none);
        assert_eq!(drift.most(), None);
        drift.add(&[f32::NAN]);
        assert_eq!(drift.rows(), 1);
    }
}
