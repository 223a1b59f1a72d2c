//! The frame: a 64-byte little-endian header and a payload, the unit of all that moves or rests.
//!
//! One format serves the link, the journal, the delta log and the archive, so bytes received are
//! bytes stored. Byte table and reading order: `wal/README.md`.
//!
//! Invariants: a [`Frame`] that exists has been checked (lengths, checksum, every header field);
//! its payload begins at a multiple of 16, so rkyv can read it in place; cloning shares the bytes.

mod draft;

use std::fmt;
use std::sync::Arc;

use crc32fast::Hasher;
use rkyv::util::AlignedVec;

use crate::error::Error;
use crate::ids::PartitionId;
use crate::lsn::{Epoch, Lsn};
pub use draft::Draft;

/// Bytes of the header that precedes every payload.
pub const HEADER_LEN: usize = 64;
/// Longest payload accepted. Bounds what one peer can make another hold before its checksum.
pub const WIRE_LEN_MAX: u32 = 16 << 20;
/// Most bytes that one frame may expand to. Work, not memory: deltas expand group by group.
pub const PLAIN_LEN_MAX: u32 = 1 << 30;
/// The version of the header and of every payload layout.
pub const VERSION: u8 = 1;
/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"FSHW";

const WHAT: &str = "frame";
/// Where the checksum lies; it covers everything before and after itself.
const CRC_AT: usize = 60;
/// Bytes kept for later versions; zero in this one.
const RESERVED: std::ops::Range<usize> = 50..CRC_AT;

/// A checked header with its payload, shared by all its holders.
#[derive(Clone)]
pub struct Frame {
    bytes: Arc<AlignedVec<16>>,
    header: Header,
}

impl Frame {
    /// Makes a frame of `payload`. Fills in the lengths on the wire and the checksum, and for
    /// [`Codec::Plain`] the plain length too.
    ///
    /// # Panics
    /// When `payload` is longer than [`WIRE_LEN_MAX`]: the caller bounds what it sends.
    pub fn seal(header: Header, payload: &[u8]) -> Frame {
        let mut bytes = Frame::begin(payload.len());
        bytes.extend_from_slice(payload);
        Frame::finish(header, bytes).expect("a payload is at most WIRE_LEN_MAX bytes")
    }

    /// A buffer with room for the header, to append a payload to and [`Frame::finish`].
    pub(crate) fn begin(payload_len: usize) -> AlignedVec<16> {
        let mut bytes = AlignedVec::with_capacity(HEADER_LEN + payload_len);
        bytes.extend_from_slice(&[0; HEADER_LEN]);
        bytes
    }

    /// Writes the header in front of the payload that was appended to `bytes`.
    pub(crate) fn finish(mut header: Header, mut bytes: AlignedVec<16>) -> Result<Frame, Error> {
        let wire_len = bytes.len() - HEADER_LEN;
        header.wire_len = match u32::try_from(wire_len) {
            Ok(len) if len <= WIRE_LEN_MAX => len,
            _ => return Err(too_long(wire_len as u64, WIRE_LEN_MAX)),
        };
        if header.codec == Codec::Plain {
            header.plain_len = header.wire_len;
        }
        header.write(&mut bytes[..HEADER_LEN]);
        header.crc = crc_of(&bytes);
        bytes[CRC_AT..HEADER_LEN].copy_from_slice(&header.crc.to_le_bytes());
        Ok(Frame {
            bytes: Arc::new(bytes),
            header,
        })
    }

    /// Reads exactly one frame: `bytes` ends where the frame ends.
    pub fn parse(bytes: &[u8]) -> Result<Frame, Error> {
        let header = Header::read(bytes)?;
        let need = HEADER_LEN + header.wire_len as usize;
        if bytes.len() < need {
            return Err(Error::Short {
                what: WHAT,
                have: bytes.len(),
                need,
            });
        }
        if bytes.len() > need {
            let declared = bytes.len() as u64;
            return Err(Error::TooLong {
                what: WHAT,
                declared,
                max: need as u64,
            });
        }
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        Frame::checked(header, aligned)
    }

    /// A frame of exactly these bytes, if the checksum holds.
    fn checked(header: Header, bytes: AlignedVec<16>) -> Result<Frame, Error> {
        if crc_of(&bytes) != header.crc {
            return Err(Error::Checksum { what: WHAT });
        }
        Ok(Frame {
            bytes: Arc::new(bytes),
            header,
        })
    }

    pub fn header(&self) -> Header {
        self.header
    }

    /// The bytes after the header, at a 16-aligned address.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Header and payload, as they travel and rest.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of header and payload together; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Refuses a frame of another kind than `kind`.
    pub fn expect(&self, kind: FrameKind) -> Result<(), Error> {
        if self.header.kind == kind {
            Ok(())
        } else {
            Err(field("kind", self.header.kind as u64))
        }
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Frame) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Frame {}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Frame").field(&self.header).finish()
    }
}

/// How long the frame is that begins with `header_bytes`; `None` until [`HEADER_LEN`] bytes are
/// there. Only lengths and fields are checked: the checksum needs the whole frame.
pub fn frame_len(header_bytes: &[u8]) -> Result<Option<usize>, Error> {
    if header_bytes.len() < HEADER_LEN {
        return Ok(None);
    }
    Header::read(header_bytes).map(|header| Some(HEADER_LEN + header.wire_len as usize))
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// What peers say to one another.
    Message = 1,
    /// What changed between two positions.
    Delta = 2,
    /// Whole pages, for a first copy or a repair.
    Pages = 3,
    /// An entry that its writer alone reads: journal and archive notes.
    Note = 4,
}

/// How the payload's blob is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Codec {
    Plain = 0,
    /// zstd, nothing needed but the bytes themselves.
    Zstd = 1,
    /// zstd with the previous images as prefix: both ends must hold them.
    Prefix = 2,
}

/// Bits that say what a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(pub u16);

impl Flags {
    pub const NONE: Flags = Flags(0);
    /// The last delta of a switchover: the source writes nothing after it.
    pub const FINAL: Flags = Flags(1);
    /// The last pages of a fill: page count and digest are those of the whole copy.
    pub const LAST: Flags = Flags(1 << 1);
    /// The delta was found by comparing page hashes, not by reading the log.
    pub const RESCAN: Flags = Flags(1 << 2);

    /// Flags that this version knows; others are refused.
    const KNOWN: u16 = 0b111;

    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 == flag.0
    }

    #[must_use]
    pub fn with(self, flag: Flags) -> Flags {
        Flags(self.0 | flag.0)
    }
}

/// The fields of the 64-byte header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    pub kind: FrameKind,
    pub flags: Flags,
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub from: Lsn,
    pub to: Lsn,
    /// Bytes that the blob expands to.
    pub plain_len: u32,
    /// Bytes of the payload as they travel.
    pub wire_len: u32,
    pub codec: Codec,
    /// The zstd level, for people who read dumps.
    pub level: i8,
    /// crc32 (IEEE) of the 60 header bytes before it and of the payload.
    pub crc: u32,
}

impl Header {
    /// A header for a payload that is neither compressed nor part of a change log.
    pub fn plain(kind: FrameKind, partition: PartitionId, epoch: Epoch) -> Header {
        Header {
            kind,
            flags: Flags::NONE,
            partition,
            epoch,
            from: Lsn(0),
            to: Lsn(0),
            plain_len: 0,
            wire_len: 0,
            codec: Codec::Plain,
            level: 0,
            crc: 0,
        }
    }

    fn write(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[6..8].copy_from_slice(&self.flags.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.partition.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.from.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.to.0.to_le_bytes());
        out[40..44].copy_from_slice(&self.plain_len.to_le_bytes());
        out[44..48].copy_from_slice(&self.wire_len.to_le_bytes());
        out[48] = self.codec as u8;
        out[49] = self.level.to_le_bytes()[0];
        out[RESERVED].fill(0);
        out[CRC_AT..HEADER_LEN].copy_from_slice(&self.crc.to_le_bytes());
    }

    /// Reads and bounds every field; the checksum is the caller's to verify.
    fn read(bytes: &[u8]) -> Result<Header, Error> {
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Error::Short {
                what: WHAT,
                have: bytes.len(),
                need: HEADER_LEN,
            });
        };
        if head[..4] != MAGIC {
            return Err(Error::Magic { what: WHAT });
        }
        if head[4] != VERSION {
            let (found, known) = (u32::from(head[4]), u32::from(VERSION));
            return Err(Error::Version {
                what: WHAT,
                found,
                known,
            });
        }
        let header = Header {
            kind: kind_of(head[5])?,
            flags: Flags(u16::from_le_bytes([head[6], head[7]])),
            partition: PartitionId(u64_at(head, 8)),
            epoch: Epoch(u64_at(head, 16)),
            from: Lsn(u64_at(head, 24)),
            to: Lsn(u64_at(head, 32)),
            plain_len: u32_at(head, 40),
            wire_len: u32_at(head, 44),
            codec: codec_of(head[48])?,
            level: i8::from_le_bytes([head[49]]),
            crc: u32_at(head, CRC_AT),
        };
        header.check(&head[RESERVED])?;
        Ok(header)
    }

    fn check(&self, reserved: &[u8]) -> Result<(), Error> {
        if self.wire_len > WIRE_LEN_MAX {
            return Err(too_long(u64::from(self.wire_len), WIRE_LEN_MAX));
        }
        if self.plain_len > PLAIN_LEN_MAX {
            return Err(too_long(u64::from(self.plain_len), PLAIN_LEN_MAX));
        }
        if self.codec == Codec::Plain && self.plain_len != self.wire_len {
            return Err(field("plain_len", u64::from(self.plain_len)));
        }
        if self.flags.0 & !Flags::KNOWN != 0 {
            return Err(field("flags", u64::from(self.flags.0)));
        }
        if self.from > self.to {
            return Err(field("from", self.from.0));
        }
        match reserved.iter().find(|byte| **byte != 0) {
            Some(byte) => Err(field("reserved", u64::from(*byte))),
            None => Ok(()),
        }
    }
}

fn crc_of(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[HEADER_LEN..]);
    hasher.finalize()
}

fn kind_of(byte: u8) -> Result<FrameKind, Error> {
    match byte {
        1 => Ok(FrameKind::Message),
        2 => Ok(FrameKind::Delta),
        3 => Ok(FrameKind::Pages),
        4 => Ok(FrameKind::Note),
        _ => Err(field("kind", u64::from(byte))),
    }
}

fn codec_of(byte: u8) -> Result<Codec, Error> {
    match byte {
        0 => Ok(Codec::Plain),
        1 => Ok(Codec::Zstd),
        2 => Ok(Codec::Prefix),
        _ => Err(field("codec", u64::from(byte))),
    }
}

fn u32_at(head: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(head: &[u8; HEADER_LEN], at: usize) -> u64 {
    u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"))
}

fn field(field: &'static str, value: u64) -> Error {
    Error::Field {
        what: WHAT,
        field,
        value,
    }
}

fn too_long(declared: u64, max: u32) -> Error {
    Error::TooLong {
        what: WHAT,
        declared,
        max: u64::from(max),
    }
}
