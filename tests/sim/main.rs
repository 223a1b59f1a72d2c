//! The simulator: many nodes in one thread, one seed, virtual time; the daemon's own shards.
//!
//! `cargo sim [SEEDS] [--from N] [--seed N] [--minutes M] [--trace] [--all]`
//!
//! | file | what it holds |
//! |---|---|
//! | `plan` | sizes and faults of a run, drawn from its seed |
//! | `world` | virtual time, the queue, the nodes |
//! | `shell`, `engine`, `copies`, `shipping` | the executor of effects |
//! | `start` | what outlives a daemon |
//! | `disk` | databases, shadows and logs as lists of writes; what a crash takes |
//! | `network` | connections and what goes wrong with them |
//! | `keeper` | the coordinator, deciding with the daemon's own function |
//! | `people` | applications, operators, accidents |
//! | `invariants` | what must hold after every step, and at the end |

mod copies;
mod disk;
mod engine;
mod invariants;
mod keeper;
mod network;
mod people;
mod plan;
mod random;
mod shell;
mod shipping;
mod start;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use wal::Span;
use world::World;

const USAGE: &str = "cargo sim [SEEDS] [--from N] [--seed N] [--minutes M] [--trace] [--all]";
const SEEDS: u64 = 200;
/// After the last fault, until everything must be at rest.
const REST: Span = Span::secs(40);

fn main() -> ExitCode {
    let asked = match Asked::read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(reason) => {
            eprintln!("sim: {reason}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let mut total = Total::default();
    for seed in asked.seeds() {
        if asked.time.is_some_and(|time| begun.elapsed() > time) {
            break;
        }
        if let Err(reason) = run(seed, asked.trace, &mut total) {
            eprintln!("seed {seed}: {reason}");
            eprintln!("replay: cargo sim --seed {seed} --trace");
            total.failed += 1;
            if !asked.go_on {
                return ExitCode::FAILURE;
            }
        }
    }
    total.print(begun.elapsed());
    ExitCode::from(u8::from(total.failed > 0))
}

fn run(seed: u64, trace: bool, total: &mut Total) -> Result<(), String> {
    let mut world = World::new(seed, trace);
    let began = world.now;
    let end = world.faulty_until() + REST;
    world.run_until(end);
    total.seeds += 1;
    total.steps += world.steps;
    total.time += (world.now - began).to_duration();
    total.moves += world.people.moves;
    total.crashes += world.people.crashes;
    total.writes += world
        .people
        .acknowledged
        .values()
        .map(|writes| writes.len() as u64)
        .sum::<u64>();
    match world.broken.take() {
        Some(reason) => Err(format!("{reason} (after {} steps)", world.steps)),
        None => invariants::check_end(&world),
    }
}

/// What the command line says.
struct Asked {
    first: u64,
    count: u64,
    time: Option<Duration>,
    trace: bool,
    go_on: bool,
}

impl Asked {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
        let mut asked = Asked {
            first: 0,
            count: SEEDS,
            time: None,
            trace: false,
            go_on: false,
        };
        let mut arguments = arguments.filter(|word| word != "--nocapture");
        while let Some(word) = arguments.next() {
            let mut number = |what: &str| {
                let word = arguments.next().unwrap_or_default();
                word.parse::<u64>()
                    .map_err(|_| format!("{what} {word:?} is no number"))
            };
            match word.as_str() {
                "--seed" => (asked.first, asked.count) = (number("--seed")?, 1),
                "--from" => asked.first = number("--from")?,
                "--minutes" => {
                    asked.time = Some(Duration::from_secs(60 * number("--minutes")?));
                    asked.count = u64::MAX;
                }
                "--trace" => asked.trace = true,
                "--all" => asked.go_on = true,
                _ => asked.count = word.parse().map_err(|_| format!("{word:?} is not known"))?,
            }
        }
        Ok(asked)
    }

    fn seeds(&self) -> impl Iterator<Item = u64> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// What was simulated.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: u64,
    steps: u64,
    time: Duration,
    moves: u64,
    crashes: u64,
    writes: u64,
}

impl Total {
    fn print(&self, took: Duration) {
        let speed = self.time.as_secs_f64() / took.as_secs_f64();
        println!(
            "{} seeds, {} failed: {} steps, {:.0} s of virtual time in {:.1} s ({speed:.0} x), \
             {} wishes of operators, {} crashes, {} writes",
            self.seeds,
            self.failed,
            self.steps,
            self.time.as_secs_f64(),
            took.as_secs_f64(),
            self.moves,
            self.crashes,
            self.writes
        );
    }
}
