//! Databases at rest: one descriptor and one mapped page each, ten thousand at a glance.
//!
//! What is quiet, checkpointed and acknowledged is cooled: the engine keeps the hashes of its pages
//! and lets go of everything else. A commit, or anything that the brain asks, warms it again; what
//! was missed meanwhile shows in the audit and is found by comparing pages.

use std::collections::BTreeMap;

use io::deltalog::DeltaLog;
use io::engine::sqlite::{Sweeper, Watch};
use wal::{NodeId, PartitionId, PartitionName, Position, Span, Time};

use super::compare::PeerTable;
use super::freeze::Freeze;
use super::host::Host;
use super::lives::{Live, log_limits, options};
use super::tiers::Tier;
use super::upkeep::Upkeep;

/// A database that did nothing since it was attached is cooled after this, not after `idle_after`:
/// at start every database is attached in full for a moment, and descriptors are few.
const IDLE_AT_START: Span = Span::secs(1);
/// More databases than this attached in full, at three descriptors each, do not wait even for that.
const ATTACHED_AT_EASE_MAX: usize = 1024;
/// Every name is looked at again within this many sweeps.
const SWEEPS_PER_ROUND: usize = 1000;

/// A database at rest.
struct Cold {
    name: PartitionName,
    place: usize,
    watch: Watch,
    position: Position,
    peers: BTreeMap<NodeId, PeerTable>,
    change_offset: u64,
    key: u32,
}

/// The databases at rest of one shard.
#[derive(Default)]
pub struct Colds {
    by_id: BTreeMap<PartitionId, Cold>,
    sweeper: Sweeper,
    keys: BTreeMap<u32, PartitionId>,
    next_key: u32,
    /// Where the round of looking at names has come.
    looked_at: Option<PartitionId>,
}

impl Colds {
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn contains(&self, id: PartitionId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn remove(&mut self, id: PartitionId) {
        self.take(id);
    }

    pub fn clear(&mut self) {
        *self = Colds::default();
    }

    pub fn place_of(&self, id: PartitionId) -> Option<usize> {
        self.by_id.get(&id).map(|cold| cold.place)
    }

    fn take(&mut self, id: PartitionId) -> Option<Cold> {
        let cold = self.by_id.remove(&id)?;
        self.sweeper.remove(cold.key);
        self.keys.remove(&cold.key);
        Some(cold)
    }

    /// Those that committed since the last sweep.
    fn sweep(&mut self) -> Vec<PartitionId> {
        let (keys, mut hit) = (&self.keys, Vec::new());
        self.sweeper
            .sweep(|key| hit.extend(keys.get(&key).copied()));
        hit
    }

    /// The next few whose names have to be looked at.
    fn round(&mut self) -> Vec<PartitionId> {
        let count = self.by_id.len().div_ceil(SWEEPS_PER_ROUND);
        let from = self
            .looked_at
            .map_or(PartitionId(0), |id| PartitionId(id.0.wrapping_add(1)));
        let ids: Vec<PartitionId> = self
            .by_id
            .range(from..)
            .map(|(id, _)| *id)
            .take(count)
            .collect();
        self.looked_at = ids.last().copied();
        ids
    }
}

impl Host {
    /// Looks at every database at rest.
    pub fn sweep_colds(&mut self) {
        for id in self.lives.colds.sweep() {
            if self.warm(id) {
                self.lives.tiers.saw_change(id, self.now);
                self.read_live(id);
            }
        }
        for id in self.lives.colds.round() {
            let Some(cold) = self.lives.colds.by_id.get(&id) else {
                continue;
            };
            if let Err(error) = cold.watch.verify_names() {
                self.lives.colds.remove(id);
                self.broken(id, error.to_string());
            }
        }
    }

    /// Attaches a database at rest in full; `true` when it is attached now.
    pub fn warm(&mut self, id: PartitionId) -> bool {
        let Some(mut cold) = self.lives.colds.take(id) else {
            return self.lives.by_id.contains_key(&id);
        };
        let options = options(&self.setup, cold.place);
        let log = DeltaLog::open(&self.setup.log_dir(id), log_limits(&self.setup));
        let opened = cold
            .watch
            .upgrade(&options)
            .and_then(|source| Ok((source, log?)));
        let (source, mut log) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.broken(id, error.to_string());
                return false;
            }
        };
        if log.newest() != Some(cold.position)
            && let Err(error) = log.reset(Some(cold.position))
        {
            tracing::warn!(partition = %cold.name, %error, "the delta log is not usable");
        }
        let live = Live {
            name: cold.name,
            place: cold.place,
            source,
            position: cold.position,
            log,
            peers: cold.peers,
            freeze: Freeze::None,
            change_offset: cold.change_offset,
            fenced: false,
            upkeep: Upkeep::new(self.now),
        };
        self.lives.by_id.insert(id, live);
        self.lives.tiers.add(id, self.now);
        true
    }

    /// Cools what has nothing to do; called with each look at a database that is not hot.
    pub fn cool_if_idle(&mut self, id: PartitionId) {
        let idle_after = self.idle_after(id);
        let Some(live) = self.lives.by_id.get(&id) else {
            return;
        };
        let resting = live.freeze == Freeze::None
            && !live.fenced
            && live.upkeep.is_at_rest(self.now, idle_after)
            && !live.source.changed()
            && live.source.wants_scan().is_none();
        if !resting || self.is_moving(id) || self.lives.copying.is_copying(id) {
            return;
        }
        let Some(live) = self.lives.by_id.remove(&id) else {
            return;
        };
        self.lives.tiers.remove(id);
        let Live {
            name,
            place,
            source,
            position,
            log,
            peers,
            change_offset,
            ..
        } = live;
        drop(log);
        match source.cool() {
            Ok(watch) => {
                let colds = &mut self.lives.colds;
                colds.next_key = colds.next_key.wrapping_add(1);
                let key = colds.next_key;
                colds.sweeper.add(key, &watch);
                colds.keys.insert(key, id);
                let cold = Cold {
                    name,
                    place,
                    watch,
                    position,
                    peers,
                    change_offset,
                    key,
                };
                colds.by_id.insert(id, cold);
            }
            Err(error) => self.broken(id, error.to_string()),
        }
    }

    fn idle_after(&self, id: PartitionId) -> Span {
        let Some(live) = self.lives.by_id.get(&id) else {
            return Span::ZERO;
        };
        match live.upkeep.committed_at() {
            Time(0) if self.lives.by_id.len() > ATTACHED_AT_EASE_MAX => Span::ZERO,
            Time(0) => IDLE_AT_START,
            _ => self.setup.places[live.place].config.idle_after,
        }
    }

    /// How often a partition is looked at.
    pub fn tier_of(&self, id: PartitionId) -> Option<Tier> {
        if self.lives.colds.contains(id) {
            Some(Tier::Cold)
        } else {
            self.lives.tiers.tier(id)
        }
    }
}
