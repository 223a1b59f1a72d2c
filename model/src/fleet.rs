//! Many items, all cut into the same bins, and what is foretold of each of them.
//!
//! A bin of all items is one step: the networks take them in batches, with the state kept.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cell::States;
use crate::chance::{Calibration, Count, Judged, Occurrences, shrunk, within};
use crate::learned::{CHANCE_INPUTS, Kind, Learned, Net, Schema, input_name, mean_logits};
use crate::member::{Ewma, Forecaster, HoltWinters, Last, Linear, Seasonal, SlotEwma, Trees};
use crate::mix::Hedge;
use crate::track::{INPUTS, Track};

/// Members that need no training, in the order in which they speak.
pub const RULES: [&str; 8] = [
    "last",
    "ewma",
    "ewma-slow",
    "slot-ewma",
    "seasonal",
    "weekly",
    "holt-winters",
    "linear",
];
/// Members that are learned, after [`RULES`].
pub const LEARNED: [&str; 2] = ["trees", "lstm"];
const LSTM: usize = RULES.len() + 1;
pub const MEMBERS: usize = RULES.len() + LEARNED.len();

/// The name of a member.
pub fn member_name(member: usize) -> &'static str {
    let names = RULES.iter().chain(&LEARNED);
    names.copied().nth(member).unwrap_or("?")
}

/// Bins that a network has to have seen of an item before it is asked.
const WARM_UP: u32 = 8;

/// What is said of one item at one bin.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Outlook {
    /// The value that comes; `None` while nothing is known.
    pub value: Option<f32>,
    /// What each member says of it, in the order of [`member_name`].
    pub members: Vec<Option<f32>>,
    /// How likely it happens within each horizon.
    pub chances: Vec<f32>,
    /// The hazards of each of [`crate::learned::ODDS_MEMBERS`], as logits.
    pub logits: [Option<Vec<f32>>; 3],
    /// Their mean, as it is before it is calibrated.
    pub mean: Vec<f32>,
}

/// One item.
#[derive(Clone, Debug)]
struct Item {
    track: Track,
    seen: Occurrences,
    rules: Vec<Box<dyn Forecaster>>,
    trees: Option<Trees>,
    hedge: Hedge,
    /// Bins since the networks knew nothing of it.
    warm: u32,
    /// How often it happens to what is akin, if that is known.
    akin: Option<f32>,
    outlook: Outlook,
    /// What was said before it was calibrated, of bins that can't be judged yet.
    means: VecDeque<Vec<f32>>,
}

impl Item {
    fn new(schema: &Schema, start: i64, limit: f32) -> Item {
        let (grid, ahead) = (schema.grid(), schema.ahead);
        let rules: Vec<Box<dyn Forecaster>> = vec![
            Box::new(Last),
            Box::new(Ewma::new(0.5)),
            Box::new(Ewma::new(0.1)),
            Box::new(SlotEwma::new(ahead)),
            Box::new(Seasonal::new(ahead, 1)),
            Box::new(Seasonal::new(ahead, 7)),
            Box::new(HoltWinters::new(grid, ahead)),
            Box::new(Linear::new(ahead)),
        ];
        Item {
            track: Track::new(grid, start),
            seen: Occurrences::new(grid, limit),
            rules,
            trees: None,
            hedge: Hedge::new(MEMBERS, ahead),
            warm: 0,
            akin: None,
            outlook: Outlook::default(),
            means: VecDeque::new(),
        }
    }

    fn adopt(&mut self, learned: &Learned) {
        let forest = learned.values.as_ref().map(|values| &values.forest);
        self.trees = forest.map(|forest| Trees::new(Arc::clone(forest), learned.schema.ahead));
        self.warm = 0;
    }

    fn push(&mut self, value: f32) {
        self.track.push(value);
        self.seen.push(value, &self.track);
        for rule in &mut self.rules {
            rule.observe(&self.track);
        }
        if let Some(trees) = &mut self.trees {
            trees.observe(&self.track);
        }
        self.warm = self.warm.saturating_add(1);
    }

    /// What was said when the longest horizon began that ends now, if it was, and what became of
    /// each of its intervals.
    fn judge(&mut self, schema: &Schema, judged: &mut Vec<Judged>) {
        let longest = schema.horizons.longest();
        if self.means.len() < longest {
            return;
        }
        let means = self.means.pop_front().unwrap_or_default();
        let history = self.track.history();
        let after = (0..longest).rev().map(|back| history.back(back));
        let after: Vec<_> = after.map(|value| self.seen.happens(value?)).collect();
        let labels = schema.horizons.labels(&after);
        for (interval, (logit, label)) in means.into_iter().zip(labels).enumerate() {
            if label.is_finite() {
                judged.push(Judged {
                    interval,
                    logit,
                    happened: label > 0.5,
                });
            }
        }
    }

    fn chance_inputs(&self, learned: &Learned) -> [f32; CHANCE_INPUTS] {
        let (ahead, longest) = (learned.schema.ahead, learned.schema.horizons.longest());
        let akin = self.akin.unwrap_or(learned.base_rate);
        let mut inputs = [0.0; CHANCE_INPUTS];
        inputs[..INPUTS].copy_from_slice(&self.track.inputs(ahead));
        let of_seen = self.seen.inputs(&self.track, ahead, longest, akin);
        inputs[INPUTS..].copy_from_slice(&of_seen);
        inputs
    }

    /// What is said of the value that comes; `off` is what the network says.
    fn foretell_value(&mut self, value: f32, off: Option<f32>, kind: Kind) {
        let rules = self.rules.iter().map(|rule| rule.forecast(&self.track));
        let mut said: Vec<Option<f32>> = rules.collect();
        said.push(
            self.trees
                .as_ref()
                .and_then(|trees| trees.forecast(&self.track)),
        );
        let warm = off.filter(|_| self.warm > WARM_UP);
        said.push(warm.and_then(|off| self.track.off_newest(off)));
        self.hedge
            .observe(Some(value).filter(|value| value.is_finite()), said.clone());
        let (last, ewma) = (said[0], said[1]);
        self.outlook.value = match kind {
            Kind::Mix => self.hedge.mix(&said),
            Kind::Lstm | Kind::Rnn => said[LSTM].or(ewma),
            Kind::MovingAverage => ewma,
            Kind::Naive => last,
        };
        self.outlook.members = said;
    }

    /// How likely it is to happen; `of_net` are the network's logits.
    fn foretell_chances(
        &mut self,
        learned: &Learned,
        inputs: &[f32; CHANCE_INPUTS],
        of_net: Option<&[f32]>,
        calibrations: &[Calibration],
    ) {
        let kind = learned.kind;
        let horizons = &learned.schema.horizons;
        let of_net = of_net.filter(|_| self.warm > WARM_UP);
        let known = match (kind, &learned.odds) {
            (Kind::Naive | Kind::MovingAverage, _) | (_, None) => None,
            (Kind::Lstm | Kind::Rnn, Some(_)) => of_net.map(|net| [None, None, Some(net.to_vec())]),
            (Kind::Mix, Some(odds)) => Some(odds.logits(inputs, of_net)),
        };
        let Some(logits) = known else {
            let rate = match kind {
                Kind::MovingAverage => self.seen.quick_rate(),
                _ => self.own_rate(learned),
            };
            self.outlook.chances = within(&horizons.hazards_at(rate));
            (self.outlook.logits, self.outlook.mean) = Default::default();
            return;
        };
        let outlook = &mut self.outlook;
        let said = logits.iter().flatten().map(Vec::as_slice);
        outlook.mean = mean_logits(said, horizons.count());
        outlook.logits = logits;
        let calibrated = outlook.mean.iter().zip(calibrations);
        let hazards = calibrated.map(|(logit, calibration)| calibration.apply(*logit));
        outlook.chances = within(&hazards.collect::<Vec<_>>());
    }
}

/// The rate over all series weighs as much as this many bins of something akin.
const BASE_BINS: u64 = 1000;

impl Item {
    /// How often it happens to this item, drawn to what is akin while little was seen.
    fn own_rate(&self, learned: &Learned) -> f32 {
        let (times, bins) = self.seen.counts();
        let own = Count {
            times: times.into(),
            bins: bins.into(),
        };
        let akin = self.akin.unwrap_or(learned.base_rate).clamp(0.0, 1.0);
        let akin = Count {
            times: (akin * BASE_BINS as f32) as u64,
            bins: BASE_BINS,
        };
        shrunk(&[own, akin])
    }
}

/// Items of one schema.
#[derive(Debug)]
pub struct Fleet {
    learned: Arc<Learned>,
    items: Vec<Item>,
    of_values: Batch,
    of_chances: Batch,
    calibrations: Vec<Calibration>,
    judged: Vec<Judged>,
}

impl Fleet {
    pub fn new(learned: Arc<Learned>) -> Fleet {
        Fleet {
            calibrations: calibrations(&learned),
            judged: Vec::new(),
            of_values: Batch::new(learned.values.as_ref().map(|values| &values.net)),
            of_chances: Batch::new(learned.odds.as_ref().map(|odds| &odds.net)),
            items: Vec::new(),
            learned,
        }
    }

    pub fn learned(&self) -> &Arc<Learned> {
        &self.learned
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes in an item whose first bin begins at `start`, and to which it happens when its value
    /// goes above `limit`. Items are numbered in the order in which they come.
    pub fn add(&mut self, start: i64, limit: f32) -> usize {
        let mut item = Item::new(&self.learned.schema, start, limit);
        item.adopt(&self.learned);
        self.items.push(item);
        self.of_values.push();
        self.of_chances.push();
        self.items.len() - 1
    }

    /// Lets an item go; the last one takes its number.
    pub fn remove(&mut self, item: usize) {
        self.items.swap_remove(item);
        self.of_values.swap_remove(item);
        self.of_chances.swap_remove(item);
    }

    /// How often it happens to what is akin to an item.
    pub fn set_akin(&mut self, item: usize, rate: f32) {
        self.items[item].akin = Some(rate).filter(|rate| rate.is_finite());
    }

    /// Goes on with what was learned anew, of the same schema. What the networks remember of the
    /// items is of other weights, so they begin again; nobody asks them until they have seen a few
    /// bins.
    pub fn adopt(&mut self, learned: Arc<Learned>) {
        assert_eq!(
            learned.schema, self.learned.schema,
            "other bins or horizons"
        );
        let count = self.items.len();
        self.of_values = Batch::new(learned.values.as_ref().map(|values| &values.net));
        self.of_chances = Batch::new(learned.odds.as_ref().map(|odds| &odds.net));
        for item in &mut self.items {
            item.adopt(&learned);
        }
        for _ in 0..count {
            self.of_values.push();
            self.of_chances.push();
        }
        for item in &mut self.items {
            // What was said was said by others.
            item.means.clear();
        }
        self.calibrations = calibrations(&learned);
        self.learned = learned;
    }

    /// A fleet of the same items, with what they were, that foretells by what was learned anew.
    pub fn beside(&self, learned: Arc<Learned>) -> Fleet {
        let mut fleet = Fleet {
            learned: Arc::clone(&self.learned),
            items: self.items.clone(),
            of_values: Batch::new(None),
            of_chances: Batch::new(None),
            calibrations: Vec::new(),
            judged: Vec::new(),
        };
        fleet.adopt(learned);
        fleet
    }

    /// Forecasts that can be judged since this was last asked.
    pub fn take_judged(&mut self) -> Vec<Judged> {
        std::mem::take(&mut self.judged)
    }

    /// Says chances by `calibrations` from now on.
    pub fn calibrate(&mut self, calibrations: Vec<Calibration>) {
        self.calibrations = calibrations;
    }

    /// One bin of all items; what is no number is not known.
    ///
    /// # Panics
    /// If there are not as many values as items.
    pub fn step(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.items.len(), "a value for each item");
        let learned = Arc::clone(&self.learned);
        let mut chance_inputs = Vec::with_capacity(self.items.len());
        for (item, value) in self.items.iter_mut().zip(values) {
            item.push(*value);
            item.judge(&learned.schema, &mut self.judged);
            chance_inputs.push(item.chance_inputs(&learned));
        }
        let values_in = chance_inputs.iter().flat_map(|inputs| &inputs[..INPUTS]);
        let offs = self.of_values.step(values_in.copied());
        let logits = self
            .of_chances
            .step(chance_inputs.iter().flatten().copied());
        let count = learned.schema.horizons.count();
        for (at, item) in self.items.iter_mut().enumerate() {
            let off = offs.as_ref().map(|offs| offs[at]);
            item.foretell_value(values[at], off, learned.kind);
            let of_net = logits.as_ref().map(|logits| &logits[at * count..][..count]);
            item.foretell_chances(&learned, &chance_inputs[at], of_net, &self.calibrations);
            item.means.push_back(item.outlook.mean.clone());
        }
    }

    /// What was said at the newest bin.
    pub fn outlook(&self, item: usize) -> &Outlook {
        &self.items[item].outlook
    }

    /// What the members of an item weigh, in the order of [`member_name`].
    pub fn weights(&self, item: usize) -> Vec<f64> {
        self.items[item].hedge.weights()
    }

    pub fn occurrences(&self, item: usize) -> &Occurrences {
        &self.items[item].seen
    }

    pub fn track(&self, item: usize) -> &Track {
        &self.items[item].track
    }

    /// What a forecaster of an item's chances is given.
    pub fn inputs(&self, item: usize) -> Vec<f32> {
        self.items[item].chance_inputs(&self.learned).to_vec()
    }

    /// What each input adds to the logarithm of the odds within the first horizon, as the
    /// regression sees it: the one member whose reasons are a sum.
    pub fn reasons(&self, item: usize) -> Vec<(&'static str, f32)> {
        let Some(odds) = &self.learned.odds else {
            return Vec::new();
        };
        let inputs = self.items[item].chance_inputs(&self.learned);
        let parts = odds.logistics.first().map(|first| first.parts(&inputs));
        let named = parts.into_iter().flatten().enumerate();
        named.map(|(at, part)| (input_name(at), part)).collect()
    }
}

fn calibrations(learned: &Learned) -> Vec<Calibration> {
    let odds = learned.odds.as_ref();
    odds.map_or_else(Vec::new, |odds| odds.calibrations.clone())
}

/// Whether it happened in each of some bins of a fleet's first item.
pub fn happened_in(fleet: &Fleet, values: &[f32]) -> Vec<Option<bool>> {
    let seen = fleet.occurrences(0);
    values.iter().map(|value| seen.happens(*value)).collect()
}

/// A network and what it remembers of each item.
#[derive(Debug)]
struct Batch {
    net: Option<Net>,
    states: States,
}

impl Batch {
    fn new(net: Option<&Net>) -> Batch {
        Batch {
            net: net.cloned(),
            states: States::new(0, 0),
        }
    }

    fn hidden(&self) -> usize {
        self.net.as_ref().map_or(0, |net| net.cell.hidden())
    }

    fn push(&mut self) {
        let hidden = self.hidden();
        for state in [&mut self.states.hidden, &mut self.states.cell] {
            state.resize(state.len() + hidden, 0.0);
        }
    }

    fn swap_remove(&mut self, item: usize) {
        let hidden = self.hidden();
        for state in [&mut self.states.hidden, &mut self.states.cell] {
            let last = state.len() - hidden;
            state.copy_within(last.., item * hidden);
            state.truncate(last);
        }
    }

    /// What the network says of all items, if there is one.
    fn step(&mut self, inputs: impl Iterator<Item = f32>) -> Option<Vec<f32>> {
        let net = self.net.as_ref()?;
        let inputs: Vec<f32> = inputs.collect();
        net.cell.step(&inputs, &mut self.states);
        let items = inputs.len() / net.cell.inputs();
        let mut said = vec![0.0; items * net.cell.outputs()];
        net.cell.say(&self.states, &mut said);
        Some(said)
    }
}
