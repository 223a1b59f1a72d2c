//! One step of a recurrent layer for many items at once: inference. Training is elsewhere
//! ([`crate::lstm`]); tests hold the two, burn's own layer and PyTorch's equal
//! (`model/src/fixture.rs`).
//!
//! A state means something only to the weights that made it. So it carries their version, and to
//! other weights it is as before the first step: after a change of weights forecasts begin anew
//! and are never wrong for being half of one model and half of another. Who can replay the past
//! asks [`Cell::knows`] first.

mod kernel;
mod tanh;
mod weights;

use pulp::{Arch, Simd, WithSimd};

use kernel::Step;
pub use weights::{Kind, Unfit, Version, Weights};

/// Lanes that hidden sizes are multiples of, whatever the processor has.
const UNIT: usize = 16;

impl Kind {
    /// Numbers an item that an LSTM keeps in its cell, and an RNN does not.
    const fn cell(self, hidden: usize) -> usize {
        match self {
            Kind::Lstm => hidden,
            Kind::Rnn => 0,
        }
    }
}

/// Weights, laid out for this processor.
#[derive(Clone, Debug)]
pub struct Cell {
    arch: Arch,
    version: Version,
    kind: Kind,
    inputs: usize,
    hidden: usize,
    outputs: usize,
    /// `[hidden / lanes][inputs + hidden][gates][lanes]`
    packed: Vec<f32>,
    /// `[hidden / lanes][gates][lanes]`
    bias: Vec<f32>,
    /// `[outputs][hidden]`
    head: Vec<f32>,
    head_bias: Vec<f32>,
}

/// The state of many items, `[items][hidden]` each, and whose it is.
#[derive(Clone, PartialEq, Debug)]
pub struct States {
    pub hidden: Vec<f32>,
    /// Empty for an RNN.
    pub cell: Vec<f32>,
    of: Option<Version>,
}

impl States {
    /// As before the first step of an LSTM; [`Cell::begin`] is for any kind.
    pub fn new(items: usize, hidden: usize) -> States {
        States {
            hidden: vec![0.0; items * hidden],
            cell: vec![0.0; items * hidden],
            of: None,
        }
    }

    /// The weights that made it; none before the first step.
    pub fn version(&self) -> Option<Version> {
        self.of
    }
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

impl Cell {
    pub fn new(weights: &Weights) -> Result<Cell, Unfit> {
        Cell::on(Arch::new(), weights)
    }

    fn on(arch: Arch, weights: &Weights) -> Result<Cell, Unfit> {
        weights.check()?;
        let lanes = arch.dispatch(Lanes);
        let (inputs, hidden, outputs) = (weights.inputs, weights.hidden, weights.outputs);
        let gates = weights.kind.gates();
        let row = |gate: usize, unit: usize| gate * hidden + unit;
        let mut packed = Vec::with_capacity(hidden * (inputs + hidden) * gates);
        let mut bias = Vec::with_capacity(hidden * gates);
        for block in (0..hidden).step_by(lanes) {
            let units = || block..block + lanes;
            for input in 0..inputs {
                for gate in 0..gates {
                    let at = |unit| weights.of_input[row(gate, unit) * inputs + input];
                    packed.extend(units().map(at));
                }
            }
            for state in 0..hidden {
                for gate in 0..gates {
                    let at = |unit| weights.of_state[row(gate, unit) * hidden + state];
                    packed.extend(units().map(at));
                }
            }
            for gate in 0..gates {
                bias.extend(units().map(|unit| weights.bias[row(gate, unit)]));
            }
        }
        Ok(Cell {
            arch,
            version: weights.version(),
            kind: weights.kind,
            inputs,
            hidden,
            outputs,
            packed,
            bias,
            head: weights.head.clone(),
            head_bias: weights.head_bias.clone(),
        })
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn hidden(&self) -> usize {
        self.hidden
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Of the weights that it was made from.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The state of `items` as before the first step.
    pub fn begin(&self, items: usize) -> States {
        States {
            hidden: vec![0.0; items * self.hidden],
            cell: vec![0.0; items * self.kind.cell(self.hidden)],
            of: None,
        }
    }

    /// Whether `states` is of these weights, or of none yet. If not, the next step begins anew.
    pub fn knows(&self, states: &States) -> bool {
        states.of.is_none_or(|of| of == self.version)
    }

    /// One step for as many items as `states` holds; `inputs` is `[items][inputs]`. A state that
    /// other weights made is emptied first.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn step(&self, inputs: &[f32], states: &mut States) {
        let items = states.hidden.len() / self.hidden;
        assert_eq!(states.hidden.len(), items * self.hidden, "whole items");
        assert!(
            states.cell.len() >= items * self.kind.cell(self.hidden),
            "state of the same items"
        );
        assert_eq!(
            inputs.len(),
            items * self.inputs,
            "inputs of the same items"
        );
        if !self.knows(states) {
            states.hidden.fill(0.0);
            states.cell.fill(0.0);
        }
        states.of = Some(self.version);
        let step = Step {
            of: self,
            inputs,
            states,
        };
        self.arch.dispatch(step);
    }

    /// What the head says of each item, `[items][outputs]`, into `said`. A state that other weights
    /// made counts as empty, as it does for a step.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn say(&self, states: &States, said: &mut [f32]) {
        let items = states.hidden.len() / self.hidden;
        assert_eq!(
            said.len(),
            items * self.outputs,
            "outputs of the same items"
        );
        let known = self.knows(states);
        let rows = states.hidden.chunks_exact(self.hidden);
        for (said, state) in said.chunks_exact_mut(self.outputs.max(1)).zip(rows) {
            said.copy_from_slice(&self.head_bias);
            if !known {
                continue;
            }
            for (said, weights) in said.iter_mut().zip(self.head.chunks_exact(self.hidden)) {
                *said += dot(weights, state);
            }
        }
    }
}

/// The sum of products, in as many sums as the compiler can keep side by side: sizes are multiples
/// of [`UNIT`].
fn dot(weights: &[f32], state: &[f32]) -> f32 {
    let mut sums = [0.0; UNIT];
    let units = weights.chunks_exact(UNIT).zip(state.chunks_exact(UNIT));
    for (weights, state) in units {
        for (sum, (weight, state)) in sums.iter_mut().zip(weights.iter().zip(state)) {
            *sum += weight * state;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lstm::fresh_of;
    use crate::random::Random;

    /// The equations, one number after the other, in double precision.
    fn plain(weights: &Weights, given: &[f32], state: &mut [f64], cell: &mut [f64]) {
        let (inputs, hidden) = (weights.inputs, weights.hidden);
        let sum = |row: usize, state: &[f64]| {
            let of_input = weights.of_input[row * inputs..][..inputs].iter().zip(given);
            let of_state = weights.of_state[row * hidden..][..hidden].iter().zip(state);
            let one: f64 = of_input.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let other: f64 = of_state.map(|(w, h)| f64::from(*w) * h).sum();
            one + other + f64::from(weights.bias[row])
        };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let before = state.to_vec();
        for unit in 0..hidden {
            let gate = |gate: usize| sum(gate * hidden + unit, &before);
            if weights.kind == Kind::Rnn {
                state[unit] = gate(0).tanh();
                continue;
            }
            let fresh = sigmoid(gate(0)) * gate(2).tanh();
            cell[unit] = sigmoid(gate(1)) * cell[unit] + fresh;
            state[unit] = sigmoid(gate(3)) * cell[unit].tanh();
        }
    }

    fn doubled(hidden: usize) -> Weights {
        doubled_of(Kind::Lstm, hidden)
    }

    fn doubled_of(kind: Kind, hidden: usize) -> Weights {
        let mut weights = fresh_of(kind, 12, hidden, 3, 5);
        // So that gates saturate.
        let all = [&mut weights.of_input, &mut weights.of_state];
        all.into_iter().flatten().for_each(|weight| *weight *= 2.0);
        weights
    }

    /// Every width of vectors that this processor has.
    fn arches() -> Vec<Arch> {
        let mut all = vec![Arch::new(), Arch::Scalar];
        #[cfg(target_arch = "x86_64")]
        all.extend(pulp::x86::V3::try_new().map(Arch::V3));
        all
    }

    #[test]
    fn many_items_and_steps_are_as_the_equations_say() {
        let sizes = [(16, 1), (32, 5), (32, 6), (32, 257), (64, 13)];
        let kinds = [Kind::Lstm, Kind::Rnn].into_iter();
        for (kind, (hidden, items)) in kinds.flat_map(|kind| sizes.map(|size| (kind, size))) {
            let weights = doubled_of(kind, hidden);
            for arch in arches() {
                let cell = Cell::on(arch, &weights).expect("fit");
                let mut random = Random::new(9);
                let mut states = States::new(items, hidden);
                let mut expected = vec![(vec![0.0; hidden], vec![0.0; hidden]); items];
                for _ in 0..32 {
                    let draw = |_| random.unit() as f32 * 16.0 - 8.0;
                    let given: Vec<f32> = (0..items * 12).map(draw).collect();
                    cell.step(&given, &mut states);
                    for (item, (state, own)) in expected.iter_mut().enumerate() {
                        plain(&weights, &given[item * 12..][..12], state, own);
                    }
                }
                for (item, (state, own)) in expected.iter().enumerate() {
                    for unit in 0..hidden {
                        let at = item * hidden + unit;
                        let off = f64::from(states.hidden[at]) - state[unit];
                        assert!(off.abs() < 2e-6, "state {off} at {item}, {unit}, {arch:?}");
                        let off = f64::from(states.cell[at]) - own[unit];
                        assert!(off.abs() < 1e-5, "cell {off} at {item}, {unit}, {arch:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_head_says_a_weighted_sum() {
        let weights = doubled(16);
        let cell = Cell::new(&weights).expect("fit");
        let mut states = States::new(2, 16);
        states.hidden[16..].fill(0.5);
        let mut said = [0.0; 6];
        cell.say(&states, &mut said);
        assert_eq!(said[..3], weights.head_bias);
        let sum: f32 = weights.head[16..32].iter().map(|weight| weight * 0.5).sum();
        assert!((said[4] - sum - weights.head_bias[1]).abs() < 1e-6);
    }

    #[test]
    fn to_other_weights_a_state_is_as_before_the_first_step() {
        let mut other = doubled(16);
        other.head[0] += 1e-3;
        let (cell, other) = (Cell::new(&doubled(16)), Cell::new(&other));
        let (cell, other) = (cell.expect("fit"), other.expect("fit"));
        let given = [0.5; 24];
        let mut states = States::new(2, 16);
        assert!(states.version().is_none() && cell.knows(&states) && other.knows(&states));
        cell.step(&given, &mut states);
        let once = states.clone();
        assert_eq!(states.version(), Some(cell.version()));
        assert!(cell.knows(&states) && !other.knows(&states));
        let mut said = [9.0; 6];
        other.say(&states, &mut said);
        assert_eq!([&said[..3], &said[3..]], [&other.head_bias[..]; 2]);
        // Their layers are equal, so only an emptied state gives the same numbers again.
        other.step(&given, &mut states);
        assert_eq!(states.hidden, once.hidden);
        assert_eq!(states.cell, once.cell);
        assert_eq!(states.version(), Some(other.version()));
        other.step(&given, &mut states);
        assert_ne!(states.hidden, once.hidden, "its own state is gone on from");
    }

    #[test]
    fn an_rnn_begins_without_a_cell_and_takes_a_state_that_has_one() {
        let weights = fresh_of(Kind::Rnn, 12, 32, 3, 5);
        let cell = Cell::new(&weights).expect("fit");
        let (mut lean, mut fat) = (cell.begin(29), States::new(29, 32));
        let given: Vec<f32> = (0..29 * 12).map(|at| at as f32 / 100.0 - 2.0).collect();
        for _ in 0..3 {
            cell.step(&given, &mut lean);
            cell.step(&given, &mut fat);
        }
        assert!(lean.cell.is_empty());
        assert_eq!(lean.hidden, fat.hidden);
    }
}
