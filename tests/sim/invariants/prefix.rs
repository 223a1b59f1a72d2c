//! I3: a shadow with a position is a prefix of what was acknowledged, and its digest says so.

use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for (id, name) in &world.names {
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
            let empty = Vec::new();
            let acknowledged = world.people.acknowledged.get(id).unwrap_or(&empty);
            let len = copy.content.len();
            let last = copy.content.writes().last();
            let prefix = len <= acknowledged.len() && last == acknowledged[..len].last();
            if !prefix {
                return Err(format!(
                    "I3: {name} at {} is no prefix: {len} writes",
                    node.name
                ));
            }
        }
    }
    Ok(())
}
