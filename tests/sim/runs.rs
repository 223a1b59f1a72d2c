//! Seeds on all processors: totals, and what failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wal::Span;

use super::asked::Asked;
use super::invariants;
use super::shrink;
use super::world::World;

/// After the last fault, until everything must be at rest.
const REST: Span = Span::secs(40);

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub reason: String,
    pub steps: u64,
}

/// Runs one seed to its end.
pub fn run(seed: u64, set: &[(String, u64)], trace: bool) -> (Total, Result<(), Failure>) {
    let run = AssertUnwindSafe(|| run_world(World::new(seed, set, trace)));
    let (total, result) = catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        let reason = format!("panic: {}", text.unwrap_or("no text"));
        (Total::default(), Err(reason))
    });
    let steps = total.steps;
    let failed = |reason| Failure {
        seed,
        reason,
        steps,
    };
    (total, result.map_err(failed))
}

fn run_world(mut world: World) -> (Total, Result<(), String>) {
    let began = world.now;
    let endless = world.plan.endless > 0;
    let rest = if endless { Span(0) } else { REST };
    let end = world.faulty_until() + rest;
    world.run_until(end);
    let total = Total {
        seeds: 1,
        failed: 0,
        steps: world.steps,
        time: (world.now - began).to_duration(),
        moves: world.people.moves,
        crashes: world.people.crashes,
        takeovers: world.people.takeovers,
        writes: world.people.writes,
    };
    let result = match world.broken.take() {
        Some(reason) => Err(reason),
        None if endless => Ok(()),
        None => {
            invariants::check_end(&world).and_then(|()| invariants::check_again(&mut world, REST))
        }
    };
    (total, result)
}

/// What the command line asks for.
pub fn simulate(asked: &Asked) -> ExitCode {
    let begun = Instant::now();
    let (total, failures) = run_all(asked, asked.go_on);
    for failure in &failures {
        report(failure, asked);
    }
    total.print(begun.elapsed());
    ExitCode::from(u8::from(total.failed > 0))
}

/// Runs all seeds, or until the first failure.
pub fn run_all(asked: &Asked, go_on: bool) -> (Total, Vec<Failure>) {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let result = Mutex::new((Total::default(), Vec::new()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let late = asked.time.is_some_and(|time| begun.elapsed() > time);
            if nth >= asked.count || late {
                return;
            }
            let (total, ended) = run(asked.first.saturating_add(nth), &asked.set, asked.trace);
            let mut result = result.lock().expect("no thread panics with it");
            result.0.add(&total);
            if let Err(failure) = ended {
                eprintln!("seed {}: {}", failure.seed, failure.reason);
                result.0.failed += 1;
                result.1.push(failure);
                stop.fetch_or(!go_on, Ordering::Relaxed);
            }
            if result.0.seeds.is_multiple_of(10_000) && result.0.seeds > 0 {
                result.0.print(begun.elapsed());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs {
            scope.spawn(work);
        }
    });
    let (total, mut failures) = result.into_inner().expect("no thread panics with it");
    failures.sort_by_key(|failure| failure.seed);
    (total, failures)
}

/// A failure, how to see it again, and a smaller one like it.
fn report(failure: &Failure, asked: &Asked) {
    let Failure {
        seed,
        reason,
        steps,
    } = failure;
    println!("seed {seed}: {reason} (after {steps} steps)");
    let settings = |set: &[(String, u64)]| -> String {
        let words = set
            .iter()
            .map(|(name, value)| format!(" --set {name}={value}"));
        words.collect()
    };
    println!(
        "  replay: cargo sim --seed {seed}{} --trace",
        settings(&asked.set)
    );
    if asked.trace {
        return;
    }
    let (set, small) = shrink::smaller(failure, &asked.set);
    println!(
        "  smaller: cargo sim --seed {seed}{} --trace ({} steps: {})",
        settings(&set),
        small.steps,
        small.reason
    );
}

/// What was simulated.
#[derive(Clone, Debug, Default)]
pub struct Total {
    pub seeds: u64,
    pub failed: u64,
    pub steps: u64,
    pub time: Duration,
    pub moves: u64,
    pub crashes: u64,
    pub takeovers: u64,
    pub writes: u64,
}

impl Total {
    fn add(&mut self, other: &Total) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.time += other.time;
        self.moves += other.moves;
        self.crashes += other.crashes;
        self.takeovers += other.takeovers;
        self.writes += other.writes;
    }

    fn print(&self, took: Duration) {
        let speed = self.time.as_secs_f64() / took.as_secs_f64();
        println!(
            "{} seeds, {} failed: {} steps, {:.0} s of virtual time in {:.1} s ({speed:.0} x), \
             {} wishes of operators, {} crashes, {} takeovers, {} writes",
            self.seeds,
            self.failed,
            self.steps,
            self.time.as_secs_f64(),
            took.as_secs_f64(),
            self.moves,
            self.crashes,
            self.takeovers,
            self.writes
        );
    }
}
