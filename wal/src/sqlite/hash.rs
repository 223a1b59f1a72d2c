//! The `-shm` file's regions: which frame holds which page.
//!
//! WAL-mode file format, section 2.2: the file is a row of 32 KiB regions. Each has the page
//! numbers of its frames in order, then a hash table of 8,192 16-bit slots that maps a page to
//! places in that list. The first region begins with the 136 header bytes and so holds fewer.
//!
//! All functions take one region's bytes; the caller maps the file. A region read while a writer
//! is at work may hold anything: lookups stay in bounds and end, and say `Corrupt` where the table
//! makes no sense.

use super::index::INDEX_PREFIX_LEN;
use crate::error::Error;

/// Bytes of a region.
pub const REGION_LEN: usize = 32_768;
/// Frames that a region but the first describes.
pub const REGION_PAGES: u32 = 4_096;
/// Frames that the first region describes.
pub const FIRST_REGION_PAGES: u32 = 4_062;
/// Slots of a region's hash table.
pub const HASH_SLOTS: usize = 8_192;
/// Where the hash table begins in a region.
pub const HASH_AT: usize = 16_384;

const WHAT: &str = "WAL-index";

/// The region that describes frame number `frame` (1-based).
pub fn region_of(frame: u32) -> usize {
    (frame.saturating_add(REGION_PAGES - FIRST_REGION_PAGES - 1) / REGION_PAGES) as usize
}

/// Frames before the first that `region` describes.
pub fn region_base(region: usize) -> u32 {
    match region {
        0 => 0,
        later => FIRST_REGION_PAGES + (later as u32 - 1) * REGION_PAGES,
    }
}

/// Enters `frame`, which holds `page`, into its region. The first frame of a region zeroes it, and
/// what an interrupted writer left beyond `frame` is cleared, as SQLite does.
pub fn insert(region: usize, bytes: &mut [u8], frame: u32, page: u32) -> Result<(), Error> {
    check_len(bytes)?;
    let place = place_of(region, frame)?;
    if place == 1 {
        empty(region, bytes);
    } else if page_at(region, bytes, place) != 0 {
        clear_beyond(region, bytes, frame - 1)?;
    }
    let mut slot = slot_of(page);
    let mut tries = place;
    while slot_at(bytes, slot) != 0 {
        if tries == 0 {
            return Err(damaged("collisions", u64::from(place)));
        }
        tries -= 1;
        slot = (slot + 1) % HASH_SLOTS;
    }
    let at = page_list(region) + (place as usize - 1) * 4;
    bytes[at..at + 4].copy_from_slice(&page.to_ne_bytes());
    let at = HASH_AT + slot * 2;
    bytes[at..at + 2].copy_from_slice(&(place as u16).to_ne_bytes());
    Ok(())
}

/// Empties a region: page numbers and hash table.
fn empty(region: usize, bytes: &mut [u8]) {
    bytes[page_list(region)..REGION_LEN].fill(0);
}

/// Forgets the frames beyond `max_frame`, which a rolled-back or interrupted writer left.
pub fn clear_beyond(region: usize, bytes: &mut [u8], max_frame: u32) -> Result<(), Error> {
    check_len(bytes)?;
    let limit = max_frame
        .saturating_sub(region_base(region))
        .min(region_pages(region));
    for slot in bytes[HASH_AT..].as_chunks_mut::<2>().0 {
        if u32::from(u16::from_ne_bytes(*slot)) > limit {
            *slot = [0; 2];
        }
    }
    bytes[page_list(region) + limit as usize * 4..HASH_AT].fill(0);
    Ok(())
}

/// The newest frame in `min_frame..=max_frame` of this region that holds `page`.
pub fn frame_of(
    region: usize,
    bytes: &[u8],
    page: u32,
    min_frame: u32,
    max_frame: u32,
) -> Result<Option<u32>, Error> {
    check_len(bytes)?;
    let base = region_base(region);
    let mut found = None;
    let mut slot = slot_of(page);
    for _ in 0..HASH_SLOTS {
        let place = u32::from(slot_at(bytes, slot));
        if place == 0 {
            return Ok(found);
        }
        if place > region_pages(region) {
            return Err(damaged("slot", u64::from(place)));
        }
        let frame = base + place;
        // Later frames of a page lie further along its chain.
        if (min_frame..=max_frame).contains(&frame) && page_at(region, bytes, place) == page {
            found = Some(frame);
        }
        slot = (slot + 1) % HASH_SLOTS;
    }
    Err(damaged("collisions", HASH_SLOTS as u64))
}

/// The page that `frame` holds, as the region's list says; 0 where nothing was entered.
pub fn page_of_frame(region: usize, bytes: &[u8], frame: u32) -> Result<u32, Error> {
    check_len(bytes)?;
    Ok(page_at(region, bytes, place_of(region, frame)?))
}

/// Frames that `region` can describe.
fn region_pages(region: usize) -> u32 {
    if region == 0 {
        FIRST_REGION_PAGES
    } else {
        REGION_PAGES
    }
}

/// Where a region's list of page numbers begins.
fn page_list(region: usize) -> usize {
    if region == 0 { INDEX_PREFIX_LEN } else { 0 }
}

/// The 1-based place of `frame` in its region's list.
fn place_of(region: usize, frame: u32) -> Result<u32, Error> {
    if frame == 0 || region_of(frame) != region {
        return Err(damaged("frame", u64::from(frame)));
    }
    Ok(frame - region_base(region))
}

/// The first slot to try for `page`: a multiplicative hash (section 2.2.1).
fn slot_of(page: u32) -> usize {
    page.wrapping_mul(383) as usize & (HASH_SLOTS - 1)
}

fn slot_at(bytes: &[u8], slot: usize) -> u16 {
    let at = HASH_AT + slot * 2;
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn page_at(region: usize, bytes: &[u8], place: u32) -> u32 {
    let at = page_list(region) + (place as usize - 1) * 4;
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn check_len(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() == REGION_LEN {
        return Ok(());
    }
    Err(Error::Short {
        what: WHAT,
        have: bytes.len(),
        need: REGION_LEN,
    })
}

fn damaged(field: &'static str, value: u64) -> Error {
    Error::Field {
        what: WHAT,
        field,
        value,
    }
}
