//! Daemon, peer and writer killed at every named step (`io::failpoint`) and at random moments.
//!
//! | file | what |
//! |---|---|
//! | [`table`] | where each step is passed, and what makes the daemon pass it |
//! | [`stage`] | a cluster whose daemons obey boards; one round in it |
//! | [`look`] | which live files take writes; whether every acknowledged row is there |
//! | [`tally`] | what rounds add up to |
//!
//! A round: a daemon is armed, made to pass the step and dies there, or stands there while its
//! peer or a writer dies; the dead are started again; then there must be one owner, every writer
//! must go on, every acknowledged row must be there once, and never may both nodes' live files
//! take writes. Each stage ends with the verdict on all its files.
//!
//! `FORESHADOW_ROUNDS=10000 cargo test --features foreshadow/failpoints --test crash steps` runs
//! as many rounds; `FORESHADOW_LANES` clusters run side by side, `FORESHADOW_SEED` varies choices.

mod aimed;
mod look;
mod stage;
mod table;
mod tally;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use io::failpoint::Step;

use self::stage::{Stage, VICTIMS, Victim};
use self::table::{By, place};
use self::tally::Tally;
use crate::seed::number;

/// Clusters side by side: a round mostly waits.
const LANES: u64 = 4;
/// Rounds until a cluster is judged and a fresh one takes its place.
const ROUNDS_PER_STAGE: usize = 120;
/// Kills at random moments for each turn through all steps.
const RANDOM_PER_TURN: usize = 6;
/// A move may be given up before it comes to its step, on a machine that stalls; not often.
const MISSED_PER_CENT_MAX: usize = 2;

/// What happens in one round.
#[derive(Clone, Copy, Debug)]
enum Round {
    At(Step, Victim),
    Random(Victim),
}

/// Steps that can be met again and again in one cluster.
fn repeatable() -> Vec<Step> {
    let once = |step: &&Step| place(**step).1 == By::FirstMove;
    Step::ALL
        .iter()
        .filter(|step| !once(step))
        .copied()
        .collect()
}

/// Rounds until each of them was met once.
fn turn() -> usize {
    repeatable().len() + RANDOM_PER_TURN
}

/// Every step in turn, first with the daemon that passes it as the victim.
fn plan(rounds: usize) -> Vec<Round> {
    let (steps, turn) = (repeatable(), turn());
    let round = |index: usize| {
        let (turn, within) = (index / turn, index % turn);
        let victim = VICTIMS[turn % VICTIMS.len()];
        match steps.get(within) {
            Some(step) => Round::At(*step, victim),
            None => Round::Random(VICTIMS[(within + turn) % VICTIMS.len()]),
        }
    };
    (0..rounds).map(round).collect()
}

/// Runs rounds in clusters of its own until none is left.
fn lane(rounds: &Mutex<VecDeque<Round>>, seed: u64, began: Instant) -> Tally {
    let mut sum = Tally::default();
    for number in 0.. {
        if rounds.lock().expect("no panic").is_empty() {
            break;
        }
        let mut stage = Stage::start(seed.wrapping_mul(1000) + number, "1s");
        // What can be met once for each database comes first.
        let first = Step::ALL
            .iter()
            .filter(|step| place(**step).1 == By::FirstMove);
        for (turn, step) in (number as usize..).zip(first) {
            stage.round(*step, VICTIMS[turn % VICTIMS.len()]);
        }
        for _ in 0..ROUNDS_PER_STAGE {
            let Some(round) = rounds.lock().expect("no panic").pop_front() else {
                break;
            };
            match round {
                Round::At(step, victim) => stage.round(step, victim),
                Round::Random(victim) => stage.random_round(victim),
            }
        }
        let left = rounds.lock().expect("no panic").len();
        let tally = stage.end();
        println!(
            "{:6.0} s, {left} rounds left: {} rounds, {} rows, missed {:?}, wrong {:?}",
            began.elapsed().as_secs_f64(),
            tally.rounds,
            tally.acked,
            tally.missed,
            tally.wrong
        );
        sum.add(tally);
    }
    sum
}

#[test]
fn kills_at_every_step_lose_nothing_and_open_nothing_twice() {
    let turn = turn();
    let count = number("FORESHADOW_ROUNDS", turn as u64) as usize;
    let (seed, lanes) = (
        number("FORESHADOW_SEED", 1),
        number("FORESHADOW_LANES", LANES),
    );
    let rounds = Arc::new(Mutex::new(VecDeque::from(plan(count))));
    let began = Instant::now();
    let lanes: Vec<_> = (0..lanes)
        .map(|index| {
            let rounds = Arc::clone(&rounds);
            std::thread::spawn(move || lane(&rounds, seed * 100 + index, began))
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
    let few = tally.missed.len() * 100 <= count * MISSED_PER_CENT_MAX;
    assert!(
        few,
        "{} steps were not met: {:#?}",
        tally.missed.len(),
        tally.missed
    );
    if count >= turn {
        let unmet: Vec<&str> = Step::ALL
            .iter()
            .filter(|step| !tally.fired.contains_key(step))
            .map(|step| step.name())
            .collect();
        assert!(unmet.is_empty(), "never met: {unmet:?}");
    }
}
