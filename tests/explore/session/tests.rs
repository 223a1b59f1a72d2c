//! What is explored of a session, and the promises.

use super::world::{Disk, Limits, World, position};
use crate::bfs::explore;

const CALM: Limits = Limits {
    writes: 3,
    breaks: 1,
    restarts: 1,
    failures: 1,
    trims: 1,
    offers: 4,
    disk: Disk::Nothing,
};

/// The first promise that does not hold.
pub fn broken(world: &World) -> Option<&'static str> {
    let streams = world.sender.is_streaming();
    let acknowledged = world.sender.acknowledged().filter(|_| streams);
    if acknowledged.is_some_and(|at| at != position(at.lsn.0 as u8)) {
        return Some("I3: a shadow that streams is a prefix of its source");
    }
    match world.disk {
        Disk::At(lsn) if lsn > world.content => Some("I3: a shadow is never ahead of its source"),
        _ => None,
    }
}

/// The shadow streams and stands at the newest position, and the owner knows it.
pub fn is_settled(world: &World) -> bool {
    let newest = position(world.content);
    let quiet = world.to_peer.is_empty() && world.to_owner.is_empty();
    let idle = world.peer_jobs.is_empty() && world.peer_answers.is_empty();
    world.up
        && quiet
        && idle
        && world.owner_jobs.is_empty()
        && world.sender.is_streaming()
        && world.sender.acknowledged() == Some(newest)
        && world.disk == Disk::At(world.content)
}

fn holds(name: &str, limits: &Limits) {
    let report = explore(limits);
    println!(
        "{name}: {} states, {} transitions",
        report.states, report.transitions
    );
    if let Some(counterexample) = report.counterexample {
        panic!("{name}: {}", counterexample.trace);
    }
}

#[test]
fn a_first_shadow_comes_to_stream_through_every_fault() {
    holds("session from nothing", &CALM);
}

#[test]
fn a_partial_copy_comes_to_stream_through_every_fault() {
    holds(
        "session from a partial copy",
        &Limits {
            disk: Disk::Partial,
            ..CALM
        },
    );
}

#[test]
fn a_copy_that_was_away_resumes_through_every_fault() {
    holds(
        "session resumed",
        &Limits {
            disk: Disk::At(0),
            failures: 2,
            restarts: 0,
            ..CALM
        },
    );
}

#[test]
fn a_copy_of_another_history_is_found_out_and_mended() {
    for (name, disk) in [
        ("diverged, behind", Disk::Diverged(0)),
        ("diverged, level", Disk::Diverged(1)),
        ("diverged, ahead", Disk::Diverged(3)),
    ] {
        let limits = Limits {
            disk,
            restarts: 0,
            trims: 0,
            ..CALM
        };
        holds(name, &limits);
    }
}
