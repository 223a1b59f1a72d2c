//! What PyTorch's layers said (`model/fit/lstm_fixture.py` made the files and describes them), and
//! that burn's own layer, the training's network and the kernel say the same.
//!
//! Items do not know of each other, so a batch of any size is the fixture's items over and over.

use burn::nn::LstmState;
use burn::tensor::{Device, Tensor, TensorData};

use crate::cell::{Cell, Kind, Weights};
use crate::lstm::unheaded;

/// The bench forecast uses it too.
#[path = "../tests/fixture/burns.rs"]
mod burns;

/// Single precision over 32 steps: PyTorch's own results are 3e-7 off those in double precision.
const NEAR: f32 = 1e-6;
/// The cell is a sum over all steps, of a size of 3 to 5; tanh halves its error and more.
const NEAR_CELL: f32 = 4e-6;
/// Around the kernel's tiles and what callers take at a time.
const BATCHES: [usize; 5] = [1, 5, 255, 256, 257];

struct Fixture {
    name: &'static str,
    weights: Weights,
    items: usize,
    steps: usize,
    /// `[steps][items][inputs]`
    given: Vec<f32>,
    state: Vec<f32>,
    cell: Vec<f32>,
    /// `[steps][items][hidden]`
    said: Vec<f32>,
    last_cell: Vec<f32>,
}

fn all() -> [Fixture; 3] {
    [
        read("lstm32", include_bytes!("../tests/fixture/lstm32.bin")),
        read("lstm64", include_bytes!("../tests/fixture/lstm64.bin")),
        read("rnn32", include_bytes!("../tests/fixture/rnn32.bin")),
    ]
}

fn read(name: &'static str, bytes: &[u8]) -> Fixture {
    let (head, mut rest) = bytes.split_at(20);
    let number = |four: &[u8]| u32::from_le_bytes(four.try_into().expect("four bytes")) as usize;
    let head: Vec<usize> = head.chunks_exact(4).map(number).collect();
    let [gates, inputs, hidden, items, steps] = head[..] else {
        panic!("{name}: five numbers in front");
    };
    let kind = if gates == 4 { Kind::Lstm } else { Kind::Rnn };
    let kept = if gates == 4 { items * hidden } else { 0 };
    let mut small = |count: usize| -> Vec<f32> {
        let (numbers, after) = rest.split_at(count * 2);
        rest = after;
        let pairs = numbers.chunks_exact(2);
        pairs
            .map(|two| f32::from(i16::from_le_bytes([two[0], two[1]])) / 4096.0)
            .collect()
    };
    let rows = gates * hidden;
    let (of_input, of_state) = (small(rows * inputs), small(rows * hidden));
    let (one, other) = (small(rows), small(rows));
    let given = small(steps * items * inputs);
    let (state, cell) = (small(items * hidden), small(kept));
    let bytes = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("four bytes"));
    let mut said: Vec<f32> = rest.chunks_exact(4).map(bytes).collect();
    let last_cell = said.split_off(steps * items * hidden);
    assert_eq!(last_cell.len(), kept, "{name}: nothing more");
    let weights = Weights {
        kind,
        inputs,
        hidden,
        outputs: 0,
        of_input,
        of_state,
        bias: one.iter().zip(&other).map(|(a, b)| a + b).collect(),
        head: Vec::new(),
        head_bias: Vec::new(),
    };
    Fixture {
        name,
        weights,
        items,
        steps,
        given,
        state,
        cell,
        said,
        last_cell,
    }
}

/// The rows of `width` again and again, until there are `batch`.
fn cycled(rows: &[f32], width: usize, batch: usize) -> Vec<f32> {
    let rows = rows.chunks_exact(width).cycle().take(batch);
    rows.flatten().copied().collect()
}

impl Fixture {
    /// One step's share of `[steps][items][width]`, for a batch.
    fn at(&self, all: &[f32], width: usize, step: usize, batch: usize) -> Vec<f32> {
        let size = self.items * width;
        cycled(&all[step * size..][..size], width, batch)
    }

    /// `[steps][batch][inputs]`
    fn given(&self, batch: usize) -> Vec<f32> {
        let steps = 0..self.steps;
        steps
            .flat_map(|step| self.at(&self.given, self.weights.inputs, step, batch))
            .collect()
    }

    /// `said` is `[steps][batch][hidden]`, from the first step on.
    fn compare(&self, who: &str, said: &[f32], cell: &[f32], batch: usize) {
        let hidden = self.weights.hidden;
        assert_eq!(said.len(), self.steps * batch * hidden, "{who}");
        for (step, said) in said.chunks_exact(batch * hidden).enumerate() {
            let expected = self.at(&self.said, hidden, step, batch);
            let place = format!("{who}, {}, batch of {batch}, step {step}", self.name);
            near(&place, said, &expected, NEAR);
        }
        let expected = cycled(&self.last_cell, hidden, batch);
        let place = format!("{who}, {}, batch of {batch}, cell", self.name);
        near(&place, &cell[..expected.len()], &expected, NEAR_CELL);
    }

    fn tensors(&self, batch: usize) -> (Tensor<3>, Tensor<2>, Tensor<2>) {
        let (device, hidden) = (Device::flex(), self.weights.hidden);
        let of = |rows: &[f32]| {
            let rows = cycled(rows, hidden, batch);
            Tensor::<2>::from_data(TensorData::new(rows, [batch, hidden]), &device)
        };
        let given = TensorData::new(self.given(batch), [self.steps, batch, self.weights.inputs]);
        let given = Tensor::<3>::from_data(given, &device).swap_dims(0, 1);
        let state = of(&self.state);
        let cell = match self.weights.kind {
            Kind::Lstm => of(&self.cell),
            Kind::Rnn => state.zeros_like(),
        };
        (given, state, cell)
    }
}

fn near(place: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{place}");
    let off = |(one, other): (&f32, &f32)| (one - other).abs();
    let worst = found.iter().zip(expected).map(off).fold(0.0, f32::max);
    assert!(worst <= bound, "{place}: {worst} off");
}

/// `[batch, steps, hidden]` as `[steps][batch][hidden]`.
fn by_step(said: Tensor<3>) -> Vec<f32> {
    numbers(said.swap_dims(0, 1))
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

#[test]
fn burns_own_layer_is_pytorchs() {
    for fixture in all() {
        if fixture.weights.kind == Kind::Rnn {
            continue;
        }
        let weights = &fixture.weights;
        let sizes = (weights.inputs, weights.hidden);
        let layer = burns::layer(sizes, &weights.of_input, &weights.of_state, &weights.bias);
        for batch in BATCHES {
            let (given, state, cell) = fixture.tensors(batch);
            let (said, end) = layer.forward(given, Some(LstmState::new(cell, state)));
            fixture.compare("burn", &by_step(said), &numbers(end.cell), batch);
        }
    }
}

#[test]
fn the_network_that_is_trained_is_pytorchs() {
    for fixture in all() {
        for batch in BATCHES {
            let (given, state, cell) = fixture.tensors(batch);
            let (said, cell) = unheaded(&fixture.weights, given, state, cell);
            fixture.compare("training", &by_step(said), &numbers(cell), batch);
        }
    }
}

#[test]
fn the_kernel_is_pytorchs_step_by_step() {
    for fixture in all() {
        let cell = Cell::new(&fixture.weights).expect("fit");
        for batch in BATCHES {
            let mut states = cell.begin(batch);
            states.hidden = cycled(&fixture.state, cell.hidden(), batch);
            if fixture.weights.kind == Kind::Lstm {
                states.cell = cycled(&fixture.cell, cell.hidden(), batch);
            }
            let mut said = Vec::new();
            for given in fixture.given(batch).chunks_exact(batch * cell.inputs()) {
                cell.step(given, &mut states);
                said.extend_from_slice(&states.hidden);
            }
            fixture.compare("kernel", &said, &states.cell, batch);
        }
    }
}

#[test]
fn a_window_at_once_is_its_steps_one_by_one() {
    for fixture in all() {
        for batch in [5, 257] {
            let (given, mut state, mut cell) = fixture.tensors(batch);
            let [_, steps, inputs] = given.dims();
            let mut said = Vec::new();
            for step in 0..steps {
                let now = given.clone().narrow(1, step, 1);
                let now = now.reshape([batch, 1, inputs]);
                let (one, after) = unheaded(&fixture.weights, now, state, cell);
                state = one.clone().squeeze_dim(1);
                cell = after;
                said.extend(by_step(one));
            }
            fixture.compare("steps of the training", &said, &numbers(cell), batch);
        }
    }
}
