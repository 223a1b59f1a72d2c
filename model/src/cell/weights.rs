//! Weights as they are learned and stored: plain, in PyTorch's layout, with a version.

use xxhash_rust::xxh3::Xxh3;

use super::UNIT;

/// What a layer does with its sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Four gates, in the order of PyTorch: input, forget, cell, output.
    Lstm,
    /// The plain recurrence: tanh of the one sum is the state.
    Rnn,
}

impl Kind {
    pub const fn gates(self) -> usize {
        match self {
            Kind::Lstm => 4,
            Kind::Rnn => 1,
        }
    }
}

/// Equal for weights of equal shape and numbers, and else different, but for a chance of 2⁻⁶⁴.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Version(pub u64);

#[derive(Clone, PartialEq, Debug)]
pub struct Weights {
    pub kind: Kind,
    pub inputs: usize,
    pub hidden: usize,
    pub outputs: usize,
    /// `[gates * hidden][inputs]`
    pub of_input: Vec<f32>,
    /// `[gates * hidden][hidden]`
    pub of_state: Vec<f32>,
    /// `[gates * hidden]`
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
        let rows = self.kind.gates() * hidden;
        let all = [
            ("weights of the inputs", &self.of_input, rows * inputs),
            ("weights of the state", &self.of_state, rows * hidden),
            ("biases", &self.bias, rows),
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

    /// A checksum over shape and numbers, the same on every machine.
    pub fn version(&self) -> Version {
        let mut sum = Xxh3::new();
        let shape = [self.kind.gates(), self.inputs, self.hidden, self.outputs];
        for size in shape {
            sum.update(&(size as u64).to_le_bytes());
        }
        let (layer, head) = ([&self.of_input, &self.of_state, &self.bias], &self.head);
        for numbers in layer.into_iter().chain([head, &self.head_bias]) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_le_bytes()).collect();
            sum.update(&bytes);
        }
        Version(sum.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Cell;
    use crate::lstm::{fresh, fresh_of};

    #[test]
    fn weights_that_do_not_fit_are_refused() {
        let good = fresh(12, 16, 3, 5);
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

    #[test]
    fn every_number_and_the_shape_are_in_the_version() {
        let good = fresh(12, 16, 3, 5);
        assert_eq!(good.version(), good.clone().version());
        // Versions are stored and sent: they stay what they are.
        assert_eq!(good.version(), Version(18_286_356_708_125_270_771));
        let changes: [fn(&mut Weights); 7] = [
            |weights| weights.of_input[0] += 1e-3,
            |weights| weights.of_state[16 * 64 - 1] += 1e-3,
            |weights| weights.bias[0] = -0.0,
            |weights| weights.head[7] += 1e-3,
            |weights| weights.head_bias[2] += 1e-3,
            |weights| weights.inputs = 11,
            |weights| weights.kind = Kind::Rnn,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut other = good.clone();
            change(&mut other);
            assert_ne!(other.version(), good.version(), "change {at}");
        }
        let rnn = fresh_of(Kind::Rnn, 12, 16, 3, 5);
        assert_eq!(rnn.check(), Ok(()));
        assert_ne!(rnn.version(), good.version());
    }
}
