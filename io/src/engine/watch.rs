//! Partitions at rest, of any engine: one mapped page each, ten thousand at a glance.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wal::log::Glance;

use super::source::{Options, Source};
use super::sqlite::shm::Shm;
use super::{native, sqlite};
use crate::error::Result;

/// A partition of which only commits are noticed.
#[derive(Debug)]
pub enum Watch {
    Sqlite(sqlite::Watch),
    Native(native::Watch),
}

impl Watch {
    /// The file that whoever commits writes to.
    pub fn touched(&self) -> &Path {
        match self {
            Watch::Sqlite(watch) => &watch.paths().wal,
            Watch::Native(watch) => watch.path(),
        }
    }

    /// Whether anything was committed since it was left.
    pub fn committed(&self) -> bool {
        match self {
            Watch::Sqlite(watch) => watch.committed(),
            Watch::Native(watch) => watch.committed(),
        }
    }

    /// Whether the names still lead to the same files; `Fatal` if not.
    pub fn verify_names(&self) -> Result<()> {
        match self {
            Watch::Sqlite(watch) => watch.verify_names(),
            Watch::Native(watch) => watch.verify_names(),
        }
    }

    /// Attaches in full again: where it was left, or it asks for a scan.
    pub fn upgrade(self, options: &Options) -> Result<Source> {
        Ok(match self {
            Watch::Sqlite(mut watch) => watch.upgrade(&options.sqlite)?.into(),
            Watch::Native(watch) => watch.upgrade()?.into(),
        })
    }
}

impl Source {
    /// Lets go of all but the page that says whether anything was committed. Tasks that are out
    /// must have come back.
    pub fn cool(self) -> Result<Watch> {
        Ok(match self {
            Source::Sqlite(source) => Watch::Sqlite(source.cool()?),
            Source::Native(source) => Watch::Native(source.cool()?),
        })
    }
}

/// Looks at many partitions at once: a sweep costs one load from each mapped page and little else.
#[derive(Debug, Default)]
pub struct Sweeper {
    places: Vec<Place>,
    /// What the places lie in; same order.
    pages: Vec<Page>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// SQLite's change counter; null for a log, whose commit word is asked for.
    change: *const AtomicU32,
    seen: u64,
    key: u32,
}

/// Keeps a mapping alive.
#[derive(Debug)]
enum Page {
    Index(#[expect(dead_code, reason = "held, not looked at")] Arc<Shm>),
    Log(Arc<Glance>),
}

// SAFETY: the pointers lead into mappings that `pages` keeps alive and that are `Sync`.
unsafe impl Send for Sweeper {}

impl Sweeper {
    /// Adds a partition under `key`, as it was left.
    pub fn add(&mut self, key: u32, watch: &Watch) {
        match watch {
            Watch::Sqlite(watch) => {
                let (change, seen) = (watch.shm.change_address(), watch.seen.change.into());
                self.places.push(Place { change, seen, key });
                self.pages.push(Page::Index(Arc::clone(&watch.shm)));
            }
            Watch::Native(watch) => {
                let (change, seen) = (std::ptr::null(), watch.seen().0);
                self.places.push(Place { change, seen, key });
                self.pages.push(Page::Log(Arc::clone(&watch.glance)));
            }
        }
    }

    /// Removes what was added under `key`.
    pub fn remove(&mut self, key: u32) {
        while let Some(index) = self.places.iter().position(|place| place.key == key) {
            self.places.swap_remove(index);
            self.pages.swap_remove(index);
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Calls `hit` with the key of each partition that committed since the last sweep.
    pub fn sweep(&mut self, hit: impl FnMut(u32)) {
        self.sweep_part(0..self.places.len(), hit);
    }

    /// [`Sweeper::sweep`] of some of them, by their place in a row that removals change.
    pub fn sweep_part(&mut self, part: Range<usize>, mut hit: impl FnMut(u32)) {
        let pages = self.pages.get(part.clone()).unwrap_or_default();
        let places = self.places.get_mut(part).unwrap_or_default();
        for (place, page) in places.iter_mut().zip(pages) {
            let now = match page {
                // SAFETY: the page is the mapping that the address lies in.
                Page::Index(_) => u64::from(unsafe { &*place.change }.load(Ordering::Acquire)),
                Page::Log(glance) => glance.word().lsn.0,
            };
            if now != place.seen {
                place.seen = now;
                hit(place.key);
            }
        }
    }
}
