//! A group: what one write of the commit thread puts on disk.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `FSJG` |
//! | 4 | 4 | bytes of frames |
//! | 8 | 8 | number of the segment |
//! | 16 | 8 | sequence: one more than the group before |
//! | 24 | 4 | how many frames |
//! | 28 | 4 | crc32 of the 28 bytes before and of the frames |
//! | 32 | | frames back to back, then zeros up to a multiple of 4 KiB |
//!
//! The segment's number is among the checked bytes, so what an earlier use of the file left is told
//! apart from what belongs; the length is, so padding is.

use memmap2::MmapMut;
use wal::frame::{Frame, frame_len};

use super::SegmentNumber;
use crate::error::{Error, Result};

/// Groups start and end on multiples of this; no smaller write is atomic or direct everywhere.
pub(crate) const BLOCK: usize = 4096;
/// Bytes in front of the frames.
pub const HEAD_LEN: usize = 32;
/// First bytes of every group.
pub const MAGIC: [u8; 4] = *b"FSJG";

/// The fields of a group's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHead {
    pub segment: SegmentNumber,
    pub sequence: u64,
    /// Bytes of frames.
    pub len: usize,
    pub frames: u32,
    crc: u32,
}

impl GroupHead {
    pub(crate) fn parse(bytes: &[u8]) -> Option<GroupHead> {
        let head = bytes.first_chunk::<HEAD_LEN>()?;
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        (head[..4] == MAGIC).then(|| GroupHead {
            len: u32_at(4) as usize,
            segment: SegmentNumber(u64_at(8)),
            sequence: u64_at(16),
            frames: u32_at(24),
            crc: u32_at(28),
        })
    }

    /// Bytes of the whole group on disk.
    pub fn disk_len(&self) -> usize {
        disk_len(self.len)
    }
}

/// Bytes on disk of a group with `len` bytes of frames.
pub(super) fn disk_len(len: usize) -> usize {
    (HEAD_LEN + len).next_multiple_of(BLOCK)
}

/// The group at the beginning of `bytes`, when it is whole and valid.
pub(crate) fn read_group(bytes: &[u8]) -> Option<(GroupHead, Vec<Frame>)> {
    let head = GroupHead::parse(bytes)?;
    let frames = bytes.get(HEAD_LEN..HEAD_LEN.checked_add(head.len)?)?;
    if crc_of(&bytes[..HEAD_LEN - 4], frames) != head.crc {
        return None;
    }
    let mut found = Vec::with_capacity(head.frames.min(1 << 16) as usize);
    let mut at = 0;
    while at < frames.len() {
        let len = frame_len(&frames[at..]).ok()??;
        found.push(Frame::parse(frames.get(at..at + len)?).ok()?);
        at += len;
    }
    (found.len() == head.frames as usize).then_some((head, found))
}

/// A page-aligned buffer in which a group is put together; `O_DIRECT` wants the alignment.
pub(super) struct GroupBuffer {
    bytes: MmapMut,
    len: usize,
    frames: u32,
}

impl GroupBuffer {
    pub(super) fn new(capacity: usize) -> Result<GroupBuffer> {
        let bytes = MmapMut::map_anon(disk_len(capacity))
            .map_err(|e| Error::system("allocate", "a commit buffer", e))?;
        Ok(GroupBuffer {
            bytes,
            len: 0,
            frames: 0,
        })
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.frames = 0;
    }

    /// Bytes of frames so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a frame; the buffer grows for one that does not fit.
    pub(super) fn push(&mut self, frame: &Frame) -> Result<()> {
        let at = HEAD_LEN + self.len;
        if at + frame.len() > self.bytes.len() {
            let mut larger = GroupBuffer::new(self.len + frame.len())?;
            larger.bytes[..at].copy_from_slice(&self.bytes[..at]);
            (larger.len, larger.frames) = (self.len, self.frames);
            *self = larger;
        }
        self.bytes[at..at + frame.len()].copy_from_slice(frame.bytes());
        self.len += frame.len();
        self.frames += 1;
        Ok(())
    }

    /// Writes the head and the padding, and returns what goes to disk.
    pub(super) fn finish(&mut self, segment: SegmentNumber, sequence: u64) -> &[u8] {
        let (end, disk) = (HEAD_LEN + self.len, disk_len(self.len));
        self.bytes[end..disk].fill(0);
        let (head, frames) = self.bytes[..end].split_at_mut(HEAD_LEN);
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&(self.len as u32).to_le_bytes());
        head[8..16].copy_from_slice(&segment.0.to_le_bytes());
        head[16..24].copy_from_slice(&sequence.to_le_bytes());
        head[24..28].copy_from_slice(&self.frames.to_le_bytes());
        let crc = crc_of(&head[..HEAD_LEN - 4], frames);
        head[28..32].copy_from_slice(&crc.to_le_bytes());
        &self.bytes[..disk]
    }
}

fn crc_of(head: &[u8], frames: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(frames);
    hasher.finalize()
}
