//! What is explored, and what must be found.

use super::variants::Variant;
use super::world::Limits;
use crate::bfs::explore;

const CALM: Limits = Limits {
    attempts: 1,
    writes_at_source: 2,
    writes_at_target: 1,
    cancels: 0,
    crashes: 0,
    losses: 0,
    duplicates: 0,
    breaks: 0,
    failures: 0,
    patient: false,
    variant: Variant::Right,
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

#[test]
fn a_switchover_under_two_crashes_keeps_every_promise() {
    holds("two crashes", &Limits { crashes: 2, ..CALM });
}

#[test]
fn a_switchover_over_a_bad_network_keeps_every_promise() {
    holds(
        "bad network",
        &Limits {
            losses: 1,
            duplicates: 1,
            breaks: 1,
            cancels: 1,
            writes_at_source: 1,
            ..CALM
        },
    );
}

#[test]
fn a_switchover_with_failing_effects_keeps_every_promise() {
    holds(
        "failing effects",
        &Limits {
            failures: 2,
            crashes: 1,
            ..CALM
        },
    );
}

#[test]
fn a_second_attempt_is_not_confused_by_the_first() {
    holds(
        "two attempts",
        &Limits {
            attempts: 2,
            cancels: 1,
            losses: 1,
            writes_at_source: 1,
            patient: true,
            ..CALM
        },
    );
}

#[test]
fn a_second_attempt_after_a_crash_keeps_every_promise() {
    holds(
        "two attempts, one crash",
        &Limits {
            attempts: 2,
            crashes: 1,
            writes_at_source: 1,
            patient: true,
            ..CALM
        },
    );
}

#[test]
fn everything_at_once_keeps_every_promise() {
    holds(
        "everything",
        &Limits {
            crashes: 1,
            losses: 1,
            duplicates: 1,
            failures: 1,
            writes_at_source: 1,
            patient: true,
            ..CALM
        },
    );
}

/// The explorer finds the variant out, by a promise whose name starts with one of `promises`.
fn is_caught(limits: &Limits, promises: &[&str]) {
    let variant = limits.variant;
    let report = explore(limits);
    let found = report.counterexample.as_ref();
    let found = found.unwrap_or_else(|| panic!("{variant:?} was not caught"));
    println!(
        "{variant:?}: \"{}\" in {} steps after {} states",
        found.promise, found.steps, report.states
    );
    let named = promises.iter().any(|name| found.promise.starts_with(name));
    assert!(named, "{variant:?} broke another promise:\n{}", found.trace);
}

#[test]
fn the_naive_machine_that_resumes_by_timeout_has_two_writers() {
    is_caught(
        &Limits {
            variant: Variant::Naive,
            writes_at_target: 0,
            ..CALM
        },
        &["I1"],
    );
}

#[test]
fn a_grant_before_the_fence_is_durable_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::GrantBeforeFence,
            crashes: 1,
            failures: 1,
            ..CALM
        },
        &["I1"],
    );
}

#[test]
fn a_grant_that_is_taken_back_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::SourceRevokes,
            ..CALM
        },
        &["I1"],
    );
}

#[test]
fn reads_from_the_old_copy_after_the_grant_are_found_out() {
    is_caught(
        &Limits {
            variant: Variant::ReadsAfterGrant,
            ..CALM
        },
        &["I7"],
    );
}

#[test]
fn a_landing_without_the_check_of_position_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::Unchecked,
            ..CALM
        },
        &["I2"],
    );
}

#[test]
fn a_commit_without_proof_of_length_and_checksum_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::Unproven,
            failures: 1,
            ..CALM
        },
        &["I2"],
    );
}

#[test]
fn a_source_that_restarts_straight_into_serving_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::StraightIntoServing,
            crashes: 1,
            ..CALM
        },
        &["I1"],
    );
}

#[test]
fn a_target_that_restarts_straight_into_serving_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::TargetStraightIntoServing,
            crashes: 1,
            ..CALM
        },
        &["I1"],
    );
}

#[test]
fn a_recovery_that_ignores_the_intent_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::RecoveryIgnoresIntent,
            crashes: 1,
            losses: 1,
            ..CALM
        },
        &["liveness"],
    );
}

#[test]
fn a_target_that_gives_up_by_its_own_timeout_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::TargetGivesUp,
            losses: 1,
            ..CALM
        },
        &["liveness"],
    );
}

#[test]
fn an_epoch_that_nobody_compares_is_found_out() {
    is_caught(
        &Limits {
            variant: Variant::EpochIgnored,
            attempts: 2,
            cancels: 1,
            duplicates: 1,
            writes_at_source: 0,
            writes_at_target: 0,
            patient: true,
            ..CALM
        },
        &["I", "liveness"],
    );
}
