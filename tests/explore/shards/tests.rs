//! What is explored of whole shards, and what must be found.

use super::variants::Variant;
use super::world::{Limits, Start};
use crate::bfs::explore;

const ROLLBACK: Limits = Limits {
    nodes: 2,
    start: Start::Moved,
    cut: false,
    writes: 1,
    rollbacks: 1,
    cancels: 0,
    promotes: 0,
    crashes: 0,
    powers: 0,
    breaks: 0,
    failures: 0,
    losses: 0,
    early: 0,
    variant: Variant::Right,
};

const TAKEOVER: Limits = Limits {
    start: Start::Owned,
    rollbacks: 0,
    promotes: 2,
    ..ROLLBACK
};

/// One of three was lost: the others and the coordinator, and the lost one when it is back.
const CUT: Limits = Limits {
    nodes: 3,
    cut: true,
    ..TAKEOVER
};

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

/// The explorer finds the variant out, by a promise whose name starts with `promise`.
fn is_caught(limits: &Limits, promise: &str) {
    let variant = limits.variant;
    let report = explore(limits);
    let found = report.counterexample.as_ref();
    let found = found.unwrap_or_else(|| panic!("{variant:?} was not caught"));
    println!(
        "{variant:?}: \"{}\" in {} steps after {} states",
        found.promise, found.steps, report.states
    );
    let named = found.promise.starts_with(promise);
    assert!(named, "{variant:?} broke another promise:\n{}", found.trace);
}

#[test]
fn a_rollback_under_a_crash_keeps_every_promise() {
    let crashes = 1;
    holds(
        "rollback, one crash",
        &Limits {
            crashes,
            ..ROLLBACK
        },
    );
}

#[test]
fn a_rollback_that_is_broken_and_cancelled_keeps_every_promise() {
    let (breaks, cancels) = (1, 1);
    let limits = Limits {
        breaks,
        cancels,
        ..ROLLBACK
    };
    holds("rollback, break and cancel", &limits);
}

#[test]
fn a_rollback_with_a_failing_effect_keeps_every_promise() {
    let failures = 1;
    holds(
        "rollback, failing effect",
        &Limits {
            failures,
            ..ROLLBACK
        },
    );
}

#[test]
fn a_rollback_whose_deadlines_pass_early_keeps_every_promise() {
    let (early, losses) = (1, 1);
    holds(
        "rollback, early deadline",
        &Limits {
            early,
            losses,
            ..ROLLBACK
        },
    );
}

#[test]
fn a_rollback_while_the_move_is_being_settled_keeps_every_promise() {
    let (start, breaks) = (Start::Moving, 1);
    holds(
        "rollback at once",
        &Limits {
            start,
            breaks,
            ..ROLLBACK
        },
    );
}

#[test]
fn a_rollback_at_once_under_a_crash_keeps_every_promise() {
    let (start, crashes) = (Start::Moving, 1);
    holds(
        "rollback at once, crash",
        &Limits {
            start,
            crashes,
            ..ROLLBACK
        },
    );
}

#[test]
fn a_takeover_that_a_power_cut_undoes_keeps_every_promise() {
    let (powers, writes) = (1, 1);
    let limits = Limits {
        powers,
        writes,
        promotes: 1,
        ..TAKEOVER
    };
    holds("takeover, power cut", &limits);
}

#[test]
fn two_takeovers_one_of_which_a_power_cut_undoes_keep_every_promise() {
    let (powers, writes) = (1, 0);
    let limits = Limits {
        powers,
        writes,
        ..CUT
    };
    holds("two takeovers, power cut", &limits);
}

#[test]
fn a_rollback_that_a_power_cut_undoes_keeps_every_promise() {
    let (powers, writes) = (1, 1);
    let limits = Limits {
        powers,
        writes,
        ..ROLLBACK
    };
    holds("rollback, power cut", &limits);
}

#[test]
fn a_takeover_under_a_crash_keeps_every_promise() {
    let (crashes, writes) = (1, 0);
    let limits = Limits {
        crashes,
        writes,
        ..TAKEOVER
    };
    holds("takeover, one crash", &limits);
}

#[test]
fn a_takeover_whose_answers_are_lost_keeps_every_promise() {
    holds(
        "takeover, lost answer",
        &Limits {
            losses: 1,
            ..TAKEOVER
        },
    );
}

#[test]
fn a_takeover_over_a_bad_link_keeps_every_promise() {
    holds(
        "takeover, break",
        &Limits {
            breaks: 1,
            ..TAKEOVER
        },
    );
}

#[test]
fn two_takeovers_from_an_owner_that_is_cut_off_keep_every_promise() {
    let (promotes, writes) = (3, 0);
    let limits = Limits {
        promotes,
        writes,
        ..CUT
    };
    holds("two takeovers, owner cut off", &limits);
}

#[test]
fn two_takeovers_whose_answers_are_lost_keep_every_promise() {
    let (losses, writes) = (1, 0);
    let limits = Limits {
        losses,
        writes,
        ..CUT
    };
    holds("two takeovers, lost answer", &limits);
}

#[test]
fn a_coordinator_that_compares_nothing_is_found_out() {
    let variant = Variant::NobodyCompares;
    is_caught(&Limits { variant, ..CUT }, "I4");
}

#[test]
fn a_daemon_that_serves_before_it_asks_is_found_out() {
    let (variant, crashes) = (Variant::NobodyAsks, 1);
    let promise = "a node that starts asks";
    is_caught(
        &Limits {
            variant,
            crashes,
            ..TAKEOVER
        },
        promise,
    );
}

#[test]
fn an_owner_that_does_not_hear_is_found_out() {
    let variant = Variant::NobodyHears;
    is_caught(
        &Limits {
            variant,
            writes: 0,
            ..TAKEOVER
        },
        "liveness",
    );
}

#[test]
fn an_owner_that_forgets_what_was_its_own_is_found_out() {
    let (variant, start) = (Variant::OwnersForget, Start::Lost);
    let limits = Limits {
        variant,
        start,
        ..CUT
    };
    is_caught(&limits, "a node that knows");
}

#[test]
fn a_rollback_without_a_fence_is_found_out() {
    let variant = Variant::FenceIsForgotten;
    is_caught(
        &Limits {
            variant,
            ..ROLLBACK
        },
        "I1",
    );
}

#[test]
fn a_reverse_shadow_that_stands_still_is_found_out() {
    let variant = Variant::ShadowStandsStill;
    is_caught(
        &Limits {
            variant,
            ..ROLLBACK
        },
        "I2",
    );
}

#[test]
fn a_takeover_that_is_not_noted_is_found_out() {
    let (variant, powers) = (Variant::TakeoverIsForgotten, 1);
    let limits = Limits {
        variant,
        powers,
        promotes: 1,
        ..TAKEOVER
    };
    is_caught(&limits, "I2");
}
