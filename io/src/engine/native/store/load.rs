//! Rebuilding the key directory at an open: hints where they are good, the log itself elsewhere.

use std::collections::BTreeSet;

use wal::Lsn;
use wal::log::group::{Header, Record};
use wal::log::saved::Run;
use wal::log::segment::Layout;
use wal::log::{Control, Error, Result, Scanner};

use super::directory::Directory;
use super::hint;
use super::place::Place;
use super::record::{self, Change};

/// Nothing is under way while a store is opened.
const NOTHING: Lsn = Lsn(u64::MAX);

/// The last group of a segment: which history the segment is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Last {
    pub lsn: Lsn,
    pub end: Lsn,
    /// The checksum in its header.
    pub crc: u32,
}

impl Last {
    /// As the group says that begins with `bytes`.
    pub fn of(header: &Header, bytes: &[u8]) -> Last {
        Last {
            lsn: header.lsn,
            end: header.end(),
            crc: u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
        }
    }
}

/// How the directory was rebuilt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Segments with a good hint.
    pub hinted: BTreeSet<u64>,
    /// Segments that were read.
    pub scanned: u64,
}

/// Tells the directory everything that the log says.
pub fn load(control: &Control, directory: &Directory) -> Result<Loaded> {
    let layout = control.layout();
    let mut slots = control.slots()?;
    let mut loaded = Loaded::default();
    let (mut at, end) = (control.saved::<Run>()?.first, control.word().lsn);
    while at < end {
        let number = layout.number(at);
        let hint = is_finished(&layout, number, end).then(|| hint::read(&mut slots, number));
        match hint.flatten() {
            Some(bytes) => {
                for entry in hint::entries(number, layout.segment_bytes, &bytes) {
                    match entry.kind {
                        record::DELETE => directory.delete(entry.key, entry.lsn, NOTHING),
                        _ => {
                            let place = Place::new(entry.lsn, entry.payload);
                            directory.put(entry.key, place, NOTHING);
                        }
                    }
                }
                loaded.hinted.insert(number);
            }
            None => {
                scan(control, at, |record, change| {
                    apply(directory, &record, &change, NOTHING);
                    Ok(())
                })?;
                loaded.scanned += 1;
            }
        }
        at = layout.begin(number + 1);
    }
    Ok(loaded)
}

/// Nothing will be added to segment `number` of a log that ends at `end`.
pub fn is_finished(layout: &Layout, number: u64, end: Lsn) -> bool {
    end > layout.begin(number + 1)
}

/// Tells the directory what one record says.
pub fn apply(directory: &Directory, record: &Record, change: &Change, oldest: Lsn) {
    match change {
        Change::Put { key, .. } => {
            directory.put(key, Place::new(record.lsn, record.payload.len()), oldest);
        }
        Change::Delete { key } => directory.delete(key, record.lsn, oldest),
    }
}

/// Reads the groups of one segment from `from` on; the last of them, if there is one.
pub fn scan<'c>(
    control: &'c Control,
    from: Lsn,
    mut each: impl FnMut(Record, Change) -> Result<()>,
) -> Result<Option<Last>> {
    let layout = control.layout();
    let mut scanner = Scanner::<&'c Control>::from(control, from)?;
    let mut last = None;
    while let Some(group) = scanner.next_group()? {
        if layout.number(group.header.lsn) != layout.number(from) {
            break;
        }
        for record in group.records() {
            let change = Change::read(record.kind, record.payload);
            let change = change.ok_or(Error::Damaged {
                at: record.lsn,
                why: "the record is none of a store",
            })?;
            each(record, change)?;
        }
        last = Some(Last::of(&group.header, group.bytes()));
    }
    Ok(last)
}
