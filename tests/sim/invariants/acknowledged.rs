//! I2 and I6: a database that takes writes holds exactly what was acknowledged, in order.

use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for (id, name) in &world.names {
        for node in &world.nodes {
            let live = node.disks.get(id).and_then(|disk| disk.live.as_ref());
            let Some(live) = live.filter(|live| live.is_writable()) else {
                continue;
            };
            let empty = Vec::new();
            let acknowledged = world.people.acknowledged.get(id).unwrap_or(&empty);
            let held = live.content.writes();
            // The last write stands for all before it: each was checked when it was the last.
            let same = held.len() == acknowledged.len() && held.last() == acknowledged.last();
            if !same {
                return Err(format!(
                    "I2: {name} at {} holds {} writes up to {:?}; acknowledged were {} up to {:?}",
                    node.name,
                    held.len(),
                    held.last(),
                    acknowledged.len(),
                    acknowledged.last()
                ));
            }
        }
    }
    Ok(())
}
