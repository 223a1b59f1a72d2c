//! What this shard says about itself when asked.

use wal::{NodeId, Time};

use super::Shard;
use super::links::{Link, LinkState};
use super::moves::Move;
use super::partition::{Owner, Partition, Role};
use crate::serve::reply::{
    LinkReply, MoveReply, PartitionReply, PeerReply, PeerState, RefusedReply, Role as RoleReply,
    ShadowReply, ShadowState, StatusReply, StepReply,
};
use crate::ship::sender::{Progress, Sender};

/// A node's configured name; its number where it is not configured any more.
pub(super) fn node_name(shard: &Shard, node: NodeId) -> String {
    if node == shard.settings.node {
        return shard.settings.name.clone();
    }
    shard
        .settings
        .peers
        .get(&node)
        .map_or_else(|| node.to_string(), |peer| peer.name.clone())
}

pub(super) fn status(shard: &Shard) -> StatusReply {
    let mut reply = StatusReply {
        node: shard.settings.name.clone(),
        cluster: shard.settings.cluster.clone(),
        ready: true,
        shards: 1,
        ..StatusReply::default()
    };
    for partition in shard.partitions.values() {
        reply.partitions += 1;
        match &partition.role {
            Role::Owner(owner) => {
                reply.owned += 1;
                let lag = owner
                    .senders
                    .keys()
                    .map(|peer| owner.bytes_left(*peer))
                    .max();
                reply.lag_bytes_max = reply.lag_bytes_max.max(lag.unwrap_or(0));
            }
            Role::Shadow(_) => reply.shadowed += 1,
            Role::Attaching { .. } | Role::Claiming => reply.ready = false,
            Role::Refused { reason, .. } => {
                let (name, reason) = (partition.name.to_string(), reason.clone());
                reply.refused.push(RefusedReply { name, reason });
            }
            Role::Remote | Role::Retiring { .. } => {}
        }
    }
    reply.links = links(shard);
    reply
}

fn links(shard: &Shard) -> Vec<LinkReply> {
    shard
        .links
        .iter()
        .map(|(key, link)| LinkReply {
            peer: node_name(shard, key.peer),
            state: link_state(link),
            rtt_us: rtt_us(link),
        })
        .collect()
}

pub(super) fn peers(shard: &Shard) -> Vec<PeerReply> {
    let reply = |(id, peer): (&NodeId, &super::Peer)| {
        let link = shard
            .links
            .iter()
            .find(|(key, _)| key.peer == *id)
            .map(|(_, link)| link);
        PeerReply {
            name: peer.name.clone(),
            id: id.to_string(),
            state: link.map(link_state).unwrap_or_default(),
            address: peer.address.clone(),
            rtt_us: link.and_then(rtt_us),
            reason: link.and_then(|link| link.reason.clone()),
            ..PeerReply::default()
        }
    };
    shard.settings.peers.iter().map(reply).collect()
}

fn link_state(link: &Link) -> PeerState {
    match (&link.state, &link.reason) {
        (LinkState::Up { .. }, _) => PeerState::Up,
        (_, Some(reason)) if reason.contains("cluster") || reason.contains("protocol") => {
            PeerState::Refused
        }
        _ => PeerState::Down,
    }
}

fn rtt_us(link: &Link) -> Option<u64> {
    link.round_trip
        .mean()
        .filter(|_| link.is_up())
        .map(|span| span.0 / 1_000)
}

pub(super) fn partitions(shard: &Shard) -> Vec<PartitionReply> {
    let mut replies: Vec<PartitionReply> = shard
        .partitions
        .values()
        .map(|entry| partition(shard, entry))
        .collect();
    replies.sort_by(|one, two| one.name.cmp(&two.name));
    replies
}

pub(super) fn partition(shard: &Shard, partition: &Partition) -> PartitionReply {
    let mut reply = PartitionReply {
        name: partition.name.to_string(),
        id: partition.id().to_string(),
        owner: partition
            .ownership
            .map(|ownership| node_name(shard, ownership.owner)),
        epoch: partition.ownership.map_or(0, |ownership| ownership.epoch.0),
        digest: wal::Digest::default().to_string(),
        ..PartitionReply::default()
    };
    match &partition.role {
        Role::Owner(owner) => describe_owner(shard, owner, &mut reply),
        Role::Shadow(shadow) => {
            reply.role = RoleReply::Shadow;
            reply.page_size = shadow.receiver.page_size;
            if let Some(applied) = shadow.receiver.applied() {
                reply.lsn = applied.lsn.0;
                reply.digest = applied.digest.to_string();
            } else {
                reply.reason = Some("the copy is not complete".to_owned());
            }
        }
        Role::Refused { reason, .. } => {
            reply.role = RoleReply::Refused;
            reply.reason = Some(reason.clone());
        }
        Role::Attaching { .. } | Role::Claiming => {
            reply.reason = Some("it is being attached".to_owned());
        }
        Role::Retiring { .. } => reply.reason = Some("it is being handed over".to_owned()),
        Role::Remote => {}
    }
    reply
}

fn describe_owner(shard: &Shard, owner: &Owner, reply: &mut PartitionReply) {
    reply.role = RoleReply::Owner;
    reply.lsn = owner.position.lsn.0;
    reply.digest = owner.position.digest.to_string();
    reply.page_size = owner.attachment.page_size;
    reply.pages = u64::from(owner.attachment.page_count);
    reply.bytes = reply.pages * u64::from(reply.page_size);
    reply.shadows = owner
        .senders
        .values()
        .map(|sender| shadow(shard, owner, sender))
        .collect();
    reply.shadows.sort_by(|one, two| one.node.cmp(&two.node));
}

/// What all partitions of a shard come to. Ten thousand are counted again and again: describing
/// each of them is most of what an idle daemon would do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Census {
    pub owned: u64,
    pub shadowed: u64,
    pub refused: u64,
    /// Neither of these.
    pub others: u64,
    /// Shadows that others keep of what is owned here.
    pub shadows: u64,
    /// How many of them follow.
    pub streaming: u64,
    pub lag_bytes_max: u64,
}

pub(super) fn census(shard: &Shard) -> Census {
    let mut census = Census::default();
    for partition in shard.partitions.values() {
        match &partition.role {
            Role::Owner(owner) => {
                census.owned += 1;
                for sender in owner.senders.values() {
                    census.shadows += 1;
                    let streams = shadow_state(shard, sender) == ShadowState::Streaming;
                    census.streaming += u64::from(streams);
                    let lag = owner.bytes_left(sender.peer());
                    census.lag_bytes_max = census.lag_bytes_max.max(lag);
                }
            }
            Role::Shadow(_) => census.shadowed += 1,
            Role::Refused { .. } => census.refused += 1,
            _ => census.others += 1,
        }
    }
    census
}

fn shadow_state(shard: &Shard, sender: &Sender) -> ShadowState {
    let up = shard.links.get(&sender.link()).is_some_and(Link::is_up);
    match sender.progress() {
        _ if !up => ShadowState::Away,
        Progress::Waiting { .. } | Progress::Offered | Progress::Resuming { .. } => {
            ShadowState::None
        }
        Progress::Comparing if sender.reason.is_some() => ShadowState::Resyncing,
        Progress::Comparing | Progress::Copying { .. } | Progress::Settling { .. } => {
            ShadowState::Filling
        }
        Progress::Streaming => ShadowState::Streaming,
    }
}

fn shadow(shard: &Shard, owner: &Owner, sender: &Sender) -> ShadowReply {
    let state = shadow_state(shard, sender);
    let lsn = sender.acknowledged().map_or(0, |at| at.lsn.0);
    ShadowReply {
        node: node_name(shard, sender.peer()),
        state,
        lsn,
        lag_lsn: owner.position.lsn.0.saturating_sub(lsn),
        lag_bytes: owner.bytes_left(sender.peer()),
        ready: sender.is_streaming() && owner.source.is_serving(),
        reason: sender.reason.clone().filter(|_| !sender.is_streaming()),
    }
}

pub(super) fn movement(shard: &Shard, entry: &Move) -> MoveReply {
    let since = |at: Time| (at - entry.started_at).as_millis_f64();
    let partition = shard.partitions.get(&entry.partition);
    let sender = partition
        .and_then(Partition::owner)
        .and_then(|owner| owner.senders.get(&entry.to));
    let pages_left = match sender.map(Sender::progress) {
        Some(Progress::Copying { pages_left, .. }) => Some(*pages_left),
        _ => None,
    };
    MoveReply {
        id: entry.id,
        partition: partition.map_or_else(String::new, |partition| partition.name.to_string()),
        from: node_name(shard, entry.from),
        to: node_name(shard, entry.to),
        state: entry.stage,
        reason: entry.reason.clone(),
        estimate_ms: entry.estimate.map(|span| span.as_millis_f64()),
        write_pause_ms: entry.pause.map(|span| span.as_millis_f64()),
        epoch: entry.epoch.map_or(0, |epoch| epoch.0),
        position: entry
            .position
            .map_or_else(String::new, |position| position.to_string()),
        pages_left,
        steps: entry
            .steps
            .iter()
            .map(|(stage, at)| StepReply {
                name: stage.word().to_owned(),
                at_ms: since(*at),
            })
            .collect(),
    }
}
