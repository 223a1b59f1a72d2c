//! What every shard of a node shares: where things are, and what was found at start.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use io::engine::{self, sqlite::SourceOptions};
use io::remap::Remap;
use wal::{Engine, PartitionId, PartitionName, ShardIndex, Time};

use super::leases::Leases;
use super::notes::Notes;
use super::observe::Observer;
use super::positions::PositionsFile;
use crate::config::{Config, EngineConfig};
use crate::control::desk::Desk;
use crate::control::routing::Routes;
use crate::event::Event;

/// A configured directory of databases.
#[derive(Debug)]
pub struct Place {
    pub config: EngineConfig,
    remap: Mutex<Remap>,
}

impl Place {
    pub fn open(config: EngineConfig) -> io::Result<Place> {
        let remap = Remap::open(&config.dir, &config.generations)?;
        remap.clean_all()?;
        Ok(Place {
            config,
            remap: Mutex::new(remap),
        })
    }

    /// The generations of this directory. Held for a few system calls at a time.
    pub fn remap(&self) -> MutexGuard<'_, Remap> {
        // What a holder that panicked left behind is on disk, where the next call reads it.
        self.remap
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn engine(&self) -> Engine {
        self.config.engine
    }

    /// How the engine attaches to what is here.
    pub fn options(&self) -> engine::Options {
        engine::Options {
            engine: self.config.engine,
            sqlite: SourceOptions {
                wal_bytes_max: self.config.wal_bytes_max.0,
                ..SourceOptions::default()
            },
        }
    }

    /// Where applications open `name`.
    pub fn live_path(&self, name: &PartitionName) -> PathBuf {
        self.config.dir.join(name.as_str())
    }
}

/// What every shard of a node shares.
#[derive(Debug)]
pub struct Setup {
    pub config: Config,
    pub places: Vec<Place>,
    pub notes: Notes,
    pub positions: PositionsFile,
    pub desk: Desk,
    pub routes: Routes,
    pub observer: Observer,
    /// Only where a place is guarded.
    pub leases: Option<Leases>,
    pub started_at: Time,
    /// What the kernel offers, for `status`.
    pub kernel: serde_json::Map<String, serde_json::Value>,
    first_events: Mutex<Vec<(PartitionId, Event)>>,
}

/// The parts that a [`Setup`] is made of.
pub struct Parts {
    pub config: Config,
    pub places: Vec<Place>,
    pub notes: Notes,
    pub positions: PositionsFile,
    pub desk: Desk,
    pub routes: Routes,
    pub observer: Observer,
    pub leases: Option<Leases>,
    pub kernel: serde_json::Map<String, serde_json::Value>,
}

impl Setup {
    pub fn new(parts: Parts) -> Setup {
        let Parts {
            config,
            places,
            notes,
            positions,
            desk,
            routes,
            observer,
            leases,
            kernel,
        } = parts;
        let started_at = io::reactor::now();
        let first_events = Mutex::default();
        Setup {
            config,
            places,
            notes,
            positions,
            desk,
            routes,
            observer,
            leases,
            started_at,
            kernel,
            first_events,
        }
    }

    /// Keeps what was found at start for the shard that owns the partition.
    pub fn keep_first(&self, partition: PartitionId, event: Event) {
        let mut events = self
            .first_events
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        events.push((partition, event));
    }

    /// What was found at start, for one shard, in the order in which it was found.
    pub fn take_first_events(&self, shard: u16) -> Vec<Event> {
        let mut events = self
            .first_events
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let shards = self.config.node.shards;
        let mine = |(partition, _): &mut (PartitionId, Event)| {
            ShardIndex::of(*partition, shards) == ShardIndex(shard)
        };
        events
            .extract_if(.., mine)
            .map(|(_, event)| event)
            .collect()
    }

    /// The place where `name` has its live path: where a file or link of that name is, else the
    /// first one.
    pub fn place_of(&self, name: &PartitionName) -> Option<usize> {
        let there = self.place_with(name, |_| true);
        there.or((!self.places.is_empty()).then_some(0))
    }

    /// The place for a copy of `name`: where one of its engine is, else the first one of the
    /// engine.
    pub fn place_for(&self, name: &PartitionName, engine: Engine) -> Option<usize> {
        let there = self.place_with(name, |place| place.engine() == engine);
        let first = || {
            self.places
                .iter()
                .position(|place| place.engine() == engine)
        };
        there.or_else(first)
    }

    fn place_with(&self, name: &PartitionName, is: impl Fn(&Place) -> bool) -> Option<usize> {
        let there = |place: &Place| place.live_path(name).symlink_metadata().is_ok();
        self.places
            .iter()
            .position(|place| is(place) && there(place))
    }

    /// The partition at `path`, if the path is below a configured directory.
    pub fn name_at(&self, path: &Path) -> Option<(usize, PartitionName)> {
        self.places.iter().enumerate().find_map(|(index, place)| {
            let relative = path.strip_prefix(&place.config.dir).ok()?;
            Some((index, PartitionName::new(relative.to_str()?)?))
        })
    }

    pub fn log_dir(&self, partition: PartitionId) -> PathBuf {
        self.config
            .node
            .state_dir
            .join("deltas")
            .join(partition.to_string())
    }
}
