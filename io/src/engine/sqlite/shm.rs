//! The WAL-index (`-shm`) of a live database: header, marks, page lists and its lock bytes.
//!
//! Protocol (WAL-mode file format, section 2): a writer stores the header's second copy, then the
//! first; a reader loads the first, then the second, and believes them when they are equal and
//! their checksum holds. Locks are on bytes 120 to 128 of the same file.
//!
//! Invariant: a [`Shm`] holds the dead-man byte shared as long as it lives, so the file is never
//! cut short beneath the mapping. The first 4 KiB stay mapped; 32 KiB regions are mapped for the
//! moment they are needed, because ten thousand databases are watched and few are written.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use map::Mapping;
use wal::sqlite::{
    BACKFILL_AT, BACKFILL_ATTEMPTED_AT, CHECKPOINT_LOCK, INDEX_HEADER_LEN, IndexHeader, READ_LOCKS,
    READ_MARKS, READ_MARKS_AT, REGION_LEN, SECOND_HEADER_AT, WAL_VERSION, WRITE_LOCK, read_lock,
};

use super::locks::{self, Held, byte};
use crate::error::{Error, Result};

/// What stays mapped of each index.
const HEAD_LEN: usize = 4096;
/// `iChange` in the header's first copy.
pub(super) const CHANGE_AT: usize = 8;
/// `mxFrame` in the header's first copy.
const MAX_FRAME_AT: usize = 16;
/// `aSalt[0]` in the header's first copy.
const SALT_AT: usize = 32;

/// An open, mapped WAL-index.
#[derive(Debug)]
pub struct Shm {
    file: Arc<File>,
    path: PathBuf,
    head: Mapping,
    identity: (u64, u64),
}

impl Shm {
    /// Wraps a `-shm` on which the caller holds the dead-man byte shared and which has its first
    /// region.
    pub(super) fn new(file: Arc<File>, path: &Path) -> Result<Shm> {
        let meta = file.metadata().map_err(|e| Error::at("stat", path, e))?;
        let head = Mapping::new(&file, 0, HEAD_LEN).map_err(|e| Error::at("map", path, e))?;
        let identity = (meta.dev(), meta.ino());
        Ok(Shm {
            file,
            path: path.to_owned(),
            head,
            identity,
        })
    }

    /// Three words that change with every commit and restart. Cheap enough for each sweep.
    pub fn pulse(&self) -> Pulse {
        Pulse {
            change: self.head.load(CHANGE_AT),
            max_frame: self.head.load(MAX_FRAME_AT),
            salt: self.head.load(SALT_AT),
        }
    }

    /// The header, when both copies agree and hold; `None` while a writer is between the two, or
    /// when the index needs recovery.
    pub fn header(&self) -> Option<IndexHeader> {
        let mut both = [0; 2 * INDEX_HEADER_LEN];
        let (first, second) = both.split_at_mut(INDEX_HEADER_LEN);
        self.head.copy_out(0, first);
        fence(Ordering::SeqCst);
        self.head.copy_out(SECOND_HEADER_AT, second);
        IndexHeader::parse_pair(&both)
    }

    /// The header, tried again for as long as a running writer takes to store it. Never sleeps:
    /// for the tail, which comes back soon anyway.
    pub fn header_soon(&self) -> Option<IndexHeader> {
        const TRIES: usize = 20;
        (0..TRIES).find_map(|_| {
            std::hint::spin_loop();
            self.header()
        })
    }

    /// The header, waited for as long as a writer may have been put to sleep between its copies on
    /// a busy machine; `None` after that: it died there.
    pub fn settled_header(&self) -> Option<IndexHeader> {
        const PATIENCE: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let header = self.header_soon();
            if header.is_some() || Instant::now() > deadline {
                return header;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The version of a header that is whole but not of SQLite's version: readers are refused, by
    /// us or by a SQLite to come. It is not damage and must not be recovered from.
    pub fn foreign_version(&self) -> Option<u32> {
        let mut both = [0; 2 * INDEX_HEADER_LEN];
        self.head.copy_out(0, &mut both);
        let (first, second) = both.split_at(INDEX_HEADER_LEN);
        let version = u32::from_ne_bytes([first[0], first[1], first[2], first[3]]);
        let sum = own_sum(first);
        let whole = first == second && first[40..44] == sum[0] && first[44..48] == sum[1];
        (whole && version != WAL_VERSION && version != 0).then_some(version)
    }

    /// Publishes a header. The caller holds WRITE.
    pub(super) fn publish(&self, header: &IndexHeader) {
        self.publish_bytes(&header.encode());
    }

    /// Publishes `header` under a version that SQLite does not know: every connection that looks
    /// answers CANTOPEN from now on. The caller holds WRITE.
    pub(super) fn publish_unreadable(&self, header: &IndexHeader) {
        let mut bytes = header.encode();
        bytes[..4].copy_from_slice(&(WAL_VERSION + 1).to_ne_bytes());
        let sum = own_sum(&bytes);
        bytes[40..44].copy_from_slice(&sum[0]);
        bytes[44..48].copy_from_slice(&sum[1]);
        self.publish_bytes(&bytes);
    }

    /// Whether it was this program that made the index unreadable.
    pub(super) fn is_unreadable_by_us(&self) -> bool {
        self.foreign_version() == Some(WAL_VERSION + 1)
    }

    /// Takes [`Shm::publish_unreadable`] back. The caller holds WRITE.
    pub(super) fn publish_readable(&self) {
        let mut bytes = [0; INDEX_HEADER_LEN];
        self.head.copy_out(0, &mut bytes);
        bytes[..4].copy_from_slice(&WAL_VERSION.to_ne_bytes());
        let sum = own_sum(&bytes);
        bytes[40..44].copy_from_slice(&sum[0]);
        bytes[44..48].copy_from_slice(&sum[1]);
        self.publish_bytes(&bytes);
    }

    fn publish_bytes(&self, bytes: &[u8; INDEX_HEADER_LEN]) {
        self.head.copy_in(SECOND_HEADER_AT, bytes);
        fence(Ordering::SeqCst);
        self.head.copy_in(0, bytes);
        fence(Ordering::SeqCst);
    }

    pub fn backfilled(&self) -> u32 {
        self.head.load(BACKFILL_AT)
    }

    pub(super) fn set_backfilled(&self, frame: u32) {
        self.head.store(BACKFILL_AT, frame);
    }

    pub(super) fn set_backfill_attempted(&self, frame: u32) {
        self.head.store(BACKFILL_ATTEMPTED_AT, frame);
    }

    pub fn read_mark(&self, slot: usize) -> u32 {
        assert!(slot < READ_MARKS, "five reader slots");
        self.head.load(READ_MARKS_AT + slot * 4)
    }

    /// Sets a mark. The caller holds the slot alone.
    pub(super) fn set_read_mark(&self, slot: usize, frame: u32) {
        assert!(slot < READ_MARKS, "five reader slots");
        self.head.store(READ_MARKS_AT + slot * 4, frame);
    }

    /// Whether the file has `region`.
    pub(super) fn has_region(&self, region: usize) -> Result<bool> {
        let need = (region as u64 + 1) * REGION_LEN as u64;
        let meta = self
            .file
            .metadata()
            .map_err(|e| Error::at("stat", &self.path, e))?;
        Ok(meta.len() >= need)
    }

    /// A private copy of a region that exists.
    pub(super) fn region(&self, region: usize) -> Result<Vec<u8>> {
        let mut copy = vec![0; REGION_LEN];
        self.map_region(region)?.copy_out(0, &mut copy);
        Ok(copy)
    }

    /// Stores what changed of a region but for the header, creating the region where it is missing.
    /// The caller holds WRITE.
    pub(super) fn store_region(&self, region: usize, bytes: &[u8]) -> Result<()> {
        assert_eq!(bytes.len(), REGION_LEN, "a whole region");
        extend(&self.file, &self.path, region)?;
        let from = if region == 0 {
            wal::sqlite::INDEX_PREFIX_LEN
        } else {
            0
        };
        self.map_region(region)?.copy_in(from, &bytes[from..]);
        Ok(())
    }

    fn map_region(&self, region: usize) -> Result<Mapping> {
        let offset = (region * REGION_LEN) as u64;
        let mapping = Mapping::new(&self.file, offset, REGION_LEN);
        mapping.map_err(|e| Error::at("map", &self.path, e))
    }

    /// Takes the writer's lock if it is free now.
    pub(super) fn try_write(&self) -> Result<Option<Held>> {
        self.try_held(byte(WRITE_LOCK))
    }

    /// Takes the checkpointer's lock if it is free now.
    pub(super) fn try_checkpoint(&self) -> Result<Option<Held>> {
        self.try_held(byte(CHECKPOINT_LOCK))
    }

    /// Takes reader slot `slot` alone if it is free now.
    pub(super) fn try_slot(&self, slot: usize) -> Result<Option<Held>> {
        self.try_held(byte(read_lock(slot)))
    }

    pub(super) fn try_held(&self, bytes: locks::Bytes) -> Result<Option<Held>> {
        Held::try_exclusive(&self.file, bytes).map_err(|e| Error::at("lock", &self.path, e))
    }

    /// Takes reader slots 1 to 4 alone, the one in `own` converted in place; false, with nothing
    /// changed, while anyone else is in one of them.
    pub(super) fn try_all_slots(&self) -> Result<bool> {
        let taken = locks::try_exclusive(&self.file, READ_LOCKS + 1..READ_LOCKS + 5);
        taken.map_err(|e| Error::at("lock", &self.path, e))
    }

    /// Goes back from [`Shm::try_all_slots`] to holding `own` shared.
    pub(super) fn keep_slot(&self, own: usize) -> Result<()> {
        let shared = locks::try_shared(&self.file, byte(read_lock(own)));
        let mut result = shared.map(|_| ());
        for slot in (1..READ_MARKS).filter(|slot| *slot != own) {
            result = result.and(locks::unlock(&self.file, byte(read_lock(slot))));
        }
        result.map_err(|e| Error::at("lock", &self.path, e))
    }

    /// Who else holds the lock byte `at`.
    pub(super) fn holder(&self, at: u64) -> Result<Option<locks::Holder>> {
        locks::holder(&self.file, byte(at)).map_err(|e| Error::at("look at", &self.path, e))
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn head(&self) -> &Mapping {
        &self.head
    }

    /// Device and inode.
    /// Where the change counter lies, for as long as this lives.
    pub(in crate::engine) fn change_address(&self) -> *const AtomicU32 {
        self.head().address(CHANGE_AT)
    }

    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }
}

/// The words that a sweep compares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Pulse {
    pub change: u32,
    pub max_frame: u32,
    pub salt: u32,
}

/// Makes the file long enough for `region`, each of its pages allocated, as SQLite does: a hole in
/// a full file system would raise SIGBUS at the first store.
pub(super) fn extend(file: &File, path: &Path, region: usize) -> Result<()> {
    let meta = file.metadata().map_err(|e| Error::at("stat", path, e))?;
    let need = (region as u64 + 1) * REGION_LEN as u64;
    let mut at = meta.len() / 4096 * 4096;
    while at < need && meta.len() < need {
        let write = file.write_all_at(&[0], at + 4095);
        write.map_err(|e| Error::at("extend", path, e))?;
        at += 4096;
    }
    Ok(())
}

/// The checksum that closes a copy of the header.
fn own_sum(copy: &[u8]) -> [[u8; 4]; 2] {
    let native = wal::sqlite::WordOrder::NATIVE;
    let sum = wal::sqlite::checksum(native, wal::sqlite::Checksum::default(), &copy[..40]);
    sum.0.map(u32::to_ne_bytes)
}
