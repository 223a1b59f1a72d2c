//! A frame whose bytes are still arriving, in the memory that the frame will have.
//!
//! A large payload is then received once, where it stays, instead of being copied out of a buffer.

use rkyv::util::AlignedVec;

use super::{Frame, HEADER_LEN, Header};
use crate::error::Error;

/// A frame of known length that is not whole yet.
pub struct Draft {
    bytes: AlignedVec<16>,
    filled: usize,
}

impl Draft {
    /// Begins a frame with its header and what is there of the rest. The header's fields are
    /// checked; `start` must not be longer than the frame.
    pub fn new(start: &[u8]) -> Result<Draft, Error> {
        let len = HEADER_LEN + Header::read(start)?.wire_len as usize;
        if start.len() > len {
            let declared = start.len() as u64;
            let max = len as u64;
            return Err(Error::TooLong {
                what: super::WHAT,
                declared,
                max,
            });
        }
        let mut bytes = AlignedVec::with_capacity(len);
        bytes.extend_from_slice(start);
        bytes.resize(len, 0);
        Ok(Draft {
            bytes,
            filled: start.len(),
        })
    }

    /// Where the bytes that are missing belong.
    pub fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Bytes of the rest.
    pub fn missing(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// The first `count` bytes of the rest are there.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.missing(), "more than was missing");
        self.filled += count;
    }

    pub fn is_whole(&self) -> bool {
        self.missing() == 0
    }

    /// The frame, if its checksum holds.
    pub fn finish(self) -> Result<Frame, Error> {
        let header = Header::read(&self.bytes)?;
        if !self.is_whole() {
            return Err(Error::Short {
                what: super::WHAT,
                have: self.filled,
                need: self.bytes.len(),
            });
        }
        Frame::checked(header, self.bytes)
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draft({} of {} bytes)", self.filled, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::FrameKind;
    use super::*;
    use crate::ids::PartitionId;
    use crate::lsn::Epoch;

    fn frame() -> Frame {
        let header = Header::plain(FrameKind::Note, PartitionId(7), Epoch(1));
        Frame::seal(header, &[5; 1000])
    }

    #[test]
    fn a_draft_becomes_its_frame_wherever_it_was_cut() {
        let whole = frame();
        for cut in [HEADER_LEN, HEADER_LEN + 1, 500, whole.len()] {
            let (start, rest) = whole.bytes().split_at(cut);
            let mut draft = Draft::new(start).unwrap();
            draft.rest().copy_from_slice(rest);
            assert_eq!(draft.is_whole(), rest.is_empty());
            draft.advance(rest.len());
            let frame = draft.finish().unwrap();
            assert!(frame == whole && (frame.payload().as_ptr() as usize).is_multiple_of(16));
        }
    }

    #[test]
    fn a_draft_that_is_short_damaged_or_too_long_is_no_frame() {
        let whole = frame();
        let short = Draft::new(&whole.bytes()[..500]).unwrap().finish();
        assert!(matches!(short, Err(Error::Short { have: 500, .. })));
        let mut damaged = whole.bytes().to_vec();
        damaged[700] ^= 1;
        let damaged = Draft::new(&damaged).unwrap().finish();
        assert!(matches!(damaged, Err(Error::Checksum { .. })));
        let long = Draft::new(&[whole.bytes(), &[0]].concat());
        assert!(matches!(long, Err(Error::TooLong { .. })));
        assert!(Draft::new(&whole.bytes()[..10]).is_err());
    }
}
