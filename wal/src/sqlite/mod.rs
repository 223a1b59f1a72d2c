//! SQLite's file formats, decoded and encoded without libsqlite3 and without touching a file.
//!
//! | module | what it says |
//! |---|---|
//! | [`log`](self::WalHeader) | the `-wal` file: header, frame headers, the checksum chain |
//! | [`index`](self::IndexHeader) | the `-shm` file: header, marks and lock bytes |
//! | [`hash`](self::frame_of) | the `-shm` file: which frame holds which page |
//! | [`database`](self::DatabaseHeader) | the first 100 bytes of a database, and its lock bytes |
//!
//! Section numbers are those of <https://sqlite.org/fileformat2.html> ("file format") and
//! <https://sqlite.org/walformat.html> ("WAL-mode file format").

mod checksum;
mod database;
mod hash;
mod index;
mod log;

pub use checksum::{Checksum, WordOrder, checksum};
pub use database::{
    DATABASE_HEADER_LEN, DatabaseHeader, PENDING_BYTE, RESERVED_BYTE, SHARED_FIRST, SHARED_SIZE,
    VERSION_FENCED, VERSION_ROLLBACK, VERSION_WAL, lock_page,
};
pub use hash::{
    FIRST_REGION_PAGES, HASH_AT, HASH_SLOTS, REGION_LEN, REGION_PAGES, clear_beyond, frame_of,
    insert, page_of_frame, region_base, region_of,
};
pub use index::{
    BACKFILL_AT, BACKFILL_ATTEMPTED_AT, CHECKPOINT_LOCK, DEAD_MAN_SWITCH_LOCK, INDEX_HEADER_LEN,
    INDEX_PREFIX_LEN, IndexHeader, LOCKS_AT, READ_LOCKS, READ_MARK_UNUSED, READ_MARKS,
    READ_MARKS_AT, RECOVER_LOCK, SECOND_HEADER_AT, WRITE_LOCK, read_lock,
};
pub use log::{
    Salts, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WAL_VERSION, WalFrameHeader, WalHeader,
    frame_offset,
};

/// A page size as SQLite allows it: a power of two from 512 to 65,536.
fn is_page_size(page_size: u32) -> bool {
    (512..=65_536).contains(&page_size) && page_size.is_power_of_two()
}
