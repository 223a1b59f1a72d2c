//! Segments and the files that they lie in, the slots.
//!
//! A position is a byte in the row of all segments, heads included: segment number and offset are
//! its quotient and remainder. A slot is a file of one segment's length, zero-filled when it is
//! made; its head says which segment lies in it. Writing into blocks that were written before needs
//! no metadata, so a group is on stable storage after one write: that is what filling with zeros is
//! for. A slot whose segment is not kept any more takes another one and keeps its old bytes: their
//! positions are not those that a reader looks for. So a log is a bounded set of files, however
//! long it runs.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;

use super::error::{Error, Result};
use super::group::{self, Bytes, Header, u32_at, u64_at};
use super::{BLOCK, control};
use crate::ids::PartitionId;
use crate::lsn::Lsn;

const MAGIC: [u8; 8] = *b"FSHSEGM\n";
const FIXED_LEN: usize = 36;
/// How much is written at once while zero-filling.
const FILL: usize = 256 << 10;
/// Free slots kept for later use.
const SPARES: usize = 2;
const SUFFIX: &str = "segment";
const MAKING: &str = "new.making";

/// Where segments lie and how long they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    pub dir: PathBuf,
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

    /// The file of a slot.
    pub fn path(&self, slot: u32) -> PathBuf {
        self.dir.join(format!("{slot:06}.{SUFFIX}"))
    }

    fn head(&self, number: u64) -> Bytes {
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

    /// Which segment lies in a slot's file.
    fn number_in(&self, file: &File, path: &Path) -> Result<u64> {
        let wrong = |why| Error::NotALog {
            path: path.to_owned(),
            why,
        };
        let failed = |error| Error::system("read", path, &error);
        if file.metadata().map_err(failed)?.len() != u64::from(self.segment_bytes) {
            return Err(wrong("the segment has not the length of a segment"));
        }
        let mut head = [0; FIXED_LEN];
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        if head[..8] != MAGIC {
            return Err(wrong("it does not begin as a segment does"));
        }
        let (found, known) = (u32_at(&head, 8), control::VERSION);
        if found != known {
            return Err(Error::Version {
                path: path.to_owned(),
                found,
                known,
            });
        }
        if u32_at(&head, 32) != crc32fast::hash(&head[..32]) {
            return Err(wrong("the head of the segment is damaged"));
        }
        let base = u64_at(&head, 24);
        let whole = base.is_multiple_of(u64::from(self.segment_bytes));
        if u64_at(&head, 16) != self.id.0 || !whole {
            return Err(wrong("the segment belongs to another log"));
        }
        Ok(base / u64::from(self.segment_bytes))
    }
}

/// Which segment lies in which slot; looked up again when a segment is not where it was.
#[derive(Debug)]
pub struct Slots {
    layout: Layout,
    by_number: BTreeMap<u64, u32>,
}

impl Slots {
    pub fn new(layout: Layout) -> Slots {
        let by_number = BTreeMap::new();
        Slots { layout, by_number }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Opens the slot of a segment for reading; `None` if none holds it.
    pub fn open(&mut self, number: u64) -> Result<Option<(u32, File)>> {
        for known in [true, false] {
            if !known {
                self.look()?;
            }
            let Some(slot) = self.by_number.get(&number) else {
                continue;
            };
            let path = self.layout.path(*slot);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::system("open", &path, &error)),
            };
            if self.layout.number_in(&file, &path)? == number {
                return Ok(Some((*slot, file)));
            }
        }
        Ok(None)
    }

    /// Segments and their slots, as they are now. A damaged head is an error.
    pub fn look(&mut self) -> Result<&BTreeMap<u64, u32>> {
        let layout = &self.layout;
        let failed = |error| Error::system("list", &layout.dir, &error);
        self.by_number.clear();
        for entry in std::fs::read_dir(&layout.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let slot = stem.and_then(|stem| stem.parse::<u32>().ok());
            let Some(slot) = slot.filter(|slot| layout.path(*slot) == path) else {
                continue;
            };
            let opened = File::open(&path).map_err(|e| Error::system("open", &path, &e))?;
            let number = layout.number_in(&opened, &path)?;
            self.by_number.insert(number, slot);
        }
        Ok(&self.by_number)
    }

    /// Puts segment `number` into a slot that holds none from `first` on, or into a new one.
    /// Durable, name included, when this returns.
    pub fn make(&mut self, number: u64, first: u64) -> Result<()> {
        self.look()?;
        let mut free = self.by_number.range(..first).map(|(_, slot)| *slot);
        let (slot, made) = match free.next() {
            Some(slot) => (slot, self.layout.path(slot)),
            None => {
                let next = self.by_number.values().max().map_or(0, |slot| slot + 1);
                (next, self.layout.fill()?)
            }
        };
        let path = self.layout.path(slot);
        let failed = |error| Error::system("make", &path, &error);
        let file = OpenOptions::new().write(true).open(&made).map_err(failed)?;
        let head = self.layout.head(number);
        file.write_all_at(&head, 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        if made != path {
            std::fs::rename(&made, &path).map_err(failed)?;
            self.layout.sync_names()?;
        }
        self.by_number.insert(number, slot);
        Ok(())
    }

    /// Deletes free slots beyond those that are kept for later, the last ones first. A slot in
    /// front of one that is in use stays.
    pub fn trim(&mut self, first: u64) -> Result<()> {
        self.look()?;
        let free = self.by_number.range(..first).map(|(_, slot)| *slot);
        let mut free: Vec<u32> = free.collect();
        free.sort_unstable();
        let mut last = self.by_number.values().max().copied();
        while free.len() > SPARES && free.last() == last.as_ref() {
            let path = self.layout.path(free.pop().expect("more than the spares"));
            let removed = std::fs::remove_file(&path);
            removed.map_err(|error| Error::system("remove", &path, &error))?;
            last = last.and_then(|slot| slot.checked_sub(1));
        }
        Ok(())
    }
}

impl Layout {
    /// A file of zeros, on stable storage.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.dir.join(MAKING);
        let zeros = vec![0; FILL.min(self.segment_bytes as usize)];
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let file = options
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            let mut at = 0;
            while at < self.segment_bytes as usize {
                let some = zeros.len().min(self.segment_bytes as usize - at);
                file.write_all_at(&zeros[..some], at as u64)?;
                at += some;
            }
            file.sync_all()
        };
        write().map_err(|error| {
            // What is half made is in nobody's way: the next one begins at its start.
            let _ = std::fs::remove_file(&path);
            Error::system("fill", &path, &error)
        })?;
        Ok(path)
    }

    pub fn sync_names(&self) -> Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| Error::system("sync", &self.dir, &error))
    }
}

/// The segments that an appender writes into, opened for writing that is durable when it returns.
#[derive(Debug)]
pub struct Writers {
    open: Mutex<BTreeMap<u64, Place>>,
    slots: Mutex<Slots>,
}

type Place = Arc<Mutex<Option<Arc<File>>>>;

impl Writers {
    pub fn new(layout: Layout) -> Writers {
        Writers {
            open: Mutex::default(),
            slots: Mutex::new(Slots::new(layout)),
        }
    }

    /// The segment's file; made in a slot that holds none from `first` on if it is not there. Who
    /// comes second waits for the first.
    pub fn get(&self, number: u64, first: impl Fn() -> Result<u64>) -> Result<Arc<File>> {
        let place = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody writes two segments back.
            open.retain(|kept, _| kept + 2 > number);
            Arc::clone(open.entry(number).or_default())
        };
        let mut file = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match slots.open(number)? {
            Some((slot, _)) => slot,
            None => {
                slots.make(number, first()?)?;
                slots.by_number[&number]
            }
        };
        let path = slots.layout.path(slot);
        drop(slots);
        let opened = open_durable(&path).map_err(|error| Error::system("open", &path, &error))?;
        Ok(Arc::clone(file.insert(Arc::new(opened))))
    }

    /// Deletes slots that are not needed.
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
    file: Option<(u64, File)>,
    window: Bytes,
    window_at: Lsn,
    /// Least bytes read at once.
    ahead: usize,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Reader({}, at {})",
            self.slots.layout.dir.display(),
            self.window_at.0
        )
    }
}

impl Reader {
    pub fn new(layout: Layout, ahead: usize) -> Reader {
        Reader {
            slots: Slots::new(layout),
            file: None,
            window: Bytes::new(),
            window_at: Lsn(0),
            ahead,
        }
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

    /// What was read may have been written anew.
    pub fn forget(&mut self) {
        self.window.clear();
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
        if self.file.as_ref().is_none_or(|(open, _)| *open != number) {
            let opened = self.slots.open(number)?;
            self.file = opened.map(|(_, file)| (number, file));
        }
        let Some((_, file)) = &self.file else {
            return Ok(false);
        };
        let most = self.slots.layout.rest(lsn).min((until.0 - lsn.0) as usize);
        let want = len.max(self.ahead).min(most);
        self.window.clear();
        self.window.resize(want, 0);
        self.window_at = lsn;
        let read = file.read_exact_at(&mut self.window, self.slots.layout.offset(lsn));
        read.map_err(|error| {
            self.window.clear();
            Error::system("read", &self.slots.layout.dir, &error)
        })?;
        Ok(true)
    }
}
