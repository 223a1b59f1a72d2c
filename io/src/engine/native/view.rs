//! Records of a native log by position and in order, mapped, for processes that only read.
//!
//! | module | what it does |
//! |---|---|
//! | [`generation`] | one generation of the log: its control page, its segments, what is mapped |
//! | [`scan`] | groups in order, across switchovers |
//! | [`follow`] | the thread that notices growth and switchovers before readers do |
//!
//! The live path is a symlink to the directory of a generation; a switchover exchanges it. The
//! view then maps the new generation elsewhere, brings its newest pages in, and lets it take over
//! the old addresses: readers wait for that, not for page faults.
//!
//! What a reader may rely on:
//! - Slots are used again under a reader's eyes, by another process. So a record is copied out, its
//!   checksum, which covers its position, is verified, and then the log's first position is looked
//!   at: a slot is used again only after that has passed it, and it only grows. So what was copied
//!   before is the record, or the answer is [`Error::Gone`].
//! - Every answer says which generation it is from and up to where that was acknowledged. Within a
//!   view generations grow; one that is sealed and behind is not taken over, so what was there once
//!   stays there. Only a generation that was granted without the last records goes back: its epoch
//!   is higher.
//! - The control page is mapped for writing, as every reader of a log does: a reader's user needs
//!   the permission to write it.
//! - Who was told a position ("not older than this") waits for it with [`View::wait_for`].

pub mod follow;
pub mod generation;
pub mod scan;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use map::Region;
use wal::log::group::{self, RECORD_HEAD};
use wal::log::saved::Run;
use wal::log::{Error, Kind, Result, Word};
use wal::{Epoch, Lsn};

use super::store::system;
use generation::{Generation, Next};

pub use follow::Follower;
pub use scan::{Group, Scan};

/// How long a wait sleeps between looks.
const LOOK: Duration = Duration::from_micros(100);

/// How a view is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ViewOptions {
    /// Addresses that are reserved, not memory. With more segments than fit, those are mapped that
    /// were asked for last.
    pub window_bytes: usize,
    /// How much of a new generation, its newest part, is brought in before it takes over. Readers
    /// wait while that is moved, one system call a segment.
    pub prefault_bytes: usize,
}

impl Default for ViewOptions {
    fn default() -> ViewOptions {
        ViewOptions {
            window_bytes: 16 << 30,
            prefault_bytes: 64 << 20,
        }
    }
}

/// Where an answer is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Counts the generations that this view has seen, from 1.
    pub generation: u64,
    pub epoch: Epoch,
    /// Everything below was acknowledged when the answer was given.
    pub committed: Lsn,
}

/// A record that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub stamp: Stamp,
    pub kind: Kind,
    pub payload: Vec<u8>,
}

/// What the last switchover cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Switch {
    /// Opening, mapping and bringing in, beside readers.
    pub prepared: Duration,
    /// While readers had to wait.
    pub taken_over: Duration,
    /// Segments that were moved.
    pub segments: usize,
}

/// A view of the log behind a path, for any number of threads.
#[derive(Debug)]
pub struct View {
    path: PathBuf,
    options: ViewOptions,
    region: Region,
    current: RwLock<Generation>,
    /// Held by who changes what is mapped.
    changing: Mutex<Switch>,
    /// Switchovers, for tests and figures.
    switches: AtomicU64,
}

/// What one look at the current generation gives.
pub(super) enum Look<T> {
    Answer(T),
    /// This segment has to be mapped first.
    Map(u64),
}

impl View {
    /// Opens the log that `path` leads to.
    pub fn open(path: &Path, options: &ViewOptions) -> Result<View> {
        let failed = |error| system("reserve addresses for", path, &error);
        let len = options.window_bytes.max(64 << 10).next_multiple_of(4096);
        let region = Region::reserve(len).map_err(failed)?;
        let mut next = Next::open(path, region.len(), options.prefault_bytes)?;
        let pieces = std::mem::take(&mut next.pieces);
        let mut current = next.become_generation(1);
        for (number, piece) in pieces {
            current.hold(&region, number, piece)?;
        }
        Ok(View {
            path: path.to_owned(),
            options: *options,
            region,
            current: RwLock::new(current),
            changing: Mutex::default(),
            switches: AtomicU64::new(0),
        })
    }

    /// The record at `at`, where one begins; `None` if that is not acknowledged yet.
    pub fn read(&self, at: Lsn) -> Result<Option<Answer>> {
        let mut payload = Vec::new();
        let read = self.read_into(at, &mut payload)?;
        Ok(read.map(|(stamp, kind)| Answer {
            stamp,
            kind,
            payload,
        }))
    }

    /// As [`View::read`], into memory that is there already.
    pub fn read_into(&self, at: Lsn, payload: &mut Vec<u8>) -> Result<Option<(Stamp, Kind)>> {
        self.look(|current| {
            let word = current.control.word();
            let layout = &current.layout;
            let room = layout
                .rest(at)
                .min(word.lsn.0.saturating_sub(at.0) as usize);
            if at >= word.lsn {
                return Ok(Look::Answer(None));
            }
            if !at.0.is_multiple_of(group::ALIGN as u64) || room < RECORD_HEAD {
                return Err(no_record(at));
            }
            let Some(place) = current.place(&self.region, at) else {
                return Ok(Look::Map(layout.number(at)));
            };
            let mut head = [0; RECORD_HEAD];
            self.region.copy_out(place, &mut head);
            let (len, kind) = group::record_head(&head);
            let fits = group::record_len(len as usize) <= room;
            if fits {
                payload.resize(len as usize, 0);
                self.region.copy_out(place + RECORD_HEAD, payload);
            }
            // After the copy: that it still holds says that it held before.
            if at < current.first()? {
                return Err(Error::Gone { at });
            }
            if !fits || !group::record_is_whole(&head, at, payload) {
                return Err(no_record(at));
            }
            Ok(Look::Answer(Some((current.stamp(word)?, kind))))
        })
    }

    /// Reads groups in order from the oldest that is kept.
    pub fn scan(&self) -> Result<Scan<'_>> {
        let first = self.current().first()?;
        Ok(self.scan_from(first))
    }

    /// Reads groups in order from `at`, where a group begins or ends.
    pub fn scan_from(&self, at: Lsn) -> Scan<'_> {
        Scan::new(self, at)
    }

    /// What an answer would be stamped with now.
    pub fn stamp(&self) -> Result<Stamp> {
        let current = self.current();
        current.stamp(current.control.word())
    }

    /// Waits until everything below `token` can be read, at most `limit`: `None` then. What is read
    /// afterwards is not older.
    pub fn wait_for(&self, token: Lsn, limit: Duration) -> Result<Option<Stamp>> {
        let until = Instant::now() + limit;
        loop {
            let stamp = self.stamp()?;
            if stamp.committed >= token {
                return Ok(Some(stamp));
            }
            self.refresh()?;
            if self.stamp()?.committed < token {
                if Instant::now() >= until {
                    return Ok(None);
                }
                std::thread::sleep(LOOK);
            }
        }
    }

    /// The log that is mapped was sealed: a switchover is under way.
    pub fn is_sealed(&self) -> bool {
        self.current().control.word().sealed
    }

    /// Looks whether the path leads to another generation and takes it over; maps what the log grew
    /// by. `true` if it took over.
    pub fn refresh(&self) -> Result<bool> {
        let mut last = self.changing();
        let identity = generation::identity(&self.path)?;
        let (old, word) = {
            let current = self.current();
            (current.identity, current.control.word())
        };
        if identity == old {
            self.grow()?;
            return Ok(false);
        }
        let begun = Instant::now();
        let next = Next::open(&self.path, self.region.len(), self.options.prefault_bytes)?;
        let behind = next.control.word();
        if behind.sealed && behind.lsn < word.lsn {
            // It is being filled; nobody was given it yet.
            return Ok(false);
        }
        let prepared = begun.elapsed();
        *last = self.take_over(next)?;
        last.prepared = prepared;
        self.switches.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// What the last switchover cost, if there was one.
    pub fn last_switch(&self) -> Option<Switch> {
        let seen = self.switches.load(Ordering::Relaxed) > 0;
        seen.then(|| *self.changing())
    }

    fn take_over(&self, mut next: Next) -> Result<Switch> {
        let pieces = std::mem::take(&mut next.pieces);
        let segments = pieces.len();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let mut new = next.become_generation(current.number + 1);
        for (number, piece) in pieces {
            // If it fails the segment is mapped when it is asked for.
            let _ = new.hold(&self.region, number, piece);
        }
        let old = std::mem::replace(&mut *current, new);
        let taken_over = begun.elapsed();
        drop(current);
        self.let_go(&old);
        Ok(Switch {
            prepared: Duration::ZERO,
            taken_over,
            segments,
        })
    }

    /// Lets the files of `old` go that nothing took over: they may be deleted already, and cost
    /// space as long as they are mapped.
    fn let_go(&self, old: &Generation) {
        let current = self.current();
        for (at, len) in old.leftovers(&current) {
            // What stays mapped is replaced later.
            let _ = self.region.clear(at, len);
        }
    }

    /// Maps the segment that is written into, if it is new.
    fn grow(&self) -> Result<()> {
        let number = {
            let current = self.current();
            let word = current.control.word();
            let number = current.layout.number(Lsn(word.lsn.0.saturating_sub(1)));
            if current.holds(number) {
                return Ok(());
            }
            number
        };
        self.map(number).map(drop)
    }

    /// Runs `once` on the current generation, mapping what it asks for, until it has an answer.
    pub(super) fn look<T>(
        &self,
        mut once: impl FnMut(&Generation) -> Result<Look<T>>,
    ) -> Result<T> {
        loop {
            let current = self.current();
            let number = match once(&current)? {
                Look::Answer(answer) => return Ok(answer),
                Look::Map(number) => number,
            };
            let (generation, begin) = (current.number, current.layout.begin(number));
            if number < current.layout.number(current.first()?) {
                return Err(Error::Gone { at: begin });
            }
            drop(current);
            let changing = self.changing();
            let is_same = self.current().number == generation;
            let mapped = if is_same { self.map(number) } else { Ok(true) };
            drop(changing);
            if !matches!(mapped, Ok(true)) && !self.refresh()? {
                // Nobody moved it: it is missing where it must be.
                if self.current().number == generation {
                    mapped?;
                    return Err(self.absent(begin)?);
                }
            }
        }
    }

    /// Maps a segment; `false` if no slot holds it. With `changing` held.
    fn map(&self, number: u64) -> Result<bool> {
        let piece = {
            let current = self.current();
            if current.holds(number) {
                return Ok(true);
            }
            match current.piece(number)? {
                Some(piece) => piece,
                None => return Ok(false),
            }
        };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.hold(&self.region, number, piece)?;
        Ok(true)
    }

    fn absent(&self, at: Lsn) -> Result<Error> {
        let why = "no slot holds the segment";
        Ok(match at < self.current().first()? {
            true => Error::Gone { at },
            false => Error::Damaged { at, why },
        })
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    fn current(&self) -> RwLockReadGuard<'_, Generation> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, Switch> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generation {
    /// Where the log begins now.
    pub fn first(&self) -> Result<Lsn> {
        Ok(self.control.saved::<Run>()?.first)
    }

    fn stamp(&self, word: Word) -> Result<Stamp> {
        Ok(Stamp {
            generation: self.number,
            epoch: self.epoch(word)?,
            committed: word.lsn,
        })
    }
}

fn no_record(at: Lsn) -> Error {
    Error::Damaged {
        at,
        why: "no record begins there, or it is not whole",
    }
}
