//! The reverse shadow: after a partition moved away, its old copy becomes a shadow of the new one.
//!
//! The old files can't be used themselves: they hold the fence, and connections may still read
//! them. So a new generation is made by reading the pages at the final position. The old database
//! file may be cloned first, so that only pages that differ from it are written.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wal::Position;
use wal::digest::PageHash;
use wal::sqlite::lock_page;

use super::{Shadow, ShadowPaths, ShadowSpec};
use crate::clone::clone_file;
use crate::durable;
use crate::error::{Error, Result};
use crate::failpoint::{self, Step};

/// Reads a page at the final position into a whole page of bytes.
pub type PageReader = Box<dyn FnMut(u32, &mut [u8]) -> Result<()> + Send>;

/// How far the copy is; shared with whoever reports it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pages: Arc<AtomicU64>,
    cloned: Arc<AtomicU64>,
}

impl Progress {
    /// Pages compared or written so far.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Bytes cloned from the old file so far.
    pub fn bytes_cloned(&self) -> u64 {
        self.cloned.load(Ordering::Relaxed)
    }
}

/// A copy to be made; run it on a helper thread.
pub struct FromLive {
    paths: ShadowPaths,
    spec: ShadowSpec,
    position: Position,
    page_count: u32,
    read: PageReader,
    seed: Option<PathBuf>,
    progress: Progress,
}

impl std::fmt::Debug for FromLive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FromLive")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Shadow {
    /// A shadow at `position` in the fresh directory of `paths`, made of what `read` returns for
    /// pages 1 to `page_count`.
    pub fn from_live(
        paths: &ShadowPaths,
        spec: &ShadowSpec,
        position: Position,
        page_count: u32,
        read: PageReader,
    ) -> FromLive {
        let (paths, spec, progress) = (paths.clone(), *spec, Progress::default());
        FromLive {
            paths,
            spec,
            position,
            page_count,
            read,
            seed: None,
            progress,
        }
    }

    /// Takes one page that was read here, while filling.
    fn put_page(&mut self, page: u32, image: &[u8], present: bool) -> Result<()> {
        let at = page as usize - 1;
        if self.hashes.len() <= at {
            self.hashes.resize(at + 1, PageHash::ABSENT);
        }
        if !present {
            let offset = at as u64 * image.len() as u64;
            durable::write_at(&self.database, &self.paths.database, image, offset)?;
        }
        self.hashes[at] = PageHash::of(page, image);
        Ok(())
    }
}

impl FromLive {
    /// Clones this file first: the old database file, whose pages mostly are the wanted ones.
    #[must_use]
    pub fn seed(mut self, path: PathBuf) -> FromLive {
        self.seed = Some(path);
        self
    }

    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Reads, compares and writes every page, proves the digest, and makes the shadow durable. On
    /// an error the directory may be removed.
    pub fn run(mut self) -> Result<Shadow> {
        let mut shadow = Shadow::create(&self.paths, &self.spec)?;
        failpoint::pass(Step::ReverseCreated)?;
        if let Some(seed) = &self.seed {
            let source = File::open(seed).map_err(|e| Error::at("open", seed, e))?;
            let target = (&*shadow.database, shadow.paths.database.as_path());
            clone_file((&source, seed), target, &self.progress.cloned)?;
        }
        let size = self.spec.page_size as usize;
        let lock = lock_page(self.spec.page_size);
        let (mut image, mut old) = (vec![0; size], vec![0; size]);
        for page in (1..=self.page_count).filter(|page| Some(*page) != lock) {
            (self.read)(page, &mut image)?;
            let at = u64::from(page - 1) * size as u64;
            let path = &shadow.paths.database;
            let whole = self.seed.is_some()
                && durable::read_at(&shadow.database, path, &mut old, at)? == size;
            shadow.put_page(page, &image, whole && old == image)?;
            self.progress.pages.fetch_add(1, Ordering::Relaxed);
        }
        failpoint::pass(Step::ReverseCopied)?;
        let len = u64::from(self.page_count) * size as u64;
        durable::flush_slowly(&shadow.database, &shadow.paths.database, len)?;
        shadow.complete(self.position, self.page_count)?;
        Ok(shadow)
    }
}
