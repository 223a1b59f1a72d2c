//! I4: epochs only grow, in the coordinator's records and wherever a database is served.

use super::super::world::World;

pub fn check(world: &mut World) -> Result<(), String> {
    for id in &world.touched {
        let Some(record) = world.keeper.records.get(id) else {
            continue;
        };
        let known = world.memory.epochs.entry(*id).or_default();
        if record.epoch < *known {
            return Err(format!(
                "I4: {} went from epoch {known} to {}",
                record.name, record.epoch
            ));
        }
        *known = record.epoch;
    }
    for id in &world.touched {
        let (name, floor) = (&world.names[id], world.ledgers[id].floor);
        for node in &world.nodes {
            let live = node.disks.get(id).and_then(|disk| disk.live.as_ref());
            let tail = live
                .filter(|live| !live.fenced && live.epoch >= floor)
                .and_then(|live| live.tail);
            let Some(epoch) = tail.map(|tail| tail.position.epoch) else {
                continue;
            };
            let known = world.memory.served.entry(*id).or_default();
            if epoch < *known {
                return Err(format!(
                    "I4: {name} is served at {} under epoch {epoch}, after {known}",
                    node.name
                ));
            }
            *known = epoch;
        }
    }
    Ok(())
}
