//! The LSTM as a forecaster of one series: one step a bin, with the state kept.

use std::sync::Arc;

use super::Forecaster;
use crate::cell::{Cell, States};
use crate::track::{LSTM_INPUTS, Track};

/// A cell that many series share, and the state of one of them.
#[derive(Clone, Debug)]
pub struct Recurrent {
    cell: Arc<Cell>,
    ahead: usize,
    states: States,
    said: Option<f32>,
}

impl Recurrent {
    /// `cell` takes [`LSTM_INPUTS`] and says how far off the newest value the one `ahead` lies, in
    /// deviations, first among its outputs.
    pub fn new(cell: Arc<Cell>, ahead: usize) -> Recurrent {
        let states = States::new(1, cell.hidden());
        Recurrent {
            cell,
            ahead,
            states,
            said: None,
        }
    }
}

impl Forecaster for Recurrent {
    fn observe(&mut self, track: &Track) {
        let inputs = track.inputs(self.ahead);
        self.cell.step(&inputs[..LSTM_INPUTS], &mut self.states);
        let mut said = vec![0.0; self.cell.outputs()];
        self.cell.say(&self.states, &mut said);
        self.said = track.off_newest(said[0]);
    }

    fn forecast(&self, _track: &Track) -> Option<f32> {
        self.said
    }
}
