//! How often each database is looked at.
//!
//! A database that commits is looked at every `sweep_hot`; after a pause of 20 ms every
//! `sweep_warm`, after `idle_after` every `sweep_cold`. A look is two loads from mapped memory, so
//! what costs is waking up: the loop sleeps until the first tier with members is due. While commits
//! come faster than one per 500 µs, there are fewer looks.

use std::collections::{BTreeMap, BTreeSet};

use wal::{PartitionId, Span, Time};

use crate::config::Config;

/// A writer that pauses for less is still at work.
const HOT_FOR: Span = Span::millis(20);
/// Commits that are closer to each other than this, on average over a window, are a flood.
const FLOOD_GAP: Span = Span::micros(500);
const FLOOD_WINDOW: Span = Span::millis(5);
/// In a flood the period is longer by this factor: fewer looks find the same commits, and the
/// writers need the processor.
const FLOOD_FACTOR: u64 = 10;

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

/// How fast commits come, counted in windows.
#[derive(Clone, Copy, Default, Debug)]
struct Rate {
    began: Time,
    commits: u64,
    is_flood: bool,
}

impl Rate {
    fn look(&mut self, now: Time) {
        let span = now - self.began;
        if span >= FLOOD_WINDOW {
            self.is_flood = self.commits * FLOOD_GAP.0 >= span.0;
            (self.began, self.commits) = (now, 0);
        }
    }

    fn factor(&self) -> u64 {
        if self.is_flood { FLOOD_FACTOR } else { 1 }
    }
}

/// Which database is in which tier.
#[derive(Debug)]
pub struct Tiers {
    sweeps: [Sweep; 3],
    seen: BTreeMap<PartitionId, Seen>,
    rate: Rate,
    idle_after: Span,
}

impl Tiers {
    /// The periods of the first engine of the configuration; one sweep serves all directories.
    pub fn new(config: &Config) -> Tiers {
        let engine = config.engines.first();
        let or = |span: Option<Span>, other| span.unwrap_or(other);
        let periods = [
            or(engine.map(|engine| engine.sweep_hot), Span::micros(100)),
            or(engine.map(|engine| engine.sweep_warm), Span::millis(1)),
            or(engine.map(|engine| engine.sweep_cold), Span::millis(5)),
        ];
        let idle_after = or(engine.map(|engine| engine.idle_after), Span::secs(10));
        Tiers::with_periods(periods, idle_after)
    }

    fn with_periods(periods: [Span; 3], idle_after: Span) -> Tiers {
        let sweep = |every| Sweep {
            every,
            due: Time(0),
            members: BTreeSet::new(),
        };
        Tiers {
            sweeps: periods.map(sweep),
            seen: BTreeMap::new(),
            rate: Rate::default(),
            idle_after,
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
        if let Some(seen) = self.seen.get_mut(&id) {
            seen.changed_at = now;
        }
    }

    /// It committed, and its bell will say when it does again: no need to look often.
    pub fn stirred(&mut self, id: PartitionId, now: Time) {
        self.place(id, Tier::Warm);
        if let Some(seen) = self.seen.get_mut(&id) {
            seen.changed_at = now;
        }
    }

    /// Whether commits come too fast to be woken for each.
    pub fn is_flood(&self) -> bool {
        self.rate.is_flood
    }

    /// So many commits were read.
    pub fn took(&mut self, commits: u64, now: Time) {
        self.rate.commits += commits;
        self.rate.look(now);
    }

    /// The databases to look at now. Each tier that is due begins its next period.
    pub fn take_due(&mut self, now: Time) -> Vec<PartitionId> {
        let mut due = Vec::new();
        for tier in Tier::ALL {
            let sweep = &mut self.sweeps[tier as usize];
            if sweep.due <= now && !sweep.members.is_empty() {
                let mut every = sweep.every;
                if tier == Tier::Hot {
                    self.rate.look(now);
                    every = Span(every.0 * self.rate.factor());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it looks in a second at a database that commits every `gap`.
    fn looks_a_second(gap: Span) -> usize {
        let periods = [Span::micros(100), Span::millis(1), Span::millis(5)];
        let mut tiers = Tiers::with_periods(periods, Span::secs(10));
        let id = PartitionId(1);
        tiers.add(id, Time(0));
        let (mut looks, mut committed, mut read) = (0, Time(0), 0);
        let mut now = Time(0);
        while now < Time(0) + Span::secs(1) {
            now = tiers.deadline().expect("it has a member").max(now);
            if tiers.take_due(now).is_empty() {
                continue;
            }
            looks += 1;
            let mut commits = 0;
            while committed + gap <= now {
                committed = committed + gap;
                commits += 1;
            }
            if commits > 0 {
                tiers.saw_change(id, now);
                tiers.took(commits, now);
                read += commits;
            }
        }
        assert!(read >= Span::secs(1).0 / gap.0 - 10, "all are read");
        looks
    }

    #[test]
    fn a_database_that_commits_often_is_looked_at_every_100_us() {
        let looks = looks_a_second(Span::millis(5));
        assert!((9_900..=10_010).contains(&looks), "{looks}");
    }

    #[test]
    fn in_a_flood_there_are_fewer_looks() {
        for gap in [Span::micros(20), Span::micros(180), Span::micros(450)] {
            let looks = looks_a_second(gap);
            assert!((990..=1_100).contains(&looks), "{looks} at {gap:?}");
        }
    }
}
