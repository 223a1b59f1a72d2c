//! The control page: 4 KiB that writer, sidecar and readers of a log map.
//!
//! Three kinds of words lie here. What never changes, with a checksum. What is true while the
//! machine is up: the commit word, the lease, positions and bells, stored by plain atomic stores.
//! What survives a power cut: [`super::saved`]. The live words count only if they are of this boot
//! and of this very file; otherwise whoever opens the log first finds its end again.

mod glance;
mod head;
mod live;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use map::Mapping;

use super::error::{Error, Result};
use super::saved::{self, Block, Ownership, Run};
use super::segment::Layout;
use super::{BLOCK, recover};
use crate::ids::PartitionId;
use crate::lsn::{Epoch, Lsn};

pub use glance::Glance;
use head::identity;
pub(super) use head::read_fixed;
pub use head::{Creation, is_awake, is_log};
pub use live::boottime;

/// Beside the log, locked by the one who tails.
const TAIL: &str = "-tail";
/// The version of the page, of segments and of groups.
pub const VERSION: u32 = 1;
/// Smallest and largest segment.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 30;

/// How long another process may take to find the end of a log.
const AWAKEN_MAX: Duration = Duration::from_secs(30);
const WORD: usize = 64;
const IDENTITY: usize = 320;

/// The commit word: epoch, seal, freeze and position in one, so that one compare-and-swap decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// The low 16 bits of the epoch.
    pub epoch: u16,
    /// The log has ended.
    pub sealed: bool,
    /// Nothing is acknowledged until it is thawed, or sealed, or its time is over.
    pub frozen: bool,
    /// Everything below is acknowledged or may be; nothing above is.
    pub lsn: Lsn,
}

impl Word {
    pub fn new(epoch: Epoch, sealed: bool, lsn: Lsn) -> Word {
        Word {
            epoch: epoch.0 as u16,
            sealed,
            frozen: false,
            lsn,
        }
    }

    pub fn encode(self) -> u64 {
        let (sealed, frozen) = (u64::from(self.sealed), u64::from(self.frozen));
        u64::from(self.epoch) << 48 | sealed << 47 | frozen << 46 | self.lsn.0 >> 3
    }

    pub fn decode(word: u64) -> Word {
        Word {
            epoch: (word >> 48) as u16,
            sealed: word >> 47 & 1 == 1,
            frozen: word >> 46 & 1 == 1,
            lsn: Lsn((word & ((1 << 46) - 1)) << 3),
        }
    }
}

/// A log's control page.
#[derive(Debug)]
pub struct Control {
    page: Mapping,
    file: File,
    path: PathBuf,
    id: PartitionId,
    segment_bytes: u32,
    /// Writing a saved block is one act among threads.
    saving: Mutex<()>,
}

impl Control {
    /// Makes a new log at `path`: its control page, and one slot. Fails if there is a file.
    pub fn create(path: &Path, creation: Creation) -> Result<()> {
        let (id, segment_bytes) = (creation.id, creation.segment_bytes);
        let whole_blocks = segment_bytes.is_multiple_of(BLOCK as u32);
        if !SEGMENT_BYTES.contains(&segment_bytes) || !whole_blocks {
            return Err(Error::NotALog {
                path: path.to_owned(),
                why: "segment_bytes has to be 64 KiB to 1 GiB, in whole blocks of 4 KiB",
            });
        }
        let layout = Layout {
            path: path.to_owned(),
            id,
            segment_bytes,
        };
        let making = beside(path, "-making");
        let write = || -> std::io::Result<()> {
            let file = File::create(&making)?;
            file.write_all_at(&creation.page_of(&file)?, 0)?;
            layout.fill(&file, 0)?;
            let number = layout.number(creation.lsn);
            file.write_all_at(&layout.head(number), layout.slot_at(0))?;
            file.sync_all()?;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            let here = rustix::fs::CWD;
            rustix::fs::renameat_with(here, &making, here, path, flags)?;
            sync_name(path)
        };
        write().map_err(|error| {
            // Half a log is in nobody's way.
            let _ = std::fs::remove_file(&making);
            Error::system("create", path, &error)
        })
    }

    /// Opens the log at `path`, through symlinks; finds its end if the live words are of another
    /// boot or of another file.
    pub fn open(path: &Path) -> Result<Control> {
        let failed = |error: std::io::Error| Error::system("open", path, &error);
        let path = std::fs::canonicalize(path).map_err(failed)?;
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(failed)?;
        let page = Mapping::new(&file, 0, BLOCK).map_err(|error| match error.raw_os_error() {
            None => Error::NotALog {
                path: path.clone(),
                why: "the control page is cut short",
            },
            Some(_) => failed(error),
        })?;
        let mut bytes = [0; BLOCK];
        page.copy_out(0, &mut bytes);
        let (id, segment_bytes) = read_fixed(&bytes, &path)?;
        let identity = identity(&file).map_err(failed)?;
        let control = Control {
            page,
            file,
            path,
            id,
            segment_bytes,
            saving: Mutex::new(()),
        };
        control.awaken(identity)?;
        Ok(control)
    }

    /// Makes the live words those of this boot, once.
    pub(super) fn awaken(&self, identity: u64) -> Result<()> {
        if self.page.load_long(IDENTITY) == identity {
            return Ok(());
        }
        let _alone = self.lock()?;
        if self.page.load_long(IDENTITY) == identity {
            return Ok(());
        }
        let ownership = self.saved::<Ownership>()?;
        let run = self.saved::<Run>()?;
        let end = recover::end(self, &ownership, &run, self.word())?;
        if end.run > run.run {
            self.save(|run: &mut Run| {
                run.number += 1;
                (run.run, run.began, run.lsn) = (end.run, end.lsn, end.lsn);
            })?;
        }
        self.forget_live(end.lsn);
        let word = Word::new(ownership.epoch, ownership.sealed, end.lsn);
        self.page.store_long(WORD, word.encode());
        self.page.store_long(IDENTITY, identity);
        Ok(())
    }

    /// Makes the caller the one who tails this log, until the file is dropped; `None` if another
    /// process is.
    pub fn tail(&self) -> Result<Option<File>> {
        let path = beside(&self.path, TAIL);
        let failed = |error| Error::system("open", &path, &error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// From where on segments are not used again: there is somebody who tails, and says so.
    pub(super) fn held(&self) -> Result<Option<Lsn>> {
        let hold = self.hold();
        let dead = hold.0 == 0 || self.tail()?.is_some();
        Ok((!dead).then_some(hold))
    }

    /// The log's file, symlinks resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> Result<File> {
        let file = self.file.try_clone();
        file.map_err(|error| Error::system("open", &self.path, &error))
    }

    pub(super) fn metadata(&self) -> std::io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    pub fn id(&self) -> PartitionId {
        self.id
    }

    pub fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    pub fn word(&self) -> Word {
        Word::decode(self.page.load_long(WORD))
    }

    /// Moves the commit position from `old` to `lsn`; fails if the word is another meanwhile.
    pub fn commit(&self, old: Word, lsn: Lsn) -> std::result::Result<Word, Word> {
        let new = Word { lsn, ..old };
        self.swap(old, new).map(|()| new)
    }

    /// Seals the log in memory: from here on nothing is acknowledged, dead or frozen writers
    /// included. It binds for good once [`Control::save_seal`] has returned.
    pub fn seal(&self) -> Word {
        let mut old = self.word();
        loop {
            match self.seal_at(old) {
                Ok(new) => return new,
                Err(now) => old = now,
            }
        }
    }

    /// Seals the log if its word is `expected`: the one that it was frozen at.
    pub fn seal_at(&self, expected: Word) -> std::result::Result<Word, Word> {
        let new = Word {
            sealed: true,
            frozen: false,
            ..expected
        };
        self.swap(expected, new)?;
        self.wake_frozen();
        Ok(new)
    }

    fn swap(&self, old: Word, new: Word) -> std::result::Result<(), Word> {
        let swapped = self.page.exchange_long(WORD, old.encode(), new.encode());
        swapped.map_err(Word::decode)
    }

    /// Makes the seal durable; the log then ends where it was sealed, whatever lies above.
    pub fn save_seal(&self) -> Result<Word> {
        let word = self.word();
        debug_assert!(word.sealed, "sealed first");
        self.save(|ownership: &mut Ownership| {
            ownership.number += 1;
            ownership.sealed = true;
            ownership.lsn = word.lsn;
        })?;
        Ok(word)
    }

    /// Takes back a seal that nobody was told of. Appenders that met it stay refused until they
    /// open the log again. A log that is not sealed stays as it is: its word is the appenders'.
    pub fn unseal(&self) -> Result<Word> {
        let word = self.word();
        if !word.sealed {
            return Ok(word);
        }
        self.save(|ownership: &mut Ownership| {
            ownership.number += 1;
            ownership.sealed = false;
            ownership.lsn = word.lsn;
        })?;
        let open = Word {
            sealed: false,
            ..word
        };
        match self.swap(word, open) {
            Ok(()) => Ok(open),
            // Somebody else took it back, and it may have been appended to since.
            Err(now) => Ok(now),
        }
    }

    /// Gives a sealed copy to this node: it is served under `epoch` from `lsn` on.
    pub fn grant(&self, epoch: Epoch, lsn: Lsn) -> Result<()> {
        self.save(|ownership: &mut Ownership| {
            let number = ownership.number + 1;
            *ownership = Ownership {
                number,
                epoch,
                sealed: false,
                lsn,
            };
        })?;
        let word = Word::new(epoch, false, lsn);
        self.page.store_long(WORD, word.encode());
        Ok(())
    }

    /// What of one kind survives a power cut.
    pub fn saved<B: Block>(&self) -> Result<B> {
        let read = |at: usize| {
            let mut bytes = [0; saved::LEN];
            self.page.copy_out(at, &mut bytes);
            bytes
        };
        saved::newest(read).ok_or_else(|| Error::NotALog {
            path: self.path.clone(),
            why: "no saved state of the log is whole; take a shadow",
        })
    }

    /// Changes what survives a power cut; durable when this returns. `change` counts it up. Only
    /// the one who writes blocks of this kind may do this: the appender, or the sidecar.
    pub fn save<B: Block>(&self, change: impl FnOnce(&mut B)) -> Result<B> {
        let _turn = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut block = self.saved::<B>()?;
        change(&mut block);
        self.page.copy_in(block.place(), &block.encode());
        let synced = self.file.sync_data();
        synced.map_err(|error| Error::system("sync", &self.path, &error))?;
        Ok(block)
    }

    /// The lock among processes that open the log; a process that dies lets it go.
    fn lock(&self) -> Result<Unlock<'_>> {
        let until = Instant::now() + AWAKEN_MAX;
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(Unlock(&self.file)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    let error = std::io::Error::from(error);
                    return Err(Error::system("lock", &self.path, &error));
                }
            }
        }
    }
}

/// Lets the file's lock go.
struct Unlock<'a>(&'a File);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        // A lock that can't be let go goes with the descriptor.
        let _ = self.0.unlock();
    }
}

/// `path` with more at the end of its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the name of a file durable.
fn sync_name(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}
