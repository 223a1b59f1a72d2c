//! A shadow's own -wal in SQLite's format, written by us alone.
//!
//! Frames are appended without a sync; the owner syncs where its protocol says so. The file is kept
//! long: after a restart new frames overwrite old ones, whose salts no longer match, so a sync of a
//! full stretch changes no size.
//!
//! Invariants: a [`Tail`] becomes visible only by [`WalFile::commit`], whose last frame carries the
//! commit flag; what a dropped tail wrote is overwritten by the next one; the map names the newest
//! committed frame of each page.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal::sqlite::{
    Checksum, Salts, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WalFrameHeader, WalHeader, WordOrder,
    frame_offset,
};

use crate::durable::{self, Attributes};
use crate::error::{Kind, Result};

/// Bytes that a tail gathers before it writes.
const WRITE_BYTES: usize = 256 << 10;

/// Less room than this behind the last frame, and the file grows.
const ROOM_MIN: u64 = 64 << 10;
/// By how much it grows: a quarter of what it holds, within these bounds.
const GROW_MAX: u64 = 1 << 20;

/// The log of one shadow.
#[derive(Debug)]
pub(super) struct WalFile {
    path: PathBuf,
    file: Arc<File>,
    header: WalHeader,
    /// End of the checksum chain.
    chain: Checksum,
    /// Committed frames.
    frames: u32,
    /// Bytes of the file that are known to be written.
    room: u64,
    map: HashMap<u32, u32>,
    /// Pages of the database at the last commit; 0 before the first.
    pages: u32,
}

impl WalFile {
    /// An empty log in a new file.
    pub(super) fn create(path: &Path, page_size: u32, attributes: &Attributes) -> Result<WalFile> {
        let file = durable::create_new(path, attributes)?;
        WalFile::started(path, file, page_size, Salts([random(), random()]))
    }

    /// An empty log in an existing file; what it holds is forgotten.
    pub(super) fn discard(path: &Path, page_size: u32) -> Result<WalFile> {
        let file = durable::open_rw(path)?;
        let mut head = [0; WAL_HEADER_LEN];
        durable::read_at(&file, path, &mut head, 0)?;
        // Salts must differ from any that the file holds: count on from them, as SQLite does.
        let old = WalHeader::parse(&head).map_or(Salts([random(), 0]), |header| header.salts);
        WalFile::started(path, file, page_size, old.restarted(random()))
    }

    /// The committed frames that `path` holds, verified; at most `frames_max` of them. Writes
    /// nothing: a log without a valid header has no frames, and must be restarted before use.
    pub(super) fn recover(path: &Path, page_size: u32, frames_max: u32) -> Result<WalFile> {
        let file = durable::open_rw(path)?;
        let room = length(&file, path)?;
        let mut head = [0; WAL_HEADER_LEN];
        durable::read_at(&file, path, &mut head, 0)?;
        let found = WalHeader::parse(&head).ok();
        let found = found.filter(|header| header.page_size == page_size);
        let salts = Salts([random(), random()]);
        let header = found.unwrap_or(WalHeader::new(WordOrder::NATIVE, page_size, 0, salts));
        let mut log = WalFile {
            path: path.to_owned(),
            file: Arc::new(file),
            header,
            chain: header.checksum,
            frames: 0,
            room,
            map: HashMap::new(),
            pages: 0,
        };
        if found.is_some() {
            log.scan(frames_max)?;
        }
        Ok(log)
    }

    fn started(path: &Path, file: File, page_size: u32, salts: Salts) -> Result<WalFile> {
        let header = WalHeader::new(WordOrder::NATIVE, page_size, 0, salts);
        durable::write_at(&file, path, &header.encode(), 0)?;
        let room = length(&file, path)?;
        Ok(WalFile {
            path: path.to_owned(),
            file: Arc::new(file),
            header,
            chain: header.checksum,
            frames: 0,
            room,
            map: HashMap::new(),
            pages: 0,
        })
    }

    /// Empties the log: new salts, the same file.
    pub(super) fn restart(&mut self) -> Result<()> {
        let sequence = self.header.checkpoint_sequence.wrapping_add(1);
        let salts = self.header.salts.restarted(random());
        let header = WalHeader::new(self.header.order, self.header.page_size, sequence, salts);
        durable::write_at(&self.file, &self.path, &header.encode(), 0)?;
        self.header = header;
        self.chain = header.checksum;
        self.frames = 0;
        self.pages = 0;
        self.map.clear();
        Ok(())
    }

    pub(super) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    pub(super) fn salts(&self) -> Salts {
        self.header.salts
    }

    /// Bytes that committed frames take.
    pub(super) fn bytes(&self) -> u64 {
        frame_offset(self.frames + 1, self.header.page_size)
    }

    /// The newest frame of each page.
    pub(super) fn map(&self) -> &HashMap<u32, u32> {
        &self.map
    }

    /// Reads `page` as of the last commit; `false` when the log does not hold it.
    pub(super) fn read(&self, page: u32, into: &mut [u8]) -> Result<bool> {
        match self.map.get(&page) {
            Some(frame) => self.read_frame(*frame, into).map(|()| true),
            None => Ok(false),
        }
    }

    /// Reads the image in frame number `frame`.
    pub(super) fn read_frame(&self, frame: u32, into: &mut [u8]) -> Result<()> {
        let at = image_at(frame, self.header.page_size);
        durable::read_at(&self.file, &self.path, into, at).map(|_| ())
    }

    /// Forgets that pages are here which `copied` says are in the database file.
    pub(super) fn forget(&mut self, mut copied: impl FnMut(u32, u32) -> bool) {
        self.map.retain(|page, frame| !copied(*page, *frame));
    }

    /// Writes zeros so that the next `bytes` of frames change neither size nor extents.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<()> {
        let wanted = self.bytes() + bytes;
        if wanted > self.room {
            durable::fill_zeros(&self.file, &self.path, self.room, wanted)?;
            self.room = wanted;
        }
        Ok(())
    }

    /// Lets a file that is in use grow by steps: each change of its size is more to write than the
    /// frame. A disk without room for a step may have some for a frame.
    pub(super) fn grow(&mut self) -> Result<()> {
        let held = self.bytes();
        if held <= ROOM_MIN || held + ROOM_MIN <= self.room {
            return Ok(());
        }
        match self.make_room(ROOM_MIN + (held / 4).clamp(ROOM_MIN, GROW_MAX)) {
            Err(error) if error.kind() != Kind::Full => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn sync(&self) -> Result<()> {
        durable::sync_data(&self.file, &self.path)
    }

    /// Begins a transaction behind the last commit.
    pub(super) fn begin(&self) -> Tail {
        Tail {
            path: self.path.clone(),
            file: self.file.clone(),
            header: self.header,
            chain: self.chain,
            frames: self.frames,
            written: self.frames,
            buffer: Vec::new(),
            last: None,
            pages: Vec::new(),
        }
    }

    /// Makes a transaction visible. `page_count` is the size of the database after it. A tail
    /// without frames commits nothing.
    pub(super) fn commit(&mut self, mut tail: Tail, page_count: u32) -> Result<()> {
        tail.put_last(page_count);
        tail.flush()?;
        self.chain = tail.chain;
        self.frames = tail.frames;
        self.room = self.room.max(self.bytes());
        self.map.extend(tail.pages);
        if page_count < self.pages {
            self.map.retain(|page, _| *page <= page_count);
        }
        self.pages = page_count;
        Ok(())
    }

    /// Restarts the log and keeps the frames after the first `dropped`.
    pub(super) fn restart_after(&mut self, dropped: u32) -> Result<()> {
        let (old, newest) = (self.header, self.frames);
        // A frame moves to a lower offset, and is read before anything is written over it.
        let frame_len = WAL_FRAME_HEADER_LEN + old.page_size as usize;
        let mut moved = vec![0; frame_len * (newest - dropped) as usize];
        let at = frame_offset(dropped + 1, old.page_size);
        durable::read_at(&self.file, &self.path, &mut moved, at)?;
        self.restart()?;
        let mut tail = self.begin();
        for frame in moved.chunks_exact(frame_len) {
            let head = WalFrameHeader::parse(frame)?;
            tail.push(head.page, &frame[WAL_FRAME_HEADER_LEN..])?;
            if head.is_commit() {
                self.commit(tail, head.commit_pages)?;
                tail = self.begin();
            }
        }
        Ok(())
    }

    /// Follows the chain from the first frame to the last commit.
    fn scan(&mut self, frames_max: u32) -> Result<()> {
        let size = self.header.page_size;
        let mut bytes = vec![0; WAL_FRAME_HEADER_LEN + size as usize];
        let mut chain = self.chain;
        let mut pages = Vec::new();
        for frame in 1..=frames_max {
            let at = frame_offset(frame, size);
            if durable::read_at(&self.file, &self.path, &mut bytes, at)? < bytes.len() {
                break;
            }
            let (head, image) = (
                WalFrameHeader::parse(&bytes)?,
                &bytes[WAL_FRAME_HEADER_LEN..],
            );
            if !head.holds(&self.header, chain, image) {
                break;
            }
            chain = head.checksum;
            pages.push((head.page, frame));
            if head.is_commit() {
                self.chain = chain;
                self.frames = frame;
                self.map.extend(pages.drain(..));
                self.pages = head.commit_pages;
                self.map.retain(|page, _| *page <= head.commit_pages);
            }
        }
        Ok(())
    }

    /// Pages of the database at the last commit; `None` when there is none.
    pub(super) fn page_count(&self) -> Option<u32> {
        (self.pages > 0).then_some(self.pages)
    }
}

/// A transaction being written; nothing of it counts until [`WalFile::commit`].
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: Arc<File>,
    header: WalHeader,
    chain: Checksum,
    frames: u32,
    /// Frames before the buffer's first.
    written: u32,
    buffer: Vec<u8>,
    /// Held back because the last frame of a transaction says so in its header.
    last: Option<(u32, Vec<u8>)>,
    pages: Vec<(u32, u32)>,
}

impl Tail {
    pub(super) fn push(&mut self, page: u32, image: &[u8]) -> Result<()> {
        let mut held = match self.last.is_some() {
            true => self.put_last(0),
            false => Vec::with_capacity(image.len()),
        };
        held.clear();
        held.extend_from_slice(image);
        self.last = Some((page, held));
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Encodes the frame held back; returns its buffer for reuse.
    fn put_last(&mut self, commit_pages: u32) -> Vec<u8> {
        let Some((page, image)) = self.last.take() else {
            return Vec::new();
        };
        let head = WalFrameHeader::new(&self.header, self.chain, page, commit_pages, &image);
        self.buffer.extend_from_slice(&head.encode());
        self.buffer.extend_from_slice(&image);
        self.chain = head.checksum;
        self.frames += 1;
        self.pages.push((page, self.frames));
        image
    }

    fn flush(&mut self) -> Result<()> {
        let at = frame_offset(self.written + 1, self.header.page_size);
        durable::write_at(&self.file, &self.path, &self.buffer, at)?;
        self.written = self.frames;
        self.buffer.clear();
        Ok(())
    }
}

/// Where the page in frame number `frame` begins.
pub(super) fn image_at(frame: u32, page_size: u32) -> u64 {
    frame_offset(frame, page_size) + WAL_FRAME_HEADER_LEN as u64
}

fn length(file: &File, path: &Path) -> Result<u64> {
    Ok(file
        .metadata()
        .map_err(|e| crate::error::Error::at("stat", path, e))?
        .len())
}

/// A salt. It need not be secret, only unlike the last ones.
fn random() -> u32 {
    std::hash::RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u32 = 512;

    fn log(dir: &tempfile::TempDir) -> WalFile {
        let path = dir.path().join("a.db-wal");
        WalFile::create(&path, SIZE, &Attributes::own(0o600)).expect("create")
    }

    fn put(log: &mut WalFile, pages: &[(u32, u8)], page_count: u32) {
        let mut tail = log.begin();
        for (page, fill) in pages {
            tail.push(*page, &[*fill; SIZE as usize]).expect("push");
        }
        log.commit(tail, page_count).expect("commit");
    }

    fn get(log: &WalFile, page: u32) -> Option<u8> {
        let mut image = [0; SIZE as usize];
        log.read(page, &mut image)
            .expect("read")
            .then_some(image[7])
    }

    #[test]
    fn committed_frames_are_found_again_and_dropped_ones_are_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = log(&dir);
        put(&mut log, &[(1, 1), (2, 2)], 2);
        let mut lost = log.begin();
        lost.push(1, &[99; SIZE as usize]).expect("push");
        drop(lost);
        put(&mut log, &[(2, 3)], 2);
        let again = WalFile::recover(log.path(), SIZE, u32::MAX).expect("recover");
        assert_eq!(
            (again.frames(), get(&again, 1), get(&again, 2)),
            (3, Some(1), Some(3))
        );
        assert_eq!(again.page_count(), Some(2));
    }

    #[test]
    fn a_restart_hides_old_frames_though_the_file_keeps_its_length() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = log(&dir);
        put(&mut log, &[(1, 1), (2, 2), (3, 3)], 3);
        log.restart().expect("restart");
        put(&mut log, &[(1, 9)], 3);
        let again = WalFile::recover(log.path(), SIZE, u32::MAX).expect("recover");
        assert_eq!(
            (again.frames(), get(&again, 1), get(&again, 2)),
            (1, Some(9), None)
        );
    }

    #[test]
    fn a_torn_commit_is_no_commit() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = log(&dir);
        put(&mut log, &[(1, 1)], 1);
        let kept = log.bytes();
        put(&mut log, &[(1, 2), (2, 2)], 2);
        let whole = std::fs::read(log.path()).expect("read");
        for cut in (kept..log.bytes()).step_by(61) {
            let mut torn = whole.clone();
            torn[cut as usize..].fill(0);
            std::fs::write(log.path(), &torn).expect("tear");
            let again = WalFile::recover(log.path(), SIZE, u32::MAX).expect("recover");
            assert_eq!(
                (again.frames(), get(&again, 1)),
                (1, Some(1)),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn newer_frames_survive_a_restart_behind_a_checkpoint() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = log(&dir);
        put(&mut log, &[(1, 1), (2, 1)], 2);
        put(&mut log, &[(2, 2), (3, 2)], 3);
        put(&mut log, &[(1, 3)], 3);
        log.restart_after(2).expect("restart");
        let again = WalFile::recover(log.path(), SIZE, u32::MAX).expect("recover");
        for log in [&log, &again] {
            assert_eq!(log.frames(), 3);
            assert_eq!(
                (get(log, 1), get(log, 2), get(log, 3)),
                (Some(3), Some(2), Some(2))
            );
        }
    }

    #[test]
    fn a_page_cut_off_by_a_commit_is_not_found() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = log(&dir);
        put(&mut log, &[(1, 1), (5, 5)], 5);
        put(&mut log, &[(1, 2)], 3);
        assert_eq!(get(&log, 5), None);
        let again = WalFile::recover(log.path(), SIZE, u32::MAX).expect("recover");
        assert_eq!(get(&again, 5), None);
    }
}
