//! Hint files: which keys a finished segment changes, so that an open need not read its values.
//!
//! `<base of the segment, 16 hex digits>.hint`, beside the segments. Numbers little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `FSHHINT\n` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | length of a segment |
//! | 16 | 8 | id of the log |
//! | 24 | 8 | where the segment begins, its base |
//! | 32 | 8 | where its last group begins |
//! | 40 | 8 | where its last group ends |
//! | 48 | 4 | the checksum that its last group has |
//! | 52 | 4 | count of entries |
//! | 56 | 4 | CRC-32 of all other bytes of the file |
//! | 60 | 4 | zeros |
//! | 64 | | entries, in the order of the log; of a key the last one only |
//!
//! | at | bytes | what of an entry |
//! |---|---|---|
//! | 0 | 4 | offset of the record in the segment |
//! | 4 | 4 | length of its payload |
//! | 8 | 2 | its kind |
//! | 10 | 2 | length of the key |
//! | 12 | | the key |
//!
//! A hint is never needed: one that is missing, torn, damaged, or that names another last group
//! than the segment has, is passed over, and the segment is read instead. So it is not synced.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use wal::Lsn;
use wal::log::group::{HEADER_LEN, Header, RECORD_HEAD};
use wal::log::segment::{Layout, Slots};
use wal::log::{Control, Kind, Result};

use super::load::{self, Last};
use super::record::{self, Change};
use super::system;

const MAGIC: [u8; 8] = *b"FSHHINT\n";
const VERSION: u32 = 1;
const HEAD_LEN: usize = 64;
const CRC_AT: usize = 56;
const ENTRY_HEAD: usize = 12;
const SUFFIX: &str = "hint";
const MAKING: &str = "hint.making";

/// What one record does, without its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    pub lsn: Lsn,
    pub payload: usize,
    pub kind: Kind,
    pub key: &'a [u8],
}

/// The file for segment `number`.
pub fn path(layout: &Layout, number: u64) -> PathBuf {
    let base = number * u64::from(layout.segment_bytes);
    beside(layout, &format!("{base:016x}"))
}

/// `<log>-<name>.hint`.
fn beside(layout: &Layout, name: &str) -> PathBuf {
    let mut path = layout.path.clone().into_os_string();
    path.push(format!("-{name}.{SUFFIX}"));
    PathBuf::from(path)
}

/// Deletes hints of segments that are not kept any more: a crash may have come before that.
pub fn sweep(layout: &Layout, first: u64) {
    let (Some(dir), Some(log)) = (layout.path.parent(), layout.path.file_name()) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let base_of = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_prefix(log.to_str()?)?;
        let base = name.strip_prefix('-')?.strip_suffix(SUFFIX)?;
        u64::from_str_radix(base.strip_suffix('.')?, 16).ok()
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let base = base_of(&path);
        if base.is_some_and(|base| base / u64::from(layout.segment_bytes) < first) {
            // One that stays is never believed.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Reads finished segment `number`, whose groups begin at `from`, and writes its hint.
pub fn write(control: &Control, number: u64, from: Lsn) -> Result<()> {
    let layout = control.layout();
    let base = number * u64::from(layout.segment_bytes);
    let mut entries: Vec<Option<Vec<u8>>> = Vec::new();
    let mut last_of: HashMap<Vec<u8>, usize> = HashMap::new();
    let last = load::scan(control, from, |record, change| {
        let entry = encode_entry(record.lsn, base, record.payload.len(), record.kind, change);
        if let Some(old) = last_of.insert(change.key().to_vec(), entries.len()) {
            entries[old] = None;
        }
        entries.push(Some(entry));
        Ok(())
    })?;
    let Some(last) = last else { return Ok(()) };
    let entries: Vec<Vec<u8>> = entries.into_iter().flatten().collect();
    let bytes = encode(&layout, number, &last, &entries);
    let (making, path) = (beside(&layout, MAKING), path(&layout, number));
    let written = std::fs::write(&making, &bytes).and_then(|()| std::fs::rename(&making, &path));
    written.map_err(|error| system("write", &path, &error))
}

/// The hint of segment `number`, if there is one and it is that of what lies in the segment.
pub fn read(slots: &mut Slots, number: u64) -> Option<Vec<u8>> {
    let layout = slots.layout().clone();
    let bytes = std::fs::read(path(&layout, number)).ok()?;
    let last = check(&layout, number, &bytes)?;
    let slot = slots.find(number).ok()??;
    let mut head = [0; HEADER_LEN];
    let at = layout.slot_at(slot) + layout.offset(last.lsn);
    slots.file().read_exact_at(&mut head, at).ok()?;
    let header = Header::read(&head)?;
    let found = Last::of(&header, &head);
    (found == last).then_some(bytes)
}

/// The entries of a hint that [`read`] has found good.
pub fn entries(number: u64, segment_bytes: u32, bytes: &[u8]) -> Entries<'_> {
    Entries {
        base: number * u64::from(segment_bytes),
        rest: bytes.get(HEAD_LEN..).unwrap_or(&[]),
    }
}

/// Iterates over the entries of one hint.
#[derive(Debug)]
pub struct Entries<'a> {
    base: u64,
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (head, rest) = self.rest.split_first_chunk::<ENTRY_HEAD>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16_at(head, 10)))?;
        self.rest = rest;
        Some(Entry {
            lsn: Lsn(self.base + u64::from(u32_at(head, 0))),
            payload: u32_at(head, 4) as usize,
            kind: Kind(u16_at(head, 8)),
            key,
        })
    }
}

fn encode_entry(lsn: Lsn, base: u64, payload: usize, kind: Kind, change: Change) -> Vec<u8> {
    let key = change.key();
    let offset = u32::try_from(lsn.0 - base).expect("in the segment");
    let payload = u32::try_from(payload).expect("bounded by the segment's length");
    let mut bytes = Vec::with_capacity(ENTRY_HEAD + key.len());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&payload.to_le_bytes());
    bytes.extend_from_slice(&kind.0.to_le_bytes());
    bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(key);
    bytes
}

fn encode(layout: &Layout, number: u64, last: &Last, entries: &[Vec<u8>]) -> Vec<u8> {
    let base = number * u64::from(layout.segment_bytes);
    let mut bytes = Vec::with_capacity(HEAD_LEN + entries.iter().map(Vec::len).sum::<usize>());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&layout.segment_bytes.to_le_bytes());
    for word in [layout.id.0, base, last.lsn.0, last.end.0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&last.crc.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.resize(HEAD_LEN, 0);
    bytes.extend(entries.iter().flatten());
    let crc = crc(&bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The last group that the hint names, if its bytes are those of a hint for this segment.
fn check(layout: &Layout, number: u64, bytes: &[u8]) -> Option<Last> {
    let head = bytes.first_chunk::<HEAD_LEN>()?;
    let base = number * u64::from(layout.segment_bytes);
    let (lsn, end) = (Lsn(u64_at(head, 32)), Lsn(u64_at(head, 40)));
    let is_ours = head[..8] == MAGIC
        && u32_at(head, 8) == VERSION
        && u32_at(head, 12) == layout.segment_bytes
        && u64_at(head, 16) == layout.id.0
        && u64_at(head, 24) == base
        && head[60..] == [0; 4];
    if !is_ours || u32_at(head, CRC_AT) != crc(bytes) {
        return None;
    }
    let mut count = 0;
    for entry in entries(number, layout.segment_bytes, bytes) {
        let ends = layout.offset(entry.lsn) as usize + RECORD_HEAD + entry.payload;
        let least = record::payload_len(entry.key.len(), 0);
        if ends > layout.segment_bytes as usize || entry.payload < least {
            return None;
        }
        count += 1;
    }
    let crc = u32_at(head, 48);
    (count == u32_at(head, 52) && layout.number(lsn) == number).then_some(Last { lsn, end, crc })
}

/// The checksum of a hint's bytes but its own.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..CRC_AT]);
    crc.update(&bytes[CRC_AT + 4..]);
    crc.finalize()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wal::PartitionId;

    use super::*;

    const LAST: Last = Last {
        lsn: Lsn(3 * (64 << 10) + 8192),
        end: Lsn(3 * (64 << 10) + 12288),
        crc: 77,
    };

    fn layout() -> Layout {
        Layout {
            path: "nowhere".into(),
            id: PartitionId(9),
            segment_bytes: 64 << 10,
        }
    }

    fn built(keys: &[(Vec<u8>, bool)]) -> Vec<u8> {
        let encode_one = |(index, (key, is_put)): (usize, &(Vec<u8>, bool))| {
            let lsn = Lsn(3 * (64 << 10) + 4160 + index as u64 * 8);
            let kind = if *is_put { record::PUT } else { record::DELETE };
            let change = Change::Delete { key };
            encode_entry(lsn, 3 * (64 << 10), 2 + key.len() + index, kind, change)
        };
        let entries: Vec<_> = keys.iter().enumerate().map(encode_one).collect();
        encode(&layout(), 3, &LAST, &entries)
    }

    fn keys() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
        prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), any::<bool>()),
            0..30,
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(keys in keys()) {
            let bytes = built(&keys);
            prop_assert_eq!(check(&layout(), 3, &bytes), Some(LAST));
            prop_assert_eq!(check(&layout(), 4, &bytes), None);
            let found: Vec<_> = entries(3, 64 << 10, &bytes).collect();
            prop_assert_eq!(found.len(), keys.len());
            for (index, (entry, (key, is_put))) in found.iter().zip(&keys).enumerate() {
                prop_assert_eq!(entry.key, &key[..]);
                prop_assert_eq!(entry.kind == record::PUT, *is_put);
                prop_assert_eq!(entry.payload, 2 + key.len() + index);
                prop_assert_eq!(entry.lsn.0, 3 * (64 << 10) + 4160 + index as u64 * 8);
            }
        }

        #[test]
        fn a_flipped_bit_or_a_cut_makes_it_nothing(
            keys in keys(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut bytes = built(&keys);
            let at = at.index(bytes.len());
            prop_assert_eq!(check(&layout(), 3, &bytes[..at]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(check(&layout(), 3, &bytes), None);
        }
    }
}
