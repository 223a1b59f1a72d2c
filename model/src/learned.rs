//! What was learned from many series: the networks, the trees, the regressions, and for what bins
//! and horizons they are of use.

use std::sync::Arc;

use crate::cell::{Cell, Unfit, Weights};
use crate::chance::{Calibration, Horizons, Logistic, OCCURRENCE_INPUTS, OCCURRENCE_NAMES};
use crate::drift::Edges;
use crate::history::Grid;
use crate::member::{Forest, Unlearned};
use crate::track::{INPUT_NAMES, INPUTS};

/// Inputs of a forecaster of chances: those of values, and those of occurrences.
pub const CHANCE_INPUTS: usize = INPUTS + OCCURRENCE_INPUTS;

/// What an input of a forecaster of chances is, for people.
pub fn input_name(input: usize) -> &'static str {
    let names = INPUT_NAMES.iter().chain(&OCCURRENCE_NAMES);
    names.copied().nth(input).unwrap_or("?")
}

/// Grows when inputs change their meaning: weights that were learned from others are of no use.
pub const INPUTS_VERSION: u32 = 1;

/// Bins that can be looked ahead: a week of bins of five minutes.
pub const AHEAD_MAX: usize = 2_016;

/// What a model is for; it is of use for nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schema {
    /// Seconds of a bin.
    pub step: u32,
    /// How many bins ahead values are foretold.
    pub ahead: usize,
    /// Within how many bins chances are.
    pub horizons: Horizons,
}

impl Schema {
    /// From seconds; a horizon that is shorter than a bin is one bin, and one of more bins than
    /// can be looked ahead is as many as can be.
    pub fn new(step: u32, ahead: u32, horizons: &[u32]) -> Option<Schema> {
        let grid = Grid::daily(step);
        let bins = |seconds: u32| grid.bins(seconds).min(AHEAD_MAX);
        Some(Schema {
            step: grid.step(),
            ahead: bins(ahead),
            horizons: Horizons::new(horizons.iter().map(|seconds| bins(*seconds)))?,
        })
    }

    pub fn grid(&self) -> Grid {
        Grid::daily(self.step)
    }
}

/// Which forecasters speak.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Kind {
    /// All of them, by how well they did.
    #[default]
    Mix,
    /// The LSTM alone.
    Lstm,
    /// A network without gates alone.
    Rnn,
    /// The exponentially weighted mean, and the mean rate.
    MovingAverage,
    /// The last value, and the rate ever.
    Naive,
}

impl Kind {
    pub const NAMES: [&str; 5] = ["mix", "lstm", "rnn", "moving-average", "naive"];
    pub const ALL: [Kind; 5] = [
        Kind::Mix,
        Kind::Lstm,
        Kind::Rnn,
        Kind::MovingAverage,
        Kind::Naive,
    ];

    pub fn named(name: &str) -> Option<Kind> {
        let at = Kind::NAMES.iter().position(|known| *known == name)?;
        Some(Kind::ALL[at])
    }

    pub fn name(self) -> &'static str {
        let at = Kind::ALL.iter().position(|kind| *kind == self);
        at.map_or("mix", |at| Kind::NAMES[at])
    }
}

/// A network with what was learned of it.
#[derive(Clone, Debug)]
pub struct Net {
    pub weights: Weights,
    pub cell: Arc<Cell>,
}

impl Net {
    pub fn new(weights: Weights) -> Result<Net, Unfit> {
        let cell = Arc::new(Cell::new(&weights)?);
        Ok(Net { weights, cell })
    }
}

/// Forecasters of values.
#[derive(Clone, Debug)]
pub struct Values {
    pub net: Net,
    pub forest: Arc<Forest>,
}

/// Forecasters of hazards: one network for all intervals, the others one each.
#[derive(Clone, Debug)]
pub struct Odds {
    pub net: Net,
    pub forests: Vec<Arc<Forest>>,
    pub logistics: Vec<Logistic>,
    pub calibrations: Vec<Calibration>,
}

/// What the mix of hazards is made of, in this order.
pub const ODDS_MEMBERS: [&str; 3] = ["logistic", "trees", "lstm"];

impl Odds {
    /// What each of [`ODDS_MEMBERS`] says of each interval, as logits; `of_net` is the network's.
    pub fn logits(&self, inputs: &[f32], of_net: Option<&[f32]>) -> [Option<Vec<f32>>; 3] {
        let logistic = self.logistics.iter().map(|one| one.logit(inputs));
        let trees = self.forests.iter().map(|one| one.say(inputs));
        [
            Some(logistic.collect()),
            Some(trees.collect()),
            of_net.map(<[f32]>::to_vec),
        ]
    }
}

/// Nobody is so sure: odds beyond these would outvote all others.
const ODDS_MAX: f32 = 5.0;

/// The means of what members say, interval by interval; nonsense is left out.
pub fn mean_logits<'a>(members: impl Iterator<Item = &'a [f32]> + Clone, count: usize) -> Vec<f32> {
    let interval = |at: usize| {
        let said = members.clone().filter_map(|member| member.get(at).copied());
        let said = said.filter(|logit| !logit.is_nan());
        let said = said.map(|logit| logit.clamp(-ODDS_MAX, ODDS_MAX));
        let (sum, all) = said.fold((0.0, 0.0), |(sum, all), logit| (sum + logit, all + 1.0));
        if all > 0.0 { sum / all } else { 0.0 }
    };
    (0..count).map(interval).collect()
}

/// Everything that was learned.
#[derive(Clone, Debug)]
pub struct Learned {
    pub kind: Kind,
    pub schema: Schema,
    /// `None` while there was too little to learn from.
    pub values: Option<Values>,
    pub odds: Option<Odds>,
    /// How often it happened in a bin, over all series.
    pub base_rate: f32,
    /// From when to when what it was learned from was seen, seconds.
    pub window: (i64, i64),
    pub examples: u64,
    /// Where the inputs lay that it was learned from.
    pub edges: Option<Edges>,
}

/// Learning came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Trees(#[from] Unlearned),
    #[error("the network learned nothing that can be used: {0}")]
    Net(#[from] Unfit),
}

impl Learned {
    /// Nothing yet: rules only.
    pub fn blank(kind: Kind, schema: Schema) -> Learned {
        Learned {
            kind,
            schema,
            values: None,
            odds: None,
            base_rate: 0.0,
            window: (0, 0),
            examples: 0,
            edges: None,
        }
    }
}
