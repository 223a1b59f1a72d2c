//! Filling a shadow with pages: the first copy, or the repair of one that was away too long.
//!
//! Pages go straight into the database file, in any order and from several moments, so there is no
//! position until [`Shadow::complete`] proved the whole. Nothing is synced before that: a crash
//! loses pages, which the comparison of page hashes finds again.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;

use wal::delta::{Decoder, PagesHead};
use wal::digest::PageHash;
use wal::frame::Frame;
use wal::sqlite::lock_page;
use wal::{Digest, Position};

use super::meta::State;
use super::{Phase, Shadow, busy, keep, refused};
use crate::durable;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// Bytes read at once while hashing a database.
const CHUNK: usize = 1 << 20;

impl Shadow {
    pub fn is_filling(&self) -> bool {
        self.phase == Phase::Filling
    }

    /// Writes the pages of `frame`. When its flags say LAST, [`Shadow::complete`] is next.
    pub fn write_pages(&mut self, frame: &Frame) -> Result<PagesHead> {
        if !self.is_filling() {
            return Err(refused(
                "write pages to",
                &self.paths.database,
                "it is not filling",
            ));
        }
        let head = Decoder::pages_head(frame).map_err(|e| self.decoding(e))?;
        self.check_identity(head.partition, head.page_size, head.page_count)?;
        let failure = RefCell::new(None);
        let (database, path, hashes) = (&self.database, &self.paths.database, &mut self.hashes);
        let mut digest = self.digest;
        let decoded = self.decoder.pages(frame, &mut |page, image| {
            let at = page as usize - 1;
            if hashes.len() <= at {
                hashes.resize(at + 1, PageHash::ABSENT);
            }
            // Absent while its bytes are in doubt: a failed write is found by the comparison.
            let old = std::mem::replace(&mut hashes[at], PageHash::ABSENT);
            digest = digest.replace(old, PageHash::ABSENT);
            let written = durable::write_at(database, path, image, at as u64 * image.len() as u64);
            if written.is_ok() {
                hashes[at] = PageHash::of(page, image);
                digest = digest.replace(PageHash::ABSENT, hashes[at]);
            }
            keep(&failure, written)
        });
        self.digest = digest;
        if let Some(failure) = failure.into_inner() {
            return Err(failure);
        }
        failpoint::pass(Step::ShipFilled)?;
        decoded.map_err(|e| self.decoding(e))
    }

    /// Ends the filling: the pages are proven to be `position`, made durable, and the shadow
    /// follows from there. `Corrupt`: they are not; the hashes were read anew from the file, and
    /// another round of comparing and sending pages is needed.
    pub fn complete(&mut self, position: Position, page_count: u32) -> Result<()> {
        if !self.is_filling() {
            return Err(refused(
                "complete",
                &self.paths.database,
                "it is not filling",
            ));
        }
        self.check_identity(self.partition(), self.page_size(), page_count)?;
        self.set_database_len(page_count)?;
        self.hashes.resize(page_count as usize, PageHash::ABSENT);
        self.digest = Digest::of(&self.hashes);
        if self.digest != position.digest {
            let found = self.digest;
            self.rehash()?;
            let reason = format!("its digest is {found}, the source has {}", position.digest);
            return Err(self.corrupt("complete", reason));
        }
        failpoint::pass(Step::ShipProven)?;
        durable::sync_data(&self.database, &self.paths.database)?;
        durable::sync_dir(&self.paths.dir)?;
        self.meta().set(State::At {
            position,
            page_count,
        })?;
        self.position = position;
        self.checkpointed = position;
        self.phase = Phase::Following;
        failpoint::reach(Step::ShipCompleted);
        Ok(())
    }

    /// Gives up the position and goes back to filling, with all pages that are here: for a shadow
    /// that was away too long or was found to differ. Reads and hashes the whole database.
    pub fn refill(&mut self) -> Result<()> {
        match self.phase {
            Phase::Filling => return self.rehash(),
            Phase::Landing { .. } => {
                return Err(refused("refill", &self.paths.database, "it is landing"));
            }
            Phase::Following | Phase::Suspect if self.checkpoint.is_some() => {
                return Err(busy("refill", &self.paths.database));
            }
            Phase::Following | Phase::Suspect => {}
        }
        self.meta().set(State::Filling)?;
        self.phase = Phase::Filling;
        let mut image = vec![0; self.page_size() as usize];
        for (page, frame) in self.wal.map() {
            self.wal.read_frame(*frame, &mut image)?;
            let at = u64::from(page - 1) * image.len() as u64;
            durable::write_at(&self.database, &self.paths.database, &image, at)?;
        }
        self.set_database_len(self.page_count())?;
        self.wal.restart()?;
        self.rehash()
    }

    /// Reads every page hash anew from the database file.
    fn rehash(&mut self) -> Result<()> {
        self.hashes = hash_database(&self.database, &self.paths.database, self.page_size())?;
        self.digest = Digest::of(&self.hashes);
        Ok(())
    }

    fn set_database_len(&self, page_count: u32) -> Result<()> {
        set_len(
            &self.database,
            &self.paths.database,
            page_count,
            self.page_size(),
        )
    }
}

/// Makes a database file exactly `page_count` pages long.
pub(super) fn set_len(file: &File, path: &Path, page_count: u32, page_size: u32) -> Result<()> {
    let len = u64::from(page_count) * u64::from(page_size);
    file.set_len(len)
        .map_err(|e| Error::at("set the size of", path, e))
}

/// The hash of each page of a database file; the lock page has none.
pub(super) fn hash_database(file: &File, path: &Path, page_size: u32) -> Result<Vec<PageHash>> {
    let size = page_size as usize;
    let len = file
        .metadata()
        .map_err(|e| Error::at("stat", path, e))?
        .len();
    let pages = u32::try_from(len.div_ceil(u64::from(page_size))).map_err(|_| {
        let reason = "it has more pages than SQLite can number";
        Error::new(Kind::Corrupt, "read", path.display().to_string(), reason)
    })?;
    let mut hashes = Vec::with_capacity(pages as usize);
    let mut chunk = vec![0; CHUNK.max(size)];
    while (hashes.len() as u32) < pages {
        let at = hashes.len() as u64 * u64::from(page_size);
        durable::read_at(file, path, &mut chunk, at)?;
        for image in chunk.chunks_exact(size).take(pages as usize - hashes.len()) {
            hashes.push(page_hash(hashes.len() as u32 + 1, image, page_size));
        }
    }
    Ok(hashes)
}

/// The hash of an image, none for the lock page.
pub(super) fn page_hash(page: u32, image: &[u8], page_size: u32) -> PageHash {
    match lock_page(page_size) == Some(page) {
        true => PageHash::ABSENT,
        false => PageHash::of(page, image),
    }
}
