//! An honest score: members are trained on the first part of all series, then everything walks
//! forward through the rest, and the mix is compared with rules that anybody could use.

use std::sync::Arc;

use crate::cell::{Cell, Unfit};
use crate::history::Grid;
use crate::lstm::{self, Loss, Sequences, Training};
use crate::member::{Forest, Recurrent, Trees, Unlearned};
use crate::score::{Errors, Summary};
use crate::series::Series;
use crate::track::{INPUTS, LSTM_INPUTS, Track};
use crate::walk::{Named, untrained, walk};

/// How to evaluate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plan {
    /// How far ahead is asked, seconds.
    pub horizon: u32,
    /// The first part of every series, from which is learned.
    pub train_share: f64,
    pub training: Training,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            horizon: 3600,
            train_share: 0.6,
            training: Training::default(),
        }
    }
}

/// Bins of a window that the LSTM learns from.
const WINDOW: usize = 64;
/// A training set is thinned to about this many windows.
const WINDOWS_MAX: usize = 6000;
/// And to about this many examples for the trees.
const EXAMPLES_MAX: usize = 60_000;

/// What members were trained.
#[derive(Clone, Debug)]
pub struct Trained {
    cell: Option<Arc<Cell>>,
    forest: Option<Arc<Forest>>,
}

/// Training came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Trees(#[from] Unlearned),
    #[error("the LSTM learned nothing that can be used: {0}")]
    Lstm(#[from] Unfit),
}

impl Trained {
    /// Trains the members that learn from many series. `told` hears what is done.
    pub fn on(
        series: &[Series],
        plan: &Plan,
        mut told: impl FnMut(&str),
    ) -> Result<Trained, Error> {
        let examples = Examples::of(series, plan);
        if examples.truth.is_empty() || examples.sequences.is_empty() {
            told("too little to train on: rules only");
            let (cell, forest) = (None, None);
            return Ok(Trained { cell, forest });
        }
        told(&format!("trees: {} examples", examples.truth.len()));
        let forest = Forest::learn(&examples.given, &examples.truth)?;
        told(&format!(
            "lstm: {} windows of {WINDOW}",
            examples.sequences.len()
        ));
        let begin = lstm::fresh(LSTM_INPUTS, plan.training.hidden, 1, plan.training.seed);
        let training = Training {
            loss: Loss::Value,
            ..plan.training
        };
        let weights = lstm::train(&begin, &examples.sequences, &training, |epoch, lost| {
            told(&format!(
                "lstm: epoch {} of {}: {lost:.4}",
                epoch + 1,
                training.epochs
            ));
            true
        });
        Ok(Trained {
            cell: Some(Arc::new(Cell::new(&weights)?)),
            forest: Some(Arc::new(forest)),
        })
    }

    /// All members for one series.
    pub fn members(&self, grid: Grid, ahead: usize) -> Vec<Named> {
        let mut members = untrained(grid, ahead);
        if let Some(forest) = &self.forest {
            members.push(("trees", Box::new(Trees::new(Arc::clone(forest), ahead))));
        }
        if let Some(cell) = &self.cell {
            members.push(("lstm", Box::new(Recurrent::new(Arc::clone(cell), ahead))));
        }
        members
    }
}

/// What is learned from: for every bin the inputs, and how far off the newest value the truth lay.
struct Examples {
    given: Vec<f32>,
    truth: Vec<f32>,
    sequences: Sequences,
}

impl Examples {
    fn of(series: &[Series], plan: &Plan) -> Examples {
        let parts = || {
            series
                .iter()
                .map(|series| (series, train_part(series, plan)))
        };
        let bins: usize = parts().map(|(_, part)| part.len()).sum();
        let thin = (bins / EXAMPLES_MAX).max(1);
        let thin_windows = (bins / WINDOW / WINDOWS_MAX).max(1);
        let mut examples = Examples {
            given: Vec::new(),
            truth: Vec::new(),
            sequences: Sequences::new(WINDOW, LSTM_INPUTS, 1),
        };
        let (mut rows, mut windows) = (0, 0);
        for (series, part) in parts() {
            let (given, truth) = lay_out(series, part, plan);
            for (inputs, truth) in given.iter().zip(&truth) {
                rows += 1;
                if truth.is_finite() && rows % thin == 0 {
                    examples.given.extend(inputs);
                    examples.truth.push(*truth);
                }
            }
            for (inputs, truth) in given.chunks_exact(WINDOW).zip(truth.chunks_exact(WINDOW)) {
                windows += 1;
                if windows % thin_windows == 0 {
                    let some = inputs.iter().flat_map(|all| &all[..LSTM_INPUTS]);
                    examples.sequences.given.extend(some);
                    examples.sequences.truth.extend(truth);
                }
            }
        }
        examples
    }
}

fn train_part<'a>(series: &'a Series, plan: &Plan) -> &'a [f32] {
    let count = (series.values.len() as f64 * plan.train_share) as usize;
    &series.values[..count.min(series.values.len())]
}

/// Inputs and truths bin by bin; a truth that is not known, or lies beyond the part, is NaN.
fn lay_out(series: &Series, part: &[f32], plan: &Plan) -> (Vec<[f32; INPUTS]>, Vec<f32>) {
    let grid = series.grid();
    let ahead = grid.bins(plan.horizon);
    let mut track = Track::new(grid, series.start);
    let (mut given, mut truths) = (Vec::new(), Vec::new());
    for (at, value) in part.iter().enumerate() {
        track.push(*value);
        let inputs = track.inputs(ahead);
        let truth = part.get(at + ahead).copied().unwrap_or(f32::NAN);
        let off = match truth.is_finite() && track.history().newest().is_some() {
            true => track.running().normalise(truth) - inputs[0],
            false => f32::NAN,
        };
        given.push(inputs);
        truths.push(off);
    }
    (given, truths)
}

/// Skills of one forecaster over all series.
#[derive(Clone, Debug)]
pub struct Skills {
    pub name: String,
    pub vs_seasonal: Summary,
    pub vs_ewma: Summary,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Report {
    pub series: usize,
    pub bins: u64,
    /// Every member, then the mix, then the mix without the LSTM.
    pub skills: Vec<Skills>,
    /// By how much the LSTM lowers the mix's error, median over series.
    pub lstm_marginal: Option<f64>,
}

/// Walks through all series.
pub fn evaluate(series: &[Series], plan: &Plan, trained: &Trained) -> Option<Report> {
    let mut all: Vec<(Errors, Option<Errors>)> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for series in series {
        let grid = series.grid();
        let ahead = grid.bins(plan.horizon);
        let from = train_part(series, plan).len();
        let members = trained.members(grid, ahead);
        names = members.iter().map(|(name, _)| *name).collect();
        let errors = walk(series, ahead, from, members);
        let without = trained.cell.as_ref().map(|_| {
            let mut members = trained.members(grid, ahead);
            members.retain(|(name, _)| *name != "lstm");
            walk(series, ahead, from, members)
        });
        if errors.count() > 0 {
            all.push((errors, without));
        }
    }
    let place = |wanted: &str| names.iter().position(|name| *name == wanted);
    let (seasonal, ewma) = (place("seasonal")?, place("ewma")?);
    let mix = names.len();
    let summary = |member: usize, reference: usize| {
        let skills = all
            .iter()
            .map(|(errors, _)| errors.skill(member, reference));
        Summary::of(&skills.collect::<Vec<_>>())
    };
    let mut skills = Vec::new();
    for (member, name) in names.iter().copied().chain(["mix"]).enumerate() {
        skills.push(Skills {
            name: name.to_owned(),
            vs_seasonal: summary(member, seasonal)?,
            vs_ewma: summary(member, ewma)?,
        });
    }
    let marginal = all.iter().filter_map(|(with, without)| {
        let without = without.as_ref()?;
        let (with, without) = (with.mean(mix), without.mean(mix - 1));
        Some(if without > 0.0 {
            1.0 - with / without
        } else {
            0.0
        })
    });
    let marginal: Vec<f64> = marginal.collect();
    Some(Report {
        series: all.len(),
        bins: all.iter().map(|(errors, _)| errors.count()).sum(),
        skills,
        lstm_marginal: Summary::of(&marginal).map(|summary| summary.median),
    })
}
