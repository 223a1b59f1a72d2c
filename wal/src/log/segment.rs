//! Segments and the places in the file that they lie in, the slots.
//!
//! A position is a byte in the row of all segments, heads included: segment number and offset are
//! its quotient and remainder. A slot is a piece of the file, zero-filled when it is made; its head
//! says which segment lies in it. Writing into blocks that were written before needs no metadata,
//! so a group is on stable storage after one write: that is what filling with zeros is for. A slot
//! whose segment is not kept any more takes another one and keeps its old bytes: their positions
//! are not those that a reader looks for. So a log is one bounded file, however long it runs.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::error::{Error, Result};
use super::group::{self, Bytes, Header, u32_at, u64_at};
use super::recent::Recent;
use super::{BLOCK, control};
use crate::ids::PartitionId;
use crate::lsn::Lsn;

const MAGIC: [u8; 8] = *b"FSHSEGM\n";
const FIXED_LEN: usize = 36;
/// How much is written at once while zero-filling.
const FILL: usize = 256 << 10;
/// Free slots kept filled for later use.
const SPARES: usize = 4;
/// No slot covers this page of the file: engines that copy files by pages of SQLite's numbering
/// never touch SQLite's lock page, which lies here.
const GAP: u64 = 1 << 30;

/// Where segments lie and how long they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    pub path: PathBuf,
    pub id: PartitionId,
    pub segment_bytes: u32,
}

impl Layout {
    pub fn number(&self, lsn: Lsn) -> u64 {
        lsn.0 / u64::from(self.segment_bytes)
    }

    pub fn offset(&self, lsn: Lsn) -> u64 {
        lsn.0 % u64::from(self.segment_bytes)
    }

    /// Where groups of a segment begin: behind its head.
    pub fn begin(&self, number: u64) -> Lsn {
        Lsn(number * u64::from(self.segment_bytes) + BLOCK as u64)
    }

    /// Bytes from `lsn` to the end of its segment.
    pub fn rest(&self, lsn: Lsn) -> usize {
        self.segment_bytes as usize - self.offset(lsn) as usize
    }

    /// Where a group of `len` bytes goes that follows a group that ended at `after`.
    pub fn place(&self, after: Lsn, len: usize) -> Lsn {
        let (number, offset) = (self.number(after), self.offset(after));
        if offset == 0 {
            self.begin(number)
        } else if group::padded(len) <= self.rest(after) {
            after
        } else {
            self.begin(number + 1)
        }
    }

    /// The longest group that fits a segment.
    pub fn group_max(&self) -> usize {
        self.segment_bytes as usize - BLOCK
    }

    /// Where a slot begins in the file: behind the control page, and none across the gap.
    pub fn slot_at(&self, slot: u32) -> u64 {
        let (slot, len) = (u64::from(slot), u64::from(self.segment_bytes));
        let before = (GAP - BLOCK as u64) / len;
        match slot.checked_sub(before) {
            None => BLOCK as u64 + slot * len,
            Some(behind) => GAP + BLOCK as u64 + behind * len,
        }
    }

    /// How many whole slots a file of `len` bytes has.
    pub fn slots_in(&self, len: u64) -> u32 {
        let end = |slot: u32| self.slot_at(slot) + u64::from(self.segment_bytes);
        let most = (len / u64::from(self.segment_bytes)) as u32;
        let fits = |count: u32| count == 0 || end(count - 1) <= len;
        // The control page and the gap cost one each at most.
        (most.saturating_sub(2)..=most)
            .rev()
            .find(|n| fits(*n))
            .unwrap_or(0)
    }

    /// The head of the slot that holds segment `number`.
    pub fn head(&self, number: u64) -> Bytes {
        let mut head = Bytes::with_capacity(BLOCK);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&control::VERSION.to_le_bytes());
        head.extend_from_slice(&self.segment_bytes.to_le_bytes());
        head.extend_from_slice(&self.id.0.to_le_bytes());
        head.extend_from_slice(&(number * u64::from(self.segment_bytes)).to_le_bytes());
        let crc = crc32fast::hash(&head);
        head.extend_from_slice(&crc.to_le_bytes());
        head.resize(BLOCK, 0);
        head
    }

    /// Which segment lies in a slot; `None` if it is blank.
    fn number_in(&self, file: &File, slot: u32) -> Result<Option<u64>> {
        let wrong = |why| Error::NotALog {
            path: self.path.clone(),
            why,
        };
        let mut head = [0; FIXED_LEN];
        let read = file.read_exact_at(&mut head, self.slot_at(slot));
        read.map_err(|error| self.failed("read", &error))?;
        if head == [0; FIXED_LEN] {
            return Ok(None);
        }
        if head[..8] != MAGIC {
            return Err(wrong("a segment in it does not begin as one does"));
        }
        let (found, known) = (u32_at(&head, 8), control::VERSION);
        if found != known {
            return Err(Error::Version {
                path: self.path.clone(),
                found,
                known,
            });
        }
        if u32_at(&head, 32) != crc32fast::hash(&head[..32]) {
            return Err(wrong("the head of a segment in it is damaged"));
        }
        let base = u64_at(&head, 24);
        let whole = base.is_multiple_of(u64::from(self.segment_bytes));
        if u64_at(&head, 16) != self.id.0 || !whole {
            return Err(wrong("a segment in it belongs to another log"));
        }
        Ok(Some(base / u64::from(self.segment_bytes)))
    }

    pub fn failed(&self, op: &'static str, error: &std::io::Error) -> Error {
        Error::system(op, &self.path, error)
    }

    /// Fills a slot with zeros, on stable storage.
    pub(super) fn fill(&self, file: &File, slot: u32) -> std::io::Result<()> {
        let zeros = vec![0; FILL.min(self.segment_bytes as usize)];
        let begin = self.slot_at(slot);
        let mut done = 0;
        while done < self.segment_bytes as usize {
            let some = zeros.len().min(self.segment_bytes as usize - done);
            file.write_all_at(&zeros[..some], begin + done as u64)?;
            done += some;
        }
        file.sync_data()
    }
}

/// Which segment lies in which slot; looked up again when a segment is not where it was.
#[derive(Debug)]
pub struct Slots {
    layout: Layout,
    file: File,
    by_number: BTreeMap<u64, u32>,
    blank: Vec<u32>,
    count: u32,
}

impl Slots {
    /// Of the log's `file`, open for reading, and for writing where slots are made.
    pub fn new(layout: Layout, file: File) -> Slots {
        Slots {
            layout,
            file,
            by_number: BTreeMap::new(),
            blank: Vec::new(),
            count: 0,
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// The slot of a segment; `None` if none holds it.
    pub fn find(&mut self, number: u64) -> Result<Option<u32>> {
        for known in [true, false] {
            if !known {
                self.look()?;
            }
            let Some(slot) = self.by_number.get(&number) else {
                continue;
            };
            if self.layout.number_in(&self.file, *slot)? == Some(number) {
                return Ok(Some(*slot));
            }
        }
        Ok(None)
    }

    /// Segments and their slots, as they are now. A damaged head is an error.
    pub fn look(&mut self) -> Result<&BTreeMap<u64, u32>> {
        let meta = self.file.metadata();
        let meta = meta.map_err(|error| self.layout.failed("look at", &error))?;
        self.by_number.clear();
        self.blank.clear();
        self.count = self.layout.slots_in(meta.len());
        for slot in 0..self.count {
            match self.layout.number_in(&self.file, slot)? {
                Some(number) => drop(self.by_number.insert(number, slot)),
                None => self.blank.push(slot),
            }
        }
        Ok(&self.by_number)
    }

    /// Puts segment `number` into a slot that holds none from `first` on, or into a new one.
    /// Durable when this returns.
    pub fn make(&mut self, number: u64, first: u64) -> Result<u32> {
        self.look()?;
        let failed = |error: std::io::Error| self.layout.failed("make room in", &error);
        let free = self.by_number.range(..first).next();
        let slot = match free.map(|(_, slot)| *slot) {
            Some(slot) => slot,
            None => {
                let slot = self.blank.first().copied().unwrap_or(self.count);
                self.fill(slot).map_err(failed)?;
                slot
            }
        };
        let (head, at) = (self.layout.head(number), self.layout.slot_at(slot));
        self.file.write_all_at(&head, at).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        self.by_number.insert(number, slot);
        Ok(slot)
    }

    fn fill(&self, slot: u32) -> std::io::Result<()> {
        let len = self.file.metadata()?.len();
        self.layout.fill(&self.file, slot).inspect_err(|_| {
            // What is half made takes room from others until it is tried again.
            let _ = self.file.set_len(len);
        })
    }

    /// Gives the room of free slots back, except of some that are kept for later. The file keeps
    /// its length, because readers may have mapped it.
    pub fn trim(&mut self, first: u64) -> Result<()> {
        self.look()?;
        let free = self.by_number.range(..first).map(|(_, slot)| *slot);
        for slot in free.skip(SPARES) {
            let (at, len) = (
                self.layout.slot_at(slot),
                u64::from(self.layout.segment_bytes),
            );
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&self.file, flags, at, len) {
                // A file system without holes keeps the room: the slot is used again as it is.
                Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
                other => other.map_err(|error| self.layout.failed("trim", &error.into()))?,
            }
        }
        Ok(())
    }
}

/// Where an appender writes: the file, opened for writing that is durable when it returns, and the
/// slots of the newest segments.
#[derive(Debug)]
pub struct Writers {
    file: File,
    open: Mutex<BTreeMap<u64, Place>>,
    slots: Mutex<Slots>,
}

type Place = Arc<Mutex<Option<u64>>>;

impl Writers {
    pub fn new(slots: Slots) -> Result<Writers> {
        let layout = &slots.layout;
        let file = open_durable(&layout.path).map_err(|error| layout.failed("open", &error))?;
        Ok(Writers {
            file,
            open: Mutex::default(),
            slots: Mutex::new(slots),
        })
    }

    /// Where the segment begins in the file; made in a slot that holds none from `first` on if it
    /// is not there. Who comes second waits for the first.
    pub fn place(&self, number: u64, first: impl Fn() -> Result<u64>) -> Result<u64> {
        let place = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody writes two segments back.
            open.retain(|kept, _| kept + 2 > number);
            Arc::clone(open.entry(number).or_default())
        };
        let mut at = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = *at {
            return Ok(at);
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match slots.find(number)? {
            Some(slot) => slot,
            None => slots.make(number, first()?)?,
        };
        Ok(*at.insert(slots.layout.slot_at(slot)))
    }

    /// Writes whole blocks; on stable storage when this returns.
    pub fn write(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Gives the room of slots back that are not needed.
    pub fn trim(&self, first: u64) -> Result<()> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.trim(first)
    }
}

/// Opens for writes that are durable when they return, past the page cache where that is possible.
fn open_durable(path: &Path) -> std::io::Result<File> {
    let open = |flags: OFlags| {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(flags.bits() as i32);
        options.open(path)
    };
    match open(OFlags::DIRECT | OFlags::DSYNC) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => open(OFlags::DSYNC),
        other => other,
    }
}

/// Reads groups by position, through a window that goes along.
pub struct Reader {
    slots: Slots,
    /// The segment that is being read, and its slot.
    here: Option<(u64, u32)>,
    window: Bytes,
    window_at: Lsn,
    /// Least bytes read at once.
    ahead: usize,
    /// Where the newest groups are, too.
    recent: Option<Arc<Recent>>,
    /// The window holds what was there: it may have been overwritten.
    is_recent: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.slots.layout.path.display();
        write!(f, "Reader({path}, at {})", self.window_at.0)
    }
}

impl Reader {
    pub fn new(slots: Slots, ahead: usize) -> Reader {
        Reader {
            slots,
            here: None,
            window: Bytes::new(),
            window_at: Lsn(0),
            ahead,
            recent: None,
            is_recent: false,
        }
    }

    /// Looks for the newest groups here first.
    pub fn set_recent(&mut self, recent: Arc<Recent>) {
        self.recent = Some(recent);
    }

    pub fn layout(&self) -> &Layout {
        &self.slots.layout
    }

    pub fn slots(&mut self) -> &mut Slots {
        &mut self.slots
    }

    /// The group at `lsn`, if a whole one lies there. Nothing from `until` on is looked at: it may
    /// be in the middle of being written.
    pub fn group_at(&mut self, lsn: Lsn, until: Lsn) -> Result<Option<Header>> {
        let found = self.find(lsn, until)?;
        let recent = self.recent.as_ref().filter(|_| self.is_recent);
        let Some(recent) = recent else {
            return Ok(found);
        };
        if found.is_some_and(|header| recent.is_of(header.run)) {
            return Ok(found);
        }
        // Overwritten, or never put there: the file has it.
        self.window.clear();
        let recent = self.recent.take();
        let found = self.find(lsn, until);
        self.recent = recent;
        found
    }

    fn find(&mut self, lsn: Lsn, until: Lsn) -> Result<Option<Header>> {
        let rest = self.slots.layout.rest(lsn);
        if self.slots.layout.offset(lsn) == 0 || !self.look(lsn, BLOCK.min(rest), until)? {
            return Ok(None);
        }
        let Some(header) = Header::read(self.bytes(lsn, BLOCK.min(rest))) else {
            return Ok(None);
        };
        let len = header.len as usize;
        if header.lsn != lsn || group::padded(len) > rest || !self.look(lsn, len, until)? {
            return Ok(None);
        }
        Ok(group::is_whole(self.bytes(lsn, len)).then_some(header))
    }

    /// Bytes that [`Reader::group_at`] has looked at last.
    pub fn bytes(&self, lsn: Lsn, len: usize) -> &[u8] {
        let at = (lsn.0 - self.window_at.0) as usize;
        &self.window[at..at + len]
    }

    /// Makes the window hold `len` bytes from `lsn`; `false` if they are not there.
    fn look(&mut self, lsn: Lsn, len: usize, until: Lsn) -> Result<bool> {
        let end = lsn.after(len as u64);
        if end > until {
            return Ok(false);
        }
        if lsn >= self.window_at && end.0 <= self.window_at.0 + self.window.len() as u64 {
            return Ok(true);
        }
        let number = self.slots.layout.number(lsn);
        if self.here.is_none_or(|(open, _)| open != number) {
            self.here = self.slots.find(number)?.map(|slot| (number, slot));
        }
        let Some((_, slot)) = self.here else {
            return Ok(false);
        };
        let most = self.slots.layout.rest(lsn).min((until.0 - lsn.0) as usize);
        let want = len.max(self.ahead).min(most);
        self.window.clear();
        self.window.resize(want, 0);
        self.window_at = lsn;
        let recent = self.recent.as_ref();
        let recent = recent.filter(|_| Recent::reaches(lsn, until));
        self.is_recent = recent.is_some();
        if let Some(recent) = recent {
            recent.copy_out(lsn, &mut self.window);
            return Ok(true);
        }
        let layout = &self.slots.layout;
        let at = layout.slot_at(slot) + layout.offset(lsn);
        let read = self.slots.file.read_exact_at(&mut self.window, at);
        if let Err(error) = read {
            self.window.clear();
            return Err(self.slots.layout.failed("read", &error));
        }
        Ok(true)
    }
}
