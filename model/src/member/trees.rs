//! Gradient-boosted trees as a forecaster: no state, all inputs.

use std::sync::Arc;

use hessboost::prelude::*;

use super::Forecaster;
use crate::track::{INPUTS, Track};

/// Trees, their depth, and how much each of them may say.
const TREES: usize = 150;
const DEPTH: usize = 5;
const SHARE: f64 = 0.06;
/// Examples and inputs that each tree sees: they differ, and follow the noise less.
const SEEN: f64 = 0.7;

/// Trees that many series share.
pub struct Forest(BoostedModel);

impl std::fmt::Debug for Forest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forest")
    }
}

/// Trees can't be had from these examples.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the trees learn nothing: {0}")]
pub struct Unlearned(String);

impl Forest {
    /// Learns how far off the newest value the one that is asked for lies, on the thread that
    /// calls. `given` is `[examples][INPUTS]`.
    pub fn learn(given: &[f32], truth: &[f32]) -> Result<Forest, Unlearned> {
        let learned = || -> Result<BoostedModel> {
            let examples = DMatrix::from_dense(given, truth.len(), INPUTS)?.with_labels(truth)?;
            let parameters = TrainingParams::builder()
                .objective(Objective::AbsoluteError)
                .tree_method(TreeMethod::Hist)
                .max_depth(DEPTH)
                .eta(SHARE)
                .subsample(SEEN)
                .colsample_bytree(SEEN)
                .nthread(1)
                .build()?;
            train(&parameters, &examples, TREES)
        };
        learned()
            .map(Forest)
            .map_err(|error| Unlearned(error.to_string()))
    }

    fn say(&self, inputs: &[f32; INPUTS]) -> f32 {
        let said = self.0.predict_row(inputs, Iterations::Best);
        // It has been checked that rows are as wide as the trees expect.
        said.unwrap_or(0.0)
    }
}

/// The trees, for one series.
#[derive(Clone, Debug)]
pub struct Trees {
    forest: Arc<Forest>,
    ahead: usize,
    said: Option<f32>,
}

impl Trees {
    pub fn new(forest: Arc<Forest>, ahead: usize) -> Trees {
        Trees {
            forest,
            ahead,
            said: None,
        }
    }
}

impl Forecaster for Trees {
    fn observe(&mut self, track: &Track) {
        let inputs = track.inputs(self.ahead);
        self.said = track.off_newest(self.forest.say(&inputs));
    }

    fn forecast(&self, _track: &Track) -> Option<f32> {
        self.said
    }
}
