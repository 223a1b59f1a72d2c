//! I1: at most one node acknowledges writes for a partition.

use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for (id, name) in &world.names {
        let mut open = Vec::new();
        for node in &world.nodes {
            let live = node.disks.get(id).and_then(|disk| disk.live.as_ref());
            if live.is_some_and(|live| live.is_writable()) {
                open.push(node.name.as_str());
            }
        }
        if open.len() > 1 {
            return Err(format!("I1: {name} takes writes at {}", open.join(" and ")));
        }
    }
    Ok(())
}
