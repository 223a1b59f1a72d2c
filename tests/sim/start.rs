//! What outlives a daemon, and what the next one finds.

use std::collections::BTreeMap;

use foreshadow::effect::Note;
use foreshadow::event::Event;
use wal::{Lsn, PartitionId, PartitionName, Position, Time};

use super::disk::{Copy, Disk, Log};
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
            .and_then(|live| Some((live.landed?.epoch, live.content.digest())));
        if let (Some((epoch, digest)), Some(note)) = (landed, note)
            && note.announces_landing(epoch)
        {
            // The path was exchanged: it was granted, whatever the journal had time to say.
            let position = Position {
                epoch,
                lsn: Lsn(1),
                digest,
            };
            node.notes.insert(*id, Note::Landed { epoch, position });
        }
        if let Some(copy) = &mut disk.copy
            && let Some(landing) = copy.landing
            && !node
                .notes
                .get(id)
                .is_some_and(|note| note.expects_landing(landing.epoch))
        {
            copy.abandon();
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

/// Locks and what was not written die with the daemon.
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

/// A disk has other bytes than were written, or has them elsewhere: the next start finds a copy
/// that is not what it says, and a log that ends earlier. A copy that is landing, or that the
/// coordinator names, is the one that counts: who loses that one promotes another.
pub fn rot(disk: &mut Disk, rot: u64, random: &mut Random) {
    if let Some(copy) = &mut disk.copy
        && copy.landing.is_none()
        && random.chance(rot)
    {
        *copy = Copy {
            content: std::mem::take(&mut copy.content),
            ..Copy::empty()
        };
    }
    if random.chance(rot) {
        let newest = random.below(1 + disk.log.deltas.len() as u64) as usize;
        disk.log.drop_newest(newest);
    }
}

/// What was not synced is lost with the machine's power, all or some; the daemon is dead already.
pub fn power_cut(disk: &mut Disk, random: &mut Random, now: Time, kept: usize) {
    for left in &mut disk.left {
        left.power_cut(kept);
    }
    if random.chance(700) {
        let newest = random.below(1 + disk.log.deltas.len() as u64) as usize;
        disk.log.drop_newest(newest);
    }
    if random.chance(100) {
        disk.log = Log::default();
    }
    let Some(mut live) = disk.live.take() else {
        return;
    };
    live.power_cut(kept);
    let landed = live.landed.filter(|_| now < live.path_durable_at);
    match landed {
        // The path is as it was before the exchange; the copy has what was written since.
        Some(landing) if random.chance(500) => {
            let position = Position {
                lsn: landing.base.lsn.after(1),
                digest: live.content.digest(),
                ..landing.base
            };
            let mut copy = Copy::at(live.content, position);
            copy.landing = Some(landing);
            copy.undone = true;
            disk.copy = Some(copy);
        }
        _ => disk.live = Some(live),
    }
}
