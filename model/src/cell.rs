//! One step of an LSTM for many items at once: the inference kernel.
//!
//! Items are taken a few at a time, hidden units a vector at a time; the four gates of a tile stay
//! in registers from the first product to the new state. Training is elsewhere ([`crate::lstm`]);
//! a test holds the two equal.

use pulp::{Arch, Simd, WithSimd};

/// Gates in the order of PyTorch: input, forget, cell, output.
pub const GATES: usize = 4;
/// Lanes that hidden sizes are multiples of, whatever the processor has.
const UNIT: usize = 16;

/// Weights as they are learned and stored: plain, in PyTorch's layout.
#[derive(Clone, PartialEq, Debug)]
pub struct Weights {
    pub inputs: usize,
    pub hidden: usize,
    pub outputs: usize,
    /// `[GATES * hidden][inputs]`
    pub of_input: Vec<f32>,
    /// `[GATES * hidden][hidden]`
    pub of_state: Vec<f32>,
    /// `[GATES * hidden]`
    pub bias: Vec<f32>,
    /// `[outputs][hidden]`
    pub head: Vec<f32>,
    /// `[outputs]`
    pub head_bias: Vec<f32>,
}

/// What is wrong with weights.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    #[error("{hidden} hidden units: has to be a multiple of {UNIT}, and more than none")]
    Hidden { hidden: usize },
    #[error("{what}: {found} numbers instead of {expected}")]
    Length {
        what: &'static str,
        found: usize,
        expected: usize,
    },
    #[error("{what}: not all are numbers")]
    NotNumbers { what: &'static str },
}

impl Weights {
    /// Checks lengths and numbers.
    pub fn check(&self) -> Result<(), Unfit> {
        let (inputs, hidden, outputs) = (self.inputs, self.hidden, self.outputs);
        if hidden == 0 || !hidden.is_multiple_of(UNIT) {
            return Err(Unfit::Hidden { hidden });
        }
        let all = [
            (
                "weights of the inputs",
                &self.of_input,
                GATES * hidden * inputs,
            ),
            (
                "weights of the state",
                &self.of_state,
                GATES * hidden * hidden,
            ),
            ("biases", &self.bias, GATES * hidden),
            ("weights of the head", &self.head, outputs * hidden),
            ("biases of the head", &self.head_bias, outputs),
        ];
        for (what, numbers, expected) in all {
            let found = numbers.len();
            if found != expected {
                return Err(Unfit::Length {
                    what,
                    found,
                    expected,
                });
            }
            if !numbers.iter().all(|number| number.is_finite()) {
                return Err(Unfit::NotNumbers { what });
            }
        }
        Ok(())
    }
}

/// Weights, laid out for this processor.
#[derive(Clone, Debug)]
pub struct Cell {
    arch: Arch,
    inputs: usize,
    hidden: usize,
    outputs: usize,
    /// `[hidden / lanes][inputs + hidden][GATES][lanes]`
    packed: Vec<f32>,
    /// `[hidden / lanes][GATES][lanes]`
    bias: Vec<f32>,
    /// `[hidden][outputs]`
    head: Vec<f32>,
    head_bias: Vec<f32>,
}

/// The state of many items, `[items][hidden]` each.
#[derive(Clone, PartialEq, Debug)]
pub struct States {
    pub hidden: Vec<f32>,
    pub cell: Vec<f32>,
}

impl States {
    /// As before the first step.
    pub fn new(items: usize, hidden: usize) -> States {
        States {
            hidden: vec![0.0; items * hidden],
            cell: vec![0.0; items * hidden],
        }
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
        let row = |gate: usize, unit: usize| gate * hidden + unit;
        let mut packed = Vec::with_capacity(hidden * (inputs + hidden) * GATES);
        let mut bias = Vec::with_capacity(hidden * GATES);
        for block in (0..hidden).step_by(lanes) {
            let units = || block..block + lanes;
            for input in 0..inputs {
                for gate in 0..GATES {
                    let at = |unit| weights.of_input[row(gate, unit) * inputs + input];
                    packed.extend(units().map(at));
                }
            }
            for state in 0..hidden {
                for gate in 0..GATES {
                    let at = |unit| weights.of_state[row(gate, unit) * hidden + state];
                    packed.extend(units().map(at));
                }
            }
            for gate in 0..GATES {
                bias.extend(units().map(|unit| weights.bias[row(gate, unit)]));
            }
        }
        let head = (0..hidden * outputs).map(|at| {
            let (unit, output) = (at / outputs, at % outputs);
            weights.head[output * hidden + unit]
        });
        Ok(Cell {
            arch,
            inputs,
            hidden,
            outputs,
            packed,
            bias,
            head: head.collect(),
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

    /// One step for as many items as `states` holds; `inputs` is `[items][inputs]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn step(&self, inputs: &[f32], states: &mut States) {
        let items = states.hidden.len() / self.hidden;
        assert_eq!(states.hidden.len(), items * self.hidden, "whole items");
        assert_eq!(
            states.cell.len(),
            states.hidden.len(),
            "state of the same items"
        );
        assert_eq!(
            inputs.len(),
            items * self.inputs,
            "inputs of the same items"
        );
        let step = Step {
            of: self,
            inputs,
            states,
        };
        self.arch.dispatch(step);
    }

    /// What the head says of each item, `[items][outputs]`, into `said`.
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
        let rows = states.hidden.chunks_exact(self.hidden);
        for (said, state) in said.chunks_exact_mut(self.outputs.max(1)).zip(rows) {
            said.copy_from_slice(&self.head_bias);
            for (weights, state) in self.head.chunks_exact(self.outputs).zip(state) {
                for (said, weight) in said.iter_mut().zip(weights) {
                    *said += weight * state;
                }
            }
        }
    }
}

struct Step<'a> {
    of: &'a Cell,
    inputs: &'a [f32],
    states: &'a mut States,
}

/// Items of a tile, where there are 32 vector registers, and where there are 16.
const MANY: usize = 6;
const FEW: usize = 2;

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16.. => tiles::<S, MANY>(simd, self),
            _ => tiles::<S, FEW>(simd, self),
        }
    }
}

#[inline(always)]
fn tiles<S: Simd, const ITEMS: usize>(simd: S, step: Step<'_>) {
    let (inputs, hidden) = (step.of.inputs, step.of.hidden);
    let mut before = vec![0.0; ITEMS * hidden];
    let items = step.states.hidden.len() / hidden;
    let whole = items / ITEMS * ITEMS;
    let mut at = 0;
    while at < items {
        let count = if at < whole { ITEMS } else { 1 };
        let range = |width: usize| at * width..(at + count) * width;
        let given = &step.inputs[range(inputs)];
        let state = &mut step.states.hidden[range(hidden)];
        let cell = &mut step.states.cell[range(hidden)];
        let before = &mut before[..count * hidden];
        before.copy_from_slice(state);
        match count {
            1 => tile::<S, 1>(simd, step.of, given, before, state, cell),
            _ => tile::<S, ITEMS>(simd, step.of, given, before, state, cell),
        }
        at += count;
    }
}

#[inline(always)]
fn tile<S: Simd, const ITEMS: usize>(
    simd: S,
    of: &Cell,
    inputs: &[f32],
    before: &[f32],
    state: &mut [f32],
    cell: &mut [f32],
) {
    let (width, hidden, lanes) = (of.inputs, of.hidden, S::F32_LANES);
    let given: [&[f32]; ITEMS] = std::array::from_fn(|item| &inputs[item * width..][..width]);
    let before: [&[f32]; ITEMS] = std::array::from_fn(|item| &before[item * hidden..][..hidden]);
    let (weights, _) = S::as_simd_f32s(&of.packed);
    let (bias, _) = S::as_simd_f32s(&of.bias);
    let (bias, _) = bias.as_chunks::<GATES>();
    let (weights, _) = weights.as_chunks::<GATES>();
    let blocks = weights.chunks_exact(width + hidden).zip(bias);
    for (block, (weights, bias)) in blocks.enumerate() {
        let mut sums = [*bias; ITEMS];
        let (of_input, of_state) = weights.split_at(width);
        for (k, weights) in of_input.iter().enumerate() {
            for item in 0..ITEMS {
                let value = simd.splat_f32s(given[item][k]);
                for gate in 0..GATES {
                    let sum = sums[item][gate];
                    sums[item][gate] = simd.mul_add_e_f32s(value, weights[gate], sum);
                }
            }
        }
        let of_state = &of_state[..hidden];
        for (k, weights) in of_state.iter().enumerate() {
            for item in 0..ITEMS {
                let value = simd.splat_f32s(before[item][k]);
                for gate in 0..GATES {
                    let sum = sums[item][gate];
                    sums[item][gate] = simd.mul_add_e_f32s(value, weights[gate], sum);
                }
            }
        }
        for (item, sums) in sums.into_iter().enumerate() {
            let place = item * hidden + block * lanes;
            let (cell, _) = S::as_mut_simd_f32s(&mut cell[place..][..lanes]);
            let (state, _) = S::as_mut_simd_f32s(&mut state[place..][..lanes]);
            let [input, forget, fresh, output] = sums;
            let kept = simd.mul_f32s(sigmoid(simd, forget), cell[0]);
            cell[0] = simd.mul_add_e_f32s(sigmoid(simd, input), tanh(simd, fresh), kept);
            state[0] = simd.mul_f32s(sigmoid(simd, output), tanh(simd, cell[0]));
        }
    }
}

#[inline(always)]
fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let half = simd.splat_f32s(0.5);
    simd.mul_add_e_f32s(half, tanh(simd, simd.mul_f32s(half, x)), half)
}

/// Beyond this tanh is ±1 in single precision, or nearly.
const FLAT: f32 = 8.6;
/// P, from the constant on.
const ABOVE: [f32; 5] = [
    0.999_999_94,
    0.133_996_86,
    3.518_041_3e-3,
    2.099_135_7e-5,
    1.391_228_2e-8,
];
/// Q, from the constant on.
const BELOW: [f32; 5] = [
    1.0,
    0.467_329_95,
    2.596_164_3e-2,
    3.322_887e-4,
    7.998_628e-7,
];

/// x · P(x²) / Q(x²), fitted by `model/fit/tanh.py`; at most 4e-7 off.
#[inline(always)]
fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = simd.max_f32s(
        simd.splat_f32s(-FLAT),
        simd.min_f32s(simd.splat_f32s(FLAT), x),
    );
    let square = simd.mul_f32s(x, x);
    let polynomial = |numbers: &[f32]| {
        let (last, rest) = numbers.split_last().expect("not empty");
        rest.iter()
            .rev()
            .fold(simd.splat_f32s(*last), |sum, number| {
                simd.mul_add_e_f32s(sum, square, simd.splat_f32s(*number))
            })
    };
    let above = simd.mul_f32s(x, polynomial(&ABOVE));
    simd.div_f32s(above, polynomial(&BELOW))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lstm::fresh;
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
            let fresh = sigmoid(gate(0)) * gate(2).tanh();
            cell[unit] = sigmoid(gate(1)) * cell[unit] + fresh;
            state[unit] = sigmoid(gate(3)) * cell[unit].tanh();
        }
    }

    fn doubled(hidden: usize) -> Weights {
        let mut weights = fresh(12, hidden, 3, 5);
        // So that gates saturate.
        let all = [&mut weights.of_input, &mut weights.of_state];
        all.into_iter().flatten().for_each(|weight| *weight *= 2.0);
        weights
    }

    #[test]
    fn many_items_and_steps_are_as_the_equations_say() {
        for (hidden, items) in [(16, 1), (32, 5), (32, 6), (32, 257), (64, 13)] {
            let weights = doubled(hidden);
            for arch in [Arch::new(), Arch::Scalar] {
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
    fn tanh_is_tanh() {
        struct Tanh<'a>(&'a mut [f32]);
        impl WithSimd for Tanh<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                for x in S::as_mut_simd_f32s(self.0).0 {
                    *x = tanh(simd, *x);
                }
            }
        }
        let mut given: Vec<f32> = (-200_000..200_000).map(|n| n as f32 / 10_000.0).collect();
        let odd = [
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
        ];
        given.extend(odd.iter().cycle().take(64));
        let mut said = given.clone();
        Arch::new().dispatch(Tanh(&mut said));
        for (x, said) in given.into_iter().zip(said) {
            let off = f64::from(said) - f64::from(x).tanh();
            assert!(off.abs() < 5e-7, "{off} at {x}");
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
    fn weights_that_do_not_fit_are_refused() {
        let good = doubled(16);
        let mut short = good.clone();
        short.bias.pop();
        let refused = Cell::new(&short).expect_err("too short").to_string();
        assert_eq!(refused, "biases: 63 numbers instead of 64");
        let mut nan = good.clone();
        nan.head[0] = f32::NAN;
        assert!(Cell::new(&nan).is_err());
        let odd = fresh(12, 24, 1, 1);
        assert_eq!(
            Cell::new(&odd).expect_err("odd"),
            Unfit::Hidden { hidden: 24 }
        );
    }
}
