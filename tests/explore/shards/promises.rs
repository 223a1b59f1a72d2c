//! What must be true of every state of whole shards.

use foreshadow::shard::Role;
use wal::Epoch;

use super::disk::digest;
use super::world::{Limits, Node, World, id_of};

/// The first promise that does not hold.
pub fn broken(limits: &Limits, world: &World) -> Option<&'static str> {
    // With takeovers an owner that is cut off goes on until it hears: PROMISES.md says so.
    let planned = limits.promotes == 0;
    let checks: [(&'static str, bool); 9] = [
        (
            "I1: at most one node takes writes",
            !planned || one_takes_writes(world),
        ),
        (
            "I2: no acknowledged write is missing",
            !planned || nothing_is_missing(world),
        ),
        (
            "I2: what was acknowledged under an epoch is there while it lasts",
            epochs_keep_their_writes(world),
        ),
        (
            "I1: at most one node serves under an epoch",
            one_serves_an_epoch(world),
        ),
        (
            "I3: a shadow that streams is a prefix",
            shadows_are_prefixes(world),
        ),
        (
            "I4: epochs only grow at the coordinator",
            !world.keeper.went_back,
        ),
        (
            "I4: nobody serves under an epoch of another owner",
            epochs_have_one_owner(world),
        ),
        (
            "a node that starts asks before it serves",
            world.nodes.iter().all(|node| asks_first(node)),
        ),
        (
            "a node that knows of its successor takes no writes",
            all_who_know_stop(world),
        ),
    ];
    let found = checks.iter().find(|(_, holds)| !holds);
    found.map(|(promise, _)| *promise)
}

fn takes_writes(node: &Node) -> bool {
    node.disk
        .live
        .as_ref()
        .is_some_and(|live| live.is_writable())
}

fn one_takes_writes(world: &World) -> bool {
    world.nodes.iter().filter(|node| takes_writes(node)).count() <= 1
}

fn nothing_is_missing(world: &World) -> bool {
    let lives = world.nodes.iter().filter(|node| takes_writes(node));
    let mut lives = lives.filter_map(|node| node.disk.live.as_ref());
    lives.all(|live| live.content == world.ledger)
}

/// Also with takeovers: whoever serves under an epoch has every write acknowledged under it.
fn epochs_keep_their_writes(world: &World) -> bool {
    world.nodes.iter().all(|node| {
        let Some((epoch, live)) = node.serves().zip(node.disk.live.as_ref()) else {
            return true;
        };
        let mut acknowledged = world.ledger.iter().zip(&world.under);
        acknowledged.all(|(write, under)| *under != epoch || live.content.contains(write))
    })
}

fn one_serves_an_epoch(world: &World) -> bool {
    let epochs: Vec<Epoch> = world
        .nodes
        .iter()
        .filter_map(|node| node.serves())
        .collect();
    (1..epochs.len()).all(|at| !epochs[..at].contains(&epochs[at]))
}

fn shadows_are_prefixes(world: &World) -> bool {
    world.nodes.iter().all(|node| {
        let Some((owner, live)) = node
            .partition()
            .and_then(|partition| partition.owner())
            .zip(node.disk.live.as_ref())
        else {
            return true;
        };
        let streaming = owner
            .senders
            .values()
            .filter(|sender| sender.is_streaming());
        let mut acknowledged = streaming.filter_map(|sender| sender.acknowledged());
        acknowledged.all(|at| {
            let prefix = live.content.get(..at.lsn.0 as usize);
            prefix.is_some_and(|prefix| digest(prefix) == at.digest)
        })
    })
}

/// The record is older than a landing that was granted, never of another node.
fn epochs_have_one_owner(world: &World) -> bool {
    let Some(record) = &world.keeper.record else {
        return true;
    };
    let mut serving = (0..)
        .zip(&world.nodes)
        .filter_map(|(index, node)| Some((index, node.serves()?)));
    serving.all(|(index, epoch)| {
        let others = epoch == record.epoch && record.owner != id_of(index);
        !others && epoch <= record.reserved
    })
}

fn asks_first(node: &Node) -> bool {
    let serves = matches!(node.role(), Some(Role::Owner(_) | Role::Attaching { .. }));
    !serves || node.asked
}

/// Once a daemon heard of a newer owner and did what it began, nobody writes at its node.
fn all_who_know_stop(world: &World) -> bool {
    (0..).zip(&world.nodes).all(|(index, node)| {
        let known = node.partition().and_then(|partition| partition.ownership);
        let Some((known, live)) = known.zip(node.disk.live.as_ref()) else {
            return true;
        };
        let succeeded = known.owner != id_of(index) && live.epoch < known.epoch;
        let busy = match node.role() {
            // What came while it attached counts as soon as it is attached.
            Some(Role::Attaching { .. } | Role::Retiring { .. } | Role::Claiming) => true,
            // It asks again soon.
            Some(Role::Refused { retry_at, .. }) => retry_at.is_some(),
            Some(Role::Owner(owner)) => !owner.source.is_serving(),
            // Landing: what is exchanged in has no epoch yet.
            Some(Role::Shadow(shadow)) => !shadow.target.is_following(),
            _ => false,
        };
        !succeeded || busy || !live.is_writable()
    })
}

/// One node serves as the coordinator says, takes writes, and every shadow is where it is.
pub fn is_settled(world: &World) -> bool {
    let Some(record) = &world.keeper.record else {
        return false;
    };
    let up = world.nodes.iter().all(|node| node.shard.is_some());
    if !up || !world.is_quiet() || !world.cut && world.wires.iter().any(|wire| !wire.up) {
        return false;
    }
    (0..)
        .zip(&world.nodes)
        .all(|(index, node)| match node.role() {
            Some(Role::Owner(owner)) => {
                let rightly = record.owner == id_of(index) && record.epoch == owner.position.epoch;
                let shadows = world.nodes.len() - 1;
                let newest = |sender: &foreshadow::ship::sender::Sender| {
                    let at = sender.acknowledged().map(|at| (at.lsn, at.digest));
                    sender.is_streaming() && at == Some((owner.position.lsn, owner.position.digest))
                };
                let streaming = owner
                    .senders
                    .values()
                    .filter(|sender| newest(sender))
                    .count();
                let whole = world.cut || streaming == shadows;
                rightly && takes_writes(node) && owner.source.is_serving() && whole
            }
            Some(Role::Shadow(shadow)) => {
                record.owner != id_of(index) && shadow.target.is_following() && !takes_writes(node)
            }
            _ => false,
        })
}
