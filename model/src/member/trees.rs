//! Gradient-boosted trees: no state, all inputs.

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
/// Examples that a leaf has to hold, so that it tells more than of a few.
const LEAF: f64 = 20.0;

/// What trees are to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// A value, by its absolute error.
    Value,
    /// The logarithm of the odds of 1 against 0.
    Odds,
}

/// Trees that many series share.
pub struct Forest {
    model: BoostedModel,
    inputs: usize,
    goal: Goal,
}

impl std::fmt::Debug for Forest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forest")
            .field("inputs", &self.inputs)
            .field("goal", &self.goal)
            .finish_non_exhaustive()
    }
}

/// Trees can't be had from these examples, or from these bytes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the trees can't be had: {0}")]
pub struct Unlearned(String);

fn unlearned(error: impl std::fmt::Display) -> Unlearned {
    Unlearned(error.to_string())
}

impl Forest {
    /// Learns on the thread that calls. `given` is `[examples][inputs]`.
    pub fn learn(
        goal: Goal,
        given: &[f32],
        inputs: usize,
        truth: &[f32],
    ) -> Result<Forest, Unlearned> {
        let learned = || -> Result<BoostedModel> {
            let examples = DMatrix::from_dense(given, truth.len(), inputs)?.with_labels(truth)?;
            let (objective, leaf) = match goal {
                // A leaf of odds holds as much curvature as a fifth of its examples at best.
                Goal::Value => (Objective::AbsoluteError, 1.0),
                Goal::Odds => (Objective::BinaryLogistic(RegLoss::default()), LEAF / 5.0),
            };
            let parameters = TrainingParams::builder()
                .objective(objective)
                .tree_method(TreeMethod::Hist)
                .max_depth(DEPTH)
                .min_child_weight(leaf)
                .eta(SHARE)
                .subsample(SEEN)
                .colsample_bytree(SEEN)
                .nthread(1)
                .build()?;
            train(&parameters, &examples, TREES)
        };
        let model = learned().map_err(unlearned)?;
        Ok(Forest {
            model,
            inputs,
            goal,
        })
    }

    /// What they say of one row of inputs.
    pub fn say(&self, inputs: &[f32]) -> f32 {
        let said = self.model.predict_row(inputs, Iterations::Best);
        // It has been checked that rows are as wide as the trees expect.
        let said = said.unwrap_or(0.0);
        match self.goal {
            Goal::Value => said,
            Goal::Odds => crate::chance::logit(said),
        }
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, Unlearned> {
        self.model.encode(ModelFormat::Binary).map_err(unlearned)
    }

    /// Trees as [`Forest::to_bytes`] wrote them.
    pub fn from_bytes(goal: Goal, inputs: usize, bytes: &[u8]) -> Result<Forest, Unlearned> {
        let model = BoostedModel::decode(bytes, ModelFormat::Binary).map_err(unlearned)?;
        let blank = vec![0.0; inputs];
        model
            .predict_row(&blank, Iterations::Best)
            .map_err(unlearned)?;
        Ok(Forest {
            model,
            inputs,
            goal,
        })
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
    /// `forest` says how far off the newest value the one `ahead` lies, in deviations.
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
        debug_assert_eq!(inputs.len(), INPUTS);
        self.said = track.off_newest(self.forest.say(&inputs));
    }

    fn forecast(&self, _track: &Track) -> Option<f32> {
        self.said
    }

    fn boxed(&self) -> Box<dyn Forecaster> {
        Box::new(self.clone())
    }
}
