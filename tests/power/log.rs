//! The log of dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a super
//! block, then entries of one sector each, a write's with its data behind it, in the order in
//! which they became durable. Writes that no flush followed are not in it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Bytes at an offset of the disk; where in the log they stand.
    Write {
        to: u64,
        len: u64,
        at: u64,
        ends: bool,
    },
    /// A flush without data.
    Flush,
    Discard {
        to: u64,
        len: u64,
    },
    Mark(String),
}

impl Entry {
    /// Whether a prefix that ends here is one that a flush or a FUA write ended.
    pub fn ends(&self) -> bool {
        matches!(self, Entry::Write { ends: true, .. } | Entry::Flush)
    }

    /// Whether it changes what is on the disk.
    pub fn changes(&self) -> bool {
        matches!(self, Entry::Write { .. } | Entry::Discard { .. })
    }
}

/// A log, read once.
#[derive(Debug)]
pub struct Log {
    pub entries: Vec<Entry>,
    file: File,
}

impl Log {
    pub fn read(path: &Path) -> Result<Log, String> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut block = vec![0; 512];
        read_at(&file, &mut block, 0)?;
        if (word(&block, 0), word(&block, 1)) != (MAGIC, VERSION) {
            return Err(format!("{} is no log of dm-log-writes", path.display()));
        }
        let (count, sector) = (word(&block, 2), word(&block, 3) & 0xffff_ffff);
        block.resize(sector as usize, 0);
        let mut entries = Vec::with_capacity(count as usize);
        let mut at = sector;
        for _ in 0..count {
            read_at(&file, &mut block, at)?;
            at += sector;
            let entry = parse(&block, sector, at);
            if let Entry::Write { len, .. } = entry {
                at += len;
            }
            entries.push(entry);
        }
        Ok(Log { entries, file })
    }

    /// The bytes that a write put on the disk.
    pub fn bytes(&self, at: u64, len: u64) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; len as usize];
        read_at(&self.file, &mut bytes, at).map(|()| bytes)
    }
}

fn parse(block: &[u8], sector: u64, at: u64) -> Entry {
    let (to, len) = (word(block, 0) * sector, word(block, 1) * sector);
    let (flags, text_len) = (word(block, 2), word(block, 3) as usize);
    if flags & MARK != 0 {
        let text = String::from_utf8_lossy(&block[32..32 + text_len]);
        return Entry::Mark(text.trim_end_matches('\0').to_owned());
    }
    if flags & DISCARD != 0 {
        return Entry::Discard { to, len };
    }
    if len == 0 {
        return Entry::Flush;
    }
    let ends = flags & (FLUSH | FUA) != 0;
    Entry::Write { to, len, at, ends }
}

fn word(block: &[u8], index: usize) -> u64 {
    let bytes = &block[8 * index..8 * index + 8];
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

fn read_at(file: &File, into: &mut [u8], at: u64) -> Result<(), String> {
    file.read_exact_at(into, at)
        .map_err(|error| format!("the log at {at}: {error}"))
}
