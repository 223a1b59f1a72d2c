//! What a shadow's files mean: one small file, `shadow.meta`, beside them.
//!
//! Two slots are written in turn, each with a sequence number and a checksum; the newest valid slot
//! counts. One write and one fdatasync make a change durable: the file never changes size, so this
//! is cheaper than write, fsync, rename, fsync of the directory, and a torn slot leaves the other.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `FSSM` |
//! | 4 | 4 | version 1 |
//! | 8 | 8 | sequence |
//! | 16 | 8 | partition |
//! | 24 | 4 | page size |
//! | 28 | 4 | state: 1 filling, 2 at, 3 checkpointing, 4 landing, 5 promoted |
//! | 32 | 24 | position: epoch, lsn, digest |
//! | 56 | 4 | page count |
//! | 60 | 4 | frames of the -wal to copy |
//! | 64 | 8 | salts of the -wal |
//! | 72 | 8 | epoch of the landing or promotion |
//! | 508 | 4 | crc32 of the 508 bytes before |

use std::fs::File;
use std::path::{Path, PathBuf};

use wal::digest::Digest;
use wal::sqlite::Salts;
use wal::{Epoch, Lsn, PartitionId, Position};

use crate::durable::{self, Attributes};
use crate::error::{Error, Kind, Result};

const SLOT_LEN: usize = 512;
/// Slots lie on blocks of their own, so that writing one can't tear the other.
const SLOTS_AT: [u64; 2] = [0, 4096];
const FILE_LEN: u64 = 8192;
const CRC_AT: usize = SLOT_LEN - 4;
const MAGIC: [u8; 4] = *b"FSSM";
const VERSION: u32 = 1;

/// Who the shadow is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub partition: PartitionId,
    pub page_size: u32,
}

/// What the files hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The database file holds pages of several moments.
    Filling,
    /// The database file is the position; the -wal is to be ignored.
    At { position: Position, page_count: u32 },
    /// The first `frames` of the -wal with `salts` are being copied into the database file.
    Checkpointing {
        to: Position,
        page_count: u32,
        frames: u32,
        salts: Salts,
    },
    /// The database file is `base`, and the -wal's commits count: they were or will be served.
    Landing {
        epoch: Epoch,
        base: Position,
        page_count: u32,
    },
    /// The files belong to applications.
    Promoted { epoch: Epoch },
}

/// The open file.
#[derive(Debug)]
pub(super) struct MetaFile {
    path: PathBuf,
    file: File,
    sequence: u64,
    identity: Identity,
    state: State,
}

impl MetaFile {
    pub(super) fn create(
        path: &Path,
        identity: Identity,
        attributes: &Attributes,
    ) -> Result<MetaFile> {
        let file = durable::create_new(path, attributes)?;
        durable::fill_zeros(&file, path, 0, FILE_LEN)?;
        let state = State::Filling;
        let mut meta = MetaFile {
            path: path.to_owned(),
            file,
            sequence: 0,
            identity,
            state,
        };
        meta.set(State::Filling)?;
        Ok(meta)
    }

    pub(super) fn open(path: &Path) -> Result<MetaFile> {
        let file = durable::open_rw(path)?;
        let mut newest: Option<(u64, Identity, State)> = None;
        for at in SLOTS_AT {
            let mut slot = [0; SLOT_LEN];
            durable::read_at(&file, path, &mut slot, at)?;
            if let Some(found) = decode(&slot)
                && newest.is_none_or(|newest| found.0 > newest.0)
            {
                newest = Some(found);
            }
        }
        let Some((sequence, identity, state)) = newest else {
            let reason = "neither slot is valid; the shadow must be made anew";
            return Err(Error::new(
                Kind::Corrupt,
                "read",
                path.display().to_string(),
                reason,
            ));
        };
        Ok(MetaFile {
            path: path.to_owned(),
            file,
            sequence,
            identity,
            state,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Durable on return. After an error either the old or the new state is found.
    pub(super) fn set(&mut self, state: State) -> Result<()> {
        self.sequence += 1;
        let slot = encode(self.sequence, self.identity, state);
        let at = SLOTS_AT[(self.sequence % 2) as usize];
        durable::write_at(&self.file, &self.path, &slot, at)?;
        durable::sync_data(&self.file, &self.path)?;
        self.state = state;
        Ok(())
    }
}

fn encode(sequence: u64, identity: Identity, state: State) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    slot[..4].copy_from_slice(&MAGIC);
    put32(&mut slot, 4, VERSION);
    put64(&mut slot, 8, sequence);
    put64(&mut slot, 16, identity.partition.0);
    put32(&mut slot, 24, identity.page_size);
    match state {
        State::Filling => put32(&mut slot, 28, 1),
        State::At {
            position,
            page_count,
        } => {
            put32(&mut slot, 28, 2);
            put_position(&mut slot, position, page_count);
        }
        State::Checkpointing {
            to,
            page_count,
            frames,
            salts,
        } => {
            put32(&mut slot, 28, 3);
            put_position(&mut slot, to, page_count);
            put32(&mut slot, 60, frames);
            put32(&mut slot, 64, salts.0[0]);
            put32(&mut slot, 68, salts.0[1]);
        }
        State::Landing {
            epoch,
            base,
            page_count,
        } => {
            put32(&mut slot, 28, 4);
            put_position(&mut slot, base, page_count);
            put64(&mut slot, 72, epoch.0);
        }
        State::Promoted { epoch } => {
            put32(&mut slot, 28, 5);
            put64(&mut slot, 72, epoch.0);
        }
    }
    let crc = crc32fast::hash(&slot[..CRC_AT]);
    put32(&mut slot, CRC_AT, crc);
    slot
}

fn decode(slot: &[u8; SLOT_LEN]) -> Option<(u64, Identity, State)> {
    let whole = slot[..4] == MAGIC
        && u32_at(slot, 4) == VERSION
        && u32_at(slot, CRC_AT) == crc32fast::hash(&slot[..CRC_AT]);
    if !whole {
        return None;
    }
    let partition = PartitionId(u64_at(slot, 16));
    let identity = Identity {
        partition,
        page_size: u32_at(slot, 24),
    };
    let position = Position {
        epoch: Epoch(u64_at(slot, 32)),
        lsn: Lsn(u64_at(slot, 40)),
        digest: Digest(u64_at(slot, 48)),
    };
    let page_count = u32_at(slot, 56);
    let epoch = Epoch(u64_at(slot, 72));
    let state = match u32_at(slot, 28) {
        1 => State::Filling,
        2 => State::At {
            position,
            page_count,
        },
        3 => {
            let salts = Salts([u32_at(slot, 64), u32_at(slot, 68)]);
            State::Checkpointing {
                to: position,
                page_count,
                frames: u32_at(slot, 60),
                salts,
            }
        }
        4 => State::Landing {
            epoch,
            base: position,
            page_count,
        },
        5 => State::Promoted { epoch },
        _ => return None,
    };
    wal::sqlite::lock_page(identity.page_size)?;
    Some((u64_at(slot, 8), identity, state))
}

fn put_position(slot: &mut [u8; SLOT_LEN], position: Position, page_count: u32) {
    put64(slot, 32, position.epoch.0);
    put64(slot, 40, position.lsn.0);
    put64(slot, 48, position.digest.0);
    put32(slot, 56, page_count);
}

fn put32(slot: &mut [u8; SLOT_LEN], at: usize, value: u32) {
    slot[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(slot: &mut [u8; SLOT_LEN], at: usize, value: u64) {
    slot[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(slot: &[u8; SLOT_LEN], at: usize) -> u32 {
    u32::from_le_bytes(slot[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(slot: &[u8; SLOT_LEN], at: usize) -> u64 {
    u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        partition: PartitionId(5),
        page_size: 4096,
    };

    fn states() -> Vec<State> {
        let position = Position {
            epoch: Epoch(3),
            lsn: Lsn(77),
            digest: Digest(0xabcd),
        };
        let salts = Salts([8, 9]);
        vec![
            State::Filling,
            State::At {
                position,
                page_count: 12,
            },
            State::Checkpointing {
                to: position,
                page_count: 12,
                frames: 90,
                salts,
            },
            State::Landing {
                epoch: Epoch(4),
                base: position,
                page_count: 12,
            },
            State::Promoted { epoch: Epoch(4) },
        ]
    }

    fn fresh(dir: &tempfile::TempDir) -> MetaFile {
        let path = dir.path().join("shadow.meta");
        MetaFile::create(&path, IDENTITY, &Attributes::own(0o600)).expect("create")
    }

    #[test]
    fn the_last_state_is_found_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut meta = fresh(&dir);
        for state in states() {
            meta.set(state).expect("set");
            let again = MetaFile::open(&meta.path).expect("open");
            assert_eq!((again.state(), again.identity()), (state, IDENTITY));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_state_before_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut meta = fresh(&dir);
        meta.set(states()[1]).expect("set");
        let before = std::fs::read(&meta.path).expect("read");
        meta.set(states()[2]).expect("set");
        let after = std::fs::read(&meta.path).expect("read");
        for cut in 0..SLOT_LEN {
            let mut torn = before.clone();
            for at in SLOTS_AT {
                let at = at as usize;
                torn[at..at + cut].copy_from_slice(&after[at..at + cut]);
            }
            std::fs::write(&meta.path, &torn).expect("tear");
            let found = MetaFile::open(&meta.path).expect("open").state();
            let known = found == states()[1] || found == states()[2];
            assert!(known, "cut at {cut}: {found:?}");
        }
    }

    #[test]
    fn two_damaged_slots_are_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let meta = fresh(&dir);
        std::fs::write(&meta.path, vec![7; FILE_LEN as usize]).expect("damage");
        assert_eq!(
            MetaFile::open(&meta.path).expect_err("damaged").kind(),
            Kind::Corrupt
        );
    }
}
