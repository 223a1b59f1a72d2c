//! A live database under full watch: every committed transaction is read, none is missed, and its
//! WAL is kept, checkpointed, frozen and fenced from here.
//!
//! The position is a [`Mark`] in the WAL. Up to it, any page is its newest frame in the WAL, else
//! the database file, because the pin keeps others from copying later frames there. What is known
//! of the pages at the mark is a [`Table`]; every image that is handed out was compared with it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use wal::Digest;
use wal::digest::PageHash;
use wal::sqlite::{
    IndexHeader, WAL_FRAME_HEADER_LEN, WalFrameHeader, WalHeader, frame_offset, region_base,
    region_of,
};

use super::change::{Change, Mark};
use super::files::{Files, Paths};
use super::gate::{Gate, Writer};
use super::pin::{Pin, PinState};
use super::shm::{Pulse, Shm};
use super::table::{Table, lift_versions};
use super::{open, recover, tail};
use crate::durable;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// Limits of one attached database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceOptions {
    /// The WAL is restarted under WRITE, if need be, once it is larger.
    pub wal_bytes_max: u64,
    /// A larger transaction is found by a scan instead of being held in memory.
    pub transaction_bytes_max: u64,
    /// A scan that finds more changed bytes only replaces the table: shadows must be filled anew.
    pub rescan_bytes_max: u64,
}

impl Default for SourceOptions {
    fn default() -> SourceOptions {
        SourceOptions {
            wal_bytes_max: 64 << 20,
            transaction_bytes_max: 256 << 20,
            rescan_bytes_max: 64 << 20,
        }
    }
}

/// A database that is tailed.
#[derive(Debug)]
pub struct Source {
    pub(super) files: Arc<Files>,
    pub(in crate::engine) shm: Arc<Shm>,
    pub(super) gate: Arc<Gate>,
    pub(super) options: SourceOptions,
    pub(super) pin: Pin,
    pub(super) mark: Mark,
    /// The WAL's header, once a frame of it was read.
    pub(super) wal_header: Option<WalHeader>,
    /// The newest consumed frame of each page in the present WAL.
    pub(super) frames: HashMap<u32, u32>,
    pub(super) table: Option<Table>,
    /// Whether the newest transaction is a fence.
    pub(super) fenced: bool,
    /// Why a scan is needed before anything more can be read.
    pub(super) lost: Option<String>,
    pub(super) scan: ScanState,
    /// Set to give up the freeze that was asked for last.
    pub(super) give_up: Arc<AtomicBool>,
}

/// What has become of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ScanState {
    Idle,
    /// A task is out; only its result is accepted.
    Out(u64),
}

impl Source {
    /// Attaches to the database at `path`. It stands at the newest transaction, without a table:
    /// the first thing to do is a scan, or to hand in a saved table.
    pub fn attach(path: &Path, options: &SourceOptions) -> Result<Source> {
        let (files, shm) = open::open(path)?;
        failpoint::pass(Step::TailAttach)?;
        Source::start(files, Arc::new(shm), options)
    }

    /// Attaches to a shadow that has just landed: `hashes` hold where its -wal had `frame` frames.
    /// What applications committed since is read like any other change. `Retry` when the -wal was
    /// begun anew meanwhile: then only a scan helps.
    pub fn attach_known(
        path: &Path,
        options: &SourceOptions,
        hashes: Vec<PageHash>,
        frame: u32,
    ) -> Result<Source> {
        let mut source = Source::attach(path, options)?;
        let newest = source.mark;
        if frame == 0 || newest.frame < frame {
            return Err(source.error(Kind::Retry, "attach", "its WAL was begun anew"));
        }
        let known = source.frame_header(frame)?;
        let mut commits = 0;
        for number in frame + 1..=newest.frame {
            commits += u32::from(source.frame_header(number)?.is_commit());
        }
        let mark = Mark {
            frame,
            checksum: known.checksum,
            change: newest.change.wrapping_sub(commits),
            ..newest
        };
        source.rewind(Table::new(hashes), mark)?;
        Ok(source)
    }

    /// The header of a frame of the present WAL.
    fn frame_header(&self, frame: u32) -> Result<WalFrameHeader> {
        let mut head = [0; WAL_FRAME_HEADER_LEN];
        let offset = frame_offset(frame, self.files.page_size);
        durable::read_at(&self.files.wal, &self.files.paths.wal, &mut head, offset)?;
        let header = WalFrameHeader::parse(&head)?;
        if header.salts != self.mark.salts {
            return Err(self.error(Kind::Retry, "attach", "its WAL was begun anew"));
        }
        Ok(header)
    }

    pub(super) fn start(files: Files, shm: Arc<Shm>, options: &SourceOptions) -> Result<Source> {
        let pin = Pin::take(Arc::clone(&shm), Instant::now())?;
        let header = newest(&shm)?;
        let mut source = Source {
            files: Arc::new(files),
            shm,
            gate: Arc::default(),
            options: *options,
            pin,
            mark: Mark {
                salts: header.salts,
                frame: 0,
                checksum: header.frame_checksum,
                change: header.change,
                repeats: 0,
            },
            wal_header: None,
            frames: HashMap::new(),
            table: None,
            fenced: false,
            lost: None,
            scan: ScanState::Idle,
            give_up: Arc::default(),
        };
        source.jump(&header)?;
        Ok(source)
    }

    pub fn paths(&self) -> &Paths {
        &self.files.paths
    }

    pub fn page_size(&self) -> u32 {
        self.files.page_size
    }

    /// Pages at the consumed position; 0 before the first scan.
    pub fn page_count(&self) -> u32 {
        self.table.as_ref().map_or(0, Table::page_count)
    }

    /// The digest at the consumed position; that of no page before the first scan.
    pub fn digest(&self) -> Digest {
        self.table.as_ref().map_or(Digest::default(), Table::digest)
    }

    /// The hash of each page at the consumed position; empty before the first scan.
    pub fn hashes(&self) -> &[PageHash] {
        self.table.as_ref().map_or(&[], Table::hashes)
    }

    /// Whether there is a table, so that changes can be read.
    pub fn is_scanned(&self) -> bool {
        self.table.is_some()
    }

    /// Where the tail stands.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether there may be something to read: three loads from mapped memory.
    pub fn changed(&self) -> bool {
        self.shm.pulse() != pulse_of(&self.mark)
    }

    /// Bytes of the WAL that are in use now.
    pub fn wal_bytes(&self) -> u64 {
        wal::sqlite::frame_offset(self.shm.pulse().max_frame + 1, self.files.page_size)
    }

    /// Reads the next transactions, at most `limit_frames` frames but always a whole one; `None`
    /// when there is none, or when a scan must come first ([`Source::wants_scan`]). Nothing is
    /// consumed yet.
    pub fn poll(&mut self, limit_frames: usize) -> Result<Option<Change>> {
        if self.table.is_none() || self.lost.is_some() || self.scan != ScanState::Idle {
            return Ok(None);
        }
        let change = tail::poll(self, limit_frames.clamp(1, u32::MAX as usize) as u32)?;
        if change.is_some() {
            failpoint::pass(Step::TailRead)?;
        }
        Ok(change)
    }

    /// Takes `change`, the last that was polled, as done: the position moves behind it.
    pub fn consume(&mut self, change: &Change) {
        assert_eq!(
            change.from, self.mark,
            "changes are consumed once and in order"
        );
        let Some(table) = &mut self.table else {
            unreachable!("a change is only made with a table");
        };
        table.resize(change.page_count);
        for page in &change.pages {
            table.set(page.page, page.hash);
        }
        assert_eq!(
            table.digest(),
            change.digest,
            "the change said what the digest would be"
        );
        self.frames.extend(change.frames.iter().copied());
        self.fenced = change.fenced;
        self.set_mark(change.to);
        failpoint::reach(Step::TailConsumed);
    }

    /// Reads `page` as it is at the consumed position. `Retry` when the file is ahead of the
    /// position, which the next polls mend.
    pub fn read_page(&self, page: u32, into: &mut [u8]) -> Result<()> {
        assert_eq!(
            into.len(),
            self.files.page_size as usize,
            "room for one page"
        );
        let Some(table) = &self.table else {
            return Err(self.error(Kind::Retry, "read", "it has not been scanned yet"));
        };
        let expected = table.get(page);
        if page == 0 || page > table.page_count() {
            let reason = format!("page {page} is beyond its {} pages", table.page_count());
            return Err(self.error(Kind::Refused, "read", reason));
        }
        for _ in 0..2 {
            self.read_image(page, into)?;
            if PageHash::of(page, into) == expected {
                return Ok(());
            }
        }
        if expected == PageHash::ABSENT {
            into.fill(0);
            return Ok(());
        }
        let reason = format!("page {page} is newer than the consumed position; poll first");
        Err(self.error(Kind::Retry, "read", reason))
    }

    /// The newest consumed image of `page`, unverified: its frame while the WAL is the one we know,
    /// else the database file, into which all of a restarted WAL was copied.
    pub(super) fn read_image(&self, page: u32, into: &mut [u8]) -> Result<()> {
        let same_wal = self.shm.pulse().salt == pulse_of(&self.mark).salt;
        match self.frames.get(&page) {
            Some(frame) if same_wal => self.files.read_frame_page(*frame, into)?,
            _ => self.files.read_db(page, into)?,
        }
        lift_versions(page, into);
        Ok(())
    }

    /// Whether the names still lead to the files that are attached; `Fatal` when one was replaced
    /// or deleted: drop this and attach again. For once a second.
    pub fn verify_names(&self) -> Result<()> {
        self.files.verify_names(self.shm.identity())
    }

    /// Rebuilds the WAL-index if a writer died while it stored the header and no connection has
    /// done it yet; true if it did. The change counter begins anew, so a scan follows. For once a
    /// second.
    pub fn recover_index(&mut self) -> Result<bool> {
        if self.shm.header_soon().is_some() || self.shm.foreign_version().is_some() {
            return Ok(false);
        }
        if !self.gate.turn(Writer::Nobody, Writer::Brief) {
            return Ok(false);
        }
        let recovered = match self.shm.try_write() {
            Ok(Some(_write)) if self.shm.header().is_none() => {
                recover::recover(&self.files, &self.shm).map(|()| true)
            }
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        self.gate.turn(Writer::Brief, Writer::Nobody);
        recovered
    }

    /// Makes way for an application's own checkpoint, and comes back after it. For the hot sweep:
    /// cheap and rate-limited.
    pub fn yield_pin_if_asked(&mut self, now: Instant) -> Result<PinState> {
        let busy = self.gate.is_checkpointing() || self.is_frozen();
        if self.pin.state() == PinState::Held && busy {
            return Ok(PinState::Held);
        }
        let all_consumed = self.table.is_some() && self.lost.is_none() && !self.changed();
        self.pin.yield_if_asked(now, all_consumed)
    }

    pub fn pin_state(&self) -> PinState {
        self.pin.state()
    }

    /// Lets others checkpoint and restart the WAL: for a WAL over its cap that nothing else helps.
    /// Transactions may be missed from now on; the audit finds out.
    pub fn drop_pin(&mut self) -> Result<()> {
        self.pin.release(PinState::Dropped)
    }

    /// Pins again.
    pub fn take_pin(&mut self) -> Result<()> {
        self.pin.retake()
    }

    /// Moves the mark to `header`, with the page map of its WAL taken from the index.
    pub(super) fn jump(&mut self, header: &IndexHeader) -> Result<()> {
        self.frames.clear();
        self.wal_header = None;
        let mut frame = 1;
        while frame <= header.max_frame {
            let region = region_of(frame);
            let bytes = self.shm.region(region)?;
            let last = region_base(region + 1).min(header.max_frame);
            for number in frame..=last {
                let page = wal::sqlite::page_of_frame(region, &bytes, number)?;
                self.frames.insert(page, number);
            }
            frame = last + 1;
        }
        self.set_mark(Mark {
            salts: header.salts,
            frame: header.max_frame,
            checksum: header.frame_checksum,
            change: header.change,
            repeats: 0,
        });
        let mut page = vec![0; self.files.page_size as usize];
        match self.frames.get(&1) {
            Some(frame) => self.files.read_frame_page(*frame, &mut page)?,
            None => self.files.read_db(1, &mut page)?,
        }
        self.fenced = lift_versions(1, &mut page);
        Ok(())
    }

    pub(super) fn set_mark(&mut self, mark: Mark) {
        self.mark = mark;
        self.gate.set_consumed(mark.salts, mark.frame);
    }

    pub(super) fn error(&self, kind: Kind, op: &'static str, reason: impl Into<String>) -> Error {
        Error::new(kind, op, self.files.paths.db.display().to_string(), reason)
    }
}

/// The words of the index's header at `mark`.
pub(super) fn pulse_of(mark: &Mark) -> Pulse {
    let salt = u32::from_ne_bytes(mark.salts.0[0].to_be_bytes());
    Pulse {
        change: mark.change,
        max_frame: mark.frame,
        salt,
    }
}

/// The newest header; `Retry` while the index has none.
pub(super) fn newest(shm: &Shm) -> Result<IndexHeader> {
    shm.settled_header().ok_or_else(|| {
        let reason = "its header is not valid: a writer is at work, or died at work";
        Error::new(
            Kind::Retry,
            "read",
            shm.path().display().to_string(),
            reason,
        )
    })
}
