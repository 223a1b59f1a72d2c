//! A native log as pages of 4 KiB: page n is the file's n-th block, by rule where the file's own
//! bytes are nobody's business.
//!
//! | page | content |
//! |---|---|
//! | 1 | what the log is here: `first`, `lsn`; not the control page, which is the node's own |
//! | a slot's first, of a segment that is kept | the segment's head |
//! | others of that slot, below the end of the segment's groups | the file's bytes |
//! | everything else | zeros |
//!
//! So an image depends on what was committed alone: what writers are writing, what they left behind
//! and what a slot held before is no part of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use wal::Lsn;
use wal::log::group::{HEADER_LEN, Header};
use wal::log::segment::{Layout, Slots};
use wal::sqlite::lock_page;

use crate::error::{Error, Kind, Result};

/// Bytes of a page.
pub const PAGE: usize = wal::log::BLOCK;

/// First bytes of page 1.
const MAGIC: [u8; 8] = *b"FSHIMG1\n";

/// A segment that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    pub slot: u32,
    /// Where its groups end.
    pub end: Lsn,
}

/// The image of a log at one position.
#[derive(Clone, Debug)]
pub struct Image {
    pub layout: Layout,
    pub first: Lsn,
    pub lsn: Lsn,
    /// By segment number. Shared with copies of the image until it changes.
    pub segments: Arc<BTreeMap<u64, Held>>,
}

/// What a page is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    State,
    Head(u64),
    /// The file's bytes.
    Block,
    Zeros,
}

impl Image {
    /// The image of what lies between `first` and `lsn`, found in the file.
    pub fn read(slots: &mut Slots, first: Lsn, lsn: Lsn) -> Result<Image> {
        let layout = slots.layout().clone();
        let newest = layout.number(Lsn(lsn.0 - 1));
        let numbers = layout.number(first)..=newest;
        let by_number = slots.look()?.clone();
        let mut segments = BTreeMap::new();
        for number in numbers {
            let Some(slot) = by_number.get(&number) else {
                let reason = format!("segment {number} is missing in it");
                return Err(corrupt(&layout, reason));
            };
            let end = if number == newest {
                lsn
            } else {
                let next = by_number.get(&(number + 1)).copied();
                end_of(&layout, slots.file(), number, next)?
            };
            segments.insert(number, Held { slot: *slot, end });
        }
        Ok(Image {
            layout,
            first,
            lsn,
            segments: Arc::new(segments),
        })
    }

    /// Pages up to the end of the last slot in use.
    pub fn page_count(&self) -> u32 {
        let last = self.segments.values().map(|held| held.slot).max();
        let slots = last.map_or(0, |slot| slot + 1);
        self.page_of(slots, 0) - u32::from(self.is_behind_gap(slots)) - 1
    }

    /// The slot would be the first one behind the gap: the gap itself is no page of the image.
    fn is_behind_gap(&self, slot: u32) -> bool {
        let at = self.layout.slot_at(slot);
        slot > 0 && at != self.layout.slot_at(slot - 1) + u64::from(self.layout.segment_bytes)
    }

    /// The page of a slot's block.
    pub fn page_of(&self, slot: u32, block: u32) -> u32 {
        let at = self.layout.slot_at(slot) / PAGE as u64;
        u32::try_from(at).expect("an image of at most 2^32 pages") + block + 1
    }

    /// The page where `lsn` lies; `None` if its segment is not kept.
    pub fn page_at(&self, lsn: Lsn) -> Option<u32> {
        let held = self.segments.get(&self.layout.number(lsn))?;
        let block = self.layout.offset(lsn) / PAGE as u64;
        Some(self.page_of(held.slot, block as u32))
    }

    pub fn blocks_per_slot(&self) -> u32 {
        self.layout.segment_bytes / PAGE as u32
    }

    /// All pages of a slot, ascending.
    pub fn pages_of(&self, slot: u32) -> std::ops::Range<u32> {
        let first = self.page_of(slot, 0);
        first..first + self.blocks_per_slot()
    }

    /// Every page with what it is made of, ascending; SQLite's lock page is none.
    pub fn contents(&self) -> Vec<Content> {
        let mut contents = vec![Content::Zeros; self.page_count() as usize];
        contents[0] = Content::State;
        for (number, held) in &*self.segments {
            let head = self.page_of(held.slot, 0) as usize - 1;
            contents[head] = Content::Head(*number);
            let begin = self.layout.begin(*number);
            let blocks = (held.end.0.saturating_sub(begin.0) / PAGE as u64) as usize;
            contents[head + 1..head + 1 + blocks].fill(Content::Block);
        }
        contents
    }

    /// Reads a page of the image.
    pub fn read_page(&self, file: &File, page: u32, into: &mut [u8]) -> Result<()> {
        match self.content(page) {
            Content::State => into.copy_from_slice(&self.state_page()),
            Content::Head(number) => into.copy_from_slice(&self.layout.head(number)),
            Content::Zeros => into.fill(0),
            Content::Block => {
                let at = u64::from(page - 1) * PAGE as u64;
                let read = file.read_exact_at(into, at);
                read.map_err(|error| Error::at("read", &self.layout.path, error))?;
            }
        }
        Ok(())
    }

    fn content(&self, page: u32) -> Content {
        if page == 1 {
            return Content::State;
        }
        let held = self.segments.iter();
        let mut held = held.filter(|(_, held)| self.pages_of(held.slot).contains(&page));
        let Some((number, held)) = held.next() else {
            return Content::Zeros;
        };
        let block = page - self.page_of(held.slot, 0);
        let base = number * u64::from(self.layout.segment_bytes);
        match block {
            0 => Content::Head(*number),
            block if base + u64::from(block) * (PAGE as u64) < held.end.0 => Content::Block,
            _ => Content::Zeros,
        }
    }

    /// Page 1. Its bytes 18 and 19 stay zero: they are what SQLite's fence would change.
    pub fn state_page(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&self.layout.segment_bytes.to_le_bytes());
        page[32..40].copy_from_slice(&self.layout.id.0.to_le_bytes());
        page[40..48].copy_from_slice(&self.first.0.to_le_bytes());
        page[48..56].copy_from_slice(&self.lsn.0.to_le_bytes());
        page
    }

    /// What page 1 of an image says: the length of a segment, the log's id, `first` and `lsn`.
    pub fn parse_state(page: &[u8]) -> Option<(u32, wal::PartitionId, Lsn, Lsn)> {
        let number = |at: usize| Some(u64::from_le_bytes(page.get(at..at + 8)?.try_into().ok()?));
        let segment_bytes = u32::from_le_bytes(page.get(8..12)?.try_into().ok()?);
        let whole = page[..8] == MAGIC && wal::log::control::SEGMENT_BYTES.contains(&segment_bytes);
        let (first, lsn) = (Lsn(number(40)?), Lsn(number(48)?));
        let ordered = whole && first <= lsn && lsn.0 >= PAGE as u64;
        ordered.then_some((segment_bytes, wal::PartitionId(number(32)?), first, lsn))
    }

    /// The page that no image has.
    pub fn gap() -> u32 {
        lock_page(PAGE as u32).expect("4 KiB is a page size of SQLite")
    }
}

/// Where the groups of a segment end that another one follows: its first group says so.
fn end_of(layout: &Layout, file: &File, number: u64, next: Option<u32>) -> Result<Lsn> {
    let missing = || corrupt(layout, format!("segment {} is missing in it", number + 1));
    let slot = next.ok_or_else(missing)?;
    let mut head = [0; HEADER_LEN];
    let at = layout.slot_at(slot) + PAGE as u64;
    let read = file.read_exact_at(&mut head, at);
    read.map_err(|error| Error::at("read", &layout.path, error))?;
    let begin = layout.begin(number + 1);
    let header = Header::read(&head).filter(|header| header.lsn == begin);
    let header = header.ok_or_else(|| {
        let reason = format!("segment {} does not begin with a group", number + 1);
        corrupt(layout, reason)
    })?;
    Ok(header.after)
}

fn corrupt(layout: &Layout, reason: String) -> Error {
    Error::new(
        Kind::Corrupt,
        "read",
        layout.path.display().to_string(),
        reason,
    )
}
