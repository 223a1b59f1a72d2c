//! Bytes received, cut into records and frames.
//!
//! A frame of which much is missing is received into its own memory; everything else goes through a
//! buffer. Nothing is allocated for a record before its length is within bounds and, for an
//! unsqueezed one, the header of its frame agrees with that length.

use wal::compress::{RecordHead, Unsqueezer};
use wal::frame::{Draft, Frame, HEADER_LEN, frame_len};

use super::outbox::{BATCH_LEN, SQUEEZE_LEN};
use crate::buffer::{Buffer, Pool, RECEIVE_LEN};
use crate::error::{Error, Kind, Result};

/// What to receive into while more arrives than `RECEIVE_LEN` at a time.
const RECEIVE_LEN_BUSY: usize = 256 << 10;
/// Of a frame of which so much is missing, the rest is received where it stays: copying it out of a
/// buffer would cost more than the receive of its own.
const DIRECT_LEN: usize = 32 << 10;
/// Longest squeezed record: a batch that zstd could not shrink, and its block headers.
const SQUEEZED_LEN_MAX: usize = BATCH_LEN + BATCH_LEN / 128 + 512;

/// Where the next receive goes.
#[derive(Debug)]
pub enum Room {
    /// Behind the first `filled` bytes, which belong to an unfinished record.
    Buffer { buffer: Buffer, filled: usize },
    /// What is missing of a frame, and nothing less.
    Rest(Draft),
}

/// The receiving side of a link, without its socket.
#[derive(Debug, Default)]
pub struct Inbox {
    unsqueezer: Unsqueezer,
    plain: Vec<u8>,
    kept: Option<Buffer>,
    filled: usize,
    /// Bytes that the unfinished record takes, once its head says so.
    need: Option<usize>,
    /// The unfinished record is a frame of which much is missing.
    draft: Option<Draft>,
    /// The last receive filled its whole buffer.
    busy: bool,
}

impl Inbox {
    /// Where to receive next. The room must come back through [`Inbox::received`] or
    /// [`Inbox::received_rest`].
    pub fn room(&mut self, pool: &mut Pool) -> Room {
        if let Some(draft) = self.draft.take() {
            return Room::Rest(draft);
        }
        let wanted = if self.busy {
            RECEIVE_LEN_BUSY
        } else {
            RECEIVE_LEN
        };
        let wanted = wanted.max(self.need.unwrap_or(0));
        let buffer = match self.kept.take() {
            None => pool.take(wanted),
            Some(kept) if self.filled > 0 && kept.len() >= wanted => kept,
            Some(kept) if self.filled == 0 && kept.len() == wanted => kept,
            Some(kept) => {
                let mut other = pool.take(wanted);
                other[..self.filled].copy_from_slice(&kept[..self.filled]);
                pool.give(kept);
                other
            }
        };
        Room::Buffer {
            buffer,
            filled: self.filled,
        }
    }

    /// Takes the room back with `count` more bytes in it, and adds their frames to `frames`.
    pub fn received(
        &mut self,
        mut buffer: Buffer,
        count: usize,
        pool: &mut Pool,
        frames: &mut Vec<Frame>,
    ) -> Result<()> {
        let end = self.filled + count;
        self.busy = end == buffer.len() && self.need.is_none_or(|need| need < end);
        let cut = self.cut(&buffer[..end], frames);
        let used = match cut.and_then(|used| self.begin_draft(&buffer[..end], used)) {
            Ok(used) => used,
            Err(error) => {
                pool.give(buffer);
                return Err(error);
            }
        };
        buffer.copy_within(used..end, 0);
        self.filled = end - used;
        if self.filled == 0 && buffer.len() > RECEIVE_LEN_BUSY {
            pool.give(buffer);
        } else {
            self.kept = Some(buffer);
        }
        Ok(())
    }

    /// Takes a frame back of which `count` more bytes are there, and adds it to `frames` when
    /// whole.
    pub fn received_rest(
        &mut self,
        mut draft: Draft,
        count: usize,
        frames: &mut Vec<Frame>,
    ) -> Result<()> {
        draft.advance(count);
        match draft.is_whole() {
            true => frames.push(draft.finish()?),
            false => self.draft = Some(draft),
        }
        Ok(())
    }

    /// Whether the bytes so far end with a whole record.
    pub fn is_between_records(&self) -> bool {
        self.filled == 0 && self.draft.is_none()
    }

    /// Gives the buffer back when the link is over.
    pub fn release(&mut self, pool: &mut Pool) {
        if let Some(buffer) = self.kept.take() {
            pool.give(buffer);
        }
    }

    /// Takes whole records from the front of `bytes`; returns how many bytes they were.
    fn cut(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            self.need = None;
            let Some(head) = rest.first_chunk() else {
                return Ok(used);
            };
            let head = RecordHead::parse(*head)?;
            let record = &rest[RecordHead::LEN..];
            let len = head.len as usize;
            if head.squeezed {
                if len > SQUEEZED_LEN_MAX {
                    return Err(corrupt(format!("a squeezed record of {len} bytes")));
                }
            } else if let Some(framed) = frame_len(record)?
                && framed != len
            {
                return Err(corrupt(format!(
                    "a record of {len} bytes with a frame of {framed}"
                )));
            } else if len < HEADER_LEN {
                return Err(corrupt(format!(
                    "a record of {len} bytes, shorter than a frame"
                )));
            }
            let Some(record) = record.get(..len) else {
                let header_seen = head.squeezed || record.len() >= HEADER_LEN;
                self.need = header_seen.then_some(RecordHead::LEN + len);
                return Ok(used);
            };
            match head.squeezed {
                true => self.unsqueeze(record, frames)?,
                false => frames.push(Frame::parse(record)?),
            }
            used += RecordHead::LEN + len;
        }
    }

    /// Moves an unfinished frame at the end of `bytes`, behind `used`, out of the buffer if much
    /// of it is missing; returns how many bytes are used then.
    fn begin_draft(&mut self, bytes: &[u8], used: usize) -> Result<usize> {
        let rest = &bytes[used..];
        let missing = self.need.map_or(0, |need| need - rest.len());
        if missing < DIRECT_LEN || is_squeezed(rest) {
            return Ok(used);
        }
        self.draft = Some(Draft::new(&rest[RecordHead::LEN..])?);
        self.need = None;
        Ok(bytes.len())
    }

    fn unsqueeze(&mut self, record: &[u8], frames: &mut Vec<Frame>) -> Result<()> {
        self.plain.clear();
        self.unsqueezer
            .unsqueeze(record, BATCH_LEN, &mut self.plain)?;
        let mut rest = self.plain.as_slice();
        while !rest.is_empty() {
            let len = frame_len(rest)?.filter(|len| *len < SQUEEZE_LEN && *len <= rest.len());
            let len = len.ok_or_else(|| corrupt("a squeezed frame that is cut".to_owned()))?;
            let (frame, after) = rest.split_at(len);
            frames.push(Frame::parse(frame)?);
            rest = after;
        }
        Ok(())
    }
}

fn is_squeezed(record: &[u8]) -> bool {
    let head = record.first_chunk().copied().map(RecordHead::parse);
    matches!(head, Some(Ok(RecordHead { squeezed: true, .. })))
}

fn corrupt(reason: String) -> Error {
    Error::new(Kind::Corrupt, "receive from", "the peer", reason)
}
