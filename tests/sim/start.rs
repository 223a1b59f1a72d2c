//! What outlives a daemon, and what the next one finds.

use std::collections::BTreeMap;

use foreshadow::effect::Note;
use foreshadow::event::Event;
use wal::{Lsn, PartitionId, PartitionName, Position};

use super::disk::Disk;
use super::random::Random;
use super::world::Node;

/// What a daemon finds at its start, as runtime/recover.rs tells it.
pub fn found(
    node: &mut Node,
    names: &BTreeMap<PartitionId, PartitionName>,
) -> Vec<(PartitionId, Event)> {
    for (id, disk) in &mut node.disks {
        let note = node.notes.get(id).copied();
        let landed = disk
            .live
            .as_ref()
            .and_then(|live| Some((live.landed?, live.content.digest())));
        if let (
            Some((epoch, digest)),
            Some(Note::Prepared {
                epoch: prepared, ..
            }),
        ) = (landed, note)
            && epoch == prepared
        {
            // The path was exchanged: it was granted, whatever the journal had time to say.
            let position = Position {
                epoch,
                lsn: Lsn(1),
                digest,
            };
            node.notes.insert(*id, Note::Landed { epoch, position });
        }
        if let Some(copy) = &mut disk.copy {
            let about = match node.notes.get(id) {
                Some(Note::Prepared { epoch, .. } | Note::Landed { epoch, .. }) => Some(*epoch),
                _ => None,
            };
            if copy.landing.is_some() && copy.landing != about {
                copy.landing = None;
            }
        }
    }
    tell(node, names)
}

/// The events, notes first.
fn tell(node: &Node, names: &BTreeMap<PartitionId, PartitionName>) -> Vec<(PartitionId, Event)> {
    let mut events = Vec::new();
    for (partition, note) in &node.notes {
        events.push((
            *partition,
            Event::Noted {
                partition: *partition,
                note: *note,
            },
        ));
    }
    for ((partition, _), note) in &node.wishes {
        events.push((
            *partition,
            Event::Noted {
                partition: *partition,
                note: *note,
            },
        ));
    }
    for (id, disk) in &node.disks {
        let name = names[id].clone();
        if let Some(copy) = &disk.copy {
            let remains = copy.remains();
            events.push((*id, Event::Recovered { name, remains }));
        }
    }
    for (id, disk) in &node.disks {
        if disk.live.is_some() {
            events.push((
                *id,
                Event::Found {
                    name: names[id].clone(),
                },
            ));
        }
    }
    events
}

/// Locks and what was not durable die with the daemon.
pub fn daemon_died(disk: &mut Disk, random: &mut Random) {
    if let Some(live) = &mut disk.live {
        live.tail = None;
    }
    disk.landed_at = None;
    if random.chance(300) {
        let newest = random.below(4) as usize;
        disk.log.drop_newest(newest);
    }
    if let Some(copy) = &mut disk.copy {
        copy.crash(random.below(4) as usize);
    }
}
