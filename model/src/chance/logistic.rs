//! Logistic regression, by Newton's method with a ridge.

use super::chance;

/// Rounds of Newton's method; it ends sooner when nothing changes.
const ROUNDS: usize = 15;
/// How strongly weights are drawn to zero, in examples.
const RIDGE: f64 = 2.0;
/// Odds beyond these are an accident of few examples.
const ODDS_MAX: f64 = 12.0;

/// A weight for each input, and a constant.
#[derive(Clone, PartialEq, Debug)]
pub struct Logistic {
    pub weights: Vec<f32>,
}

impl Logistic {
    /// Learns from `given`, `[examples][inputs]`, and whether it happened; NaN is passed over.
    pub fn learn(given: &[f32], inputs: usize, happened: &[f32]) -> Logistic {
        let width = inputs + 1;
        let mut weights = vec![0.0_f64; width];
        let examples: Vec<(&[f32], f64)> = given
            .chunks_exact(inputs.max(1))
            .zip(happened)
            .filter(|(row, label)| label.is_finite() && row.iter().all(|input| input.is_finite()))
            .map(|(row, label)| (row, f64::from(*label)))
            .collect();
        for _ in 0..ROUNDS {
            let (gradient, curvature) = slopes(&examples, &weights);
            let Some(step) = solve(curvature, gradient) else {
                break;
            };
            for (weight, step) in weights.iter_mut().zip(&step) {
                *weight -= step;
            }
            if step.iter().map(|step| step.abs()).sum::<f64>() < 1e-5 {
                break;
            }
        }
        Logistic {
            weights: weights.iter().map(|weight| *weight as f32).collect(),
        }
    }

    /// The logarithm of the odds.
    pub fn logit(&self, inputs: &[f32]) -> f32 {
        let sum: f32 = self.parts(inputs).sum();
        sum + self.weights.last().copied().unwrap_or(0.0)
    }

    /// What each input adds to the logarithm of the odds.
    pub fn parts(&self, inputs: &[f32]) -> impl Iterator<Item = f32> {
        self.weights
            .iter()
            .zip(inputs)
            .map(|(weight, input)| weight * input)
    }

    pub fn chance(&self, inputs: &[f32]) -> f32 {
        chance(self.logit(inputs))
    }
}

type Matrix = Vec<Vec<f64>>;

/// Gradient and curvature of the logarithmic loss at `weights`.
fn slopes(examples: &[(&[f32], f64)], weights: &[f64]) -> (Vec<f64>, Matrix) {
    let width = weights.len();
    let mut gradient: Vec<f64> = weights.iter().map(|weight| RIDGE * weight).collect();
    let mut curvature = vec![vec![0.0; width]; width];
    for (at, row) in curvature.iter_mut().enumerate() {
        row[at] = RIDGE;
    }
    // The constant is free: base rates are what they are.
    gradient[width - 1] = 0.0;
    curvature[width - 1][width - 1] = 1e-6;
    let mut row = vec![1.0; width];
    for (inputs, label) in examples {
        for (to, from) in row.iter_mut().zip(*inputs) {
            *to = f64::from(*from);
        }
        let odds: f64 = row
            .iter()
            .zip(weights)
            .map(|(input, weight)| input * weight)
            .sum();
        let p = 1.0 / (1.0 + (-odds.clamp(-ODDS_MAX, ODDS_MAX)).exp());
        let curve = p * (1.0 - p);
        for (at, input) in row.iter().enumerate() {
            gradient[at] += (p - label) * input;
            let scaled = curve * input;
            for (cell, other) in curvature[at].iter_mut().zip(&row).take(at + 1) {
                *cell += scaled * other;
            }
        }
    }
    for at in 0..width {
        let (above, below) = curvature.split_at_mut(at + 1);
        for (other, row) in below.iter().enumerate() {
            above[at][at + 1 + other] = row[at];
        }
    }
    (gradient, curvature)
}

/// Solves by elimination with pivots; `None` where there is no one solution.
fn solve(mut matrix: Matrix, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let width = right.len();
    for column in 0..width {
        let size = |row: &usize| matrix[*row][column].abs();
        let pivot = (column..width).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (done, rest) = matrix.split_at_mut(column + 1);
        let head = &done[column];
        for (below, row) in rest.iter_mut().enumerate() {
            let factor = row[column] / head[column];
            for (cell, of_head) in row.iter_mut().zip(head).skip(column) {
                *cell -= factor * of_head;
            }
            right[column + 1 + below] -= factor * right[column];
        }
    }
    let mut solution = vec![0.0; width];
    for row in (0..width).rev() {
        let known: f64 = (row + 1..width)
            .map(|at| matrix[row][at] * solution[at])
            .sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution
        .iter()
        .all(|part| part.is_finite())
        .then_some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn it_finds_the_weights_that_made_the_truth() {
        let mut random = Random::new(3);
        let (mut given, mut happened) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            let inputs = [
                random.unit() as f32 * 4.0 - 2.0,
                random.unit() as f32 * 4.0 - 2.0,
            ];
            let odds = 1.5 * inputs[0] - 0.5 * inputs[1] - 1.0;
            given.extend(inputs);
            happened.push(f32::from((random.unit() as f32) < chance(odds)));
        }
        let learned = Logistic::learn(&given, 2, &happened);
        for (weight, truth) in learned.weights.iter().zip([1.5, -0.5, -1.0]) {
            assert!((weight - truth).abs() < 0.1, "{learned:?}");
        }
        let parts: Vec<_> = learned.parts(&[2.0, 0.0]).collect();
        assert!((parts[0] - 3.0).abs() < 0.2 && parts[1] == 0.0);
    }

    #[test]
    fn nothing_and_one_side_alone_are_learned_without_harm() {
        let none = Logistic::learn(&[], 3, &[]);
        assert_eq!(none.chance(&[1.0; 3]), 0.5);
        let always = Logistic::learn(&[1.0; 300], 3, &[1.0; 100]);
        assert!(always.chance(&[1.0; 3]) > 0.9, "{always:?}");
        let odd = Logistic::learn(&[f32::NAN, 1.0], 1, &[1.0, f32::NAN]);
        assert!(odd.chance(&[1.0]).is_finite());
    }
}
