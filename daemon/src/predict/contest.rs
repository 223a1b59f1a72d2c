//! Champion and challenger: the model that speaks, and the one that was learned anew and foretells
//! beside it until it is known which is better.

use std::collections::VecDeque;
use std::sync::Arc;

use model::chance::{Calibrator, within};
use model::fleet::{Fleet, Outlook};
use model::learned::Learned;
use model::series::Series;
use model::trial::{Block, Rules, Trial, Verdict, is_deposed};

/// Forecasts are calibrated anew after so many bins.
const CALIBRATE_EVERY: u32 = 16;
/// Where the random numbers of the bootstrap begin: the same trial is always judged alike.
const SEED: u64 = 1;

/// What was decided, for the log.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// Seconds since 1970.
    pub at: i64,
    pub what: What,
    /// The model that speaks from now on; 0 is rules only.
    pub champion: u64,
}

/// What can be decided.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// What was learned anew competes from now on.
    Challenged {
        challenger: u64,
        examples: u64,
    },
    Promoted {
        gain: f64,
        low: f64,
        high: f64,
    },
    /// The challenger was not surely better, and had its time.
    Dismissed {
        gain: f64,
        low: f64,
        high: f64,
    },
    /// The champion did worse than saying how often it happens.
    Deposed {
        worse: f64,
    },
    /// An operator went back.
    RolledBack,
}

/// What was said of a target within the shortest horizon.
#[derive(Clone, Copy, Debug)]
struct Said {
    champion: f32,
    challenger: Option<f32>,
    naive: f32,
}

/// What was said of one target and can't be judged yet, or was judged and not yet told.
#[derive(Clone, Default, Debug)]
struct Pending {
    said: VecDeque<Said>,
    judged: Vec<(f32, bool)>,
}

/// Who foretells.
#[derive(Debug)]
pub struct Contest {
    champion: Fleet,
    challenger: Option<(Fleet, Trial)>,
    /// Who spoke before; what a rollback goes back to.
    previous: Option<Arc<Learned>>,
    pending: Vec<Pending>,
    calibrators: [Calibrator; 2],
    rules: Rules,
    block: Block,
    block_bins: usize,
    bins: usize,
    since_calibrated: u32,
}

/// Names what was learned; 0 is nothing.
pub fn version_of(learned: &Learned) -> u64 {
    let odds = learned.odds.as_ref();
    odds.map_or(0, |odds| odds.net.weights.version().0)
}

impl Contest {
    pub fn new(champion: Arc<Learned>, rules: Rules, block_bins: usize) -> Contest {
        Contest {
            champion: Fleet::new(champion),
            challenger: None,
            previous: None,
            pending: Vec::new(),
            calibrators: Default::default(),
            rules,
            block: Block::default(),
            block_bins: block_bins.max(1),
            bins: 0,
            since_calibrated: 0,
        }
    }

    /// The version of who speaks.
    pub fn version(&self) -> u64 {
        version_of(self.champion.learned())
    }

    pub fn champion(&self) -> &Arc<Learned> {
        self.champion.learned()
    }

    /// The challenger, and for how many blocks it has been tried.
    pub fn challenger(&self) -> Option<(&Arc<Learned>, usize)> {
        let challenger = self.challenger.as_ref();
        challenger.map(|(fleet, trial)| (fleet.learned(), trial.blocks()))
    }

    pub fn previous(&self) -> Option<&Arc<Learned>> {
        self.previous.as_ref()
    }

    /// What a rollback goes back to, as it was before a restart.
    pub fn remember(&mut self, previous: Arc<Learned>) {
        self.previous = Some(previous);
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    fn fleets(&mut self) -> impl Iterator<Item = &mut Fleet> {
        let challenger = self.challenger.as_mut().map(|(fleet, _)| fleet);
        std::iter::once(&mut self.champion).chain(challenger)
    }

    /// Takes in a target; its index is that of its place.
    pub fn add(&mut self, start: i64, limit: f32) -> usize {
        self.pending.push(Pending::default());
        self.fleets()
            .map(|fleet| fleet.add(start, limit))
            .max()
            .unwrap_or(0)
    }

    pub fn remove(&mut self, index: usize) {
        self.pending.swap_remove(index);
        self.fleets().for_each(|fleet| fleet.remove(index));
    }

    pub fn set_akin(&mut self, index: usize, rate: f32) {
        self.fleets().for_each(|fleet| fleet.set_akin(index, rate));
    }

    /// One bin of all targets.
    pub fn step(&mut self, values: &[f32]) {
        self.fleets().for_each(|fleet| fleet.step(values));
        let horizon = self.champion.learned().schema.horizons.clone();
        let shortest = horizon.bins()[0];
        for (index, pending) in self.pending.iter_mut().enumerate() {
            if pending.said.len() >= shortest
                && let Some(said) = pending.said.pop_front()
                && let Some(happened) = happened(&self.champion, index, shortest)
            {
                pending.judged.push((said.champion, happened));
                lose(&mut self.block, said, happened);
            }
            let chance = |fleet: &Fleet| fleet.outlook(index).chances.first().copied();
            let rate = self.champion.occurrences(index).rate();
            pending.said.push_back(Said {
                champion: chance(&self.champion).unwrap_or(0.0),
                challenger: self
                    .challenger
                    .as_ref()
                    .and_then(|(fleet, _)| chance(fleet)),
                naive: within(&horizon.hazards_at(rate))[0],
            });
        }
        self.bins += 1;
        self.calibrate();
    }

    fn calibrate(&mut self) {
        let challenger = self.challenger.as_mut().map(|(fleet, _)| fleet);
        let fleets = std::iter::once(&mut self.champion).chain(challenger);
        self.since_calibrated += 1;
        let is_due = self.since_calibrated >= CALIBRATE_EVERY;
        for (fleet, calibrator) in fleets.zip(&mut self.calibrators) {
            for judged in fleet.take_judged() {
                calibrator.add(judged);
            }
            let odds = fleet.learned().odds.as_ref().filter(|_| is_due);
            let fitted = odds.map(|odds| calibrator.fit(&odds.calibrations));
            if let Some(fitted) = fitted {
                fleet.calibrate(fitted);
            }
        }
        if is_due {
            self.since_calibrated = 0;
        }
    }

    /// What became of forecasts since this was last asked: the chance, and whether it happened.
    pub fn take_judged(&mut self, index: usize) -> Vec<(f32, bool)> {
        std::mem::take(&mut self.pending[index].judged)
    }

    /// Lets go of what was lost so far: it was lost before a restart.
    pub fn forget_judged(&mut self) {
        (self.block, self.bins) = (Block::default(), 0);
    }

    /// At the end of a block: what is to be decided.
    pub fn judge(&mut self, now: i64) -> Vec<Decision> {
        if self.bins < self.block_bins {
            return Vec::new();
        }
        let block = std::mem::take(&mut self.block);
        self.bins = 0;
        let mut what = Vec::new();
        if self.version() != 0
            && let Some(worse) = is_deposed(&block, &self.rules)
        {
            let champion = Arc::clone(self.champion.learned());
            let blank = || Learned::blank(champion.kind, champion.schema.clone());
            let back = self
                .previous
                .take()
                .filter(|previous| version_of(previous) != 0);
            self.put(back.unwrap_or_else(|| Arc::new(blank())), false);
            what.push(What::Deposed { worse });
        } else if let Some((_, trial)) = &mut self.challenger {
            trial.add(block);
            match trial.judge(&self.rules, SEED) {
                Verdict::Wait { .. } => {}
                Verdict::Promote { gain, low, high } => {
                    self.promote();
                    what.push(What::Promoted { gain, low, high });
                }
                // It may yet be: but not for ever.
                Verdict::Keep { gain, low, high } if trial.blocks() >= 2 * self.rules.blocks => {
                    self.challenger = None;
                    what.push(What::Dismissed { gain, low, high });
                }
                Verdict::Keep { .. } => {}
            }
        }
        what.into_iter()
            .map(|what| self.decision(now, what))
            .collect()
    }

    fn decision(&self, at: i64, what: What) -> Decision {
        let champion = self.version();
        Decision { at, what, champion }
    }

    fn promote(&mut self) {
        if let Some((fleet, _)) = self.challenger.take() {
            // Its fleet has seen what it foretells, so it goes on at once.
            let old = std::mem::replace(&mut self.champion, fleet);
            self.previous = Some(Arc::clone(old.learned()));
            self.calibrators.swap(0, 1);
            self.calibrators[1] = Calibrator::default();
        }
    }

    /// Lets another model speak.
    fn put(&mut self, learned: Arc<Learned>, keep: bool) {
        let old = Arc::clone(self.champion.learned());
        self.champion.adopt(learned);
        self.calibrators[0] = Calibrator::default();
        self.previous = keep.then_some(old);
    }

    /// Lets what was learned anew foretell beside the champion.
    pub fn challenge(&mut self, learned: Arc<Learned>, now: i64) -> Decision {
        let (challenger, examples) = (version_of(&learned), learned.examples);
        let fleet = self.champion.beside(learned);
        self.challenger = Some((fleet, Trial::default()));
        self.calibrators[1] = Calibrator::default();
        for said in self
            .pending
            .iter_mut()
            .flat_map(|pending| &mut pending.said)
        {
            said.challenger = None;
        }
        // The block that runs was not theirs.
        self.forget_judged();
        self.decision(
            now,
            What::Challenged {
                challenger,
                examples,
            },
        )
    }

    /// Goes back to who spoke before, if anybody did.
    pub fn roll_back(&mut self, now: i64) -> Option<Decision> {
        let previous = self.previous.take()?;
        self.put(previous, true);
        Some(self.decision(now, What::RolledBack))
    }

    pub fn outlook(&self, index: usize) -> &Outlook {
        self.champion.outlook(index)
    }

    pub fn weights(&self, index: usize) -> Vec<f64> {
        self.champion.weights(index)
    }

    pub fn reasons(&self, index: usize) -> Vec<(&'static str, f32)> {
        self.champion.reasons(index)
    }

    pub fn inputs(&self, index: usize) -> Vec<f32> {
        self.champion.inputs(index)
    }

    /// Bins since it happened to a target, if it ever did.
    pub fn since(&self, index: usize) -> Option<u32> {
        self.champion.occurrences(index).since()
    }

    pub fn rate(&self, index: usize) -> f32 {
        self.champion.occurrences(index).rate()
    }

    /// What is known of a target, to learn from.
    pub fn series(&self, index: usize, name: String) -> Series {
        self.champion.track(index).history().series(name)
    }
}

/// Whether it happened in one of the newest bins; `None` if that is not known.
fn happened(fleet: &Fleet, index: usize, bins: usize) -> Option<bool> {
    let history = fleet.track(index).history();
    let mut all = Some(false);
    for back in 0..bins {
        match history
            .back(back)
            .and_then(|value| fleet.occurrences(index).happens(value))
        {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all = None,
        }
    }
    all
}

fn lose(block: &mut Block, said: Said, happened: bool) {
    // The two are compared by the same forecasts, or not at all.
    let Said {
        champion, naive, ..
    } = said;
    let truth = f64::from(u8::from(happened));
    let square = |chance: f32| (f64::from(chance) - truth).powi(2);
    block.champion += square(champion);
    block.challenger += square(said.challenger.unwrap_or(champion));
    block.naive += square(naive);
    block.forecasts += 1;
    block.events += u64::from(happened);
}
