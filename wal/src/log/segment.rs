//! Segments: files of one length, zero-filled when made and used again as they are.
//!
//! A position is a byte in the row of all segments, heads included: segment number and offset are
//! its quotient and remainder. Writing into blocks that were written before needs no metadata, so
//! a group is on stable storage after one write; that is what filling with zeros is for. A segment
//! that is not needed any more becomes a spare and keeps its old bytes: their positions are not
//! those that a reader looks for.

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
/// Spare segments kept for later use.
const SPARES: usize = 2;
const SUFFIX: &str = "segment";
const SPARE: &str = "spare";
const MAKING: &str = "making";

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

    pub fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:012x}.{SUFFIX}"))
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

    /// Opens a segment for reading; `None` if there is none of this number.
    pub fn open(&self, number: u64) -> Result<Option<File>> {
        let path = self.path(number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::system("open", &path, &error)),
        };
        self.check(&file, number, &path)?;
        Ok(Some(file))
    }

    fn check(&self, file: &File, number: u64, path: &Path) -> Result<()> {
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
        let base = number * u64::from(self.segment_bytes);
        if u64_at(&head, 24) != base || u64_at(&head, 16) != self.id.0 {
            return Err(wrong("the segment belongs to another place or another log"));
        }
        Ok(())
    }

    /// Numbers of all segments, ascending.
    pub fn list(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = self
            .named(SUFFIX)?
            .iter()
            .filter_map(|path| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn named(&self, suffix: &str) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::system("list", &self.dir, &error);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|found| found == suffix) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// Makes segment `number`: of a spare if there is one, else of a new file. Durable, name
    /// included, when this returns.
    pub fn make(&self, number: u64) -> Result<()> {
        let path = self.path(number);
        let made = match self.named(SPARE)?.pop() {
            Some(spare) => spare,
            None => self.fill()?,
        };
        let failed = |error| Error::system("make", &path, &error);
        let file = OpenOptions::new().write(true).open(&made).map_err(failed)?;
        file.write_all_at(&self.head(number), 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        std::fs::rename(&made, &path).map_err(failed)?;
        self.sync_names()
    }

    /// A file of zeros, on stable storage.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.dir.join(format!("new.{MAKING}"));
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

    /// Puts a segment away that holds nothing that is kept: as a spare, or for good.
    pub fn retire(&self, number: u64) -> Result<()> {
        let path = self.path(number);
        let spares = self.named(SPARE)?.len();
        let done = if spares < SPARES {
            std::fs::rename(&path, path.with_extension(SPARE))
        } else {
            std::fs::remove_file(&path)
        };
        match done {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::system("retire", &path, &error))
            }
            _ => Ok(()),
        }
    }

    pub fn sync_names(&self) -> Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| Error::system("sync", &self.dir, &error))
    }
}

/// The segments that an appender writes into, opened for writing that is durable when it returns.
#[derive(Debug)]
pub struct Writers {
    layout: Layout,
    slots: Mutex<BTreeMap<u64, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<File>>>>;

impl Writers {
    pub fn new(layout: Layout) -> Writers {
        let slots = Mutex::default();
        Writers { layout, slots }
    }

    /// The segment's file, made if it is not there. Who comes second waits for the first.
    pub fn get(&self, number: u64) -> Result<Arc<File>> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody writes two segments back.
            slots.retain(|kept, _| kept + 2 > number);
            Arc::clone(slots.entry(number).or_default())
        };
        let mut file = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        if self.layout.open(number)?.is_none() {
            self.layout.make(number)?;
        }
        let path = self.layout.path(number);
        let opened = open_durable(&path).map_err(|error| Error::system("open", &path, &error))?;
        Ok(Arc::clone(file.insert(Arc::new(opened))))
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
    layout: Layout,
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
            self.layout.dir.display(),
            self.window_at.0
        )
    }
}

impl Reader {
    pub fn new(layout: Layout, ahead: usize) -> Reader {
        Reader {
            layout,
            file: None,
            window: Bytes::new(),
            window_at: Lsn(0),
            ahead,
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The group at `lsn`, if a whole one lies there. Nothing from `until` on is looked at: it may
    /// be in the middle of being written.
    pub fn group_at(&mut self, lsn: Lsn, until: Lsn) -> Result<Option<Header>> {
        let rest = self.layout.rest(lsn);
        if self.layout.offset(lsn) == 0 || !self.look(lsn, BLOCK.min(rest), until)? {
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
        let number = self.layout.number(lsn);
        if self.file.as_ref().is_none_or(|(open, _)| *open != number) {
            self.file = self.layout.open(number)?.map(|file| (number, file));
        }
        let Some((_, file)) = &self.file else {
            return Ok(false);
        };
        let most = self.layout.rest(lsn).min((until.0 - lsn.0) as usize);
        let want = len.max(self.ahead).min(most);
        self.window.clear();
        self.window.resize(want, 0);
        self.window_at = lsn;
        let read = file.read_exact_at(&mut self.window, self.layout.offset(lsn));
        read.map_err(|error| {
            self.window.clear();
            Error::system("read", &self.layout.path(number), &error)
        })?;
        Ok(true)
    }
}
