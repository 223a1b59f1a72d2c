//! Makes a failing run smaller: fewer kinds of faults, fewer accidents, fewer nodes, the same end.
//!
//! One change at a time is kept if the run still breaks the same promise, until none is.

use super::plan::Plan;
use super::random::Random;
use super::runs::{Failure, run};

/// Tries in all: a run takes some hundredths of a second.
const TRIES_MAX: usize = 400;

type Settings = Vec<(String, u64)>;

/// The smallest plan that was found, and how it fails.
pub fn smaller(failure: &Failure, set: &[(String, u64)]) -> (Settings, Failure) {
    let (mut best, mut smallest) = (set.to_vec(), failure.clone());
    let mut tries = 0;
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut again = true;
    while std::mem::take(&mut again) {
        for (name, value) in candidates(failure.seed, &best) {
            tries += 1;
            if tries > TRIES_MAX {
                break;
            }
            let mut set = best.clone();
            set.retain(|(set, _)| *set != name);
            set.push((name, value));
            if let (_, Err(failed)) = run(failure.seed, &set, false)
                && kind(&failed.reason) == kind(&failure.reason)
            {
                (best, smallest, again) = (set, failed, true);
            }
        }
    }
    std::panic::set_hook(quiet);
    (best, smallest)
}

/// Which promise was broken.
fn kind(reason: &str) -> &str {
    reason.split(':').next().unwrap_or(reason)
}

/// Simpler values of each number, the simplest first.
fn candidates(seed: u64, set: &[(String, u64)]) -> Settings {
    let mut plan = Plan::draw(&mut Random::new(seed));
    for (name, value) in set {
        if let Some(field) = plan.field(name) {
            *field = *value;
        }
    }
    let mut simpler = Vec::new();
    let mut offer = |name: &str, values: &[u64]| {
        let Some(current) = plan.field(name).map(|field| *field) else {
            return;
        };
        for value in values.iter().filter(|value| **value < current) {
            simpler.push((name.to_owned(), *value));
        }
    };
    let faults = [
        "crash_every",
        "power_every",
        "kill_every",
        "break_every",
        "cut_every",
        "part_every",
        "keeper_down_every",
        "full_every",
        "slow_every",
        "cancel_every",
        "promote_every",
        "trim_every",
        "checkpoint_every",
        "aimed",
        "dial_fails",
        "work_fails",
        "answers_lost",
        "stalls",
        "keeper",
        "native",
        "full",
    ];
    for name in faults {
        offer(name, &[0]);
    }
    for (name, least) in [
        ("partitions", 1),
        ("shards", 1),
        ("writers", 1),
        ("copies", 1),
    ] {
        offer(name, &[least]);
    }
    offer("nodes", &[2, 3]);
    let accidents = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128];
    offer("accidents", &accidents);
    let faulty = plan.faulty;
    let times = [faulty / 8, faulty / 4, faulty / 2, faulty * 3 / 4];
    for time in times.into_iter().filter(|time| *time >= 100_000) {
        simpler.push(("faulty".to_owned(), time));
    }
    simpler
}
