//! A database under light watch: one descriptor and one mapped page each, for ten thousand of
//! them.
//!
//! The dead-man byte is held shared, so the WAL-index stays what it is; the database file is not
//! locked and the WAL not pinned. What was known when it was last attached in full is kept, and
//! the audit says at the next attachment whether anything was missed.

use std::path::Path;
use std::sync::Arc;

use super::files::Paths;
use super::open;
use super::scan::SavedTable;
use super::shm::{Pulse, Shm};
use super::source::{Source, SourceOptions, pulse_of};
use super::table::Table;
use crate::engine::names::{self, Identity};
use crate::error::Result;

/// A database of which only changes are noticed.
#[derive(Debug)]
pub struct Watch {
    paths: Box<Paths>,
    db: Identity,
    pub(in crate::engine) shm: Arc<Shm>,
    pub(in crate::engine) seen: Pulse,
    kept: Option<Box<SavedTable>>,
}

impl Watch {
    /// Joins the database at `path`, with the same refusals as [`Source::attach`].
    pub fn attach(path: &Path) -> Result<Watch> {
        let (files, shm) = open::open(path)?;
        let shm = Arc::new(shm);
        let seen = shm.pulse();
        let db = files.db_identity();
        Ok(Watch {
            paths: Box::new(files.paths),
            db,
            shm,
            seen,
            kept: None,
        })
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether anything was committed, or the WAL restarted, since [`Watch::see`].
    pub fn changed(&self) -> bool {
        self.shm.pulse() != self.seen
    }

    /// Whether anything was committed since [`Watch::see`]; a WAL that was only emptied does not
    /// count, as it does not for a [`crate::engine::Sweeper`].
    pub fn committed(&self) -> bool {
        self.shm.pulse().change != self.seen.change
    }

    /// Takes what is there now as seen.
    pub fn see(&mut self) {
        self.seen = self.shm.pulse();
    }

    /// What is kept of the last full attachment, in bytes; [`Watch::forget`] frees it.
    pub fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| {
            kept.hashes.len() * size_of::<wal::digest::PageHash>()
        })
    }

    /// Frees what is kept: the next full attachment scans.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// Whether the names still lead to the same files; see [`Source::verify_names`]. SQLite itself
    /// deletes the `-wal` and `-shm` of a database that its last connection closes.
    pub fn verify_names(&self) -> Result<()> {
        names::same(&self.paths.given, self.db)?;
        names::same(&self.paths.shm, self.shm.identity())
    }

    /// Attaches in full to what is at the path now. If a table was kept, the source stands where it
    /// was left and goes on by reading, or asks for a scan when something is missing.
    pub fn upgrade(&mut self, options: &SourceOptions) -> Result<Source> {
        let (files, shm) = open::open(&self.paths.given)?;
        // Renaming another database over this one leaves the WAL-index where it was.
        let replaced = files.db_identity() != self.db;
        let same = shm.identity() == self.shm.identity() && !replaced;
        let mut source = Source::start(files, Arc::new(shm), options)?;
        if let Some(kept) = self.kept.take() {
            let SavedTable { hashes, mark, .. } = *kept;
            let table = Table::new(hashes);
            match mark {
                // The dead-man byte was held without a gap, so the change counter went on.
                Some(mark) if same => source.rewind(table, mark)?,
                _ if replaced => source.distrust(table, "the database was replaced"),
                _ => source.distrust(table, "its WAL-index was deleted or replaced"),
            }
        }
        Ok(source)
    }
}

impl Source {
    /// Lets go of all but the WAL-index. Tasks that are out must have come back.
    pub fn cool(mut self) -> Result<Watch> {
        self.thaw()?;
        self.drop_pin()?;
        let kept = self.save().map(Box::new);
        let seen = pulse_of(&self.mark);
        let paths = Box::new(self.files.paths.clone());
        Ok(Watch {
            paths,
            db: self.files.db_identity(),
            shm: Arc::clone(&self.shm),
            seen,
            kept,
        })
    }
}
