//! I6: a switchover that was given up leaves its source serving: not fenced, and nobody locked out.

use foreshadow::shard::Role;

use super::super::live::Lock;
use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for id in &world.touched {
        for (index, node) in world.nodes.iter().enumerate() {
            let live = node.disks.get(id).and_then(|disk| disk.live.as_ref());
            let Some((live, tail)) = live.and_then(|live| Some((live, live.tail?))) else {
                continue;
            };
            let shard = world.place_of(index, *id).shard;
            let entry = node
                .shards
                .get(shard)
                .map(|shard| shard.partitions().get(id));
            let Some(Role::Owner(owner)) = entry.flatten().map(|entry| &entry.role) else {
                continue;
            };
            if owner.source.is_serving() && (live.fenced || tail.lock == Lock::Held) {
                let (name, node) = (&world.names[id], &node.name);
                return Err(format!(
                    "I6: {name} is served at {node}, but nobody can write"
                ));
            }
        }
    }
    Ok(())
}
