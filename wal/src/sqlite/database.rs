//! The first 100 bytes of a database file, and the bytes that its locks lie on.

use super::is_page_size;
use crate::error::Error;

/// Bytes of the database header (file format, section 1.3).
pub const DATABASE_HEADER_LEN: usize = 100;
/// Read and write version of a database with a rollback journal (section 1.3.3).
pub const VERSION_ROLLBACK: u8 = 1;
/// Read and write version of a database in WAL mode (section 1.3.3).
pub const VERSION_WAL: u8 = 2;
/// A write version above 2 makes SQLite open the database read-only, a read version above 2 not at
/// all (section 1.3.3); the fence of a switchover writes it.
pub const VERSION_FENCED: u8 = 3;
/// Held by a writer that waits for readers to leave. Lock bytes lie at 1 GiB, on the lock page
/// (section 1.4).
pub const PENDING_BYTE: u64 = 0x4000_0000;
/// Held by the one connection that is about to write.
pub const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
/// First of the bytes that readers lock shared.
pub const SHARED_FIRST: u64 = PENDING_BYTE + 2;
/// How many bytes readers lock.
pub const SHARED_SIZE: u64 = 510;

const WHAT: &str = "database header";
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The page that holds the lock bytes and never content (section 1.4); `None` where the page size
/// is not one of SQLite's.
pub fn lock_page(page_size: u32) -> Option<u32> {
    is_page_size(page_size).then(|| PENDING_BYTE as u32 / page_size + 1)
}

/// The fields of the database header that a copy depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DatabaseHeader {
    /// Offset 16; the stored value 1 means 65,536 (section 1.3.2).
    pub page_size: u32,
    /// Offset 18.
    pub write_version: u8,
    /// Offset 19.
    pub read_version: u8,
    /// Offset 20: bytes at the end of each page that belong to an extension (section 1.3.4).
    pub reserved: u8,
    /// Offset 24 (section 1.3.6). Not advanced by each commit in WAL mode.
    pub change_counter: u32,
    /// Offset 28 (section 1.3.7). Meaningful only where [`DatabaseHeader::page_count_holds`].
    pub page_count: u32,
    /// Offset 92: the change counter when the page count was written (section 1.3.14).
    pub version_valid_for: u32,
    /// Offset 96: the SQLite that wrote last (section 1.3.14).
    pub sqlite_version: u32,
}

impl DatabaseHeader {
    /// Reads the first bytes of a database or of an image of its page 1.
    pub fn parse(bytes: &[u8]) -> Result<DatabaseHeader, Error> {
        let Some(head) = bytes.first_chunk::<DATABASE_HEADER_LEN>() else {
            let (have, need) = (bytes.len(), DATABASE_HEADER_LEN);
            return Err(Error::Short {
                what: WHAT,
                have,
                need,
            });
        };
        if &head[..16] != MAGIC {
            return Err(Error::Magic { what: WHAT });
        }
        let page_size = match u16::from_be_bytes([head[16], head[17]]) {
            1 => 65_536,
            size => u32::from(size),
        };
        if !is_page_size(page_size) {
            let value = u64::from(page_size);
            return Err(Error::Field {
                what: WHAT,
                field: "page_size",
                value,
            });
        }
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok(DatabaseHeader {
            page_size,
            write_version: head[18],
            read_version: head[19],
            reserved: head[20],
            change_counter: word(24),
            page_count: word(28),
            version_valid_for: word(92),
            sqlite_version: word(96),
        })
    }

    /// Whether the stored page count may be believed: it is not zero and was written together
    /// with the change counter (section 1.3.7). Otherwise the file's length says.
    pub fn page_count_holds(&self) -> bool {
        self.page_count != 0 && self.change_counter == self.version_valid_for
    }

    /// Whether the database is in WAL mode.
    pub fn is_wal(&self) -> bool {
        self.write_version == VERSION_WAL && self.read_version == VERSION_WAL
    }
}
