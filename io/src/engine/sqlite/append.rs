//! Appending one transaction of our own to a live WAL, as a connection would.
//!
//! Used for the fence alone: page 1, with other format versions, as the last transaction of a log.

use std::sync::Arc;

use wal::sqlite::{
    IndexHeader, REGION_LEN, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WalFrameHeader, WalHeader,
    WordOrder, frame_offset, insert, region_of,
};

use super::files::Files;
use super::shm::Shm;
use super::source::newest;
use crate::durable;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// Appends `image` as page 1 in a transaction of its own: WAL frame, fdatasync, page list, header.
/// The caller holds WRITE. On failure nothing was committed, and nothing is left that a recovery
/// could take for a commit.
pub(super) fn append_page_one(files: &Files, shm: &Arc<Shm>, image: &[u8]) -> Result<()> {
    let header = newest(shm)?;
    let page_count = files.page_count(&header)?;
    let (log, seed) = if header.max_frame == 0 {
        let log = begin_log(files, &header)?;
        (log, log.checksum)
    } else {
        (present_log(files, &header)?, header.frame_checksum)
    };
    let number = header.max_frame + 1;
    let frame = WalFrameHeader::new(&log, seed, 1, page_count, image);
    let published = write_frame(files, number, &frame, image)
        .and_then(|()| failpoint::pass(Step::FenceWritten))
        .and_then(|()| durable::sync_data(&files.wal, &files.paths.wal))
        .and_then(|()| failpoint::pass(Step::FenceSynced))
        .and_then(|()| enter(shm, number));
    if let Err(error) = published {
        // Already failing; the zeros are one more chance that a recovery does not find the frame.
        let _ = write_bytes(files, &[0; WAL_FRAME_HEADER_LEN], number);
        return Err(error);
    }
    shm.publish(&IndexHeader {
        change: header.change.wrapping_add(1),
        order: log.order,
        page_size: files.page_size,
        max_frame: number,
        page_count,
        frame_checksum: frame.checksum,
        salts: log.salts,
    });
    failpoint::reach(Step::FencePublished);
    Ok(())
}

/// The header of the WAL in use.
fn present_log(files: &Files, header: &IndexHeader) -> Result<WalHeader> {
    let log = read_log_header(files)?;
    log.filter(|log| log.salts == header.salts).ok_or_else(|| {
        let reason = "its header is not the one that the WAL-index describes";
        Error::new(Kind::Corrupt, "append to", files.wal_name(), reason)
    })
}

/// Starts an empty WAL. Its salts must differ from those of frames that may lie in the file.
fn begin_log(files: &Files, header: &IndexHeader) -> Result<WalHeader> {
    let old = read_log_header(files)?;
    let sequence = old.map_or(0, |old| old.checkpoint_sequence.wrapping_add(1));
    let used = old.is_none_or(|old| old.salts == header.salts);
    let salts = if used {
        header.salts.restarted(random()?)
    } else {
        header.salts
    };
    let log = WalHeader::new(WordOrder::NATIVE, files.page_size, sequence, salts);
    durable::write_at(&files.wal, &files.paths.wal, &log.encode(), 0)?;
    Ok(log)
}

fn read_log_header(files: &Files) -> Result<Option<WalHeader>> {
    let mut bytes = [0; WAL_HEADER_LEN];
    let have = durable::read_at(&files.wal, &files.paths.wal, &mut bytes, 0)?;
    Ok(WalHeader::parse(&bytes[..have]).ok())
}

fn write_frame(files: &Files, number: u32, frame: &WalFrameHeader, image: &[u8]) -> Result<()> {
    let mut bytes = Vec::with_capacity(files.frame_len());
    bytes.extend_from_slice(&frame.encode());
    bytes.extend_from_slice(image);
    write_bytes(files, &bytes, number)
}

fn write_bytes(files: &Files, bytes: &[u8], number: u32) -> Result<()> {
    let offset = frame_offset(number, files.page_size);
    durable::write_at(&files.wal, &files.paths.wal, bytes, offset)
}

/// Enters frame `number`, which holds page 1, into the page lists.
fn enter(shm: &Shm, number: u32) -> Result<()> {
    let region = region_of(number);
    let exists = shm.has_region(region)?;
    let mut bytes = if exists {
        shm.region(region)?
    } else {
        vec![0; REGION_LEN]
    };
    insert(region, &mut bytes, number, 1)?;
    shm.store_region(region, &bytes)
}

/// Four random bytes.
pub(super) fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    // SAFETY: the buffer is ours and as long as we say.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        return Ok(u32::from_ne_bytes(bytes));
    }
    Err(Error::system(
        "draw",
        "random bytes",
        std::io::Error::last_os_error(),
    ))
}
