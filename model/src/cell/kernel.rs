//! One step of a tile: items a few at a time, hidden units a vector at a time. All sums of a tile
//! stay in registers from the first product to the new state.
//!
//! Measured on one core with 512-bit vectors, the best of many tries: 0.65 of its peak at 32 hidden
//! units, 0.75 at 64. The rest is tanh: five divisions a unit, which putting fractions together into
//! two made no faster.

use pulp::{Simd, WithSimd};

use super::tanh::{sigmoid, tanh};
use super::{Cell, Kind, States};

/// One step for all items of `states`; lengths fit.
pub(super) struct Step<'a> {
    pub of: &'a Cell,
    pub inputs: &'a [f32],
    pub states: &'a mut States,
}

const LSTM: usize = Kind::Lstm.gates();
const RNN: usize = Kind::Rnn.gates();

impl WithSimd for Step<'_> {
    type Output = ();

    /// Items of a tile: so many that its sums fill the registers, of which there are 32 or 16.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.of.kind, S::F32_LANES) {
            (Kind::Lstm, 16..) => tiles::<S, LSTM, 6>(simd, self),
            (Kind::Lstm, _) => tiles::<S, LSTM, 2>(simd, self),
            (Kind::Rnn, 16..) => tiles::<S, RNN, 8>(simd, self),
            (Kind::Rnn, _) => tiles::<S, RNN, 8>(simd, self),
        }
    }
}

#[inline(always)]
fn tiles<S: Simd, const GATES: usize, const ITEMS: usize>(simd: S, step: Step<'_>) {
    let (inputs, hidden) = (step.of.inputs, step.of.hidden);
    // An RNN has a state and no cell.
    let own = step.of.kind.cell(hidden);
    let mut before = vec![0.0; ITEMS * hidden];
    let items = step.states.hidden.len() / hidden;
    let whole = items / ITEMS * ITEMS;
    let mut at = 0;
    while at < items {
        let count = if at < whole { ITEMS } else { 1 };
        let range = |width: usize| at * width..(at + count) * width;
        let state = &mut step.states.hidden[range(hidden)];
        let before = &mut before[..count * hidden];
        before.copy_from_slice(state);
        let tile = Tile {
            of: step.of,
            inputs: &step.inputs[range(inputs)],
            before,
            state,
            cell: &mut step.states.cell[range(own)],
        };
        match count {
            1 => tile.step::<S, GATES, 1>(simd),
            _ => tile.step::<S, GATES, ITEMS>(simd),
        }
        at += count;
    }
}

struct Tile<'a> {
    of: &'a Cell,
    inputs: &'a [f32],
    before: &'a [f32],
    state: &'a mut [f32],
    cell: &'a mut [f32],
}

impl Tile<'_> {
    #[inline(always)]
    fn step<S: Simd, const GATES: usize, const ITEMS: usize>(self, simd: S) {
        let (width, hidden) = (self.of.inputs, self.of.hidden);
        let given: [&[f32]; ITEMS] = rows(self.inputs, width);
        let before: [&[f32]; ITEMS] = rows(self.before, hidden);
        let (weights, _) = S::as_simd_f32s(&self.of.packed);
        let (bias, _) = S::as_simd_f32s(&self.of.bias);
        let (bias, _) = bias.as_chunks::<GATES>();
        let (weights, _) = weights.as_chunks::<GATES>();
        let blocks = weights.chunks_exact(width + hidden).zip(bias);
        for (block, (weights, bias)) in blocks.enumerate() {
            let sums = [*bias; ITEMS];
            let (of_input, of_state) = weights.split_at(width);
            let sums = add(simd, sums, of_input, given);
            let sums = add(simd, sums, &of_state[..hidden], before);
            for (item, sums) in sums.into_iter().enumerate() {
                let place = item * hidden + block * S::F32_LANES;
                let (state, _) = S::as_mut_simd_f32s(&mut self.state[place..][..S::F32_LANES]);
                if GATES == RNN {
                    state[0] = tanh(simd, sums[0]);
                    continue;
                }
                let (cell, _) = S::as_mut_simd_f32s(&mut self.cell[place..][..S::F32_LANES]);
                let kept = simd.mul_f32s(sigmoid(simd, sums[1]), cell[0]);
                let input = sigmoid(simd, sums[0]);
                cell[0] = simd.mul_add_e_f32s(input, tanh(simd, sums[2]), kept);
                state[0] = simd.mul_f32s(sigmoid(simd, sums[3]), tanh(simd, cell[0]));
            }
        }
    }
}

#[inline(always)]
fn rows<const ITEMS: usize>(numbers: &[f32], width: usize) -> [&[f32]; ITEMS] {
    std::array::from_fn(|item| &numbers[item * width..][..width])
}

/// Adds what `values` are worth by `weights`, one vector a gate for each value.
#[inline(always)]
fn add<S: Simd, const GATES: usize, const ITEMS: usize>(
    simd: S,
    mut sums: [[S::f32s; GATES]; ITEMS],
    weights: &[[S::f32s; GATES]],
    values: [&[f32]; ITEMS],
) -> [[S::f32s; GATES]; ITEMS] {
    for (k, weights) in weights.iter().enumerate() {
        for item in 0..ITEMS {
            let value = simd.splat_f32s(values[item][k]);
            for gate in 0..GATES {
                let sum = sums[item][gate];
                sums[item][gate] = simd.mul_add_e_f32s(value, weights[gate], sum);
            }
        }
    }
    sums
}
