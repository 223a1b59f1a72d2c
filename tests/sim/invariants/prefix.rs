//! I3: a shadow with a position is a prefix of what was acknowledged, and its digest says so.

use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for id in &world.touched {
        let (name, ledger) = (&world.names[id], &world.ledgers[id]);
        for node in &world.nodes {
            let copy = node.disks.get(id).and_then(|disk| disk.copy.as_ref());
            let Some((copy, position)) = copy.and_then(|copy| Some((copy, copy.position()?)))
            else {
                continue;
            };
            if copy.content.digest() != position.digest {
                return Err(format!(
                    "I3: {name} at {} is not what {position} says",
                    node.name
                ));
            }
            // A copy of what was taken over from, or cut off, is compared before it is followed.
            let other_line = position.epoch < ledger.floor || ledger.open;
            if !other_line && !ledger.had_prefix(copy.content.writes()) {
                let len = copy.content.len();
                let node = &node.name;
                return Err(format!("I3: {name} at {node} is no prefix: {len} writes"));
            }
        }
    }
    Ok(())
}
