//! The promises of a switchover, each under its name in the design.

use foreshadow::switch::source::Source;
use foreshadow::switch::target::Target;

use super::variants::Variant;
use super::world::{Fence, SourceRole, TARGET, TargetRole, World};

/// A name, and whether it holds.
type Promise = (&'static str, fn(&World) -> bool);

const PROMISES: [Promise; 5] = [
    (
        "I1: at most one node acknowledges writes",
        one_node_acknowledges,
    ),
    (
        "I2: no acknowledged write is missing at the serving node",
        nothing_acknowledged_is_missing,
    ),
    (
        "I3: a shadow is a prefix of its source",
        the_shadow_is_a_prefix,
    ),
    (
        "I6: an abort leaves the source serving",
        an_idle_source_serves,
    ),
    (
        "I4: the serving epoch is newer than the coordinator's last owner",
        epochs_grow,
    ),
];

/// The first promise that does not hold.
pub fn broken(world: &World, variant: Variant) -> Option<&'static str> {
    if let Some(promise) = world.broken {
        return Some(promise);
    }
    if stale_read_possible(world, variant) {
        return Some("I7: no read is older than an acknowledged write");
    }
    PROMISES
        .iter()
        .find(|(_, holds)| !holds(world))
        .map(|(promise, _)| *promise)
}

fn one_node_acknowledges(world: &World) -> bool {
    !(world.source.acknowledges() && world.target.exchanged)
}

fn nothing_acknowledged_is_missing(world: &World) -> bool {
    !world.target.exchanged || world.target.applied >= world.source.content
}

fn the_shadow_is_a_prefix(world: &World) -> bool {
    world.target.applied <= world.source.content
}

/// A machine that serves and has nothing under way left the database writable.
fn an_idle_source_serves(world: &World) -> bool {
    let source = &world.source;
    let idle = source.machine().is_some_and(Source::is_serving) && source.is_idle();
    !idle || source.acknowledges()
}

fn epochs_grow(world: &World) -> bool {
    match world.target.role {
        TargetRole::Owner(epoch) => epoch > 1 && epoch <= world.coordinator.reserved,
        _ => true,
    }
}

/// Readers of the source are refused from the fence on: its publication changes the version in the
/// wal-index, which every reader checks, before the grant is sent.
fn stale_read_possible(world: &World, variant: Variant) -> bool {
    let source = &world.source;
    let closed = source.fence != Fence::Absent || source.retired;
    let readable = !closed || variant == Variant::ReadsAfterGrant;
    readable && world.target.writes > 0
}

/// Exactly one node acknowledges writes, both daemons are up and nothing is under way.
pub fn is_settled(world: &World) -> bool {
    let (source, target) = (&world.source, &world.target);
    if !source.is_idle() || !target.is_idle() {
        return false;
    }
    let at_source = source.machine().is_some_and(Source::is_serving)
        && source.acknowledges()
        && target.machine().is_some_and(Target::is_following)
        && target.expected.is_some();
    let left = matches!(source.role, SourceRole::Retiring | SourceRole::Refused);
    let at_target = left
        && matches!(target.role, TargetRole::Owner(_))
        && target.exchanged
        && world.coordinator.owner == TARGET;
    at_source != at_target
}
