//! A linear forecaster that learns as it goes: recursive least squares on the normalised inputs.

use std::collections::VecDeque;

use super::Forecaster;
use crate::track::{INPUTS, Track};

/// Inputs and a constant.
const WIDTH: usize = INPUTS + 1;
/// How much an observation counts after each later one.
const KEEP: f64 = 0.999;
/// How uncertain the weights are at first.
const UNCERTAIN: f64 = 1.0;
/// An error counts no more than this many deviations, so that one spike does not bend the weights.
const WIDEST: f64 = 3.0;
/// Observations before it says anything.
const LEAST: u32 = 2 * WIDTH as u32;

type Row = [f64; WIDTH];

/// Weights and their uncertainty.
#[derive(Clone, Debug)]
pub struct Linear {
    ahead: usize,
    weights: Row,
    uncertainty: Box<[Row; WIDTH]>,
    /// What was given when, with the level and deviation of then, until the truth is known.
    asked: VecDeque<(Row, f32, f32)>,
    learned: u32,
}

impl Linear {
    pub fn new(ahead: usize) -> Linear {
        let mut uncertainty = Box::new([[0.0; WIDTH]; WIDTH]);
        for (index, row) in uncertainty.iter_mut().enumerate() {
            row[index] = UNCERTAIN;
        }
        let mut weights = [0.0; WIDTH];
        // At first it says what is now.
        weights[0] = 1.0;
        Linear {
            ahead,
            weights,
            uncertainty,
            asked: VecDeque::new(),
            learned: 0,
        }
    }

    fn learn(&mut self, inputs: &Row, truth: f64) {
        let spread = self.uncertainty.map(|row| dot(&row, inputs));
        let all = KEEP + dot(inputs, &spread);
        let error = (truth - dot(&self.weights, inputs)).clamp(-WIDEST, WIDEST);
        let gain = spread.map(|part| part / all);
        for (weight, gain) in self.weights.iter_mut().zip(&gain) {
            *weight += gain * error;
        }
        // Symmetric, term by term, so it can't drift apart by rounding.
        for (row, gain) in self.uncertainty.iter_mut().zip(&spread) {
            for (cell, spread) in row.iter_mut().zip(&spread) {
                let less = (*cell - gain * spread / all) / KEEP;
                // Inputs that never vary would let it grow without bound.
                *cell = less.clamp(-100.0, 100.0);
            }
        }
        self.learned = self.learned.saturating_add(1);
    }
}

fn dot(one: &Row, other: &Row) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

fn row(inputs: [f32; INPUTS]) -> Row {
    let mut row = [1.0; WIDTH];
    for (to, from) in row.iter_mut().zip(inputs) {
        *to = f64::from(from);
    }
    row
}

impl Forecaster for Linear {
    fn observe(&mut self, track: &Track) {
        if self.asked.len() == self.ahead {
            let asked = self.asked.pop_front();
            let truth = track.history().back(0);
            if let (Some((inputs, level, deviation)), Some(truth)) = (asked, truth) {
                let normal = ((truth - level) / deviation).clamp(-8.0, 8.0);
                self.learn(&inputs, f64::from(normal));
            }
        }
        let running = track.running();
        let inputs = row(track.inputs(self.ahead));
        self.asked
            .push_back((inputs, running.level(), running.deviation()));
    }

    fn forecast(&self, track: &Track) -> Option<f32> {
        let (inputs, ..) = self.asked.back()?;
        let normal = dot(&self.weights, inputs).clamp(-8.0, 8.0) as f32;
        (self.learned >= LEAST).then(|| track.running().restore(normal))
    }

    fn boxed(&self) -> Box<dyn Forecaster> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Grid;

    #[test]
    fn it_learns_what_follows_from_the_value_before() {
        let (grid, ahead) = (Grid::daily(3600), 1);
        let (mut track, mut linear) = (Track::new(grid, 0), Linear::new(ahead));
        let mut value = 1.0_f32;
        let (mut own, mut last) = (0.0, 0.0);
        for step in 0..2000 {
            // A map that is hard on "as it is now" and easy on anything that learns.
            value = -0.9 * value + ((step * 7919) % 13) as f32 / 13.0;
            if step > 500 {
                let said = linear.forecast(&track).expect("it learned");
                own += (said - value).abs();
                last += (track.history().back(0).expect("a value") - value).abs();
            }
            track.push(value);
            linear.observe(&track);
        }
        assert!(own < 0.5 * last, "{own} of {last}");
    }
}
