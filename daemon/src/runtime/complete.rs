//! What only the shell knows, added to the brain's answers: paths, tiers, bytes on the wire.

use wal::PartitionName;

use super::host::Host;
use crate::event::LinkId;
use crate::serve::reply::{PartitionReply, PathReply, PeerReply, Reply, Role};

impl Host {
    pub fn complete(&self, reply: Reply) -> Reply {
        match reply {
            Reply::Partitions(mut partitions) => {
                partitions
                    .iter_mut()
                    .for_each(|entry| self.complete_partition(entry));
                Reply::Partitions(partitions)
            }
            Reply::Peers(mut peers) => {
                peers.iter_mut().for_each(|entry| self.complete_peer(entry));
                Reply::Peers(peers)
            }
            Reply::Status(mut status) => {
                status.version = env!("CARGO_PKG_VERSION").to_owned();
                status.uptime_seconds = (self.now - self.setup.started_at).as_millis_f64() / 1e3;
                status.kernel = self.setup.kernel.clone();
                Reply::Status(status)
            }
            other => other,
        }
    }

    fn complete_partition(&self, entry: &mut PartitionReply) {
        let Some(name) = PartitionName::new(&entry.name) else {
            return;
        };
        let id = name.id();
        entry.tier = self.tier_of(id).map_or("", |tier| tier.word()).to_owned();
        let lives = self.lives.by_id.get(&id).map(|live| live.place);
        let copies = || self.copies.by_id.get(&id).map(|copy| copy.place);
        let at = lives.or_else(|| self.lives.colds.place_of(id));
        if let Some(place) = at.or_else(copies) {
            entry.engine = self.setup.places[place].engine().word().to_owned();
        }
        if let Some(place) = self.lives.colds.place_of(id) {
            entry.path = self.setup.places[place]
                .live_path(&name)
                .display()
                .to_string();
        } else if let Some(live) = self.lives.by_id.get(&id) {
            entry.path = self.setup.places[live.place]
                .live_path(&name)
                .display()
                .to_string();
            entry.pages = u64::from(live.source.page_count());
            entry.bytes = entry.pages * u64::from(entry.page_size);
        } else if let Some(copy) = self.copies.by_id.get(&id) {
            if let Some(shadow) = &copy.held.shadow {
                entry.path = shadow.paths().database().display().to_string();
                entry.pages = u64::from(shadow.page_count());
                entry.bytes = entry.pages * u64::from(entry.page_size);
            }
        } else if entry.role == Role::Refused
            && let Some(place) = self.setup.place_of(&name)
        {
            entry.path = self.setup.places[place]
                .live_path(&name)
                .display()
                .to_string();
        }
    }

    fn complete_peer(&self, entry: &mut PeerReply) {
        let ids = self.brain.links().map(|(key, _)| *key);
        let peer = entry.id.clone();
        for link in ids.filter(|key: &LinkId| key.peer.to_string() == peer) {
            let counters = self.links.counters(link);
            entry.bytes_out += counters.bytes_out;
            entry.bytes_in += counters.bytes_in;
            if let Some(path) = self.links.path(link) {
                let rate = path.rate.map(|rate| rate.0);
                entry.join_path(PathReply {
                    codec: path.codec.word().to_owned(),
                    zero_copy: path.zero_copy.to_owned(),
                    rate_bytes_per_second: rate,
                });
            }
        }
    }
}
