//! Hashing every page of a database at one position, off the tail's thread: for the first table,
//! and to find what changed when transactions were missed.
//!
//! The position is the newest one when the task is made. Pages are read as any reader would: the
//! newest frame up to the mark, else the database file. While the task is out, checkpoints copy
//! nothing beyond the mark and do not restart the WAL.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use wal::Digest;
use wal::digest::PageHash;
use wal::sqlite::{WAL_FRAME_HEADER_LEN, WalFrameHeader, frame_offset, lock_page};

use super::change::{Change, Mark};
use super::files::Files;
use super::gate::Gate;
use super::source::{ScanState, Source, newest};
use super::table::{Table, lift_versions};
use crate::durable;
use crate::engine::change::Changed;
use crate::error::{Error, Kind, Result};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// A scan to run on another thread.
#[derive(Debug)]
pub struct ScanTask {
    files: Arc<Files>,
    guard: ScanGuard,
    frames: HashMap<u32, u32>,
    page_count: u32,
}

/// The result of a scan, to be handed to [`Source::adopt`].
#[derive(Debug)]
pub struct Scan {
    guard: ScanGuard,
    hashes: Vec<PageHash>,
}

/// What a scan meant for the source.
#[derive(Debug)]
pub enum Adopted {
    /// The first table: changes can be read from now on.
    Ready,
    /// What was missed, to be shipped and consumed like any other change.
    Change(Box<Change>),
    /// More was missed than fits memory: the table was replaced, and `pages` pages of each shadow
    /// must be filled anew. `commits` is what the Lsn grows by.
    Replaced { pages: usize, commits: u64 },
}

/// Keeps the pages at the mark as they are, for as long as it lives.
#[derive(Debug)]
struct ScanGuard {
    gate: Arc<Gate>,
    ticket: u64,
    mark: Mark,
    /// The mark before the scan, for the count of transactions missed.
    before: Mark,
}

impl Drop for ScanGuard {
    fn drop(&mut self) {
        self.gate.end_scan();
    }
}

/// A table from an earlier attachment, with the place in the WAL that it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedTable {
    pub hashes: Vec<PageHash>,
    pub digest: Digest,
    /// `None` when transactions had been missed: only the difference from it can be found.
    pub mark: Option<Mark>,
}

impl ScanTask {
    /// Reads and hashes every page. `progress` hears of pages done and in all, and may break off.
    pub fn run(self, progress: &mut dyn FnMut(u32, u32) -> ControlFlow<()>) -> Result<Scan> {
        let page_len = self.files.page_size as usize;
        let lock = lock_page(self.files.page_size);
        let mut hashes = Vec::with_capacity(self.page_count as usize);
        let mut chunk = vec![0; CHUNK.max(page_len)];
        let pages_at_once = (chunk.len() / page_len) as u32;
        let mut first = 1;
        while first <= self.page_count {
            let count = pages_at_once.min(self.page_count - first + 1);
            let bytes = &mut chunk[..count as usize * page_len];
            self.files.read_db(first, bytes)?;
            for (index, image) in bytes.chunks_exact_mut(page_len).enumerate() {
                let page = first + index as u32;
                if let Some(frame) = self.frames.get(&page) {
                    self.files.read_frame_page(*frame, image)?;
                }
                lift_versions(page, image);
                let is_lock = Some(page) == lock;
                hashes.push(if is_lock {
                    PageHash::ABSENT
                } else {
                    PageHash::of(page, image)
                });
            }
            first += count;
            if progress(first - 1, self.page_count).is_break() {
                let name = self.files.paths.db.display().to_string();
                return Err(Error::new(Kind::Retry, "scan", name, "it was broken off"));
            }
        }
        Ok(Scan {
            guard: self.guard,
            hashes,
        })
    }
}

impl Source {
    /// Whether a scan must come before anything more can be read, and why.
    pub fn wants_scan(&self) -> Option<&str> {
        match (&self.lost, &self.table) {
            _ if self.gate.is_scanning() => None,
            (Some(reason), _) => Some(reason),
            (None, None) => Some("it was attached just now"),
            (None, Some(_)) if self.scan != ScanState::Idle => Some("a scan was broken off"),
            (None, Some(_)) => None,
        }
    }

    /// A scan of the newest position. Until its result is adopted nothing is
    /// read; a later call makes the earlier task's result void.
    pub fn scan(&mut self) -> Result<ScanTask> {
        let header = newest(&self.shm)?;
        let before = self.mark;
        self.gate.begin_scan();
        let ticket = match self.scan {
            ScanState::Out(last) => last + 1,
            ScanState::Idle => 1,
        };
        let mut guard = ScanGuard {
            gate: Arc::clone(&self.gate),
            ticket,
            mark: before,
            before,
        };
        self.jump(&header)?;
        guard.mark = self.mark;
        self.scan = ScanState::Out(ticket);
        let page_count = self.files.page_count(&header)?;
        let (files, frames) = (Arc::clone(&self.files), self.frames.clone());
        Ok(ScanTask {
            files,
            guard,
            frames,
            page_count,
        })
    }

    /// Takes a scan's result.
    pub fn adopt(&mut self, scan: Scan) -> Result<Adopted> {
        if self.scan != ScanState::Out(scan.guard.ticket) || scan.guard.mark != self.mark {
            return Err(self.error(Kind::Retry, "adopt", "a later scan took this one's place"));
        }
        self.scan = ScanState::Idle;
        self.lost = None;
        let new = Table::new(scan.hashes);
        let Some(old) = &self.table else {
            self.table = Some(new);
            return Ok(Adopted::Ready);
        };
        let missed = self.mark.change.wrapping_sub(scan.guard.before.change) as i32;
        let commits = u64::try_from(missed).unwrap_or(1).max(1);
        let lock = lock_page(self.files.page_size);
        let differs = |page: &u32| Some(*page) != lock && old.get(*page) != new.get(*page);
        let pages: Vec<u32> = (1..=new.page_count()).filter(differs).collect();
        if pages.len() as u64 * u64::from(self.files.page_size) > self.options.rescan_bytes_max {
            self.table = Some(new);
            return Ok(Adopted::Replaced {
                pages: pages.len(),
                commits,
            });
        }
        let change = self.difference(&new, &pages, commits)?;
        Ok(Adopted::Change(Box::new(change)))
    }

    /// The change from our table to `new`, whose `pages` differ.
    fn difference(&self, new: &Table, pages: &[u32], commits: u64) -> Result<Change> {
        let len = self.files.page_size as usize;
        let mut bytes = vec![0; pages.len() * len];
        let mut changed = Vec::with_capacity(pages.len());
        for (index, page) in pages.iter().enumerate() {
            let after = index * len;
            self.read_image(*page, &mut bytes[after..after + len])?;
            let hash = PageHash::of(*page, &bytes[after..after + len]);
            if hash != new.get(*page) {
                return Err(self.error(Kind::Retry, "adopt", "pages changed since the scan"));
            }
            changed.push(Changed {
                page: *page,
                hash,
                before: None,
                after,
            });
        }
        Ok(Change {
            commits,
            page_count: new.page_count(),
            rescan: true,
            page_size: len,
            digest: new.digest(),
            from: self.mark,
            to: self.mark,
            fenced: self.fenced,
            bytes,
            pages: changed,
            frames: Vec::new(),
        })
    }

    /// What [`Source::resume`] needs later.
    pub fn save(&self) -> Option<SavedTable> {
        let table = self.table.as_ref()?;
        let whole = self.lost.is_none() && self.scan == ScanState::Idle;
        let mark = whole.then_some(self.mark);
        let hashes = table.hashes().to_vec();
        Some(SavedTable {
            hashes,
            digest: table.digest(),
            mark,
        })
    }

    /// Goes on from a table that was saved, if it fits what is there now: then everything since is
    /// behind the frame that it ended with, which the WAL still contains, unbroken. Otherwise
    /// `false`, and the next scan yields the difference from it.
    pub fn resume(&mut self, saved: SavedTable) -> Result<bool> {
        let header = newest(&self.shm)?;
        let table = Table::new(saved.hashes);
        if self.table.is_some() || table.digest() != saved.digest {
            return Ok(false);
        }
        let has = |mark: &Mark| {
            mark.salts == header.salts && (1..=header.max_frame).contains(&mark.frame)
        };
        if let Some(mark) = saved.mark.filter(has) {
            let mut head = [0; WAL_FRAME_HEADER_LEN];
            let offset = frame_offset(mark.frame, self.files.page_size);
            durable::read_at(&self.files.wal, &self.files.paths.wal, &mut head, offset)?;
            let frame = WalFrameHeader::parse(&head)?;
            if frame.checksum == mark.checksum && frame.salts == mark.salts {
                self.rewind(table, mark)?;
                return Ok(true);
            }
        }
        self.distrust(table, "the WAL that its table belongs to is gone");
        Ok(false)
    }

    /// Takes `table` as what shadows have, and asks for a scan to find what differs from it.
    pub(super) fn distrust(&mut self, table: Table, reason: &str) {
        self.table = Some(table);
        self.lost = Some(reason.to_owned());
    }

    /// Puts the mark back to `mark` in the present WAL, where `table` holds.
    pub(super) fn rewind(&mut self, table: Table, mark: Mark) -> Result<()> {
        let mut header = newest(&self.shm)?;
        if header.salts == mark.salts {
            header.max_frame = header.max_frame.min(mark.frame);
            self.jump(&header)?;
        } else {
            self.frames.clear();
        }
        self.wal_header = None;
        self.table = Some(table);
        self.set_mark(mark);
        Ok(())
    }
}
