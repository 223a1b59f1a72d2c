//! I2 and I6: a database that takes writes holds exactly what was acknowledged, in order.

use super::super::disk::Disk;
use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for id in &world.touched {
        let (name, ledger) = (&world.names[id], &world.ledgers[id]);
        if ledger.open {
            continue;
        }
        for node in &world.nodes {
            let mut files = node.disks.get(id).into_iter().flat_map(Disk::writable);
            let Some(live) = files.find(|live| live.epoch >= ledger.floor) else {
                continue;
            };
            let (held, acknowledged) = (live.content.writes(), &ledger.committed);
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
