//! A group of pages to compressed bytes and back, with the pages' previous images as prefix.
//!
//! Both ends know how long the group is, so the bytes that travel are bare zstd blocks: the frame
//! header (magic, descriptor, content size) is taken off and put on again. That saves 7 bytes of
//! the 25 or so that a one-integer change costs, and it makes the declared size ours, not the
//! sender's: zstd is told the exact size by the receiver and can't produce more.
//!
//! How zstd gets the prefix, measured on 4 KiB pages of a pgbench-like log, groups of 16, level 1
//! (groups of 1 in brackets): one context for all groups and `compress_using_dict`, which refers to
//! the prefix where it lies, 1,490 (1,070) MB/s; a context per group and `ref_prefix`, whose safe
//! form ties the prefix to the context's lifetime, 690 (230); `load_dictionary`, which copies and
//! digests, 240 (260); a `CDict` per group 250 (300). Ratios differ by less than 2 %.

use zstd_safe::{CCtx, DCtx, get_error_name};

use crate::error::Error;

/// Most plain bytes of a group with prefix. Level 1 takes no more than the last 64 KiB of a prefix
/// into its hash table and, at groups of 64 4 KiB pages, finds so little that the ratio falls from
/// 91 to 3 (measured). A larger table per group in a context of its own gives 97 at two thirds of
/// the speed: not worth a second path.
pub(crate) const PREFIXED_LEN_MAX: usize = 64 << 10;
/// Most plain bytes without prefix: the window of level 1, beyond which zstd would no longer write
/// a single segment.
pub(crate) const PLAIN_LEN_MAX: usize = 512 << 10;

/// Leads every prefix, so that no page content can make it look like a trained dictionary, which
/// zstd recognises by its first four bytes.
const GUARD: u8 = 0;
const WHAT: &str = "group of pages";
const HEADER_MAX: usize = 9;

/// Compresses groups; owns the contexts and buffers.
pub(crate) struct Packer {
    context: CCtx<'static>,
    level: i32,
    prefix: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    pub(crate) fn new(level: i8) -> Packer {
        Packer {
            context: CCtx::create(),
            level: i32::from(level),
            prefix: vec![GUARD],
            packed: Vec::new(),
        }
    }

    pub(crate) fn set_level(&mut self, level: i8) {
        self.level = i32::from(level);
    }

    /// Forgets the prefix of the previous group.
    pub(crate) fn clear_prefix(&mut self) {
        self.prefix.truncate(1);
    }

    pub(crate) fn extend_prefix(&mut self, before: &[u8]) {
        self.prefix.extend_from_slice(before);
    }

    /// Appends `plain`, compressed against the prefix, to `out`.
    pub(crate) fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.packed.clear();
        self.packed.reserve(zstd_safe::compress_bound(plain.len()));
        // With the guard alone zstd sees no dictionary: it ignores any of less than 8 bytes.
        self.context
            .compress_using_dict(&mut self.packed, plain, &self.prefix, self.level)
            .map_err(refused)?;
        let (header, len) = frame_header(plain.len());
        match self.packed.strip_prefix(&header[..len]) {
            Some(blocks) => out.extend_from_slice(blocks),
            None => {
                let reason = "zstd wrote another frame header than its format names".to_owned();
                return Err(Error::Compressed { what: WHAT, reason });
            }
        }
        Ok(())
    }
}

/// Decompresses groups; owns the contexts and buffers.
pub(crate) struct Unpacker {
    context: DCtx<'static>,
    prefix: Vec<u8>,
    framed: Vec<u8>,
    plain: Vec<u8>,
}

impl Unpacker {
    pub(crate) fn new() -> Unpacker {
        Unpacker {
            context: DCtx::create(),
            prefix: vec![GUARD],
            framed: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Forgets the prefix of the previous group.
    pub(crate) fn clear_prefix(&mut self) {
        self.prefix.truncate(1);
    }

    /// `len` zeroed bytes at the end of the prefix, to be filled with a previous image.
    pub(crate) fn extend_prefix(&mut self, len: usize) -> &mut [u8] {
        let start = self.prefix.len();
        self.prefix.resize(start + len, 0);
        &mut self.prefix[start..]
    }

    /// Expands `blocks` to exactly `plain_len` bytes, which the caller has bounded.
    pub(crate) fn unpack(&mut self, blocks: &[u8], plain_len: usize) -> Result<&[u8], Error> {
        let (header, len) = frame_header(plain_len);
        self.framed.clear();
        self.framed.extend_from_slice(&header[..len]);
        self.framed.extend_from_slice(blocks);
        self.plain.resize(plain_len, 0);
        let written = self
            .context
            .decompress_using_dict(&mut self.plain[..], &self.framed, &self.prefix)
            .map_err(refused)?;
        if written != plain_len {
            return Err(Error::Short {
                what: WHAT,
                have: written,
                need: plain_len,
            });
        }
        Ok(&self.plain)
    }
}

/// The header that zstd writes in front of a single segment of `plain_len` bytes, content size
/// given, neither checksum nor dictionary id (RFC 8878, section 3.1.1.1).
fn frame_header(plain_len: usize) -> ([u8; HEADER_MAX], usize) {
    let mut header = [0; HEADER_MAX];
    header[..4].copy_from_slice(&0xFD2F_B528_u32.to_le_bytes());
    const SINGLE_SEGMENT: u8 = 1 << 5;
    if plain_len < 256 {
        header[4] = SINGLE_SEGMENT;
        header[5] = plain_len as u8;
        (header, 6)
    } else if let Ok(short) = u16::try_from(plain_len - 256) {
        header[4] = SINGLE_SEGMENT | 1 << 6;
        header[5..7].copy_from_slice(&short.to_le_bytes());
        (header, 7)
    } else {
        header[4] = SINGLE_SEGMENT | 2 << 6;
        header[5..].copy_from_slice(&(plain_len as u32).to_le_bytes());
        (header, 9)
    }
}

fn refused(code: usize) -> Error {
    Error::Compressed {
        what: WHAT,
        reason: get_error_name(code).to_owned(),
    }
}
