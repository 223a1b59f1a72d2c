//! Foresight: the stage `predict` with what it needs of the world, on the observe thread.
//!
//! | module | what it does |
//! |---|---|
//! | [`show`] | questions of people, and what they are told |
//! | [`store`] | models on disk, the log of decisions |
//! | [`replay`] | what was seen, on disk, for the next start |
//! | [`training`] | learning, on a thread of its own |
//! | [`show`] | what comes and who foretells, put together for people |
//!
//! A full disk costs what could not be written, and is told once; forecasts go on.

pub mod replay;
pub mod show;
pub mod store;
pub mod training;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::{counter, gauge};

use self::replay::Replay;
use self::store::{Role, Store, entry};
use self::training::Run;
use crate::control::metrics as declared;
use crate::observe::Bin;
use crate::predict::contest::{Decision, What};
use crate::predict::{Foreseer, Occasion, Seen, Settings};

/// Bins of before the start that are walked through at once; between them others have their turn.
const CATCH_UP: usize = 64;
/// After a training that failed the next one waits, in seconds.
const FAILED_WAIT: i64 = 600;

/// Rings when a training has ended.
pub type Ring = Arc<dyn Fn() + Send + Sync>;

/// What became of the last training.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Seconds since 1970.
    pub at: i64,
    pub text: String,
}

/// The foreseer and its files.
pub struct Foresight {
    foreseer: Foreseer,
    store: Store,
    replay: Replay,
    /// Files of before the start that were not walked through yet, and bins of one of them.
    behind: VecDeque<PathBuf>,
    past: VecDeque<Seen>,
    /// Bins that came meanwhile.
    waiting: VecDeque<Seen>,
    training: Option<Run>,
    ended: Option<Ended>,
    /// No training before this.
    not_before: i64,
    ring: Ring,
    is_troubled: bool,
}

impl Foresight {
    /// Opens the files below `dir`.
    pub fn open(
        settings: Settings,
        dir: &Path,
        replay_bytes: u64,
        ring: Ring,
    ) -> std::io::Result<Foresight> {
        let store = Store::open(dir)?;
        let replay = Replay::open(&dir.join("replay"), replay_bytes)?;
        let load = |role| store.load(role).filter(|it| it.schema == settings.schema);
        let (champion, previous) = (load(Role::Champion), load(Role::Previous));
        let challenger = load(Role::Challenger);
        // The last good one speaks where the newest is damaged.
        let champion = champion.or_else(|| previous.clone()).map(Arc::new);
        let mut foreseer = Foreseer::new(settings, champion);
        if let Some(previous) = previous {
            foreseer.remember(previous);
        }
        if let Some(challenger) = challenger {
            // It was told when it was made; its trial begins again.
            let now = challenger.window.1;
            foreseer.challenge(challenger, now);
        }
        Ok(Foresight {
            behind: replay.files().into(),
            past: VecDeque::new(),
            waiting: VecDeque::new(),
            foreseer,
            store,
            replay,
            training: None,
            ended: None,
            not_before: 0,
            ring,
            is_troubled: false,
        })
    }

    pub fn foreseer(&self) -> &Foreseer {
        &self.foreseer
    }

    pub fn foreseer_mut(&mut self) -> &mut Foreseer {
        &mut self.foreseer
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Bytes of past bins on disk.
    pub fn replay_bytes(&self) -> u64 {
        self.replay.bytes()
    }

    pub fn training(&self) -> Option<&Run> {
        self.training.as_ref()
    }

    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Takes a bin that is over.
    pub fn take(&mut self, bin: &Bin, now: i64) {
        let seen = self.foreseer.seen(bin);
        let written = self.replay.append(&seen);
        self.trouble("what was seen can't be kept for the next start", written);
        self.waiting.push_back(seen);
        if !self.is_behind() {
            self.go_on(now);
        }
    }

    fn is_behind(&self) -> bool {
        !self.behind.is_empty() || !self.past.is_empty()
    }

    /// Walks on through what was seen before the start; `true` while there is more.
    pub fn catch_up(&mut self, now: i64) -> bool {
        if !self.is_behind() {
            return false;
        }
        if self.past.is_empty()
            && let Some(path) = self.behind.pop_front()
        {
            match replay::read(&path) {
                Ok(read) => {
                    if read.torn > 0 {
                        let torn = read.torn;
                        tracing::info!(path = %path.display(), torn, "a torn end is passed over");
                    }
                    self.past = read.bins.into();
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "past bins can't be read");
                }
            }
        }
        for seen in self.past.drain(..CATCH_UP.min(self.past.len())) {
            self.foreseer.replay(&seen);
        }
        if !self.is_behind() {
            let targets = self.foreseer.book().len();
            tracing::info!(targets, "what was seen before the start is known again");
            self.go_on(now);
        }
        self.is_behind()
    }

    fn go_on(&mut self, now: i64) {
        while let Some(seen) = self.waiting.pop_front() {
            let decisions = self.foreseer.take(&seen);
            self.keep(&decisions);
        }
        gauge!(declared::FORECASTS.name).set(self.foreseer.book().len() as f64);
        let hits = self.foreseer.hits();
        if hits.judged > 0 {
            gauge!(declared::FORECAST_BRIER.name).set(hits.lost / hits.judged as f64);
        }
        self.train(now);
    }

    /// Starts a training if it is time.
    pub fn train(&mut self, now: i64) {
        if self.training.is_some() || self.is_behind() {
            return;
        }
        let Some(occasion) = self.foreseer.occasion(now) else {
            return;
        };
        if now < self.not_before && occasion != Occasion::Asked {
            return;
        }
        let settings = self.foreseer.settings();
        let schema = (settings.kind, settings.schema.clone());
        let lessons = self.foreseer.lessons(now);
        tracing::info!(?occasion, series = lessons.len(), "training begins");
        let ring = Arc::clone(&self.ring);
        match Run::start(schema, lessons, now, move || ring()) {
            Ok(run) => self.training = Some(run),
            Err(error) => self.note_end(now, format!("no thread could be started: {error}")),
        }
    }

    fn note_end(&mut self, now: i64, text: String) {
        self.ended = Some(Ended { at: now, text });
        self.not_before = now.saturating_add(FAILED_WAIT);
    }

    /// Takes in what a training came to, if it has ended.
    pub fn poll(&mut self, now: i64) {
        let Some(outcome) = self.training.as_ref().and_then(Run::poll) else {
            return;
        };
        self.training = None;
        counter!(declared::MODEL_TRAININGS_TOTAL.name).increment(1);
        match outcome {
            Ok(Some(learned)) if learned.odds.is_some() => {
                let decision = self.foreseer.challenge(learned, now);
                self.note_end(now, entry(&decision).text);
                self.keep(&[decision]);
            }
            Ok(_) => {
                let text = "too little was seen to learn from: rules go on".to_owned();
                self.note_end(now, text);
                self.foreseer.forget_training();
            }
            Err(error) => {
                tracing::error!(error, "training failed; the model that speaks goes on");
                self.note_end(now, format!("failed: {error}"));
            }
        }
    }

    /// Goes back to the model before; `false` if there is none.
    pub fn roll_back(&mut self, now: i64) -> bool {
        let decision = self.foreseer.roll_back(now);
        let was_there = decision.is_some();
        self.keep(&decision.into_iter().collect::<Vec<_>>());
        was_there
    }

    /// Writes decisions, and the models that they are about.
    fn keep(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            let entry = entry(decision);
            tracing::info!(
                champion = entry.champion,
                what = entry.what,
                "{}",
                entry.text
            );
            let written = self.store.log(&entry);
            self.trouble("a decision can't be logged", written);
            let contest = self.foreseer.contest();
            let challenger = contest.challenger().map(|(learned, _)| learned);
            let mut kept = self
                .store
                .keep(Role::Challenger, challenger.map(|it| &**it));
            if !matches!(
                decision.what,
                What::Challenged { .. } | What::Dismissed { .. }
            ) {
                // The one before first: a crash between the two loses nothing.
                let previous = contest.previous().map(|it| &**it);
                kept = kept.and(self.store.keep(Role::Previous, previous));
                kept = kept.and(self.store.keep(Role::Champion, Some(contest.champion())));
            }
            self.trouble("a model can't be kept for the next start", kept);
        }
    }

    /// Tells of trouble with the disk when it begins, and when it is over.
    fn trouble(&mut self, what: &str, result: std::io::Result<()>) {
        match (result, self.is_troubled) {
            (Err(error), false) => {
                tracing::warn!(%error, "{what}");
                self.is_troubled = true;
            }
            (Ok(()), true) => {
                tracing::info!("what is foreseen can be kept again");
                self.is_troubled = false;
            }
            _ => {}
        }
    }
}
