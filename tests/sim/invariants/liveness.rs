//! After the last fault everything comes to rest: one owner that serves, shadows that caught up.

use foreshadow::shard::Role;

use super::super::disk::Disk;
use super::super::world::World;

pub fn check_end(world: &World) -> Result<(), String> {
    for (id, name) in &world.names {
        let mut serving = Vec::new();
        for (index, node) in world.nodes.iter().enumerate() {
            let files = node.disks.get(id).into_iter().flat_map(Disk::writable);
            serving.extend(files.map(|_| index));
        }
        let [owner] = serving[..] else {
            return Err(format!(
                "liveness: {name} takes writes in {} files",
                serving.len()
            ));
        };
        let place = world.place_of(owner, *id);
        let partition = world.nodes[owner].shards[place.shard].partitions().get(id);
        let role = partition.map(|partition| &partition.role);
        let Some(Role::Owner(machine)) = role else {
            return Err(format!("liveness: {name}: the serving node is {role:?}"));
        };
        if !machine.source.is_serving() {
            let state = machine.source.state();
            return Err(format!("liveness: {name}: the owner is still {state:?}"));
        }
        let record = world.keeper.records.get(id);
        if record.map(|record| record.owner) != Some(world.nodes[owner].id) {
            return Err(format!(
                "liveness: {name}: the coordinator knows {record:?}"
            ));
        }
        shadows(world, owner, *id)?;
    }
    Ok(())
}

/// Every shadow stands where its source does.
fn shadows(world: &World, owner: usize, id: wal::PartitionId) -> Result<(), String> {
    let live = world.nodes[owner].disks[&id]
        .live
        .as_ref()
        .expect("it serves");
    let mut ready = 0;
    let place = world.place_of(owner, id);
    let machine = world.nodes[owner].shards[place.shard].partitions()[&id].owner();
    for node in &world.nodes {
        let Some(copy) = node.disks.get(&id).and_then(|disk| disk.copy.as_ref()) else {
            continue;
        };
        if copy.content != live.content || copy.position().is_none() {
            let index = world.nodes.iter().position(|other| other.id == node.id);
            let place = world.place_of(index.expect("it is one of them"), id);
            let entry = node.shards[place.shard].partitions().get(&id);
            let role = match entry.map(|entry| &entry.role) {
                Some(Role::Shadow(shadow)) => format!("{:?}", shadow.target.state()),
                role => format!("{role:?}"),
            };
            let sender = machine.and_then(|owner| owner.senders.get(&node.id));
            return Err(format!(
                "liveness: the shadow at {} stands at {:?}, {} of {} writes: {role}, its owner \
                 sees {:?}",
                node.name,
                copy.state,
                copy.content.len(),
                live.content.len(),
                sender.map(|sender| sender.progress())
            ));
        }
        ready += 1;
    }
    let wanted = (world.plan.copies as usize).min(world.nodes.len() - 1);
    if ready < wanted && !world.people.unwanted {
        return Err(format!("liveness: {ready} of {wanted} shadows are there"));
    }
    Ok(())
}
