//! What training flat out does to a shard: how long after its bell was rung a shard's loop goes on,
//! without and with training beside it, in turns.
//!
//! The loop is the daemon's own ([`io::reactor`]); the training is the daemon's, on a thread of its
//! own that runs only while nobody else wants the processor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use foreshadow::cli::demo::harness::percentile;
use io::reactor::{Next, Shard, ShardContext, now, spawn_shard};
use model::lstm::{Sequences, Training, fresh, train};

use crate::report::{Bar, Bound, Figure, Report, median};
use crate::step::{HIDDEN, INPUTS, inputs};

/// Pairs of neighbouring phases; the median of the pairs' ratios counts.
const ROUNDS: usize = 21;
const RINGS: usize = 2_000;
/// Between two rings, so that the loop sleeps: some 300 µs, and never in step with anything.
const GAPS_MICROS: [u64; 5] = [150, 310, 230, 490, 370];
/// How much later p99 may be with training.
const GROWTH: f64 = 1.2;
/// Sequences of an epoch: few, so that training hears soon that it is over.
const SEQUENCES: usize = 128;
const STEPS: usize = 64;

pub fn run(report: &mut Report) {
    // The default slack of 50 us would be in every gap.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rung = Arc::new(Rung::default());
    let shard = match listen(&rung) {
        Ok(shard) => shard,
        Err(error) => return report.fail(error.to_string()),
    };
    for threads in [1, cores] {
        let (mut quiet, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut epochs = 0;
        for _ in 0..ROUNDS {
            let without = percentile(&mut phase(&shard, &rung), 0.99);
            let learning = Learning::start(threads);
            let with = percentile(&mut phase(&shard, &rung), 0.99);
            epochs += learning.end();
            ratios.push(with / without);
            quiet.push(without);
            beside.push(with);
        }
        let limit = median(quiet);
        let title = format!("wake-up of a shard, p99, {threads} training");
        // The ratio of neighbours, on the scale of the quiet phases.
        let figure = Figure(median(ratios) * limit, "us");
        let bound = Bound(limit, "without training");
        report.case(&title, figure, bound, Bar::AtMost(GROWTH * limit));
        report.note(&format!(
            "{epochs} epochs of {SEQUENCES} x {STEPS} steps meanwhile"
        ));
        if epochs == 0 {
            report.fail("there was no training".to_owned());
        }
    }
    rung.over.store(true, Ordering::Release);
    shard.wake().wake();
    if let Err(error) = shard.join() {
        report.fail(error.to_string());
    }
}

/// When the bell was rung, and how much later the loop went on.
#[derive(Default)]
struct Rung {
    /// Nanoseconds; 0 when it was heard.
    at: AtomicU64,
    over: AtomicBool,
    micros: Mutex<Vec<f64>>,
}

fn listen(rung: &Arc<Rung>) -> io::Result<Shard> {
    let rung = Arc::clone(rung);
    let body = move |mut context: ShardContext| {
        let rung = Arc::clone(&rung);
        async move {
            while !rung.over.load(Ordering::Acquire) {
                context.wait(None).await?;
                let woken = now().0;
                let at = rung.at.swap(0, Ordering::AcqRel);
                if at > 0 {
                    let mut all = rung.micros.lock().expect("nobody panics");
                    all.push((woken - at) as f64 / 1e3);
                }
            }
            Ok(())
        }
    };
    spawn_shard("shard", None, body, |_| Next::Stop)
}

/// Microseconds of each of many wake-ups.
fn phase(shard: &Shard, rung: &Rung) -> Vec<f64> {
    let wake = shard.wake();
    for gap in GAPS_MICROS.into_iter().cycle().take(RINGS) {
        sleep(Duration::from_micros(gap));
        rung.at.store(now().0, Ordering::Release);
        wake.wake();
    }
    // The last one is heard.
    sleep(Duration::from_millis(50));
    std::mem::take(&mut rung.micros.lock().expect("nobody panics"))
}

/// Training that goes on until it is told to end.
struct Learning {
    over: Arc<AtomicBool>,
    epochs: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Learning {
    fn start(threads: usize) -> Learning {
        let (over, epochs) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let spawn = |_| {
            let (over, epochs) = (Arc::clone(&over), Arc::clone(&epochs));
            std::thread::spawn(move || learn(&over, &epochs))
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        // Phases begin when the first epochs are over: memory is got, caches are full.
        sleep(Duration::from_millis(300));
        Learning {
            over,
            epochs,
            threads,
        }
    }

    /// Epochs that were learned.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().expect("training does not panic");
        }
        self.epochs.load(Ordering::Acquire)
    }
}

fn learn(over: &AtomicBool, epochs: &AtomicU64) {
    io::compute::ask_idle();
    let mut sequences = Sequences::new(STEPS, INPUTS, 1);
    sequences.given = inputs(SEQUENCES * STEPS);
    sequences.truth = sequences.given.iter().step_by(INPUTS).copied().collect();
    let training = Training {
        epochs: usize::MAX,
        ..Training::default()
    };
    train(
        &fresh(INPUTS, HIDDEN, 1, 1),
        &sequences,
        &training,
        |_, _| {
            epochs.fetch_add(1, Ordering::AcqRel);
            !over.load(Ordering::Acquire)
        },
    );
}
