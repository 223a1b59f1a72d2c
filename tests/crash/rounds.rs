//! Rounds in one cluster: a move begins, something is killed a moment later, the dead are started
//! again, and everything must go on as if nothing had happened.

use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{
    Cluster, Engine, Load, Options, Pace, PendingMove, Program, Tenant, Writers,
};

use crate::cluster::{LIMIT, judged, options, started};
use crate::seed::{Dice, number};

/// Enough for every kind of victim, in well under 90 seconds.
const ROUNDS: u64 = 40;
/// The daemon's part of a move is the same, and `steps` meets what is not.
const ROUNDS_NATIVE: u64 = 15;
/// A move takes some tens of milliseconds: later is after it.
const DELAY_US_MAX: u64 = 60_000;
/// Long enough for a peer to notice, or not.
const DEAD_MS_MAX: u64 = 400;
const NODES: usize = 3;
const TENANTS: u32 = 3;

/// Who is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Source,
    Target,
    Both,
    Writer,
    SourceAndWriter,
}

const VICTIMS: [Victim; 5] = [
    Victim::Source,
    Victim::Target,
    Victim::Both,
    Victim::Writer,
    Victim::SourceAndWriter,
];

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment_of_a_move() {
    kills_at_any_moment(Engine::Sqlite, ROUNDS);
}

#[test]
fn what_was_acknowledged_in_a_native_log_survives_kills_at_any_moment_of_a_move() {
    kills_at_any_moment(Engine::Native, ROUNDS_NATIVE);
}

fn kills_at_any_moment(engine: Engine, rounds: u64) {
    let mut dice = Dice::new("survives_kills_at_any_moment_of_a_move");
    let rounds = number("FORESHADOW_ROUNDS", rounds);
    let mut tenants = crate::cluster::tenants(TENANTS, NODES);
    for tenant in &mut tenants {
        *tenant = Tenant::of(engine, tenant.number, &tenant.node, 1.0);
    }
    let of = Options {
        engine,
        ..options(NODES)
    };
    let mut cluster = started(&of, &tenants);
    let other = match cluster.python() {
        Some(_) => Program::Python,
        None => {
            println!("skipped: writers in Python, which is not there or has no library for it");
            Program::Bundled
        }
    };
    let mut load = Load::new(&[Program::Bundled, other, Program::Bundled]);
    for tenant in &tenants {
        load.add(tenant.number as usize, tenant, Pace::Rate(60.0));
        load.add(tenant.number as usize + 1, tenant, Pace::Rate(60.0));
    }
    let all: Vec<u32> = (1..=2 * TENANTS).collect();
    let mut writers = cluster.start_writers(&load).expect("writers start");
    let mut begun = 0;
    for round in 0..rounds {
        // In turn, so that even a short run has met every kind.
        let victim = VICTIMS[round as usize % VICTIMS.len()];
        let line = one_round(&mut cluster, &mut writers, victim, &mut dice, &all);
        println!("round {round:3}: {}", line.text);
        begun += u64::from(line.began);
    }
    assert!(begun * 10 >= rounds * 9, "only {begun} moves began");
    let verdict = judged(cluster, writers);
    println!(
        "{} rows, {} copies read",
        verdict.acked, verdict.copies_read
    );
}

struct Line {
    text: String,
    began: bool,
}

fn one_round(
    cluster: &mut Cluster,
    writers: &mut Writers,
    victim: Victim,
    dice: &mut Dice,
    all: &[u32],
) -> Line {
    let name = dice.pick(&cluster.tenants).name.clone();
    let from = cluster.owner_of(&name).expect("one owner");
    let nodes: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| node.place.name.clone())
        .filter(|node| *node != from)
        .collect();
    let to = dice.pick(&nodes).clone();
    let delay = Duration::from_micros(dice.below(DELAY_US_MAX));
    let dead = Duration::from_millis(dice.below(DEAD_MS_MAX));
    let index = dice.below(writers.count() as u64) as usize;
    let said = format!(
        "{name} {from} -> {to}, kill {victim:?} after {:.1} ms",
        delay.as_secs_f64() * 1e3
    );
    let began = Instant::now();
    let pending = cluster.begin_move(&name, &to);
    std::thread::sleep(delay);
    let (source, target, writer) = match victim {
        Victim::Source => (true, false, false),
        Victim::Target => (false, true, false),
        Victim::Both => (true, true, false),
        Victim::Writer => (false, false, true),
        Victim::SourceAndWriter => (true, false, true),
    };
    if writer {
        writers.kill9(index);
    }
    for (node, _) in [(&from, source), (&to, target)].iter().filter(|one| one.1) {
        cluster
            .node_mut(node)
            .expect("a node of the cluster")
            .kill_at_once();
    }
    std::thread::sleep(dead);
    cluster
        .start_all()
        .unwrap_or_else(|error| panic!("{said}: {error}"));
    if writer {
        writers.restart(index).expect("the writer starts again");
    }
    writers.check().expect("no writer ends by itself");
    let end = end_of(cluster, pending.as_ref().ok(), source);
    let owner = cluster
        .wait_for_one_owner(&name, LIMIT)
        .unwrap_or_else(|error| panic!("{said}: {error}\n{:#?}", cluster.views().get(&name)));
    cluster
        .wait_for_progress(all, LIMIT)
        .unwrap_or_else(|error| panic!("{said}, {owner} owns it: {error}"));
    let refused = pending.as_ref().err().map(ToString::to_string);
    let seconds = began.elapsed().as_secs_f64();
    let text = format!(
        "{said}: {}, {owner} owns it, {seconds:.1} s",
        refused.as_deref().unwrap_or(&end)
    );
    Line {
        text,
        began: refused.is_none(),
    }
}

/// How a move ended, where its source still knows it.
fn end_of(cluster: &mut Cluster, pending: Option<&PendingMove>, source_died: bool) -> String {
    match pending {
        Some(pending) if !source_died => {
            let report = cluster.finish_move(pending, LIMIT).expect("the move ends");
            format!("{:?}", report.outcome)
        }
        _ => "its source died".to_owned(),
    }
}
