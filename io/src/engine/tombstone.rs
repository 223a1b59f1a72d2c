//! What stands at the old path of a database that moved away.
//!
//! Left empty, the path would become a new, empty database at the next open. A file whose format
//! versions are 3 is "not a database" to every SQLite (file format, section 1.3.3), to read and to
//! write.

use std::path::Path;

use wal::sqlite::VERSION_FENCED;

use crate::durable::{self, Attributes};
use crate::error::Result;

const PAGE_LEN: usize = 512;

/// Creates a tombstone at `path`, which must not exist, with the owner and mode of the database it
/// stands for; durable but for its name.
pub fn tombstone(path: &Path, attributes: &Attributes) -> Result<()> {
    let file = durable::create_new(path, attributes)?;
    durable::write_at(&file, path, &page(), 0)?;
    durable::sync_data(&file, path)
}

/// A database of one empty page but for its versions.
fn page() -> [u8; PAGE_LEN] {
    let mut page = [0; PAGE_LEN];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&(PAGE_LEN as u16).to_be_bytes());
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
    page[105..107].copy_from_slice(&(PAGE_LEN as u16).to_be_bytes());
    page
}
