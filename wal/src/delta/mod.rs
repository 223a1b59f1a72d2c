//! What changed between two positions, and whole pages: the two payloads that carry page bytes.
//!
//! A delta holds each changed page once, with its last image. Pages travel in groups; a group is
//! compressed with the images that its pages had *before the delta* as prefix, so a receiver that
//! stands at `from` can decode it and one that stands elsewhere must not try. Byte tables:
//! `wal/README.md`.
//!
//! Invariants: page numbers ascend strictly, lie in 1..=page_count and are never the lock page;
//! [`Decoder`] believes nothing before it has checked it; the digest is the caller's to verify.

mod body;
mod decode;
mod encode;

pub use decode::{Decoder, FillImage, TakeImage};
pub use encode::Encoder;

use crate::compress::{PLAIN_LEN_MAX, PREFIXED_LEN_MAX};
use crate::error::Error;
use crate::frame::Flags;
use crate::ids::PartitionId;
use crate::lsn::Position;
use crate::sqlite;

/// Smallest page that SQLite knows.
pub const PAGE_SIZE_MIN: u32 = 512;
/// Largest page that SQLite knows.
pub const PAGE_SIZE_MAX: u32 = 65_536;
/// Most plain bytes of one group of a delta.
pub const GROUP_BYTES_MAX: usize = PREFIXED_LEN_MAX;
/// Most plain bytes of one pages frame.
pub const PAGES_BYTES_MAX: usize = PLAIN_LEN_MAX;

/// A page that changed: its number, its image at the start of the delta and its image at the end.
#[derive(Clone, Copy, Debug)]
pub struct PageEdit<'a> {
    pub page: u32,
    /// `None`: the sender doesn't know it, or there was no such page; encoded without prefix.
    pub before: Option<&'a [u8]>,
    pub after: &'a [u8],
}

/// What a delta says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeltaHead {
    pub partition: PartitionId,
    /// Where a receiver must stand to apply it.
    pub from: Position,
    /// Where a receiver stands afterwards.
    pub to: Position,
    pub page_size: u32,
    /// Pages of the database at `to`; pages beyond it are gone.
    pub page_count: u32,
    pub flags: Flags,
}

/// What a frame of whole pages says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PagesHead {
    pub partition: PartitionId,
    /// Where the source stood when it read the pages.
    pub at: Position,
    pub page_size: u32,
    pub page_count: u32,
    pub flags: Flags,
}

/// Refuses a page size that SQLite could not have written (file format, section 1.3.2).
fn check_page_size(what: &'static str, page_size: u32) -> Result<(), Error> {
    let fits = (PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&page_size);
    if fits && page_size.is_power_of_two() {
        return Ok(());
    }
    Err(Error::Field {
        what,
        field: "page_size",
        value: u64::from(page_size),
    })
}

/// Refuses pages that are not strictly ascending, beyond the end, zero or the lock page.
fn check_pages(
    what: &'static str,
    page_size: u32,
    page_count: u32,
    pages: impl Iterator<Item = u32>,
) -> Result<(), Error> {
    let lock = sqlite::lock_page(page_size).unwrap_or(0);
    let mut last = 0;
    for page in pages {
        if page <= last || page > page_count || page == lock {
            return Err(Error::Field {
                what,
                field: "page",
                value: u64::from(page),
            });
        }
        last = page;
    }
    Ok(())
}
