//! A shadow: the copy of a partition in a generation directory of its own, ready to be served.
//!
//! Files: the database, a -wal in SQLite's format, and `shadow.meta` that says what the two mean.
//! While *filling*, pages are written straight into the database and there is no position. While
//! *following*, deltas are appended to the -wal, unsynced: what makes them durable is the journal
//! ([`crate::journal`]), and a checkpoint moves the database file forward. While *landing*, the
//! -wal is what will be served.
//!
//! Invariants: a following shadow is, byte for byte, its source at [`Shadow::position`]; a delta is
//! taken whole or not at all; the digest is verified before a delta becomes visible; after a crash
//! the shadow stands at its last checkpoint, or at the position proven by the landed -wal.
//!
//! All calls block on the file system. Those that touch a whole database say so; they are for a
//! helper thread (a [`Shadow`] is `Send`).

mod checkpoint;
mod fill;
mod landing;
mod meta;
mod native;
mod recover;
mod reverse;
mod walfile;

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use wal::delta::{Decoder, DeltaHead};
use wal::digest::PageHash;
use wal::frame::Frame;
use wal::sqlite::lock_page;
use wal::{Digest, Epoch, PartitionId, Position};

use crate::durable;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};
use checkpoint::Mark;
use meta::{Identity, MetaFile};
use walfile::{Tail, WalFile};

pub use crate::durable::Attributes;
pub use checkpoint::{CheckpointDone, CheckpointStep, CheckpointTask};
pub use landing::LandingSync;
pub use recover::{Found, Opened, Stage};
pub use reverse::{FromLive, PageReader, Progress};

/// Most pages of a shadow: bounds the table of page hashes (8 bytes each) that a peer's word can
/// make us hold.
const PAGES_MAX: u32 = 1 << 28;

/// Where a shadow's files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShadowPaths {
    dir: PathBuf,
    database: PathBuf,
    wal: PathBuf,
    meta: PathBuf,
}

impl ShadowPaths {
    /// Those of the database called `file_name` in generation directory `dir`.
    pub fn new(dir: &Path, file_name: &str) -> ShadowPaths {
        ShadowPaths {
            dir: dir.to_owned(),
            database: dir.join(file_name),
            wal: dir.join(format!("{file_name}-wal")),
            meta: dir.join("shadow.meta"),
        }
    }

    pub fn database(&self) -> &Path {
        &self.database
    }

    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// Removes the -wal of a native log's copy that is served: to a log it means nothing. May be
    /// repeated.
    pub fn drop_wal(&self) -> Result<()> {
        match std::fs::remove_file(&self.wal) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::at("remove", &self.wal, error))
            }
            _ => Ok(()),
        }
    }
}

/// What a shadow is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShadowSpec {
    pub partition: PartitionId,
    pub page_size: u32,
    /// Owner and mode of the source's file.
    pub attributes: Attributes,
}

/// The open copy. See the module for what it may be doing.
#[derive(Debug)]
pub struct Shadow {
    paths: ShadowPaths,
    identity: Identity,
    database: Arc<File>,
    wal: WalFile,
    /// Shared with a checkpoint that runs elsewhere.
    meta: Arc<Mutex<MetaFile>>,
    phase: Phase,
    /// Up to where a running checkpoint copies.
    checkpoint: Option<Mark>,
    /// Where the database file stands.
    checkpointed: Position,
    /// The position of what is readable; without meaning while filling.
    position: Position,
    hashes: Vec<PageHash>,
    digest: Digest,
    decoder: Decoder,
}

/// What the shadow is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Filling,
    Following,
    /// `settled`: the position of what the -wal holds is known. It is not after a crash.
    Landing {
        epoch: Epoch,
        base: Position,
        base_pages: u32,
        settled: bool,
    },
    /// It can't be believed any more; [`Shadow::refill`] compares it anew.
    Suspect,
}

impl Shadow {
    /// Makes an empty shadow, which is filling. `paths.dir` must exist; the files must not.
    pub fn create(paths: &ShadowPaths, spec: &ShadowSpec) -> Result<Shadow> {
        let identity = Identity {
            partition: spec.partition,
            page_size: spec.page_size,
        };
        if lock_page(spec.page_size).is_none() {
            let reason = format!("{} is no page size of SQLite", spec.page_size);
            return Err(refused("create shadow", &paths.database, reason));
        }
        let database = durable::create_new(&paths.database, &spec.attributes)?;
        let wal = WalFile::create(&paths.wal, spec.page_size, &spec.attributes)?;
        let meta = MetaFile::create(&paths.meta, identity, &Attributes::own(0o600))?;
        durable::sync_dir(&paths.dir)?;
        Ok(Shadow {
            paths: paths.clone(),
            identity,
            database: Arc::new(database),
            wal,
            meta: Arc::new(Mutex::new(meta)),
            phase: Phase::Filling,
            checkpoint: None,
            checkpointed: Position::default(),
            position: Position::default(),
            hashes: Vec::new(),
            digest: Digest::default(),
            decoder: Decoder::new(),
        })
    }

    pub fn paths(&self) -> &ShadowPaths {
        &self.paths
    }

    pub fn partition(&self) -> PartitionId {
        self.identity.partition
    }

    pub fn page_size(&self) -> u32 {
        self.identity.page_size
    }

    pub fn page_count(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// Where the copy stands; `None` while it is filling or must be compared anew.
    pub fn position(&self) -> Option<Position> {
        match self.phase {
            Phase::Following | Phase::Landing { settled: true, .. } => Some(self.position),
            _ => None,
        }
    }

    /// The hash of each page, page 1 first; what a source compares with its own.
    pub fn hashes(&self) -> &[PageHash] {
        &self.hashes
    }

    /// The digest of the pages that are here, at whatever position.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Frames in the -wal: what a checkpoint would take.
    pub fn wal_frames(&self) -> u32 {
        self.wal.frames()
    }

    /// Bytes of those frames.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.bytes()
    }

    /// Reads `page` as of the position; zeros beyond the end.
    pub fn read_page(&self, page: u32, into: &mut [u8]) -> Result<()> {
        if into.len() != self.page_size() as usize {
            let reason = format!("a page has {} bytes, not {}", self.page_size(), into.len());
            return Err(refused("read page of", &self.paths.database, reason));
        }
        read_image(
            &self.database,
            &self.paths,
            &self.wal,
            self.page_count(),
            page,
            into,
        )
    }

    /// Applies a delta that starts where this shadow stands, and returns where it stands then. One
    /// that ends at or before the position was applied already and changes nothing.
    ///
    /// `Refused`: the delta starts elsewhere; nothing changed. `Corrupt`: the result would not
    /// have the source's digest; nothing changed, and the shadow has no position until it was
    /// compared anew ([`Shadow::refill`]). `Full`: nothing changed; try again.
    pub fn apply(&mut self, frame: &Frame) -> Result<Position> {
        let head = Decoder::delta_head(frame).map_err(|e| self.decoding(e))?;
        if self.position().is_none() {
            return Err(refused(
                "apply a delta to",
                &self.paths.database,
                "it has no position",
            ));
        }
        self.check_identity(head.partition, head.page_size, head.page_count)?;
        if (head.to.epoch, head.to.lsn) <= (self.position.epoch, self.position.lsn) {
            return Ok(self.position);
        }
        // The epoch is not compared: a new owner's first delta begins where the old one's log
        // ended.
        if (head.from.lsn, head.from.digest) != (self.position.lsn, self.position.digest) {
            let reason = format!(
                "it starts at {}, the copy stands at {}",
                head.from, self.position
            );
            return Err(refused("apply a delta to", &self.paths.database, reason));
        }
        match self.take(frame, &head) {
            Ok(()) => Ok(self.position),
            Err(error) => {
                if error.kind() == Kind::Corrupt {
                    self.phase = Phase::Suspect;
                }
                Err(error)
            }
        }
    }

    /// Decodes into an invisible tail of the -wal, verifies, then commits.
    fn take(&mut self, frame: &Frame, head: &DeltaHead) -> Result<()> {
        self.wal.grow()?;
        let mut tail = self.wal.begin();
        let mut edits: Vec<(u32, PageHash)> = Vec::new();
        let failure = RefCell::new(None);
        let (database, paths, log) = (&self.database, &self.paths, &self.wal);
        let pages = self.hashes.len() as u32;
        let decoded = self.decoder.delta(
            frame,
            &mut |page, into| {
                keep(
                    &failure,
                    read_image(database, paths, log, pages, page, into),
                )
            },
            &mut |page, image| {
                edits.push((page, PageHash::of(page, image)));
                keep(&failure, tail.push(page, image))
            },
        );
        if let Some(failure) = failure.into_inner() {
            return Err(failure);
        }
        decoded.map_err(|e| self.decoding(e))?;
        let digest = self.digest_after(&edits, head.page_count);
        if digest != head.to.digest {
            let reason = format!(
                "its digest would be {digest}, the source has {}",
                head.to.digest
            );
            return Err(self.corrupt("apply a delta to", reason));
        }
        self.commit(tail, head.page_count)?;
        self.hashes
            .resize(head.page_count as usize, PageHash::ABSENT);
        for (page, hash) in edits {
            self.hashes[page as usize - 1] = hash;
        }
        self.digest = digest;
        self.position = head.to;
        failpoint::reach(Step::ShipApplied);
        Ok(())
    }

    /// The digest once `edits` are made and the database has `page_count` pages.
    fn digest_after(&self, edits: &[(u32, PageHash)], page_count: u32) -> Digest {
        let kept = self.hashes.len().min(page_count as usize);
        let cut = self.hashes[kept..].iter();
        let digest = cut.fold(self.digest, |digest, old| {
            digest.replace(*old, PageHash::ABSENT)
        });
        edits.iter().fold(digest, |digest, (page, new)| {
            let old = self.hashes[..kept].get(*page as usize - 1);
            digest.replace(old.copied().unwrap_or(PageHash::ABSENT), *new)
        })
    }

    fn commit(&mut self, mut tail: Tail, page_count: u32) -> Result<()> {
        if tail.is_empty() && page_count != self.page_count() {
            // A change of size needs a frame to carry it: page 1 as it is.
            let mut image = vec![0; self.page_size() as usize];
            self.read_page(1, &mut image)?;
            tail.push(1, &image)?;
        }
        if tail.is_empty() {
            Ok(())
        } else {
            self.wal.commit(tail, page_count)
        }
    }

    fn check_identity(&self, partition: PartitionId, page_size: u32, pages: u32) -> Result<()> {
        let wrong = if partition != self.identity.partition {
            format!(
                "it is of partition {partition}, the copy of {}",
                self.identity.partition
            )
        } else if page_size != self.identity.page_size {
            format!(
                "its pages have {page_size} bytes, the copy's {}",
                self.identity.page_size
            )
        } else if pages == 0 || pages > PAGES_MAX {
            format!("a database of {pages} pages; 1 to {PAGES_MAX} are accepted")
        } else {
            return Ok(());
        };
        Err(refused("take a frame for", &self.paths.database, wrong))
    }

    fn meta(&self) -> MutexGuard<'_, MetaFile> {
        // A holder that panicked changed nothing in memory before its write was durable.
        self.meta
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn subject(&self) -> String {
        self.paths.database.display().to_string()
    }

    fn decoding(&self, error: wal::Error) -> Error {
        let kind = match error.kind() {
            wal::Kind::Refused => Kind::Refused,
            _ => Kind::Corrupt,
        };
        Error::new(
            kind,
            "decode a frame for",
            self.subject(),
            error.to_string(),
        )
    }

    fn corrupt(&self, op: &'static str, reason: String) -> Error {
        Error::new(Kind::Corrupt, op, self.subject(), reason)
    }
}

/// Reads `page` out of the -wal or else the database; zeros beyond the end.
fn read_image(
    database: &File,
    paths: &ShadowPaths,
    log: &WalFile,
    pages: u32,
    page: u32,
    into: &mut [u8],
) -> Result<()> {
    if page == 0 || page > pages {
        into.fill(0);
        return Ok(());
    }
    if log.read(page, into)? {
        return Ok(());
    }
    let at = u64::from(page - 1) * into.len() as u64;
    durable::read_at(database, &paths.database, into, at).map(|_| ())
}

/// Keeps our error while a decoder, which knows only its own, passes on that there was one.
fn keep(
    failure: &RefCell<Option<Error>>,
    result: Result<()>,
) -> std::result::Result<(), wal::Error> {
    result.map_err(|error| {
        let text = error.to_string();
        *failure.borrow_mut() = Some(error);
        wal::Error::Page(text)
    })
}

fn refused(op: &'static str, path: &Path, reason: impl Into<String>) -> Error {
    Error::new(Kind::Refused, op, path.display().to_string(), reason)
}

fn busy(op: &'static str, path: &Path) -> Error {
    Error::new(
        Kind::Retry,
        op,
        path.display().to_string(),
        "a checkpoint is running",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_and_its_tasks_may_change_threads() {
        fn assert_send<T: Send>() {}
        assert_send::<Shadow>();
        assert_send::<CheckpointTask>();
        assert_send::<CheckpointDone>();
        assert_send::<LandingSync>();
        assert_send::<FromLive>();
    }
}
