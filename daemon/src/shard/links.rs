//! The shard's links to its peers: who dials, when to try again, what was said first.
//!
//! One link per peer and lane. A lane is a remainder modulo the least common multiple of both
//! nodes' shard counts, so that one lane is one shard at either end. The node with the smaller id
//! dials; the other waits, and a second link for the same lane replaces the first.

use wal::message::{Hello, Message, PROTOCOL_VERSION};
use wal::{NodeId, Span, Time};

use super::{Settings, Shard, publish};
use crate::effect::{Effect, Effects, NoticeKind};
pub use crate::event::LinkId as LinkKey;
use crate::ship::average::Average;
use crate::ship::backoff::Backoff;
use wal::PartitionId;

/// A link that has been silent this long is asked; twice as long, it is given up.
const PING_EVERY: Span = Span::secs(1);
const SILENCE_MAX: Span = Span::secs(5);
/// A dial or handshake that takes longer has failed.
const DIAL_TIMEOUT: Span = Span::secs(5);

/// What is known of a link.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LinkState {
    /// The peer dials us.
    Awaited,
    Down {
        dial_at: Time,
    },
    Dialing {
        give_up_at: Time,
    },
    Up {
        ping_at: Time,
        heard_at: Time,
        pinged_at: Option<Time>,
    },
}

/// One connection to a peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Link {
    pub state: LinkState,
    backoff: Backoff,
    pub round_trip: Average,
    /// Why it is not up, for people.
    pub reason: Option<String>,
    nonce: u64,
}

impl Link {
    pub fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Up { .. })
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.state {
            LinkState::Awaited => None,
            LinkState::Down { dial_at } => Some(dial_at),
            LinkState::Dialing { give_up_at } => Some(give_up_at),
            LinkState::Up { ping_at, .. } => Some(ping_at),
        }
    }
}

/// Why a greeting is not accepted; `None` when it is.
pub fn refusal(settings: &Settings, link: LinkKey, hello: &Hello) -> Option<String> {
    if hello.version != PROTOCOL_VERSION {
        return Some(format!(
            "{} speaks protocol {}, this node speaks {PROTOCOL_VERSION}",
            hello.name, hello.version
        ));
    }
    if hello.cluster != settings.cluster {
        return Some(format!(
            "{} belongs to cluster \"{}\", this node to \"{}\"",
            hello.name, hello.cluster, settings.cluster
        ));
    }
    let Some(peer) = settings
        .peers
        .get(&hello.node)
        .filter(|_| hello.node == link.peer)
    else {
        return Some(format!(
            "{} is not a configured peer of {}",
            hello.name, settings.name
        ));
    };
    if peer.lanes != hello.lanes || hello.lane != link.lane {
        return Some(format!(
            "{} counts {} lanes, this node {}: set `shards` of the [[peer]] to the peer's count",
            hello.name, hello.lanes, peer.lanes
        ));
    }
    None
}

impl Settings {
    /// What this node says first on a link.
    pub fn hello(&self, link: LinkKey) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            features: 0,
            cluster: self.cluster.clone(),
            node: self.node,
            name: self.name.clone(),
            shards: self.shards,
            lane: link.lane,
            lanes: self.peers.get(&link.peer).map_or(1, |peer| peer.lanes),
        }
    }

    fn dials(&self, peer: NodeId) -> bool {
        self.node < peer
    }
}

impl Shard {
    pub(super) fn open_links(&mut self, now: Time, out: &mut Effects) {
        for (peer, description) in &self.settings.peers {
            for lane in 0..description.lanes {
                if lane % self.settings.shards != self.settings.shard {
                    continue;
                }
                let key = LinkKey { peer: *peer, lane };
                let seed = u64::from(self.settings.node.0) << 32 | u64::from(peer.0);
                let ship = &self.settings.ship;
                let backoff = Backoff::new(seed, ship.reconnect_min, ship.reconnect_max);
                let state = if self.settings.dials(*peer) {
                    out.push(Effect::Dial { link: key });
                    LinkState::Dialing {
                        give_up_at: now + DIAL_TIMEOUT,
                    }
                } else {
                    LinkState::Awaited
                };
                let reason = Some("not connected yet".to_owned());
                let round_trip = Average::default();
                self.links.insert(
                    key,
                    Link {
                        state,
                        backoff,
                        round_trip,
                        reason,
                        nonce: 0,
                    },
                );
            }
        }
    }

    pub fn links(&self) -> impl Iterator<Item = (&LinkKey, &Link)> {
        self.links.iter()
    }

    pub(super) fn on_link_up(&mut self, now: Time, key: LinkKey, hello: &Hello, out: &mut Effects) {
        if let Some(reason) = refusal(&self.settings, key, hello) {
            out.push(Effect::Hangup {
                link: key,
                reason: reason.clone(),
            });
            self.on_link_down(now, key, reason, out);
            return;
        }
        if self.links.get(&key).is_some_and(Link::is_up) {
            // A new connection took the old one's place: what was on its way there is gone.
            for partition in self.partitions.values_mut() {
                partition.on_link_down(key, out);
            }
        }
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        link.backoff.on_success();
        link.reason = None;
        link.state = LinkState::Up {
            ping_at: now,
            heard_at: now,
            pinged_at: None,
        };
        publish(
            out,
            PartitionId(0),
            NoticeKind::Peer,
            format!("{} is connected", hello.name),
        );
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in ids {
            self.refresh_senders(id, out);
            if let Some((partition, _)) = self.entry(id)
                && partition
                    .ownership
                    .is_some_and(|held| held.owner == key.peer)
            {
                partition.await_offer(now);
            }
        }
    }

    pub(super) fn on_link_down(
        &mut self,
        now: Time,
        key: LinkKey,
        reason: String,
        out: &mut Effects,
    ) {
        let dials = self.settings.dials(key.peer);
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        if link.is_up() {
            publish(
                out,
                PartitionId(0),
                NoticeKind::Peer,
                format!("link broke: {reason}"),
            );
        }
        link.reason = Some(reason);
        link.state = if dials {
            LinkState::Down {
                dial_at: link.backoff.on_failure(now),
            }
        } else {
            LinkState::Awaited
        };
        for partition in self.partitions.values_mut() {
            partition.on_link_down(key, out);
        }
    }

    pub(super) fn on_pong(&mut self, now: Time, key: LinkKey, nonce: u64) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        if let LinkState::Up { pinged_at, .. } = &mut link.state
            && nonce == link.nonce
            && let Some(sent_at) = pinged_at.take()
        {
            link.round_trip.add(now - sent_at);
        }
    }

    pub(super) fn heard(&mut self, now: Time, key: LinkKey) {
        if let Some(Link {
            state: LinkState::Up { heard_at, .. },
            ..
        }) = self.links.get_mut(&key)
        {
            *heard_at = now;
        }
    }

    /// Dials again, pings, and gives up what has been silent too long.
    pub(super) fn tend_links(&mut self, now: Time, out: &mut Effects) {
        let due: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|(_, link)| link.deadline().is_some_and(|deadline| deadline <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            self.tend_link(now, key, out);
        }
    }

    fn tend_link(&mut self, now: Time, key: LinkKey, out: &mut Effects) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        match &mut link.state {
            LinkState::Awaited => {}
            LinkState::Down { .. } => {
                out.push(Effect::Dial { link: key });
                link.state = LinkState::Dialing {
                    give_up_at: now + DIAL_TIMEOUT,
                };
            }
            LinkState::Dialing { .. } => {
                let reason = "no answer to dial or greeting".to_owned();
                out.push(Effect::Hangup {
                    link: key,
                    reason: reason.clone(),
                });
                self.on_link_down(now, key, reason, out);
            }
            LinkState::Up { heard_at, .. } if now - *heard_at > SILENCE_MAX => {
                let reason = format!("silent for {} s", (now - *heard_at).0 / 1_000_000_000);
                out.push(Effect::Hangup {
                    link: key,
                    reason: reason.clone(),
                });
                self.on_link_down(now, key, reason, out);
            }
            LinkState::Up {
                ping_at, pinged_at, ..
            } => {
                *ping_at = now + PING_EVERY;
                link.nonce += 1;
                *pinged_at = Some(now);
                out.send(key, Message::Ping { nonce: link.nonce });
            }
        }
    }
}
