//! What is foretold and why, as `GET /v1/forecasts` and `GET /v1/forecasts/{object}` tell it.
//!
//! Chances are shares of 1, one for each horizon; times are seconds since 1970.

use serde::{Deserialize, Serialize};

/// What comes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ForecastsReply {
    pub now: i64,
    pub bin_seconds: u32,
    /// Within how many seconds chances are, ascending.
    pub horizons: Vec<u32>,
    /// The horizon by which the list is ordered.
    pub within: u32,
    /// The version of who speaks, or `rules`.
    pub model: String,
    /// The likeliest within `within` come first.
    pub forecasts: Vec<ForecastReply>,
    /// How many there are of what was asked for, shown or not.
    pub found: u64,
    /// Targets that found no room since the start; see `model.targets`.
    pub left_out: u64,
}

/// What was said of a target.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ForecastReply {
    pub object: String,
    pub kind: String,
    pub region: Option<String>,
    /// How likely it happens within each horizon: what a hint says, while there is one.
    pub chances: Vec<f32>,
    /// The number that is expected in the bin that is foretold.
    pub value: Option<f32>,
    /// None while there is only a hint.
    pub issued: Option<i64>,
    pub expires: Option<i64>,
    pub model: Option<String>,
    /// Nobody acts on it.
    pub control: bool,
    pub hint: Option<HintReply>,
    pub hits: HitsReply,
}

/// What somebody outside says.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct HintReply {
    pub chance: f32,
    pub until: i64,
}

/// How good forecasts of a target were, within the shortest horizon, of all that is known of it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HitsReply {
    pub judged: u64,
    pub happened: u64,
    /// How often it was said to be likelier than not, and how often that was right.
    pub said: u64,
    pub right: u64,
    /// The mean of squared errors of chances: 0 is best, always saying a half has 0.25.
    pub brier: Option<f64>,
}

/// Why the forecasts of an object are what they are.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExplainReply {
    pub now: i64,
    pub bin_seconds: u32,
    pub horizons: Vec<u32>,
    /// How many seconds ahead values are foretold.
    pub ahead: u32,
    pub object: String,
    pub targets: Vec<ReasonsReply>,
}

/// Why a forecast is what it is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonsReply {
    pub forecast: ForecastReply,
    /// What the model says, whatever a hint says.
    pub own: Vec<f32>,
    /// Members of the mix of values.
    pub values: Vec<ValueReply>,
    /// Members of the mix of chances.
    pub chances: Vec<ChancesReply>,
    /// Those that move the chance most come first.
    pub inputs: Vec<InputReply>,
    /// How often it happens in a bin, and how often to what is akin.
    pub rate: Option<f32>,
    pub akin: Option<f32>,
    /// The end of the bin in which it happened last.
    pub last: Option<i64>,
    /// All of it in words.
    pub sentences: Vec<String>,
}

/// What a member says of the value that comes, and what it weighs in the mix.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ValueReply {
    pub name: String,
    pub says: Option<f32>,
    pub weighs: f64,
}

/// What a member says of each horizon.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ChancesReply {
    pub name: String,
    pub chances: Vec<f32>,
}

/// What an input is, and what it adds to the logarithm of the odds within the shortest horizon, as
/// the regression sees it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct InputReply {
    pub name: String,
    pub is: f32,
    pub adds: f32,
}

/// Which horizon is meant by `within` seconds: the shortest that is as long, or the longest.
pub fn horizon(horizons: &[u32], within: u32) -> usize {
    let fits = horizons.iter().position(|horizon| *horizon >= within);
    fits.unwrap_or_else(|| horizons.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_the_next_longer_horizon() {
        let at = |within| horizon(&[900, 3_600, 21_600], within);
        assert_eq!(
            [1, 900, 901, 3_600, 21_600, 99_999].map(at),
            [0, 0, 1, 1, 2, 2]
        );
        assert_eq!(horizon(&[], 5), 0);
    }
}
