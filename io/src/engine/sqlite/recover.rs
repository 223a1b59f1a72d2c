//! Rebuilding a WAL-index from its WAL, by the rules that every SQLite connection follows, so that
//! it does not matter who of us comes first.
//!
//! WAL-mode file format, section 2.4: recovery needs WRITE and then all locks but the readers'; it
//! reads frames from the start while salts and checksums hold, and the last commit among them is
//! the newest state.

use wal::sqlite::{
    CHECKPOINT_LOCK, Checksum, IndexHeader, READ_LOCKS, READ_MARK_UNUSED, READ_MARKS, REGION_LEN,
    Salts, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WalFrameHeader, WalHeader, WordOrder, insert,
    region_of,
};

use super::files::Files;
use super::shm::Shm;
use crate::durable;
use crate::error::{Error, Kind, Result};

/// Rebuilds the index. The caller holds WRITE and found the header invalid.
pub(super) fn recover(files: &Files, shm: &Shm) -> Result<()> {
    let Some(_locks) = shm.try_held(CHECKPOINT_LOCK..READ_LOCKS)? else {
        let reason = "a checkpoint or another recovery is at work";
        return Err(Error::new(Kind::Retry, "recover", files.wal_name(), reason));
    };
    let header = read_log(files, shm)?;
    shm.publish(&header);
    shm.set_backfilled(0);
    shm.set_backfill_attempted(header.max_frame);
    shm.set_read_mark(0, 0);
    for slot in 1..READ_MARKS {
        // A slot in use keeps its mark: its reader's snapshot is older than this header.
        if let Some(_slot) = shm.try_slot(slot)? {
            let newest = slot == 1 && header.max_frame > 0;
            shm.set_read_mark(
                slot,
                if newest {
                    header.max_frame
                } else {
                    READ_MARK_UNUSED
                },
            );
        }
    }
    Ok(())
}

/// Fills the page lists from the WAL's valid frames and returns the header of its last commit.
fn read_log(files: &Files, shm: &Shm) -> Result<IndexHeader> {
    let mut header = empty();
    let mut head = [0; WAL_HEADER_LEN];
    let have = durable::read_at(&files.wal, &files.paths.wal, &mut head, 0)?;
    let Ok(wal) = WalHeader::parse(&head[..have]) else {
        return Ok(header);
    };
    header.order = wal.order;
    header.salts = wal.salts;
    let mut region = vec![0; REGION_LEN];
    let mut number = 0;
    let mut sum = wal.checksum;
    let last =
        (files.wal_len()?.saturating_sub(WAL_HEADER_LEN as u64) / files.frame_len() as u64) as u32;
    let mut bytes = Vec::new();
    for frame in 1..=last {
        bytes.clear();
        files.read_frames(frame, 1, &mut bytes)?;
        let (head, page) = bytes.split_at(WAL_FRAME_HEADER_LEN);
        let next = WalFrameHeader::parse(head)?;
        if !next.holds(&wal, sum, page) {
            break;
        }
        if region_of(frame) != number {
            shm.store_region(number, &region)?;
            number = region_of(frame);
            region.fill(0);
        }
        insert(number, &mut region, frame, next.page)?;
        sum = next.checksum;
        if next.is_commit() {
            header.max_frame = frame;
            header.page_count = next.commit_pages;
            header.page_size = wal.page_size;
            header.frame_checksum = sum;
        }
    }
    shm.store_region(number, &region)?;
    Ok(header)
}

/// What SQLite publishes for a WAL without content.
fn empty() -> IndexHeader {
    IndexHeader {
        change: 0,
        order: WordOrder::Little,
        page_size: 0,
        max_frame: 0,
        page_count: 0,
        frame_checksum: Checksum::default(),
        salts: Salts::default(),
    }
}
