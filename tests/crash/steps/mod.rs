//! Daemon, peer and writer killed at every named step (`io::failpoint`) and at random moments; the
//! daemon stopped there past every deadline, and met by an error of the disk.
//!
//! | file | what |
//! |---|---|
//! | [`table`] | where each step is passed, and what makes the daemon pass it |
//! | [`stage`] | a cluster whose daemons obey boards; one round in it |
//! | [`meet`] | how a daemon is made to pass a step |
//! | [`tally`] | what rounds add up to |
//! | [`takeover`] | a promoted shadow dies at each step, or meets an error |
//! | [`aimed`] | single stories that the rounds meet only by luck |
//! | [`logs`] | the same, of what only native logs do |
//!
//! A round: a daemon is armed, made to pass the step and dies there, or stands there while its
//! peer or a writer dies; the dead are started again; then there must be one owner, every writer
//! must go on, every acknowledged row must be there once, and never may both nodes' live files
//! take writes. Each stage ends with the verdict on all its files.
//!
//! `FORESHADOW_ROUNDS=10000 cargo test -p foreshadow --features failpoints --test crash every_step`
//! kills as often; `FORESHADOW_LANES` clusters run side by side, `FORESHADOW_SEED` varies choices.

mod aimed;
mod logs;
mod meet;
mod stage;
mod table;
mod takeover;
mod tally;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use foreshadow::cli::demo::harness::Engine;
use io::failpoint::Step;

use self::stage::{Stage, VICTIMS, Victim};
use self::table::{By, place, steps_of};
use self::tally::Tally;
use crate::seed::number;

/// Clusters side by side: a round mostly waits.
const LANES: u64 = 4;
/// Rounds until a cluster is judged and a fresh one takes its place.
const ROUNDS_PER_STAGE: usize = 120;
/// Kills at random moments for each turn through all steps.
const RANDOM_PER_TURN: usize = 6;
/// A move may be given up before it comes to its step, on a machine that stalls, or have nothing
/// to do there; not often.
const MISSED_PER_CENT_MAX: usize = 2;
/// Too few rounds for that: so many may be missed.
const MISSED_MAX: usize = 3;

/// What happens in one round.
#[derive(Clone, Copy, Debug)]
enum Round {
    Killed(Step, Victim),
    Random(Victim),
    Stopped(Step),
    Failed(Step),
}

/// The same with tenants of each engine, side by side.
fn each_engine(story: impl Fn(Engine) + Sync) {
    std::thread::scope(|scope| {
        for engine in [Engine::Sqlite, Engine::Native] {
            let story = &story;
            scope.spawn(move || story(engine));
        }
    });
}

/// Steps that can be met again and again in one cluster.
fn repeatable(engine: Engine) -> Vec<Step> {
    let again = |step: &Step| place(*step).1 != By::FirstMove;
    steps_of(engine).filter(again).collect()
}

/// Every step in turn, first with the daemon that passes it as the victim.
fn kills(engine: Engine, rounds: usize) -> Vec<Round> {
    let steps = repeatable(engine);
    let turn = steps.len() + RANDOM_PER_TURN;
    let round = |index: usize| {
        let (turn, within) = (index / turn, index % turn);
        let victim = VICTIMS[turn % VICTIMS.len()];
        match steps.get(within) {
            Some(step) => Round::Killed(*step, victim),
            None => Round::Random(VICTIMS[(within + turn) % VICTIMS.len()]),
        }
    };
    (0..rounds).map(round).collect()
}

/// Runs rounds in clusters of its own until none is left.
fn lane(engine: Engine, rounds: &Mutex<VecDeque<Round>>, seed: u64, pause_timeout: &str) -> Tally {
    let (mut sum, began) = (Tally::default(), Instant::now());
    for number in 0.. {
        if rounds.lock().expect("no panic").is_empty() {
            break;
        }
        let mut stage = Stage::start(engine, seed.wrapping_mul(1000) + number, pause_timeout);
        // What can be met once for each database comes first.
        let first = steps_of(engine).filter(|step| place(*step).1 == By::FirstMove);
        for (turn, step) in (number as usize..).zip(first) {
            stage.round(step, VICTIMS[turn % VICTIMS.len()]);
        }
        for _ in 0..ROUNDS_PER_STAGE {
            let Some(round) = rounds.lock().expect("no panic").pop_front() else {
                break;
            };
            match round {
                Round::Killed(step, victim) => stage.round(step, victim),
                Round::Random(victim) => stage.random_round(victim),
                Round::Stopped(step) => stage.stopped_round(step),
                Round::Failed(step) => stage.failed_round(step),
            }
        }
        let left = rounds.lock().expect("no panic").len();
        let tally = stage.end();
        println!(
            "{:6.0} s, {} {left} rounds left: {} rounds, {} rows, missed {:?}, wrong {:?}",
            began.elapsed().as_secs_f64(),
            engine.name(),
            tally.rounds,
            tally.acked,
            tally.missed,
            tally.wrong
        );
        sum.add(tally);
    }
    sum
}

/// Runs all rounds in several lanes; what must hold of all of them is asserted here.
fn run(engine: Engine, rounds: Vec<Round>, pause_timeout: &'static str) -> Tally {
    let (seed, lanes) = (
        number("FORESHADOW_SEED", 1),
        number("FORESHADOW_LANES", LANES),
    );
    println!(
        "FORESHADOW_SEED={seed}, {}: {} rounds in {lanes} lanes",
        engine.name(),
        rounds.len()
    );
    let (count, began) = (rounds.len(), Instant::now());
    let rounds = Arc::new(Mutex::new(VecDeque::from(rounds)));
    let lanes: Vec<_> = (0..lanes)
        .map(|index| {
            let rounds = Arc::clone(&rounds);
            std::thread::spawn(move || lane(engine, &rounds, seed * 100 + index, pause_timeout))
        })
        .collect();
    let mut tally = Tally::default();
    let mut panics = 0;
    for lane in lanes {
        match lane.join() {
            Ok(done) => tally.add(done),
            Err(_) => panics += 1,
        }
    }
    tally.print();
    println!("{:.0} s", began.elapsed().as_secs_f64());
    assert_eq!(panics, 0, "a lane ended early, see above");
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    assert_eq!(tally.both_open, 0);
    assert!(tally.acked > 0, "the writers wrote nothing");
    let missed_max = MISSED_MAX.max(count * MISSED_PER_CENT_MAX / 100);
    let missed = &tally.missed;
    assert!(missed.len() <= missed_max, "not met: {missed:#?}");
    tally
}

fn kills_at_every_step(engine: Engine) {
    let turn = repeatable(engine).len() + RANDOM_PER_TURN;
    let count = number("FORESHADOW_ROUNDS", turn as u64) as usize;
    let tally = run(engine, kills(engine, count), "1s");
    let unmet = steps_of(engine).filter(|step| !tally.fired.contains_key(step));
    let unmet: Vec<&str> = unmet.map(Step::name).collect();
    // What was missed once in a short run was counted above; in a long one every step is met.
    let enough = count < turn || unmet.len() <= tally.missed.len();
    assert!(
        enough && (count < 3 * turn || unmet.is_empty()),
        "never met: {unmet:?}"
    );
}

fn standstill_at_every_step(engine: Engine) {
    let rounds = repeatable(engine).into_iter().map(Round::Stopped).collect();
    run(engine, rounds, "500ms");
}

fn error_at_every_step(engine: Engine) {
    let rounds = repeatable(engine).into_iter().map(Round::Failed).collect();
    run(engine, rounds, "1s");
}

#[test]
fn kills_at_every_step_lose_nothing_and_open_nothing_twice() {
    kills_at_every_step(Engine::Sqlite);
}

#[test]
fn kills_at_every_step_of_a_native_log_lose_nothing_and_open_nothing_twice() {
    kills_at_every_step(Engine::Native);
}

#[test]
fn a_daemon_that_stands_still_past_its_deadlines_at_any_step_breaks_nothing() {
    standstill_at_every_step(Engine::Sqlite);
}

#[test]
fn a_daemon_that_stands_still_at_any_step_breaks_no_native_log() {
    standstill_at_every_step(Engine::Native);
}

#[test]
fn an_error_of_the_disk_at_any_step_stops_no_application() {
    error_at_every_step(Engine::Sqlite);
}

#[test]
fn an_error_of_the_disk_at_any_step_stops_no_appender() {
    error_at_every_step(Engine::Native);
}
