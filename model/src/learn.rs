//! Learning from many series what their values and occurrences depend on.
//!
//! Everything walks forward: a bin's inputs are what was known then. The last part of what is
//! learned from is held out, and used only to calibrate.

use std::sync::Arc;

use crate::cell::{self, Weights};
use crate::chance::{Calibration, Logistic, Occurrences};
use crate::drift::Edges;
use crate::fleet::{Fleet, happened_in};
use crate::learned::{CHANCE_INPUTS, Error, Kind, Learned, Net, Odds, Schema, Values};
use crate::lstm::{self, Loss, Sequences, Training};
use crate::member::{Forest, Goal};
use crate::series::Series;
use crate::track::{INPUTS, Track};

/// A series to learn from, up to a bin.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    pub series: &'a Series,
    /// It happens where the value is above this.
    pub limit: f32,
    pub until: usize,
}

impl Lesson<'_> {
    fn values(&self) -> &[f32] {
        &self.series.values[..self.until.min(self.series.values.len())]
    }
}

/// Bins of a window that networks learn from.
const WINDOW: usize = 64;
/// Windows begin this far apart: they overlap, for there are never enough.
const STRIDE: usize = 8;
/// No more windows, and no more examples, than these are learned from: about as many of each
/// series.
const WINDOWS_MAX: usize = 6_000;
const EXAMPLES_MAX: usize = 60_000;
/// Fewer tell nothing.
const EXAMPLES_MIN: usize = 200;
/// Steps down the gradient that a training takes: fewer rounds of more windows.
const STEPS: usize = 800;
const EPOCHS_MAX: usize = 30;
/// The last part of each series is held out.
const HELD_OUT: f64 = 0.15;

/// Learns from `lessons`. `told` hears what is done, and ends it by `false`: then what there was
/// is returned as `None`.
pub fn learn(
    kind: Kind,
    schema: &Schema,
    lessons: &[Lesson<'_>],
    training: &Training,
    told: &mut dyn FnMut(&str) -> bool,
) -> Result<Option<Learned>, Error> {
    let mut learned = Learned::blank(kind, schema.clone());
    learned.base_rate = base_rate(lessons, schema);
    learned.window = window(lessons);
    let examples = Examples::of(lessons, schema, learned.base_rate);
    learned.examples = examples.value_truth.len() as u64;
    if matches!(kind, Kind::Naive | Kind::MovingAverage)
        || examples.value_truth.len() < EXAMPLES_MIN
        || examples.value_windows.is_empty()
    {
        told("rules only");
        return Ok(Some(learned));
    }
    let layer = match kind {
        Kind::Rnn => cell::Kind::Rnn,
        _ => cell::Kind::Lstm,
    };
    let how = (layer, training);
    let Some(values) = learn_values(&examples, how, told)? else {
        return Ok(None);
    };
    learned.values = Some(values);
    let Some(odds) = learn_odds(&examples, how, told)? else {
        return Ok(None);
    };
    learned.odds = Some(odds);
    let calibrations = calibrate(&learned, lessons);
    if let Some(odds) = &mut learned.odds {
        odds.calibrations = calibrations;
    }
    learned.edges = Some(Edges::of(examples.chance_given.chunks_exact(CHANCE_INPUTS)));
    Ok(Some(learned))
}

type Told<'a> = &'a mut dyn FnMut(&str) -> bool;

fn learn_values(
    examples: &Examples,
    how: (cell::Kind, &Training),
    told: Told<'_>,
) -> Result<Option<Values>, Error> {
    let count = examples.value_truth.len();
    if !told(&format!("values: trees, {count} examples")) {
        return Ok(None);
    }
    let forest = Forest::learn(
        Goal::Value,
        &examples.value_given,
        INPUTS,
        &examples.value_truth,
    )?;
    let net = learn_net(Loss::Value, &examples.value_windows, how, told);
    let Some(weights) = net else { return Ok(None) };
    Ok(Some(Values {
        net: Net::new(weights)?,
        forest: Arc::new(forest),
    }))
}

fn learn_odds(
    examples: &Examples,
    how: (cell::Kind, &Training),
    told: Told<'_>,
) -> Result<Option<Odds>, Error> {
    let count = examples.chance_windows.outputs;
    let (mut forests, mut logistics) = (Vec::new(), Vec::new());
    for interval in 0..count {
        let (given, labels) = examples.interval(interval);
        let known = labels.len();
        if !told(&format!(
            "chances: trees {} of {count}, {known} examples",
            interval + 1
        )) {
            return Ok(None);
        }
        logistics.push(Logistic::learn(&given, CHANCE_INPUTS, &labels));
        let forest = Forest::learn(Goal::Odds, &given, CHANCE_INPUTS, &labels)?;
        forests.push(Arc::new(forest));
    }
    let net = learn_net(Loss::Chance, &examples.chance_windows, how, told);
    let Some(weights) = net else { return Ok(None) };
    Ok(Some(Odds {
        net: Net::new(weights)?,
        forests,
        logistics,
        calibrations: vec![Calibration::default(); count],
    }))
}

fn learn_net(
    loss: Loss,
    sequences: &Sequences,
    (kind, training): (cell::Kind, &Training),
    told: Told<'_>,
) -> Option<Weights> {
    let batches = sequences.len().div_ceil(training.batch.max(1)).max(1);
    let training = Training {
        loss,
        epochs: (STEPS / batches).clamp(1, EPOCHS_MAX).min(training.epochs),
        ..*training
    };
    let begin = lstm::fresh_of(
        kind,
        sequences.inputs,
        training.hidden,
        sequences.outputs,
        training.seed,
    );
    let what = match loss {
        Loss::Value => "values",
        Loss::Chance => "chances",
    };
    let (mut goes_on, count) = (true, sequences.len());
    let weights = lstm::train(&begin, sequences, &training, |epoch, lost| {
        goes_on = told(&format!(
            "{what}: network, {count} windows, epoch {} of {}: {lost:.4}",
            epoch + 1,
            training.epochs
        ));
        goes_on
    });
    goes_on.then_some(weights)
}

/// How often it happens in a bin, over all lessons.
fn base_rate(lessons: &[Lesson<'_>], schema: &Schema) -> f32 {
    let (mut times, mut bins) = (0_u64, 0_u64);
    for lesson in lessons {
        let seen = Occurrences::new(schema.grid(), lesson.limit);
        for happened in lesson
            .values()
            .iter()
            .filter_map(|value| seen.happens(*value))
        {
            times += u64::from(happened);
            bins += 1;
        }
    }
    times as f32 / bins.max(1) as f32
}

fn window(lessons: &[Lesson<'_>]) -> (i64, i64) {
    let begin = lessons.iter().map(|lesson| lesson.series.start).min();
    let end = |lesson: &Lesson<'_>| {
        lesson.series.start + lesson.values().len() as i64 * i64::from(lesson.series.step)
    };
    (
        begin.unwrap_or(0),
        lessons.iter().map(end).max().unwrap_or(0),
    )
}

/// Bins of a lesson that are learned from; those after them are held out.
fn held_out_from(lesson: &Lesson<'_>) -> usize {
    (lesson.values().len() as f64 * (1.0 - HELD_OUT)) as usize
}

/// What the mix says of what was held out, against what happened there.
fn calibrate(learned: &Learned, lessons: &[Lesson<'_>]) -> Vec<Calibration> {
    let horizons = &learned.schema.horizons;
    let shared = Arc::new(learned.clone());
    let mut said: Vec<Vec<(f32, bool)>> = vec![Vec::new(); horizons.count()];
    for lesson in lessons {
        let (values, from) = (lesson.values(), held_out_from(lesson));
        let mut fleet = Fleet::new(Arc::clone(&shared));
        let item = fleet.add(lesson.series.start, lesson.limit);
        let happened = happened_in(&fleet, values);
        for (at, value) in values.iter().enumerate() {
            fleet.step(&[*value]);
            if at < from {
                continue;
            }
            let labels = horizons.labels(&happened[at + 1..]);
            let means = &fleet.outlook(item).mean;
            for ((said, label), mean) in said.iter_mut().zip(labels).zip(means) {
                if label.is_finite() {
                    said.push((*mean, label > 0.5));
                }
            }
        }
    }
    said.iter()
        .map(|said| Calibration::fit(said.iter()))
        .collect()
}

/// What is learned from.
struct Examples {
    value_given: Vec<f32>,
    value_truth: Vec<f32>,
    value_windows: Sequences,
    chance_given: Vec<f32>,
    /// `[examples][intervals]`
    chance_labels: Vec<f32>,
    chance_windows: Sequences,
}

impl Examples {
    fn of(lessons: &[Lesson<'_>], schema: &Schema, akin: f32) -> Examples {
        let count = schema.horizons.count();
        let bins: usize = lessons.iter().map(held_out_from).sum();
        let thin = (bins / EXAMPLES_MAX).max(1);
        let stride = STRIDE * (bins / STRIDE / WINDOWS_MAX).max(1);
        let mut examples = Examples {
            value_given: Vec::new(),
            value_truth: Vec::new(),
            value_windows: Sequences::new(WINDOW, INPUTS, 1),
            chance_given: Vec::new(),
            chance_labels: Vec::new(),
            chance_windows: Sequences::new(WINDOW, CHANCE_INPUTS, count),
        };
        for lesson in lessons {
            let rows = Rows::of(lesson, schema, akin);
            examples.add(&rows, thin, stride, count);
        }
        examples
    }

    fn add(&mut self, rows: &Rows, thin: usize, stride: usize, count: usize) {
        for at in (0..rows.given.len()).step_by(thin) {
            let (inputs, off) = (&rows.given[at], rows.offs[at]);
            if off.is_finite() {
                self.value_given.extend(&inputs[..INPUTS]);
                self.value_truth.push(off);
            }
            self.chance_given.extend(inputs);
            self.chance_labels
                .extend(&rows.labels[at * count..][..count]);
        }
        let last = (rows.given.len() + 1).saturating_sub(WINDOW);
        for begin in (0..last).step_by(stride) {
            let window = begin..begin + WINDOW;
            let given = &rows.given[window.clone()];
            let of_values = given.iter().flat_map(|inputs| &inputs[..INPUTS]);
            self.value_windows.given.extend(of_values);
            self.value_windows.truth.extend(&rows.offs[window.clone()]);
            self.chance_windows.given.extend(given.iter().flatten());
            let labels = &rows.labels[window.start * count..window.end * count];
            self.chance_windows.truth.extend(labels);
        }
    }

    /// Inputs and labels of one interval, where they are known.
    fn interval(&self, interval: usize) -> (Vec<f32>, Vec<f32>) {
        let (mut given, mut labels) = (Vec::new(), Vec::new());
        let rows = self.chance_given.chunks_exact(CHANCE_INPUTS);
        let of_rows = self
            .chance_labels
            .chunks_exact(self.chance_windows.outputs.max(1));
        for (inputs, of_row) in rows.zip(of_rows) {
            if of_row[interval].is_finite() {
                given.extend(inputs);
                labels.push(of_row[interval]);
            }
        }
        (given, labels)
    }
}

/// One series, bin by bin: inputs, how far off the newest value the truth lay, and labels.
struct Rows {
    given: Vec<[f32; CHANCE_INPUTS]>,
    offs: Vec<f32>,
    labels: Vec<f32>,
}

impl Rows {
    fn of(lesson: &Lesson<'_>, schema: &Schema, akin: f32) -> Rows {
        let (ahead, horizons) = (schema.ahead, &schema.horizons);
        let mut track = Track::new(schema.grid(), lesson.series.start);
        let mut seen = Occurrences::new(schema.grid(), lesson.limit);
        let part = &lesson.values()[..held_out_from(lesson)];
        let happened: Vec<_> = part.iter().map(|value| seen.happens(*value)).collect();
        let mut rows = Rows {
            given: Vec::with_capacity(part.len()),
            offs: Vec::with_capacity(part.len()),
            labels: Vec::with_capacity(part.len() * horizons.count()),
        };
        for (at, value) in part.iter().enumerate() {
            track.push(*value);
            seen.push(*value, &track);
            let mut inputs = [0.0; CHANCE_INPUTS];
            inputs[..INPUTS].copy_from_slice(&track.inputs(ahead));
            let of_seen = seen.inputs(&track, ahead, horizons.longest(), akin);
            inputs[INPUTS..].copy_from_slice(&of_seen);
            let truth = part.get(at + ahead).copied().unwrap_or(f32::NAN);
            let off = match truth.is_finite() && track.history().newest().is_some() {
                true => track.running().normalise(truth) - inputs[0],
                false => f32::NAN,
            };
            rows.given.push(inputs);
            rows.offs.push(off);
            rows.labels.extend(horizons.labels(&happened[at + 1..]));
        }
        rows
    }
}
