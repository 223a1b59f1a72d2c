//! Real SQLite databases for the tests: made by SQLite itself, read back as plain bytes.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use foreshadow_wal::sqlite::{
    Checksum, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WalFrameHeader, WalHeader,
};
use rusqlite::Connection;
use tempfile::TempDir;

/// A database in WAL mode with an open connection that never checkpoints.
pub struct Database {
    pub connection: Connection,
    path: PathBuf,
    _dir: TempDir,
}

impl Database {
    pub fn new(page_size: u32) -> Database {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("tenant.db");
        let connection = Connection::open(&path).expect("an empty database");
        connection
            .execute_batch(&format!(
                "PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL;
                 PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF;"
            ))
            .expect("pragmas");
        Database {
            connection,
            path,
            _dir: dir,
        }
    }

    /// A table of accounts of about `row_len` bytes each.
    pub fn accounts(page_size: u32, rows: u32, row_len: u32) -> Database {
        let database = Database::new(page_size);
        database
            .connection
            .execute_batch(&format!(
                "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);
                 WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{rows})
                 INSERT INTO account
                 SELECT i, i*7919%1000000, substr(hex(randomblob({row_len})),1,{row_len}) FROM n;"
            ))
            .expect("a table of accounts");
        database
    }

    pub fn execute(&self, sql: &str) {
        self.connection.execute_batch(sql).expect(sql);
    }

    /// Moves the log's content into the database file; the next write starts the log afresh.
    pub fn checkpoint(&self) {
        self.execute("PRAGMA wal_checkpoint(RESTART)");
    }

    pub fn file(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the database file")
    }

    pub fn log(&self) -> Log {
        Log::parse(&fs::read(beside(&self.path, "-wal")).expect("the log"))
    }

    pub fn index(&self) -> Vec<u8> {
        fs::read(beside(&self.path, "-shm")).expect("the index")
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The valid frames of a `-wal` file.
pub struct Log {
    pub header: WalHeader,
    pub frames: Vec<(WalFrameHeader, Vec<u8>)>,
}

impl Log {
    /// Frames as far as salts and the chain of checksums hold.
    pub fn parse(bytes: &[u8]) -> Log {
        let header = WalHeader::parse(bytes).expect("a log written by SQLite");
        let mut frames = Vec::new();
        let mut seed: Checksum = header.checksum;
        let frame_len = WAL_FRAME_HEADER_LEN + header.page_size as usize;
        for bytes in bytes[WAL_HEADER_LEN..].chunks_exact(frame_len) {
            let (head, image) = bytes.split_at(WAL_FRAME_HEADER_LEN);
            let head = WalFrameHeader::parse(head).expect("24 bytes");
            if !head.holds(&header, seed, image) {
                break;
            }
            seed = head.checksum;
            frames.push((head, image.to_vec()));
        }
        Log { header, frames }
    }

    /// The frames, split at commits.
    pub fn transactions(&self) -> Vec<&[(WalFrameHeader, Vec<u8>)]> {
        self.frames
            .split_inclusive(|(head, _)| head.is_commit())
            .collect()
    }
}
