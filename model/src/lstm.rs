//! Training the LSTM, or a plain RNN, with burn's automatic differentiation. What comes out is plain
//! [`Weights`], which [`crate::cell::Cell`] runs.
//!
//! Sequences are windows of series; the loss counts at every step after the first ones, which only
//! warm the state up. There are no class weights: they would ruin the calibration of chances.

use burn::module::{Module, Param};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};

use crate::cell::{Kind, Weights};
use crate::random::Random;

/// What the outputs mean, and so what is lost by them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Values: the mean absolute error.
    Value,
    /// Chances, as logits: the logarithmic loss.
    Chance,
}

/// Windows of equal length to learn from.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    pub steps: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// `[sequences][steps][inputs]`
    pub given: Vec<f32>,
    /// `[sequences][steps][outputs]`; NaN where the truth is not known.
    pub truth: Vec<f32>,
}

impl Sequences {
    pub fn new(steps: usize, inputs: usize, outputs: usize) -> Sequences {
        Sequences {
            steps,
            inputs,
            outputs,
            given: Vec::new(),
            truth: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.given.len() / (self.steps * self.inputs).max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How to train.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Training {
    pub hidden: usize,
    pub loss: Loss,
    pub epochs: usize,
    pub batch: usize,
    pub rate: f64,
    /// Steps of each sequence that only warm the state up.
    pub warm_up: usize,
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Training {
        Training {
            hidden: 32,
            loss: Loss::Value,
            epochs: 20,
            batch: 128,
            rate: 3e-3,
            warm_up: 8,
            seed: 1,
        }
    }
}

/// One weight matrix a gate, over inputs and state side by side: fewer and larger products.
#[derive(Module, Debug)]
struct Network {
    gates: Vec<Param<Tensor<2>>>,
    biases: Vec<Param<Tensor<2>>>,
    head: Param<Tensor<2>>,
    head_bias: Param<Tensor<2>>,
}

fn tensor(numbers: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

fn param(numbers: Vec<f32>, shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    Param::from_tensor(tensor(numbers, shape, device))
}

impl Network {
    /// `weights` as a module on `device`.
    fn of(weights: &Weights, device: &Device) -> Network {
        let (inputs, hidden, outputs) = (weights.inputs, weights.hidden, weights.outputs);
        let width = inputs + hidden;
        let gate = |gate: usize| {
            let mut numbers = vec![0.0; width * hidden];
            for unit in 0..hidden {
                let row = gate * hidden + unit;
                let of_input = &weights.of_input[row * inputs..][..inputs];
                let of_state = &weights.of_state[row * hidden..][..hidden];
                for (k, weight) in of_input.iter().chain(of_state).enumerate() {
                    numbers[k * hidden + unit] = *weight;
                }
            }
            param(numbers, [width, hidden], device)
        };
        let bias = |gate: usize| {
            let numbers = weights.bias[gate * hidden..][..hidden].to_vec();
            param(numbers, [1, hidden], device)
        };
        let head = (0..hidden * outputs).map(|at| {
            let (unit, output) = (at / outputs, at % outputs);
            weights.head[output * hidden + unit]
        });
        Network {
            gates: (0..weights.kind.gates()).map(gate).collect(),
            biases: (0..weights.kind.gates()).map(bias).collect(),
            head: param(head.collect(), [hidden, outputs], device),
            head_bias: param(weights.head_bias.clone(), [1, outputs], device),
        }
    }

    fn weights(&self, kind: Kind, inputs: usize) -> Weights {
        let numbers = |param: &Param<Tensor<2>>| {
            let data = param.val().into_data();
            data.try_to_vec::<f32>().expect("weights are f32")
        };
        let [hidden, outputs] = self.head.val().dims();
        let rows = kind.gates() * hidden;
        let mut weights = Weights {
            kind,
            inputs,
            hidden,
            outputs,
            of_input: Vec::with_capacity(rows * inputs),
            of_state: Vec::with_capacity(rows * hidden),
            bias: Vec::with_capacity(rows),
            head: Vec::with_capacity(outputs * hidden),
            head_bias: numbers(&self.head_bias),
        };
        for (gate, bias) in self.gates.iter().zip(&self.biases) {
            let gate = numbers(gate);
            for unit in 0..hidden {
                let of = |k: usize| gate[k * hidden + unit];
                weights.of_input.extend((0..inputs).map(of));
                weights.of_state.extend((inputs..inputs + hidden).map(of));
            }
            weights.bias.extend(numbers(bias));
        }
        let head = numbers(&self.head);
        for output in 0..outputs {
            weights
                .head
                .extend((0..hidden).map(|unit| head[unit * outputs + output]));
        }
        weights
    }

    /// Outputs at every step, `[batch, steps, outputs]`, from `[batch, steps, inputs]`.
    fn forward(&self, kind: Kind, given: Tensor<3>) -> Tensor<3> {
        let [batch, ..] = given.dims();
        let [hidden, _] = self.head.val().dims();
        let empty = Tensor::<2>::zeros([batch, hidden], &given.device());
        self.forward_from(kind, given, empty.clone(), empty).0
    }

    /// The same from a state and a cell on, and the cell at the end.
    fn forward_from(
        &self,
        kind: Kind,
        given: Tensor<3>,
        mut state: Tensor<2>,
        mut cell: Tensor<2>,
    ) -> (Tensor<3>, Tensor<2>) {
        let [batch, steps, inputs] = given.dims();
        let mut said = Vec::with_capacity(steps);
        for step in 0..steps {
            let now = given.clone().narrow(1, step, 1).reshape([batch, inputs]);
            let both = Tensor::cat(vec![now, state], 1);
            let sum = |gate: usize| {
                let product = both.clone().matmul(self.gates[gate].val());
                product + self.biases[gate].val()
            };
            state = match kind {
                Kind::Rnn => tanh(sum(0)),
                Kind::Lstm => {
                    let [input, forget, fresh, output] = [sum(0), sum(1), sum(2), sum(3)];
                    cell = sigmoid(forget) * cell + sigmoid(input) * tanh(fresh);
                    sigmoid(output) * tanh(cell.clone())
                }
            };
            said.push(state.clone().matmul(self.head.val()) + self.head_bias.val());
        }
        (Tensor::stack(said, 1), cell)
    }
}

/// burn's own computes each element by a call; this is the same function, several times faster.
fn tanh(x: Tensor<2>) -> Tensor<2> {
    sigmoid(x * 2.0) * 2.0 - 1.0
}

/// Random weights of an LSTM to begin with.
pub fn fresh(inputs: usize, hidden: usize, outputs: usize, seed: u64) -> Weights {
    fresh_of(Kind::Lstm, inputs, hidden, outputs, seed)
}

/// Random weights to begin with; an LSTM's states are remembered at first rather than forgotten.
pub fn fresh_of(kind: Kind, inputs: usize, hidden: usize, outputs: usize, seed: u64) -> Weights {
    let rows = kind.gates() * hidden;
    let mut random = Random::new(seed);
    let bound = 1.0 / (hidden as f32).sqrt();
    let mut uniform = |count: usize| -> Vec<f32> {
        let draw = |_| (random.unit() as f32 * 2.0 - 1.0) * bound;
        (0..count).map(draw).collect()
    };
    let mut weights = Weights {
        kind,
        inputs,
        hidden,
        outputs,
        of_input: uniform(rows * inputs),
        of_state: uniform(rows * hidden),
        bias: vec![0.0; rows],
        head: uniform(outputs * hidden),
        head_bias: vec![0.0; outputs],
    };
    if kind == Kind::Lstm {
        weights.bias[hidden..2 * hidden].fill(1.0);
    }
    weights
}

/// Trains from `begin`, on the thread that calls. `told` hears of each epoch and its mean loss, and
/// ends the training by `false`. Weights that are no numbers any more are never returned: the last
/// epoch's that were are.
pub fn train(
    begin: &Weights,
    sequences: &Sequences,
    training: &Training,
    mut told: impl FnMut(usize, f32) -> bool,
) -> Weights {
    let device = Device::flex().autodiff();
    let mut network = Network::of(begin, &device);
    let mut optimizer = AdamConfig::new().init();
    let mut random = Random::new(training.seed);
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    let mut best = begin.clone();
    for epoch in 0..training.epochs {
        random.shuffle(&mut order);
        let (mut sum, mut batches) = (0.0, 0);
        // Large steps first, small ones to settle.
        let progress = epoch as f64 / training.epochs as f64;
        let rate = training.rate * (1.0 + (progress * std::f64::consts::PI).cos()) / 2.0;
        for batch in order.chunks(training.batch.max(1)) {
            let (given, truth, counts) = gather(sequences, batch, training.warm_up, &device);
            let said = network.forward(begin.kind, given);
            let lost = loss(training.loss, said, truth, counts);
            let gradients = GradientsParams::from_grads(lost.backward(), &network);
            network = optimizer.step(rate, network, gradients);
            sum += lost
                .into_data()
                .try_to_vec::<f32>()
                .map_or(f32::NAN, |all| all[0]);
            batches += 1;
        }
        let weights = network.weights(begin.kind, begin.inputs);
        if weights.check().is_err() {
            break;
        }
        best = weights;
        if !told(epoch, sum / batches.max(1) as f32) {
            break;
        }
    }
    best
}

/// Inputs, truths and whether each of them counts.
fn gather(
    sequences: &Sequences,
    batch: &[usize],
    warm_up: usize,
    device: &Device,
) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
    let (steps, inputs, outputs) = (sequences.steps, sequences.inputs, sequences.outputs);
    let mut given: Vec<f32> = Vec::with_capacity(batch.len() * steps * inputs);
    let mut truths: Vec<f32> = Vec::with_capacity(batch.len() * steps * outputs);
    let mut counts: Vec<f32> = Vec::with_capacity(truths.capacity());
    for sequence in batch {
        given.extend(&sequences.given[sequence * steps * inputs..][..steps * inputs]);
        let truth = &sequences.truth[sequence * steps * outputs..][..steps * outputs];
        for (at, truth) in truth.iter().enumerate() {
            let known = truth.is_finite() && at / outputs >= warm_up;
            truths.push(if known { *truth } else { 0.0 });
            counts.push(f32::from(u8::from(known)));
        }
    }
    let shape = |width| [batch.len(), steps, width];
    (
        Tensor::from_data(TensorData::new(given, shape(inputs)), device),
        Tensor::from_data(TensorData::new(truths, shape(outputs)), device),
        Tensor::from_data(TensorData::new(counts, shape(outputs)), device),
    )
}

fn loss(kind: Loss, said: Tensor<3>, truth: Tensor<3>, counts: Tensor<3>) -> Tensor<1> {
    let each = match kind {
        Loss::Value => (said - truth).abs(),
        // −log of the chance that was given to what happened.
        Loss::Chance => {
            let [yes, no] = [log_sigmoid(said.clone()), log_sigmoid(-said)];
            -(truth.clone() * yes + (-truth + 1.0) * no)
        }
    };
    (each * counts.clone()).sum() / (counts.sum() + 1e-6)
}

/// States at every step and the cell at the end, without a head, from a state and a cell on.
#[cfg(test)]
pub(crate) fn unheaded(
    weights: &Weights,
    given: Tensor<3>,
    state: Tensor<2>,
    cell: Tensor<2>,
) -> (Tensor<3>, Tensor<2>) {
    let hidden = weights.hidden;
    let mut weights = weights.clone();
    weights.outputs = hidden;
    weights.head = (0..hidden * hidden)
        .map(|at| f32::from(u8::from(at / hidden == at % hidden)))
        .collect();
    weights.head_bias = vec![0.0; hidden];
    let network = Network::of(&weights, &given.device());
    network.forward_from(weights.kind, given, state, cell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Cell;

    #[test]
    fn the_kernel_is_what_was_trained() {
        for kind in [Kind::Lstm, Kind::Rnn] {
            compare(kind);
        }
    }

    fn compare(kind: Kind) {
        let (inputs, hidden, outputs, items, steps) = (12, 32, 4, 7, 32);
        let mut weights = fresh_of(kind, inputs, hidden, outputs, 3);
        weights
            .of_state
            .iter_mut()
            .for_each(|weight| *weight *= 2.0);
        let mut random = Random::new(4);
        let draw = |_| random.unit() as f32 * 6.0 - 3.0;
        let given: Vec<f32> = (0..items * steps * inputs).map(draw).collect();
        let device = Device::flex();
        let network = Network::of(&weights, &device);
        assert_eq!(
            network.weights(weights.kind, inputs),
            weights,
            "nothing is lost on the way"
        );
        let data = TensorData::new(given.clone(), [items, steps, inputs]);
        let said = network.forward(weights.kind, Tensor::from_data(data, &device));
        let expected = said.into_data().try_to_vec::<f32>().expect("f32");
        let cell = Cell::new(&weights).expect("fit");
        let mut states = cell.begin(items);
        let mut said = vec![0.0; items * outputs];
        for step in 0..steps {
            let of = |item: usize| &given[(item * steps + step) * inputs..][..inputs];
            let now: Vec<f32> = (0..items).flat_map(of).copied().collect();
            cell.step(&now, &mut states);
            cell.say(&states, &mut said);
            for (at, said) in said.iter().enumerate() {
                let (item, output) = (at / outputs, at % outputs);
                let expected = expected[(item * steps + step) * outputs + output];
                assert!(
                    (said - expected).abs() < 1e-5,
                    "{said} and {expected} at {step}"
                );
            }
        }
    }

    /// Sequences whose truth is the input of three steps before: only who remembers can know it.
    fn remembered(outputs: usize) -> Sequences {
        let mut random = Random::new(8);
        let mut all = Sequences::new(24, 1, outputs);
        for _ in 0..256 {
            let values: Vec<f32> = (0..24).map(|_| f32::from(random.unit() > 0.5)).collect();
            all.given.extend(&values);
            let truth = |step: usize| step.checked_sub(3).map_or(f32::NAN, |then| values[then]);
            all.truth.extend((0..24).map(truth));
        }
        all
    }

    #[test]
    fn it_learns_to_remember_and_the_same_seed_learns_the_same() {
        let kinds = [Kind::Lstm, Kind::Rnn].into_iter();
        let cases = kinds.flat_map(|kind| [(kind, Loss::Value), (kind, Loss::Chance)]);
        for (kind, loss) in cases {
            let training = Training {
                hidden: 16,
                loss,
                epochs: 30,
                batch: 32,
                rate: 2e-2,
                ..Training::default()
            };
            let begin = fresh_of(kind, 1, 16, 1, 2);
            let mut losses = Vec::new();
            let learned = train(&begin, &remembered(1), &training, |_, lost| {
                losses.push(lost);
                true
            });
            let (first, last) = (losses[0], losses[losses.len() - 1]);
            assert!(last < 0.2 * first, "{kind:?}, {loss:?}: {first} to {last}");
            let again = train(&begin, &remembered(1), &training, |epoch, _| epoch < 29);
            assert_eq!(learned, again);
        }
    }

    #[test]
    fn who_listens_may_end_it_and_nothing_to_learn_changes_nothing() {
        let begin = fresh(1, 16, 1, 2);
        let mut heard = 0;
        train(&begin, &remembered(1), &Training::default(), |_, _| {
            heard += 1;
            false
        });
        assert_eq!(heard, 1);
        let none = Sequences::new(24, 1, 1);
        assert_eq!(
            train(&begin, &none, &Training::default(), |_, _| true),
            begin
        );
    }
}
