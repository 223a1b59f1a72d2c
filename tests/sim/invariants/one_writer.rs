//! I1: at most one file of a partition takes writes, wherever it lies and whoever has it open.

use super::super::disk::Disk;
use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for id in &world.touched {
        let (name, floor) = (&world.names[id], world.ledgers[id].floor);
        let mut open = Vec::new();
        for node in &world.nodes {
            let files = node.disks.get(id).into_iter().flat_map(Disk::writable);
            // Taken over from: such a database is closed when its daemon hears of it.
            let current = files.filter(|live| live.epoch >= floor);
            open.extend(current.map(|_| node.name.as_str()));
        }
        if open.len() > 1 {
            return Err(format!("I1: {name} takes writes at {}", open.join(" and ")));
        }
    }
    Ok(())
}
