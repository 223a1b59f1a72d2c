//! Training, on a thread of its own that runs only while nobody else wants the processor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use model::learn::{Lesson, learn};
use model::learned::{Kind, Learned, Schema};
use model::lstm::Training;
use model::series::Series;

/// What a training came to.
pub type Outcome = Result<Option<Learned>, String>;

/// A training under way. Dropping it ends it soon.
#[derive(Debug)]
pub struct Run {
    outcome: flume::Receiver<Outcome>,
    ended: Arc<AtomicBool>,
    doing: Arc<Mutex<String>>,
    began: i64,
}

fn lock(doing: &Mutex<String>) -> MutexGuard<'_, String> {
    // A text is whole whoever panicked.
    doing
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Run {
    /// Starts to learn from `lessons`, series and the limits above which it happens. `ring` is
    /// called when it has ended.
    pub fn start(
        (kind, schema): (Kind, Schema),
        lessons: Vec<(Series, f32)>,
        now: i64,
        ring: impl Fn() + Send + 'static,
    ) -> std::io::Result<Run> {
        let (give, outcome) = flume::bounded(1);
        let doing = Arc::new(Mutex::new("begins".to_owned()));
        let tell = Arc::clone(&doing);
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&ended);
        let work = move || {
            if !io::compute::ask_idle() {
                tracing::debug!("training runs at nice 19: SCHED_IDLE was refused");
            }
            let lessons: Vec<Lesson<'_>> = lessons.iter().map(lesson).collect();
            let training = Training {
                seed: now.unsigned_abs(),
                ..Training::default()
            };
            let begun = Instant::now();
            let mut told = |what: &str| {
                what.clone_into(&mut lock(&tell));
                !is_ended.load(Ordering::Relaxed)
            };
            let learned = learn(kind, &schema, &lessons, &training, &mut told);
            tracing::info!(seconds = begun.elapsed().as_secs_f64(), "training ended");
            // Nobody waits for it any more if it was ended.
            let _ = give.try_send(learned.map_err(|error| error.to_string()));
            ring();
        };
        std::thread::Builder::new()
            .name("train".to_owned())
            .spawn(work)?;
        Ok(Run {
            outcome,
            ended,
            doing,
            began: now,
        })
    }

    /// What it does now.
    pub fn doing(&self) -> String {
        lock(&self.doing).clone()
    }

    /// Seconds since 1970.
    pub fn began(&self) -> i64 {
        self.began
    }

    /// What it came to; `None` while it runs.
    pub fn poll(&self) -> Option<Outcome> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(flume::TryRecvError::Empty) => None,
            Err(flume::TryRecvError::Disconnected) => Some(Err("the thread panicked".to_owned())),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn lesson((series, limit): &(Series, f32)) -> Lesson<'_> {
    Lesson {
        series,
        limit: *limit,
        until: series.values.len(),
    }
}
