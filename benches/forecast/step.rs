//! One step of many items with the state kept: ours, burn's layer, PyTorch and ONNX Runtime, with
//! the same weights and inputs, and the share of the core's peak that ours gets.

use std::time::Instant;

use burn::nn::{Lstm, LstmState};
use burn::tensor::{Device, Tensor, TensorData};
use foreshadow::cli::demo::harness::percentile;
use model::cell::{Cell, States, Weights};
use model::lstm::fresh;
use model::random::Random;

use crate::burns;
use crate::peak;
use crate::peers::Peers;
use crate::report::{Bar, Bound, Figure, Report};

pub const INPUTS: usize = 12;
pub const HIDDEN: usize = 32;
const BATCHES: [usize; 3] = [1_000, 10_000, 100_000];
const ROUNDS: usize = 15;
const SLICE_SECONDS: f64 = 0.1;
/// Of a contender's slices: a fast one, because what disturbs only makes slower.
const SHARE: f64 = 0.25;
/// What is asked of ours, of their throughput and of the peak.
const OF_BURN: f64 = 10.0;
const OF_OTHERS: f64 = 1.5;
const OF_PEAK: f64 = 0.4;
const PYTHONS: [&str; 2] = ["torch", "onnx"];
/// Items whose states are compared after 8 steps.
const COMPARED: usize = 250;
const EQUAL: f32 = 1e-5;

/// What an item's step computes in products alone: the tanh are not counted.
pub const fn operations(hidden: usize) -> f64 {
    (8 * hidden * (INPUTS + hidden)) as f64
}

/// Inputs of `items`, the first ones again and again.
pub fn inputs(items: usize) -> Vec<f32> {
    let mut random = Random::new(7);
    let draw = |_| random.unit() as f32 * 4.0 - 2.0;
    let first: Vec<f32> = (0..COMPARED * INPUTS).map(draw).collect();
    first.into_iter().cycle().take(items * INPUTS).collect()
}

pub fn run(report: &mut Report) {
    let weights = fresh(INPUTS, HIDDEN, 1, 1);
    let mut peers = match Peers::start(&weights, &inputs(COMPARED)) {
        Ok(peers) => Some(peers),
        Err(error) => {
            report.fail(error);
            None
        }
    };
    if let Some(peers) = &mut peers {
        report.note(&format!("PyTorch, ONNX Runtime: {}", peers.versions));
    }
    if let Err(error) = agree(&weights, peers.as_mut()) {
        report.fail(error);
    }
    for items in BATCHES {
        if let Err(error) = batch(report, &weights, peers.as_mut(), items) {
            report.fail(error);
        }
    }
    for hidden in [HIDDEN, 2 * HIDDEN] {
        of_peak(report, hidden);
    }
}

/// Who is fast and says something else is not compared with.
fn agree(weights: &Weights, peers: Option<&mut Peers>) -> Result<(), String> {
    let mut ours = Ours::new(weights, COMPARED);
    let mut layer = Burns::new(weights, COMPARED);
    for _ in 0..8 {
        ours.step();
        layer.step();
    }
    let mut others = vec![("burn", layer.said())];
    if let Some(peers) = peers {
        for who in PYTHONS {
            others.push((who, peers.say(who)?));
        }
    }
    let expected = &ours.states.hidden;
    for (who, said) in others {
        let off = |(one, other): (&f32, &f32)| (one - other).abs();
        let worst = said.iter().zip(expected).map(off).fold(0.0, f32::max);
        if said.len() != expected.len() || worst > EQUAL {
            return Err(format!("{who} says something else: {worst} off"));
        }
    }
    Ok(())
}

/// All contenders with `items` at a time.
fn batch(
    report: &mut Report,
    weights: &Weights,
    mut peers: Option<&mut Peers>,
    items: usize,
) -> Result<(), String> {
    let mut ours = Ours::new(weights, items);
    let mut layer = Burns::new(weights, items);
    let (mut own, mut burns) = (Vec::new(), Vec::new());
    let mut theirs = PYTHONS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        own.push(nanoseconds(items, || ours.step()));
        burns.push(nanoseconds(items, || layer.step()));
        if let Some(peers) = &mut peers {
            for (who, slices) in PYTHONS.iter().zip(&mut theirs) {
                slices.push(peers.nanoseconds(who, items, SLICE_SECONDS)?);
            }
        }
    }
    let millions = |slices: &mut [f64]| 1e3 / percentile(slices, SHARE);
    let figure = Figure(millions(&mut own), "M/s");
    let title = format!("step of {items} items, hidden {HIDDEN}");
    let limit = millions(&mut burns);
    let bar = Bar::AtLeast(OF_BURN * limit);
    report.case(&title, figure, Bound(limit, "burn::nn::Lstm, flex"), bar);
    for (name, slices) in ["PyTorch", "ONNX Runtime"].into_iter().zip(&mut theirs) {
        if !slices.is_empty() {
            let limit = millions(slices);
            let bar = Bar::AtLeast(OF_OTHERS * limit);
            report.case(&title, figure, Bound(limit, name), bar);
        }
    }
    Ok(())
}

/// Ours against multiplications and additions alone, in turns.
fn of_peak(report: &mut Report, hidden: usize) {
    let items = BATCHES[0];
    let mut ours = Ours::new(&fresh(INPUTS, hidden, 1, 1), items);
    let (mut own, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        peaks.push(peak::flops());
        own.push(nanoseconds(items, || ours.step()));
    }
    let own = operations(hidden) / percentile(&mut own, SHARE);
    let limit = percentile(&mut peaks, 1.0 - SHARE) / 1e9;
    let bar = match hidden {
        HIDDEN => Bar::AtLeast(OF_PEAK * limit),
        _ => Bar::None,
    };
    let title = format!("step of {items} items, hidden {hidden}");
    let bound = Bound(limit, "the core's f32 FMA peak");
    report.case(&title, Figure(own, "GFLOP/s"), bound, bar);
}

/// Nanoseconds of an item's step.
fn nanoseconds(items: usize, mut step: impl FnMut()) -> f64 {
    // What another contender had in the cache meanwhile is not the point.
    step();
    let (begun, mut steps) = (Instant::now(), 0);
    loop {
        step();
        steps += 1;
        let took = begun.elapsed().as_secs_f64();
        if took >= SLICE_SECONDS {
            return took * 1e9 / (steps * items) as f64;
        }
    }
}

struct Ours {
    cell: Cell,
    states: States,
    inputs: Vec<f32>,
}

impl Ours {
    fn new(weights: &Weights, items: usize) -> Ours {
        let cell = Cell::new(weights).expect("they fit");
        Ours {
            states: cell.begin(items),
            cell,
            inputs: inputs(items),
        }
    }

    fn step(&mut self) {
        self.cell.step(&self.inputs, &mut self.states);
    }
}

struct Burns {
    layer: Lstm,
    inputs: Tensor<3>,
    state: Option<LstmState<2>>,
}

impl Burns {
    fn new(weights: &Weights, items: usize) -> Burns {
        let sizes = (weights.inputs, weights.hidden);
        let inputs = TensorData::new(inputs(items), [items, 1, INPUTS]);
        Burns {
            layer: burns::layer(sizes, &weights.of_input, &weights.of_state, &weights.bias),
            inputs: Tensor::from_data(inputs, &Device::flex()),
            state: None,
        }
    }

    fn step(&mut self) {
        let (_, state) = self.layer.forward(self.inputs.clone(), self.state.take());
        self.state = Some(state);
    }

    fn said(&self) -> Vec<f32> {
        let state = self.state.as_ref().expect("there was a step");
        let numbers = state.hidden.clone().into_data();
        numbers.try_to_vec().expect("f32")
    }
}
