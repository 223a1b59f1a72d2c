//! Opening a shadow after a stop or a crash: what `shadow.meta` says decides what the files mean.
//!
//! | meta | what is done |
//! |---|---|
//! | filling | hash what is there |
//! | at | forget the -wal, prove the digest |
//! | checkpointing | verify the -wal, copy again, prove the digest |
//! | landing | change nothing; hash the database with the -wal's commits over it |
//! | promoted | nothing: the files belong to applications |
//!
//! A shadow that fails its proof goes back to filling with the pages that are there: the source
//! sends only what differs.

use std::sync::{Arc, Mutex};

use wal::delta::Decoder;
use wal::{Digest, Epoch, Position};

use super::fill::{hash_database, page_hash};
use super::meta::{Identity, MetaFile, State};
use super::walfile::WalFile;
use super::{Phase, Shadow, ShadowPaths};
use crate::durable;
use crate::error::Result;

/// What opening found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Filling,
    /// It was at a position, but its bytes are not what they were; it is filling again.
    Damaged(Position),
    At(Position),
    /// The path may or may not have been exchanged. `digest` is that of database and -wal.
    Landing {
        epoch: Epoch,
        base: Position,
        digest: Digest,
    },
}

/// A shadow, or word that it is none any more.
#[derive(Debug)]
pub enum Opened {
    Shadow(Box<Shadow>, Found),
    Promoted(Epoch),
}

/// What `shadow.meta` says, without reading anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Filling,
    /// Where the database file stands or will once recovered.
    At(Position),
    Landing {
        epoch: Epoch,
        base: Position,
    },
    Promoted(Epoch),
}

impl Shadow {
    /// Opens what is there. Reads and hashes the whole database.
    pub fn open(paths: &ShadowPaths) -> Result<Opened> {
        let meta = MetaFile::open(&paths.meta)?;
        let (identity, state) = (meta.identity(), meta.state());
        let size = identity.page_size;
        let discard = || WalFile::discard(&paths.wal, size);
        match state {
            State::Promoted { epoch } => Ok(Opened::Promoted(epoch)),
            State::Filling => {
                let shadow = Shadow::assemble(paths, identity, meta, discard()?)?;
                Ok(Opened::Shadow(Box::new(shadow), Found::Filling))
            }
            State::At {
                position,
                page_count,
            } => {
                let shadow = Shadow::assemble(paths, identity, meta, discard()?)?;
                shadow.proven(position, page_count)
            }
            State::Checkpointing {
                to,
                page_count,
                frames,
                salts,
            } => {
                let log = WalFile::recover(&paths.wal, size, frames)?;
                let whole = log.frames() == frames && log.salts() == salts;
                let mut shadow = Shadow::assemble(paths, identity, meta, log)?;
                if whole {
                    shadow.copy_again(to, page_count)?;
                }
                shadow.proven(to, page_count)
            }
            State::Landing {
                epoch,
                base,
                page_count,
            } => {
                let log = WalFile::recover(&paths.wal, size, u32::MAX)?;
                let shadow = Shadow::assemble(paths, identity, meta, log)?;
                shadow.landing(epoch, base, page_count)
            }
        }
    }

    /// What `paths` hold, from the meta file alone.
    pub fn stage(paths: &ShadowPaths) -> Result<Stage> {
        Ok(match MetaFile::open(&paths.meta)?.state() {
            State::Filling => Stage::Filling,
            State::At { position, .. } | State::Checkpointing { to: position, .. } => {
                Stage::At(position)
            }
            State::Landing { epoch, base, .. } => Stage::Landing { epoch, base },
            State::Promoted { epoch } => Stage::Promoted(epoch),
        })
    }

    /// Says durably that the files belong to applications: for a landing whose path is found
    /// exchanged after a crash. Opens nothing but the meta file. May be repeated.
    pub fn mark_promoted(paths: &ShadowPaths, epoch: Epoch) -> Result<()> {
        let mut meta = MetaFile::open(&paths.meta)?;
        match meta.state() {
            State::Promoted { epoch: now } if now == epoch => Ok(()),
            State::Landing { epoch: now, .. } if now == epoch => {
                meta.set(State::Promoted { epoch })
            }
            state => {
                let reason = format!("it is {state:?}, not landing in epoch {epoch}");
                Err(super::refused("promote", &paths.database, reason))
            }
        }
    }

    fn assemble(
        paths: &ShadowPaths,
        identity: Identity,
        meta: MetaFile,
        wal: WalFile,
    ) -> Result<Shadow> {
        let database = durable::open_rw(&paths.database)?;
        let hashes = hash_database(&database, &paths.database, identity.page_size)?;
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
            digest: Digest::of(&hashes),
            hashes,
            decoder: Decoder::new(),
        })
    }

    /// Copies the recovered -wal into the database file once more, by the ordinary way.
    fn copy_again(&mut self, to: Position, page_count: u32) -> Result<()> {
        self.position = to;
        self.hashes.resize(page_count as usize, Default::default());
        self.phase = Phase::Following;
        if let Some(task) = self.checkpoint_task() {
            self.checkpoint_done(task.run())?;
        }
        self.phase = Phase::Filling;
        self.hashes = hash_database(&self.database, &self.paths.database, self.page_size())?;
        self.digest = Digest::of(&self.hashes);
        Ok(())
    }

    /// Following from `position` if the database file is exactly that, else filling.
    fn proven(mut self, position: Position, page_count: u32) -> Result<Opened> {
        if self.page_count() == page_count && self.digest == position.digest {
            self.position = position;
            self.checkpointed = position;
            self.phase = Phase::Following;
            return Ok(Opened::Shadow(Box::new(self), Found::At(position)));
        }
        self.phase = Phase::Suspect;
        self.refill()?;
        Ok(Opened::Shadow(Box::new(self), Found::Damaged(position)))
    }

    fn landing(mut self, epoch: Epoch, base: Position, base_pages: u32) -> Result<Opened> {
        let page_count = self.wal.page_count().unwrap_or(base_pages);
        self.hashes.resize(page_count as usize, Default::default());
        let mut image = vec![0; self.page_size() as usize];
        for (page, frame) in self.wal.map() {
            self.wal.read_frame(*frame, &mut image)?;
            self.hashes[*page as usize - 1] = page_hash(*page, &image, self.identity.page_size);
        }
        self.digest = Digest::of(&self.hashes);
        self.phase = Phase::Landing {
            epoch,
            base,
            base_pages,
            settled: false,
        };
        let found = Found::Landing {
            epoch,
            base,
            digest: self.digest,
        };
        Ok(Opened::Shadow(Box::new(self), found))
    }
}
