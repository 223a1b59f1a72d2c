//! Ack journals: what every writer was told had been committed, outside of any database.
//!
//! One file per writer, records of 40 bytes appended by one write(2) each after COMMIT returned; a
//! torn last record (the writer was killed) is no promise. Times are CLOCK_MONOTONIC, so that
//! writers in other processes, the moves and the sampler share one axis.
//!
//! | offset | field |
//! |---|---|
//! | 0 | writer u32 |
//! | 4 | tenant u32 |
//! | 8 | seq u64, from 1, without a gap |
//! | 16 | due_ns u64: when the writer wanted to begin |
//! | 24 | start_ns u64: when it first began |
//! | 32 | end_ns u64: when COMMIT had returned |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::harness::Error;

/// Bytes of a record.
pub const ACK_LEN: usize = 40;

/// One acknowledged transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    pub writer: u32,
    pub tenant: u32,
    pub seq: u64,
    pub due_ns: u64,
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Ack {
    pub fn encode(&self) -> [u8; ACK_LEN] {
        let mut bytes = [0; ACK_LEN];
        bytes[0..4].copy_from_slice(&self.writer.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.tenant.to_le_bytes());
        let words = [self.seq, self.due_ns, self.start_ns, self.end_ns];
        for (to, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub fn decode(bytes: &[u8; ACK_LEN]) -> Ack {
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Ack {
            writer: half(0),
            tenant: half(4),
            seq: word(8),
            due_ns: word(16),
            start_ns: word(24),
            end_ns: word(32),
        }
    }
}

/// All whole records of one journal; empty if the writer has not begun.
pub fn read(path: &Path) -> Result<Vec<Ack>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::at("read", path, error)),
    };
    let (records, _torn) = bytes.as_chunks::<ACK_LEN>();
    Ok(records.iter().map(Ack::decode).collect())
}

/// Every journal in `dir`, each as its writer's acks in order.
pub fn read_all(dir: &Path) -> Result<Vec<Vec<Ack>>, Error> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .map_err(|error| Error::at("list", dir, error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "ack"))
        .collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// How many transactions each journal in `dir` acknowledges, by their lengths alone.
pub fn counts(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let journals = entries.filter(|path| path.extension().is_some_and(|end| end == "ack"));
    let count = |path: PathBuf| {
        let length = fs::metadata(&path).ok()?.len();
        Some((path, length / ACK_LEN as u64))
    };
    journals.filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_is_no_promise() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("1.ack");
        let ack = Ack {
            writer: 1,
            tenant: 2,
            seq: 3,
            due_ns: 4,
            start_ns: 5,
            end_ns: 6,
        };
        let mut bytes = ack.encode().to_vec();
        bytes.extend_from_slice(&ack.encode()[..17]);
        fs::write(&path, bytes).expect("written");
        assert_eq!(read(&path).expect("read"), vec![ack]);
        assert_eq!(counts(dir.path()).values().sum::<u64>(), 1);
    }
}
