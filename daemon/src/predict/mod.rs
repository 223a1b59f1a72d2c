//! What will be needed: the second stage. Bins of what was seen go in, a book of forecasts is kept.
//!
//! | module | what it knows |
//! |---|---|
//! | [`target`] | what is foretold of what, and its number in a bin |
//! | [`book`] | what was said of each target, and how often it was right |
//! | [`contest`] | champion and challenger: who speaks, and who would like to |
//! | [`kin`] | what is akin to a target, for as long as little is known of itself |
//!
//! Invariants: pure; at most so many targets, the longest silent goes first; a chance lies in 0 to
//! 1 and grows with the horizon; with no model at all forecasts are rates and running means.

pub mod book;
pub mod contest;
pub mod kin;
pub mod target;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::drift::{DRIFTED, Drift};
use model::fleet::Outlook;
use model::learned::{Kind as ModelKind, Learned, Schema, input_name};
use model::series::Series;

use self::book::{Book, Forecast, Full, Hint, Hits, Page};
use self::contest::{Contest, Decision};
use self::kin::Kin;
use self::target::{Healthy, Target, Written, numbers};
use crate::observe::Bin;

/// Bins that were missed and are made up for by unknown ones, at most: a season of them is more
/// than any input reaches back to.
const MISSED_MAX: u32 = 2_000;
/// A bin in which it was looked for less than this share of its length is not known.
const LOOKED_MIN: f64 = 0.5;

/// How to predict.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    pub kind: ModelKind,
    pub schema: Schema,
    /// Targets, at most.
    pub targets_max: usize,
    /// Seconds for which a forecast holds.
    pub interval: u32,
    /// Seconds from one training to the next.
    pub training_interval: u32,
    /// Share of the objects on which nobody acts.
    pub control_share: f64,
    pub healthy: Healthy,
    pub rules: model::trial::Rules,
    /// Bins of a block of a trial.
    pub block: usize,
}

/// A bin, in numbers of targets.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// Seconds since 1970.
    pub begin: i64,
    /// For how long it was looked.
    pub seconds: u32,
    /// Bins before it in which nobody looked.
    pub missed: u32,
    pub numbers: BTreeMap<Target, f32>,
}

/// Why to train.
#[derive(Clone, PartialEq, Debug)]
pub enum Occasion {
    /// There is no model yet, or it is old.
    Due,
    /// An input lies elsewhere than when the model learned.
    Drifted { input: &'static str, index: f64 },
    /// An operator asks for it.
    Asked,
}

/// One target that is walked with.
#[derive(Clone, Debug)]
struct Place {
    target: Target,
    /// Bins since its number was above 0.
    silent: u32,
    control: bool,
}

/// Foresees.
#[derive(Debug)]
pub struct Foreseer {
    settings: Settings,
    book: Book,
    contest: Contest,
    /// Which place of the fleets each target has.
    indices: BTreeMap<Target, usize>,
    places: Vec<Place>,
    kin: Kin,
    drift: Option<Drift>,
    /// When the newest bin began; none before the first.
    newest: Option<i64>,
    trained: Option<i64>,
    asked: bool,
    /// Targets that found no room.
    left_out: u64,
    /// How good all forecasts were since the start.
    hits: Hits,
    /// What is read again after a start decides nothing.
    is_replay: bool,
}

impl Foreseer {
    /// Begins with what was `learned` before, or with rules.
    pub fn new(settings: Settings, learned: Option<Arc<Learned>>) -> Foreseer {
        let fits = |learned: &Arc<Learned>| learned.schema == settings.schema;
        let learned = learned.filter(fits);
        let blank = || Arc::new(Learned::blank(settings.kind, settings.schema.clone()));
        let champion = learned.clone().unwrap_or_else(blank);
        let trained = learned.as_ref().map(|learned| learned.window.1);
        let edges = champion.edges.clone();
        Foreseer {
            book: Book::default(),
            contest: Contest::new(champion, settings.rules, settings.block),
            indices: BTreeMap::new(),
            places: Vec::new(),
            kin: Kin::default(),
            drift: edges.map(Drift::new),
            newest: None,
            trained,
            asked: false,
            left_out: 0,
            hits: Hits::default(),
            is_replay: false,
            settings,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn book(&self) -> &Book {
        &self.book
    }

    pub fn contest(&self) -> &Contest {
        &self.contest
    }

    /// How good all forecasts were since the start.
    pub fn hits(&self) -> &Hits {
        &self.hits
    }

    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many targets are walked with.
    pub fn targets(&self) -> usize {
        self.places.len()
    }

    /// What a bin tells of targets.
    pub fn seen(&self, bin: &Bin) -> Seen {
        Seen {
            begin: bin.begin,
            seconds: bin.seconds,
            missed: bin.missed,
            numbers: numbers(bin, &self.settings.healthy),
        }
    }

    /// Takes in a bin of before the start: it is remembered, and decides nothing.
    pub fn replay(&mut self, seen: &Seen) {
        self.is_replay = true;
        self.take(seen);
        self.is_replay = false;
    }

    /// Takes in a bin that is over, and says what was decided because of it.
    pub fn take(&mut self, bin: &Seen) -> Vec<Decision> {
        let step = i64::from(self.settings.schema.step);
        let now = bin.begin.saturating_add(step);
        for _ in 0..self.unknown_before(bin) {
            let unknown = vec![f32::NAN; self.places.len()];
            self.contest.step(&unknown);
        }
        // Who is told of now is silent no more, before anybody has to go.
        for place in &mut self.places {
            // What is not told of is silent: whoever tells tells of what changes.
            let value = bin.numbers.get(&place.target).copied().unwrap_or(0.0);
            place.silent = match value > 0.0 {
                true => 0,
                false => place.silent.saturating_add(1),
            };
        }
        for target in bin.numbers.keys() {
            self.admit(target, bin.begin, now);
        }
        let looked = f64::from(bin.seconds) >= LOOKED_MIN * step as f64;
        let value = |place: &Place| match looked {
            true => bin.numbers.get(&place.target).copied().unwrap_or(0.0),
            false => f32::NAN,
        };
        let values: Vec<f32> = self.places.iter().map(value).collect();
        self.kin
            .step(self.places.iter().map(|place| &place.target), &values);
        for (index, place) in self.places.iter().enumerate() {
            self.contest.set_akin(index, self.kin.rate(&place.target));
        }
        self.contest.step(&values);
        self.note_drift();
        self.newest = Some(bin.begin);
        self.write(now);
        self.book.sweep(now);
        match self.is_replay {
            true => self.contest.forget_judged(),
            false => return self.contest.judge(now),
        }
        Vec::new()
    }

    /// How many bins lie between the newest and this one, of which nothing is known.
    fn unknown_before(&self, bin: &Seen) -> u32 {
        let Some(newest) = self.newest else { return 0 };
        let step = i64::from(self.settings.schema.step);
        let apart = bin.begin.saturating_sub(newest) / step;
        // A clock that was put back leaves no gap: what comes goes on from what was.
        let gap = u32::try_from(apart - 1).unwrap_or(0);
        gap.max(bin.missed).min(MISSED_MAX)
    }

    /// Makes a place for a target that is new.
    fn admit(&mut self, target: &Target, begin: i64, now: i64) {
        if self.indices.contains_key(target) {
            return;
        }
        if self.places.len() >= self.settings.targets_max && !self.make_room(now) {
            self.left_out += 1;
            return;
        }
        let index = self.contest.add(begin, target.kind.limit());
        debug_assert_eq!(index, self.places.len());
        self.indices.insert(target.clone(), index);
        self.places.push(Place {
            control: is_control(target, self.settings.control_share),
            target: target.clone(),
            silent: 0,
        });
    }

    /// Lets the target go that was silent longest; `false` if none is.
    fn make_room(&mut self, now: i64) -> bool {
        let silent = self.places.iter().enumerate();
        let silent = silent.max_by_key(|(_, place)| place.silent);
        let Some((index, place)) = silent.filter(|(_, place)| place.silent > 0) else {
            return false;
        };
        self.book.close(&place.target, now);
        self.indices.remove(&place.target);
        self.contest.remove(index);
        self.places.swap_remove(index);
        if let Some(moved) = self.places.get(index) {
            self.indices.insert(moved.target.clone(), index);
        }
        true
    }

    /// Asks for every forecast that is stale, and takes in how those that can be judged did.
    fn write(&mut self, now: i64) {
        let model = self.contest.version();
        for (index, place) in self.places.iter().enumerate() {
            let page = self.book.open(&place.target, place.control);
            for (chance, happened) in self.contest.take_judged(index) {
                page.hits.add(chance, happened);
                self.hits.add(chance, happened);
            }
            if page.is_stale(now) {
                let outlook = self.contest.outlook(index);
                page.forecast = Some(Forecast {
                    issued: now,
                    expires: now.saturating_add(i64::from(self.settings.interval)),
                    chances: outlook.chances.clone(),
                    value: outlook.value.filter(|value| value.is_finite()),
                    model,
                });
            }
        }
    }

    fn note_drift(&mut self) {
        let Some(drift) = &mut self.drift else { return };
        for index in 0..self.places.len() {
            drift.add(&self.contest.inputs(index));
        }
    }

    /// Takes in what an outside oracle says of a target.
    pub fn hint(&mut self, target: &Target, hint: Hint) -> Result<(), Full> {
        self.book.hint(target, hint)
    }

    /// Asks for a training at the next opportunity.
    pub fn ask_for_training(&mut self) {
        self.asked = true;
    }

    /// Whether a training was asked for that did not begin yet.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Whether there is anything to train.
    pub fn learns(&self) -> bool {
        !matches!(
            self.settings.kind,
            ModelKind::Naive | ModelKind::MovingAverage
        )
    }

    /// When the next training is due, asked for or not; 0 is at once.
    pub fn training_due(&self) -> Option<i64> {
        let interval = i64::from(self.settings.training_interval);
        let due = |trained: i64| trained.saturating_add(interval);
        self.learns().then(|| self.trained.map_or(0, due))
    }

    /// The input that moved most since the model learned, and its index.
    pub fn drift(&self) -> Option<(&'static str, f64)> {
        let (input, index) = self.drift.as_ref()?.most()?;
        Some((input_name(input), index))
    }

    /// Whether it is time to train, and why.
    pub fn occasion(&self, now: i64) -> Option<Occasion> {
        if self.asked {
            return Some(Occasion::Asked);
        }
        if now >= self.training_due()? {
            return Some(Occasion::Due);
        }
        let (input, index) = self.drift()?;
        (index > DRIFTED).then_some(Occasion::Drifted { input, index })
    }

    /// A training came to nothing: it is due again.
    pub fn forget_training(&mut self) {
        self.trained = None;
    }

    /// What is known of each target, to learn from, and above what it happens.
    pub fn lessons(&mut self, now: i64) -> Vec<(Series, f32)> {
        self.asked = false;
        self.trained = Some(now);
        // The same drift is not told twice.
        self.drift = None;
        let lesson = |(index, place): (usize, &Place)| {
            let name = Written(&place.target.subject).to_string();
            (self.contest.series(index, name), place.target.kind.limit())
        };
        self.places.iter().enumerate().map(lesson).collect()
    }

    /// Lets what was learned anew compete.
    pub fn challenge(&mut self, learned: Learned, now: i64) -> Decision {
        self.drift = learned.edges.clone().map(Drift::new);
        self.contest.challenge(Arc::new(learned), now)
    }

    /// What a rollback goes back to, as it was before a restart.
    pub fn remember(&mut self, previous: Learned) {
        self.contest.remember(Arc::new(previous));
    }

    /// Goes back to the model before this one.
    pub fn roll_back(&mut self, now: i64) -> Option<Decision> {
        self.contest.roll_back(now)
    }

    /// What there is to say of a target beside its page.
    pub fn reasons(&self, target: &Target) -> Option<Reasons> {
        let index = *self.indices.get(target)?;
        Some(Reasons {
            outlook: self.contest.outlook(index).clone(),
            weights: self.contest.weights(index),
            inputs: self.contest.reasons(index),
            given: self.contest.inputs(index),
            last: self.newest.and_then(|newest| {
                let step = i64::from(self.settings.schema.step);
                let since = i64::from(self.contest.since(index)?);
                Some(newest + step - since * step)
            }),
            rate: self.contest.rate(index),
            akin: self.kin.rate(target),
        })
    }

    /// The pages of an object, of a kind or of all.
    pub fn pages<'a>(
        &'a self,
        wanted: impl Fn(&Target) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a Target, &'a Page)> {
        self.book.pages().filter(move |(target, _)| wanted(target))
    }
}

/// Why a forecast is what it is.
#[derive(Clone, PartialEq, Debug)]
pub struct Reasons {
    pub outlook: Outlook,
    /// What each member weighs in the mix of values.
    pub weights: Vec<f64>,
    /// What each input adds to the logarithm of the odds.
    pub inputs: Vec<(&'static str, f32)>,
    /// The inputs themselves, in the same order.
    pub given: Vec<f32>,
    /// The end of the bin in which it happened last.
    pub last: Option<i64>,
    /// How often it happened in a bin.
    pub rate: f32,
    /// How often it happened to what is akin.
    pub akin: f32,
}

/// Whether nobody acts on an object; the same on every node and after every start.
fn is_control(target: &Target, share: f64) -> bool {
    let name = Written(&target.subject).to_string();
    let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    (hash as f64 / u64::MAX as f64) < share
}

#[cfg(test)]
mod tests;
