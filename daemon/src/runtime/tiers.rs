//! How often each database is looked at.
//!
//! A database that commits is looked at every `sweep_hot`; after a pause of 20 ms every
//! `sweep_warm`, after `idle_after` every `sweep_cold`. A look is two loads from mapped memory, so
//! what costs is waking up: the loop sleeps until the first tier with members is due. While every
//! look finds a commit, there are fewer of them.

use std::collections::{BTreeMap, BTreeSet};

use wal::{PartitionId, Span, Time};

use crate::config::Config;

/// A writer that pauses for less is still at work.
const HOT_FOR: Span = Span::millis(20);
/// So many looks in a row, each of which found a commit, are a flood.
const FLOOD_LOOKS: u32 = 8;
/// In a flood the period is longer by this factor: fewer looks find the same commits, and the
/// writers need the processor.
const FLOOD_FACTOR: u64 = 6;

/// How often a database is looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    Hot,
    Warm,
    Cold,
}

impl Tier {
    const ALL: [Tier; 3] = [Tier::Hot, Tier::Warm, Tier::Cold];

    pub fn word(self) -> &'static str {
        match self {
            Tier::Hot => "hot",
            Tier::Warm => "warm",
            Tier::Cold => "cold",
        }
    }
}

#[derive(Debug)]
struct Sweep {
    every: Span,
    due: Time,
    members: BTreeSet<PartitionId>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    tier: Tier,
    changed_at: Time,
}

/// Looks at the hot tier that found a commit, in a row.
#[derive(Clone, Copy, Default, Debug)]
struct Streak {
    looks: u32,
    found: bool,
}

impl Streak {
    fn begin_look(&mut self) {
        self.looks = if std::mem::take(&mut self.found) {
            self.looks.saturating_add(1)
        } else {
            0
        };
    }

    fn factor(&self) -> u64 {
        if self.looks < FLOOD_LOOKS {
            1
        } else {
            FLOOD_FACTOR
        }
    }
}

/// Which database is in which tier.
#[derive(Debug)]
pub struct Tiers {
    sweeps: [Sweep; 3],
    seen: BTreeMap<PartitionId, Seen>,
    streak: Streak,
    idle_after: Span,
}

impl Tiers {
    /// The periods of the first engine of the configuration; one sweep serves all directories.
    pub fn new(config: &Config) -> Tiers {
        let engine = config.engines.first();
        let or = |span: Option<Span>, other| span.unwrap_or(other);
        let sweep = |every| Sweep {
            every,
            due: Time(0),
            members: BTreeSet::new(),
        };
        Tiers {
            sweeps: [
                sweep(or(engine.map(|engine| engine.sweep_hot), Span::micros(100))),
                sweep(or(engine.map(|engine| engine.sweep_warm), Span::millis(1))),
                sweep(or(engine.map(|engine| engine.sweep_cold), Span::millis(5))),
            ],
            seen: BTreeMap::new(),
            streak: Streak::default(),
            idle_after: or(engine.map(|engine| engine.idle_after), Span::secs(10)),
        }
    }

    pub fn add(&mut self, id: PartitionId, now: Time) {
        self.remove(id);
        self.seen.insert(
            id,
            Seen {
                tier: Tier::Warm,
                changed_at: now,
            },
        );
        self.sweeps[Tier::Warm as usize].members.insert(id);
    }

    pub fn remove(&mut self, id: PartitionId) {
        self.seen.remove(&id);
        for sweep in &mut self.sweeps {
            sweep.members.remove(&id);
        }
    }

    pub fn tier(&self, id: PartitionId) -> Option<Tier> {
        self.seen.get(&id).map(|seen| seen.tier)
    }

    pub fn saw_change(&mut self, id: PartitionId, now: Time) {
        self.place(id, Tier::Hot);
        self.streak.found = true;
        if let Some(seen) = self.seen.get_mut(&id) {
            seen.changed_at = now;
        }
    }

    /// The databases to look at now. Each tier that is due begins its next period.
    pub fn take_due(&mut self, now: Time) -> Vec<PartitionId> {
        let mut due = Vec::new();
        for tier in Tier::ALL {
            let sweep = &mut self.sweeps[tier as usize];
            if sweep.due <= now && !sweep.members.is_empty() {
                let mut every = sweep.every;
                if tier == Tier::Hot {
                    self.streak.begin_look();
                    every = Span(every.0 * self.streak.factor());
                }
                // From when it was due, not from when it was noticed: a timer is late by a third
                // of the shortest period. After a long turn the count begins anew.
                let next = sweep.due + every;
                sweep.due = if next > now { next } else { now + every };
                due.extend(sweep.members.iter().copied());
            }
        }
        for id in &due {
            self.cool(*id, now);
        }
        due
    }

    /// How often databases at rest, which are no members here, are looked at.
    pub fn cold_every(&self) -> Span {
        self.sweeps[Tier::Cold as usize].every
    }

    /// When something is due next.
    pub fn deadline(&self) -> Option<Time> {
        let filled = self.sweeps.iter().filter(|sweep| !sweep.members.is_empty());
        filled.map(|sweep| sweep.due).min()
    }

    fn cool(&mut self, id: PartitionId, now: Time) {
        let Some(seen) = self.seen.get(&id) else {
            return;
        };
        let quiet = now - seen.changed_at;
        let tier = match seen.tier {
            Tier::Hot if quiet > HOT_FOR => Tier::Warm,
            Tier::Warm if quiet > self.idle_after => Tier::Cold,
            _ => return,
        };
        self.place(id, tier);
    }

    fn place(&mut self, id: PartitionId, tier: Tier) {
        let Some(seen) = self.seen.get_mut(&id) else {
            return;
        };
        if seen.tier != tier {
            self.sweeps[seen.tier as usize].members.remove(&id);
            self.sweeps[tier as usize].members.insert(id);
            seen.tier = tier;
        }
    }
}
