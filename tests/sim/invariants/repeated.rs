//! I5: every step can be repeated after a crash. What is at rest is at rest again, under the same
//! owners and epochs, after all daemons died at once.

use std::collections::BTreeMap;

use wal::{Epoch, NodeId, PartitionId, Span};

use super::super::world::World;

/// So many of a thousand runs die once more at their end.
const AGAIN: u64 = 250;

pub fn check_again(world: &mut World, rest: Span) -> Result<(), String> {
    if !world.random.chance(AGAIN) {
        return Ok(());
    }
    let before = owners(world);
    for node in 0..world.nodes.len() {
        world.crash(node);
    }
    for node in 0..world.nodes.len() {
        world.start(node);
    }
    world.run_until(world.now + rest);
    if let Some(reason) = world.broken.take() {
        return Err(reason);
    }
    super::check_end(world).map_err(|reason| format!("I5: after a last crash of all: {reason}"))?;
    let after = owners(world);
    if before != after {
        return Err(format!(
            "I5: {before:?} became {after:?} by a crash at rest"
        ));
    }
    Ok(())
}

fn owners(world: &World) -> BTreeMap<PartitionId, (NodeId, Epoch)> {
    let records = world.keeper.records.iter();
    records
        .map(|(id, record)| (*id, (record.owner, record.epoch)))
        .collect()
}
