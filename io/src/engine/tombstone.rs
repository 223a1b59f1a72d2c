//! What stands at the old path of a partition that moved away.
//!
//! Left empty, the path would become a new, empty database or log at the next open. To SQLite it is
//! a file whose format versions are 3, "not a database", to read and to write (file format, section
//! 1.3.3). To the native log it is a control page that is sealed, with nothing behind it: appenders
//! are refused, readers find a log that ended.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use wal::log::control::Creation;
use wal::log::{BLOCK, is_log};
use wal::sqlite::VERSION_FENCED;
use wal::{Engine, Epoch, Lsn, PartitionId};

use crate::durable::{self, Attributes};
use crate::error::Result;

const SQLITE_LEN: usize = 512;
/// Both format versions lie here.
const VERSIONS_AT: u64 = 18;
/// Any length that is allowed: nothing lies behind the control page.
const SEGMENT_BYTES: u32 = 64 << 10;

/// Creates a tombstone at `path`, which must not exist, with the owner and mode of what it stands
/// for; durable but for its name.
pub fn tombstone(
    engine: Engine,
    path: &Path,
    partition: PartitionId,
    attributes: &Attributes,
) -> Result<()> {
    let page = match engine {
        Engine::Sqlite => database().to_vec(),
        Engine::Native => log(partition),
    };
    let file = durable::create_new(path, attributes)?;
    durable::write_at(&file, path, &page, 0)?;
    durable::sync_data(&file, path)
}

/// Whether a tombstone is at `path`.
pub fn is_tombstone(engine: Engine, path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    match engine {
        Engine::Sqlite => {
            let mut versions = [0; 2];
            let read = file.read_exact_at(&mut versions, VERSIONS_AT);
            read.is_ok() && versions == [VERSION_FENCED; 2]
        }
        Engine::Native => {
            let len = file.metadata().map_or(0, |meta| meta.len());
            len == BLOCK as u64 && is_log(&file)
        }
    }
}

/// A database of one empty page but for its versions.
fn database() -> [u8; SQLITE_LEN] {
    let mut page = [0; SQLITE_LEN];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&(SQLITE_LEN as u16).to_be_bytes());
    page[18] = VERSION_FENCED;
    page[19] = VERSION_FENCED;
    // Payload fractions: the only values allowed (section 1.3.5).
    page[21..24].copy_from_slice(&[64, 32, 32]);
    page[27] = 1;
    page[31] = 1;
    // Schema format 4, UTF-8.
    page[47] = 4;
    page[59] = 1;
    page[95] = 1;
    // An empty leaf of the table B-tree, whose content area begins at the page's end.
    page[100] = 13;
    page[105..107].copy_from_slice(&(SQLITE_LEN as u16).to_be_bytes());
    page
}

/// The control page of an empty log that has ended.
fn log(partition: PartitionId) -> Vec<u8> {
    let begin = Lsn(BLOCK as u64);
    let creation = Creation {
        id: partition,
        segment_bytes: SEGMENT_BYTES,
        epoch: Epoch(0),
        first: begin,
        lsn: begin,
        sealed: true,
    };
    creation.page()
}
