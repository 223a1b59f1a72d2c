//! The control page as bytes: as it is made, its head, and whether its live words count.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64;

use super::super::BLOCK;
use super::super::error::{Error, Result};
use super::super::group::{u32_at, u64_at};
use super::super::saved::{self, Block, Ownership, Run};
use super::{IDENTITY, SEGMENT_BYTES, VERSION, WORD, Word, live};
use crate::ids::PartitionId;
use crate::lsn::{Epoch, Lsn};

const MAGIC: [u8; 8] = *b"FSHCTRL\n";
const FIXED_LEN: usize = 28;
/// The run that a log is made with.
const FIRST_RUN: u32 = 1;

/// What a new log is made with.
#[derive(Clone, Copy, Debug)]
pub struct Creation {
    pub id: PartitionId,
    pub segment_bytes: u32,
    pub epoch: Epoch,
    /// The oldest group that is kept; a new log begins at [`BLOCK`].
    pub first: Lsn,
    /// Where the log ends.
    pub lsn: Lsn,
    /// A copy is sealed until it is granted: nobody can append to it.
    pub sealed: bool,
}

impl Creation {
    /// The first control page; a log's file begins with it.
    pub fn page(&self) -> Vec<u8> {
        let run = Run {
            number: 1,
            run: FIRST_RUN,
            epoch: self.epoch,
            began: self.lsn,
            lsn: self.lsn,
            first: self.first,
        };
        let ownership = Ownership {
            number: 1,
            epoch: self.epoch,
            sealed: self.sealed,
            lsn: self.lsn,
        };
        let mut page = vec![0; BLOCK];
        fixed(self.id, self.segment_bytes, &mut page);
        page[run.place()..][..saved::LEN].copy_from_slice(&run.encode());
        page[ownership.place()..][..saved::LEN].copy_from_slice(&ownership.encode());
        let word = Word::new(self.epoch, self.sealed, self.lsn).encode();
        page[WORD..WORD + 8].copy_from_slice(&word.to_le_bytes());
        page
    }

    /// The first control page of a log in this very file: its end is known, so whoever opens it
    /// before the machine goes down does not look for it, and need not begin a run.
    pub fn page_of(&self, file: &File) -> std::io::Result<Vec<u8>> {
        let mut page = self.page();
        page[live::DURABLE..][..8].copy_from_slice(&self.lsn.0.to_le_bytes());
        page[live::UNUSED_RUN..][..8].copy_from_slice(&u64::from(FIRST_RUN).to_le_bytes());
        page[IDENTITY..][..8].copy_from_slice(&identity(file)?.to_le_bytes());
        Ok(page)
    }
}

/// Whether a file begins as the control page of a log does.
pub fn is_log(file: &File) -> bool {
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == MAGIC
}

/// The live words of the log in this file are those of this boot: no power cut came since.
pub fn is_awake(file: &File) -> std::io::Result<bool> {
    let mut found = [0; 8];
    file.read_exact_at(&mut found, IDENTITY as u64)?;
    Ok(u64::from_le_bytes(found) == identity(file)?)
}

/// This boot and this very file: a copy, and a page from before a power cut, have another.
pub(super) fn identity(file: &File) -> std::io::Result<u64> {
    static BOOT: OnceLock<Vec<u8>> = OnceLock::new();
    let boot = match BOOT.get() {
        Some(boot) => boot,
        None => {
            let read = std::fs::read("/proc/sys/kernel/random/boot_id")?;
            BOOT.get_or_init(|| read)
        }
    };
    let meta = file.metadata()?;
    let place = [meta.dev().to_le_bytes(), meta.ino().to_le_bytes()].concat();
    Ok(xxh3_64(&[&boot[..], &place].concat()).max(1))
}

fn fixed(id: PartitionId, segment_bytes: u32, page: &mut [u8]) {
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[12..16].copy_from_slice(&segment_bytes.to_le_bytes());
    page[16..24].copy_from_slice(&id.0.to_le_bytes());
    let crc = crc32fast::hash(&page[..24]);
    page[24..FIXED_LEN].copy_from_slice(&crc.to_le_bytes());
}

pub(in crate::log) fn read_fixed(bytes: &[u8; BLOCK], path: &Path) -> Result<(PartitionId, u32)> {
    let wrong = |why| Error::NotALog {
        path: path.to_owned(),
        why,
    };
    if bytes[..8] != MAGIC {
        return Err(wrong("it does not begin as a control page does"));
    }
    let found = u32_at(bytes, 8);
    if found != VERSION {
        return Err(Error::Version {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    if u32_at(bytes, 24) != crc32fast::hash(&bytes[..24]) {
        return Err(wrong("the head of the control page is damaged"));
    }
    let segment_bytes = u32_at(bytes, 12);
    if !SEGMENT_BYTES.contains(&segment_bytes) || !segment_bytes.is_multiple_of(BLOCK as u32) {
        return Err(wrong(
            "the segment length in the control page is impossible",
        ));
    }
    Ok((PartitionId(u64_at(bytes, 16)), segment_bytes))
}
