//! The target of a move: killed when it is ready, or standing still while writers wait for it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, Outcome, Pace, PendingMove, four_writers};

use crate::cluster::{LIMIT, judged, moves_on, options, started, tenants};

const NAME: &str = "tenant00.db";
const ALL: [u32; 4] = [1, 2, 3, 4];
/// Attempts to meet the moment between "ready" and "granted", which lasts some milliseconds.
const AIMED: usize = 8;

/// A moment of a move that is searched for by halving.
struct Aim {
    at_ms: f64,
    step_ms: f64,
    was_late: Option<bool>,
}

impl Aim {
    /// First at the given step of a move that went through.
    fn at(cluster: &mut Cluster, step: &str) -> Aim {
        let report = moves_on(cluster, NAME);
        let found = report.steps.iter().find(|one| one.name == step);
        let at_ms = found.expect("a step of every move").at_ms;
        Aim {
            at_ms,
            step_ms: 16.0,
            was_late: None,
        }
    }

    /// Sleeps until the moment, counted from when the move was asked for.
    fn wait(&self, asked: Instant) {
        let at = asked + Duration::from_secs_f64(self.at_ms / 1e3);
        sleep(at.saturating_duration_since(Instant::now()));
    }

    fn learn(&mut self, was_late: bool) {
        if self.was_late.is_some_and(|before| before != was_late) {
            self.step_ms = (self.step_ms / 2.0).max(0.25);
        }
        self.was_late = Some(was_late);
        let step = if was_late {
            -self.step_ms
        } else {
            self.step_ms
        };
        self.at_ms = (self.at_ms + step).max(0.0);
    }
}

/// Owner and target of the next move.
fn ends(cluster: &Cluster) -> (String, String) {
    let owner = cluster.owner_of(NAME).expect("one owner");
    let to = if owner == "node-a" {
        "node-b"
    } else {
        "node-a"
    };
    (owner, to.to_owned())
}

/// The word for where a move is, as its source says.
fn stage(cluster: &Cluster, pending: &PendingMove) -> String {
    let target = format!("/v1/moves/{}", pending.id);
    let body = cluster
        .node(&pending.from)
        .and_then(|node| node.get(&target));
    let body = body.expect("the source answers");
    body["state"].as_str().expect("a word").to_owned()
}

#[test]
fn a_target_killed_when_it_is_ready_serves_after_its_restart_or_never() {
    let tenants = tenants(1, 2);
    let mut cluster = started(&options(2), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(40.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    let mut aim = Aim::at(&mut cluster, "shipping");
    for _ in 0..AIMED {
        cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
        let (from, to) = ends(&cluster);
        let asked = Instant::now();
        let pending = cluster.begin_move(NAME, &to).expect("the move begins");
        aim.wait(asked);
        cluster.node_mut(&to).expect("there").kill_at_once();
        let stage = stage(&cluster, &pending);
        cluster.restart(&to).expect("it starts again");
        let report = cluster.finish_move(&pending, LIMIT).expect("the move ends");
        let owner = cluster.wait_for_one_owner(NAME, LIMIT).expect("one owner");
        println!("killed at {:.1} ms, {stage}: {owner} owns it", aim.at_ms);
        let granted = report.outcome == Outcome::Done;
        assert_eq!(owner, if granted { &*to } else { &*from }, "{report:?}");
        cluster
            .wait_for_progress(&ALL, LIMIT)
            .expect("writers go on");
        aim.learn(stage == "done");
    }
    judged(cluster, writers);
}

#[test]
fn a_target_that_stands_still_costs_the_writers_only_the_pause_timeout() {
    let tenants = tenants(1, 2);
    let options = options(2).tweak("[switch]", "pause_timeout", "\"250ms\"");
    let mut cluster = started(&options, &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(40.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    let mut aim = Aim::at(&mut cluster, "shipping");
    let mut given_up = 0;
    for _ in 0..AIMED {
        cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
        let (from, to) = ends(&cluster);
        let asked = Instant::now();
        let pending = cluster.begin_move(NAME, &to).expect("the move begins");
        aim.wait(asked);
        cluster.node_mut(&to).expect("there").suspend(true);
        // Four times the limit: what was frozen is served again, or the commit point is passed.
        sleep(Duration::from_secs(1));
        let stage = stage(&cluster, &pending);
        println!("stopped at {:.1} ms: {stage} after a second", aim.at_ms);
        let passed = ["fencing", "granting", "done"].contains(&&*stage);
        assert!(
            stage != "freezing" && stage != "shipping",
            "writers still wait"
        );
        if !passed {
            given_up += u32::from(stage == "aborted");
            let moving = Duration::from_secs(5);
            let goes_on = cluster.wait_for_progress(&ALL, moving);
            goes_on.expect("writers go on while the target stands still");
        }
        cluster.node_mut(&to).expect("there").suspend(false);
        let report = cluster.finish_move(&pending, LIMIT).expect("the move ends");
        let owner = cluster.wait_for_one_owner(NAME, LIMIT).expect("one owner");
        let granted = report.outcome == Outcome::Done;
        assert_eq!(owner, if granted { &*to } else { &*from }, "{report:?}");
        assert!(granted || !passed, "what was fenced is granted: {report:?}");
        cluster
            .wait_for_progress(&ALL, LIMIT)
            .expect("writers go on");
        aim.learn(passed);
    }
    println!("{given_up} of {AIMED} moves were given up while the target stood still");
    judged(cluster, writers);
}

#[test]
fn a_move_to_a_node_that_stands_still_is_given_up_and_writers_never_wait() {
    let tenants = tenants(1, 2);
    let mut cluster = started(&options(2), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(40.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they write");
    cluster.node_mut("node-b").expect("there").suspend(true);
    let pending = cluster.begin_move(NAME, "node-b").expect("the move begins");
    for _ in 0..3 {
        cluster
            .wait_for_progress(&ALL, Duration::from_secs(5))
            .expect("writers go on meanwhile");
    }
    let limit = Duration::from_secs(45);
    let report = cluster.finish_move(&pending, limit).expect("the move ends");
    assert!(matches!(report.outcome, Outcome::Aborted(_)), "{report:?}");
    cluster.node_mut("node-b").expect("there").suspend(false);
    cluster
        .wait_for_shadows(LIMIT)
        .expect("the shadow follows again");
    moves_on(&mut cluster, NAME);
    judged(cluster, writers);
}
