//! Finds databases: a listing of every configured directory at start, then what inotify hints at.
//!
//! A hint only says that something may be new: the path is looked at, and only news make the whole
//! directory be listed again, because every application that opens a database gives hints of its
//! -wal and -shm. A path that leads to a tombstone is not a database: it moved away.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use io::engine::{Directory, DirectoryWatch, Hint, is_tombstone};
use io::failpoint::{self, Step};
use wal::{Engine, PartitionName, ShardIndex};

use super::mail::{Mail, Mailbox};
use super::setup::{Place, Setup};
use crate::event::Event;

/// How often a directory is listed without any hint: hints can be lost.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// How often hints are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One configured directory, as seen last.
pub struct Seen {
    engine: Engine,
    directory: Directory,
    watch: Option<DirectoryWatch>,
    known: BTreeSet<PartitionName>,
    listed_at: Option<Instant>,
}

/// The first listing. Shards begin with what it finds: a copy that a switchover left behind has to
/// be known before its new owner offers a shadow in its place.
pub fn first(setup: &Setup) -> Vec<Seen> {
    let mut places: Vec<Seen> = setup.places.iter().filter_map(open).collect();
    for seen in &mut places {
        seen.list(&|name, event| setup.keep_first(name.id(), event));
    }
    places
}

/// Looks at the places of [`first`] until `stop` is dropped.
pub fn run(mut places: Vec<Seen>, shards: &[Mailbox], stop: &flume::Receiver<()>) {
    loop {
        for seen in &mut places {
            if seen.is_due() {
                seen.list(&|name, event| tell(shards, name, event));
            }
        }
        if stop.recv_timeout(LOOK_EVERY) != Err(flume::RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn open(place: &Place) -> Option<Seen> {
    let config = &place.config;
    let opened = Directory::new(
        config.engine,
        &config.dir,
        &config.pattern,
        config.recursive,
        &config.generations,
    );
    let directory = match opened {
        Ok(directory) => directory,
        Err(error) => {
            tracing::error!(%error, "databases of this directory are not found");
            return None;
        }
    };
    let watch = config
        .watch
        .then(|| DirectoryWatch::new(&directory))
        .and_then(|watch| {
            watch
                .inspect_err(|error| tracing::warn!(%error, "not watched; listed now and then"))
                .ok()
        });
    Some(Seen {
        engine: config.engine,
        directory,
        watch,
        known: BTreeSet::new(),
        listed_at: None,
    })
}

impl Seen {
    fn is_due(&mut self) -> bool {
        let hints = self.watch.as_mut().map(DirectoryWatch::hints);
        let hinted = match hints {
            Some(Ok(hints)) => hints.iter().any(|hint| self.is_news(hint)),
            Some(Err(error)) => {
                tracing::warn!(%error, "hints are lost; the directory is listed");
                true
            }
            None => false,
        };
        hinted
            || self
                .listed_at
                .is_none_or(|listed_at| listed_at.elapsed() > LIST_EVERY)
    }

    /// Whether a listing would find something else than the last one did.
    fn is_news(&self, hint: &Hint) -> bool {
        let Hint::Look(path) = hint else {
            return true;
        };
        let Ok(found) = self.directory.look(path) else {
            return true;
        };
        if !found.refused.is_empty() {
            return true;
        }
        let database = found.databases.first();
        let is_there = database.is_some_and(|found| !is_tombstone(self.engine, &found.path));
        let below = path.strip_prefix(self.directory.path()).ok();
        let name = below.and_then(Path::to_str).and_then(PartitionName::new);
        name.is_none_or(|name| self.known.contains(&name) != is_there)
    }

    fn list(&mut self, tell: &dyn Fn(&PartitionName, Event)) {
        self.listed_at = Some(Instant::now());
        if let Some(watch) = &mut self.watch
            && let Err(error) = watch.renew(&self.directory)
        {
            tracing::warn!(%error, "a directory can't be watched");
        }
        let listing = match self.directory.list() {
            Ok(listing) => listing,
            Err(error) => {
                tracing::warn!(%error, "a directory of databases can't be read");
                return;
            }
        };
        failpoint::reach(Step::RecoverFound);
        let mut there = BTreeSet::new();
        for found in listing.databases {
            if is_tombstone(self.engine, &found.path) {
                continue;
            }
            if !self.known.contains(&found.name) {
                tell(
                    &found.name,
                    Event::Found {
                        name: found.name.clone(),
                    },
                );
            }
            there.insert(found.name);
        }
        for (text, reason) in listing.refused {
            let Some(name) = PartitionName::new(&text) else {
                continue;
            };
            if !self.known.contains(&name) {
                tell(
                    &name,
                    Event::Rejected {
                        name: name.clone(),
                        reason,
                    },
                );
            }
            there.insert(name);
        }
        for name in self.known.difference(&there) {
            let reason = "its path is gone".to_owned();
            tell(
                name,
                Event::Vanished {
                    partition: name.id(),
                    reason,
                },
            );
        }
        self.known = there;
    }
}

/// Sends an event to the shard that owns the partition.
pub fn tell(shards: &[Mailbox], name: &PartitionName, event: Event) {
    let shard = ShardIndex::of(name.id(), shards.len() as u16);
    shards[usize::from(shard.0)].post(Mail::Event(event));
}
