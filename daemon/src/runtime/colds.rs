//! Databases at rest: one descriptor and one mapped page each, ten thousand at a glance.
//!
//! The kernel says whose log is written to; only that one is looked at with every sweep. A commit
//! is published after its write, by a store to mapped memory of which nobody tells: one that was
//! written to is looked at until it has committed, or for [`ALERTED_FOR`]. So what nobody tells of
//! is a commit whose write lies further back than that (a sync that takes so long, an application
//! that was stopped in between), and what the kernel tells wrongly or not at all. For these all
//! others are looked at in turns, each log once in 20 s and each name once in 120 s. That the
//! kernel's queue was too short it says itself. A name in a watched directory is looked at when
//! something happened to it, too: see [`super::discover`].
//!
//! What is quiet, checkpointed and acknowledged is cooled: the engine keeps the hashes of its pages
//! and lets go of everything else. A commit, or anything that the brain asks, warms it again; what
//! was missed meanwhile shows in the audit and is found by comparing pages.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use io::deltalog::DeltaLog;
use io::engine::{Alerts, Sweeper, Watch};
use wal::{NodeId, PartitionId, PartitionName, Position, Span, Time};

use super::compare::PeerTable;
use super::freeze::Freeze;
use super::host::Host;
use super::lives::{Live, log_limits};
use super::mirrored::Mirrored;
use super::tiers::Tier;
use super::upkeep::Upkeep;
use crate::positions::ChangeOffset;

/// A database that did nothing since it was attached is cooled after this, not after `idle_after`:
/// at start every database is attached in full for a moment, and descriptors are few.
const IDLE_AT_START: Span = Span::secs(1);
/// More databases than this attached in full, at three descriptors each, do not wait even for that.
const ATTACHED_AT_EASE_MAX: usize = 1024;
/// A database that was just cooled is looked at with every sweep for so long: a commit is published
/// after the WAL was written and synced.
const COOLED_FOR: Span = Span::secs(1);
/// The same for one whose log was written to, if that was not followed by a commit.
const ALERTED_FOR: Span = Span::secs(10);
/// Those that lie down in one sweep, at most: each costs a system call.
const LIE_DOWN_MAX: usize = 256;
/// Those that sleep are looked at in turns nevertheless, a part of them each time. What costs is
/// waking up.
const TURN_EVERY: Span = Span::secs(1);
const TURNS_PER_LOOK: usize = 20;
/// Every name is looked at again within so many turns.
const TURNS_PER_NAME: usize = 120;

/// A database at rest.
struct Cold {
    name: PartitionName,
    place: usize,
    watch: Watch,
    position: Position,
    peers: BTreeMap<NodeId, PeerTable>,
    change_offset: ChangeOffset,
    key: u32,
}

/// The databases at rest of one shard. Each is in one of the two sweepers.
pub struct Colds {
    by_id: BTreeMap<PartitionId, Cold>,
    /// Looked at with every sweep: those that stir, and those of which nobody would alert us.
    awake: Sweeper,
    asleep: Sweeper,
    /// Who touches the WAL of one that sleeps.
    alerts: Option<Alerts>,
    /// When those that stir may sleep again.
    stirring: BTreeMap<u32, Time>,
    keys: BTreeMap<u32, PartitionId>,
    next_key: u32,
    every: Span,
    sweep_due: Time,
    turn_due: Time,
    turn: usize,
    /// Where the round of looking at names has come.
    looked_at: Option<PartitionId>,
}

impl Colds {
    /// `every`: how often those are looked at of which the kernel does not alert us.
    pub fn new(every: Span) -> Colds {
        let alerts = Alerts::new()
            .inspect_err(|error| tracing::warn!(%error, "every database at rest is swept"))
            .ok();
        Colds {
            by_id: BTreeMap::new(),
            awake: Sweeper::default(),
            asleep: Sweeper::default(),
            alerts,
            stirring: BTreeMap::new(),
            keys: BTreeMap::new(),
            next_key: 0,
            every,
            sweep_due: Time(0),
            turn_due: Time(0),
            turn: 0,
            looked_at: None,
        }
    }

    /// Readable when [`Host::take_alerts`] has to be called.
    pub fn alert_fd(&self) -> Option<BorrowedFd<'_>> {
        self.alerts.as_ref().map(Alerts::fd)
    }

    pub fn contains(&self, id: PartitionId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn remove(&mut self, id: PartitionId) {
        self.take(id);
    }

    pub fn clear(&mut self) {
        for id in self.by_id.keys().copied().collect::<Vec<_>>() {
            self.take(id);
        }
    }

    pub fn place_of(&self, id: PartitionId) -> Option<usize> {
        self.by_id.get(&id).map(|cold| cold.place)
    }

    /// When one of the sweeps is due.
    pub fn deadline(&self) -> Option<Time> {
        let sweep = (!self.awake.is_empty()).then_some(self.sweep_due);
        let turn = (!self.by_id.is_empty()).then_some(self.turn_due);
        sweep.into_iter().chain(turn).min()
    }

    fn put(&mut self, id: PartitionId, now: Time, make: impl FnOnce(u32) -> Cold) {
        self.next_key = self.next_key.wrapping_add(1);
        let cold = make(self.next_key);
        self.awake.add(cold.key, &cold.watch);
        self.stirring.insert(cold.key, now + COOLED_FOR);
        self.keys.insert(cold.key, id);
        self.by_id.insert(id, cold);
    }

    fn take(&mut self, id: PartitionId) -> Option<Cold> {
        let cold = self.by_id.remove(&id)?;
        self.awake.remove(cold.key);
        self.wake(cold.key);
        self.stirring.remove(&cold.key);
        self.keys.remove(&cold.key);
        Some(cold)
    }

    /// One that sleeps sleeps no longer; `false` when it did not.
    fn wake(&mut self, key: u32) -> bool {
        let slept = self
            .alerts
            .as_mut()
            .is_some_and(|alerts| alerts.remove(key));
        if slept {
            self.asleep.remove(key);
        }
        slept
    }

    /// Those whose WAL was touched; each is looked at with every sweep for a while.
    fn stir(&mut self, now: Time) -> Vec<PartitionId> {
        let Some(alerts) = &mut self.alerts else {
            return Vec::new();
        };
        let alerted = alerts.take().unwrap_or_else(|error| {
            tracing::warn!(%error, "alerts are lost; databases at rest are looked at in turns");
            Default::default()
        });
        let mut stirred = Vec::new();
        for key in alerted {
            let id = self.keys.get(&key).copied();
            if let Some(id) = id.filter(|_| self.wake(key))
                && let Some(cold) = self.by_id.get(&id)
            {
                self.awake.add(key, &cold.watch);
                self.stirring.insert(key, now + ALERTED_FOR);
                stirred.push(id);
            }
        }
        stirred
    }

    /// Lets those sleep that have not stirred for long enough.
    fn lie_down(&mut self, now: Time) {
        let Some(alerts) = &mut self.alerts else {
            return;
        };
        let rested: Vec<u32> = self
            .stirring
            .iter()
            .filter_map(|(key, until)| (*until <= now).then_some(*key))
            .take(LIE_DOWN_MAX)
            .collect();
        for key in rested {
            self.stirring.remove(&key);
            let id = self.keys.get(&key);
            let Some(cold) = id.and_then(|id| self.by_id.get(id)) else {
                continue;
            };
            if let Err(error) = alerts.add(key, cold.watch.touched()) {
                // It stays awake, and nothing is lost but some of the processor's time.
                tracing::debug!(partition = %cold.name, %error, "it is swept instead");
            } else if cold.watch.committed() {
                // From here on there are alerts, but this commit gave none.
                alerts.remove(key);
            } else {
                self.awake.remove(key);
                self.asleep.add(key, &cold.watch);
            }
        }
    }

    /// Those that committed since they were looked at last, of those whose time has come.
    fn sweep(&mut self, now: Time) -> Vec<PartitionId> {
        let mut hit = Vec::new();
        if self.sweep_due <= now {
            self.sweep_due = now + self.every;
            self.awake.sweep(|key| hit.push(key));
            self.lie_down(now);
        }
        if self.turn_due <= now {
            self.turn_due = now + TURN_EVERY;
            // Downwards: whoever takes the place of one that was removed comes from above.
            self.turn = (self.turn + TURNS_PER_LOOK - 1) % TURNS_PER_LOOK;
            let part = |turn| self.asleep.len() * turn / TURNS_PER_LOOK;
            let part = part(self.turn)..part(self.turn + 1);
            self.asleep.sweep_part(part, |key| hit.push(key));
        }
        let keys = hit.iter().filter_map(|key| self.keys.get(key));
        keys.copied().collect()
    }

    /// The next few whose names have to be looked at.
    fn round(&mut self) -> Vec<PartitionId> {
        let count = self.by_id.len().div_ceil(TURNS_PER_NAME);
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
    /// Looks at the databases at rest whose time has come.
    pub fn sweep_colds(&mut self) {
        let names = self.lives.colds.turn_due <= self.now;
        for id in self.lives.colds.sweep(self.now) {
            if self.warm(id) {
                self.lives.tiers.saw_change(id, self.now);
                self.read_live(id);
            }
        }
        if names {
            let round = self.lives.colds.round();
            self.verify_colds(&round);
        }
    }

    /// Takes in whose WALs were touched.
    pub fn take_alerts(&mut self) {
        let stirred = self.lives.colds.stir(self.now);
        // It may have been deleted, or another put in its place.
        self.verify_colds(&stirred);
    }

    /// Looks whether the names of those at rest among these still lead to them.
    pub fn verify_colds(&mut self, ids: &[PartitionId]) {
        for id in ids {
            let Some(cold) = self.lives.colds.by_id.get(id) else {
                continue;
            };
            if let Err(error) = cold.watch.verify_names() {
                self.lives.colds.remove(*id);
                self.broken(*id, error.to_string());
            }
        }
    }

    /// Attaches a database at rest in full; `true` when it is attached now.
    pub fn warm(&mut self, id: PartitionId) -> bool {
        let Some(cold) = self.lives.colds.take(id) else {
            return self.lives.by_id.contains_key(&id);
        };
        let options = self.setup.places[cold.place].options();
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
            mirrored: Mirrored::default(),
            rings: false,
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
        self.bells.forget(id);
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
                self.lives.colds.put(id, self.now, |key| Cold {
                    name,
                    place,
                    watch,
                    position,
                    peers,
                    change_offset,
                    key,
                });
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
