//! Moving a following shadow's database file forward to its position.
//!
//! Order, and why a crash between any two steps loses nothing:
//! 1. fdatasync of the -wal: what is about to be copied can be copied again;
//! 2. meta := checkpointing: recovery repeats the copy from the -wal;
//! 3. pages are copied into the database file, in any order;
//! 4. fdatasync of the database;
//! 5. meta := at: the -wal no longer counts, so it may be restarted at leisure.
//!
//! Steps 1–5 run elsewhere ([`CheckpointTask::run`]) while deltas are appended behind the frames
//! that are copied; [`Shadow::checkpoint_done`] then restarts the -wal.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use wal::Position;
use wal::sqlite::Salts;

use super::fill::set_len;
use super::meta::{MetaFile, State};
use super::walfile::image_at;
use super::{Phase, Shadow};
use crate::durable;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// Newer frames are moved to the start of the -wal only up to this many, so that a restart holds
/// up its shard for about a millisecond; otherwise the next checkpoint gets its chance.
const MOVED_FRAMES_MAX: u32 = 256;
/// Bytes of neighbouring pages written at once.
const RUN_BYTES: usize = 1 << 20;

/// Up to where a checkpoint copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub frames: u32,
    pub to: Position,
    pub page_count: u32,
}

/// A step that was just finished; for tests that crash there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointStep {
    LogSynced,
    Announced,
    Copied,
    DatabaseSynced,
    Finished,
}

/// The part of a checkpoint that needs no shadow; run it on a helper thread.
#[derive(Debug)]
pub struct CheckpointTask {
    database: (Arc<File>, PathBuf),
    wal: (Arc<File>, PathBuf),
    meta: Arc<Mutex<MetaFile>>,
    mark: Mark,
    salts: Salts,
    page_size: u32,
    /// Pages to copy with the frame that holds each, by page.
    pages: Vec<(u32, u32)>,
}

/// How a checkpoint ended; for [`Shadow::checkpoint_done`].
#[derive(Debug)]
pub struct CheckpointDone {
    mark: Mark,
    result: Result<()>,
}

impl Shadow {
    /// The checkpoint that would bring the database file to the present position; `None` when it
    /// is there, when one is running, or while filling or landing.
    pub fn checkpoint_task(&mut self) -> Option<CheckpointTask> {
        let idle = self.phase == Phase::Following && self.checkpoint.is_none();
        if !idle || self.checkpointed == self.position {
            return None;
        }
        let page_count = self.page_count();
        let mark = Mark {
            frames: self.wal.frames(),
            to: self.position,
            page_count,
        };
        let mut pages: Vec<(u32, u32)> = self.wal.map().iter().map(|(p, f)| (*p, *f)).collect();
        pages.sort_unstable();
        self.checkpoint = Some(mark);
        Some(CheckpointTask {
            database: (self.database.clone(), self.paths.database.clone()),
            wal: (self.wal.file(), self.wal.path().to_owned()),
            meta: self.meta.clone(),
            mark,
            salts: self.wal.salts(),
            page_size: self.page_size(),
            pages,
        })
    }

    pub fn is_checkpointing(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Where the database file stands: the journal may drop what is before.
    pub fn checkpointed(&self) -> Position {
        self.checkpointed
    }

    /// Takes note of a finished checkpoint and returns where the database file stands now. After
    /// an error of kind `Full` the checkpoint may be tried again; after another one the shadow
    /// has no position until it was compared anew.
    pub fn checkpoint_done(&mut self, done: CheckpointDone) -> Result<Position> {
        if self.checkpoint != Some(done.mark) {
            let reason = "the result is of another checkpoint";
            return Err(super::refused(
                "end the checkpoint of",
                &self.paths.database,
                reason,
            ));
        }
        self.checkpoint = None;
        let ended = done.result.and_then(|()| self.restart_behind(done.mark));
        if let Err(error) = &ended
            && error.kind() != Kind::Full
        {
            self.phase = Phase::Suspect;
        }
        ended.map(|()| done.mark.to)
    }

    /// Forgets a checkpoint whose task was lost; it may be tried again.
    pub fn checkpoint_lost(&mut self) {
        self.checkpoint = None;
    }

    fn restart_behind(&mut self, mark: Mark) -> Result<()> {
        self.checkpointed = mark.to;
        match self.wal.frames() - mark.frames {
            0 => self.wal.restart(),
            newer if newer <= MOVED_FRAMES_MAX => self.wal.restart_after(mark.frames),
            _ => {
                self.wal.forget(|_, frame| frame <= mark.frames);
                Ok(())
            }
        }
    }
}

impl CheckpointTask {
    /// Pages that will be copied.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Runs steps 1–5: three or four syncs, and as many bytes as there are pages.
    pub fn run(self) -> CheckpointDone {
        self.run_watched(&mut |_| {})
    }

    /// [`CheckpointTask::run`], calling `watch` after each step.
    pub fn run_watched(self, watch: &mut dyn FnMut(CheckpointStep)) -> CheckpointDone {
        CheckpointDone {
            mark: self.mark,
            result: self.steps(watch),
        }
    }

    fn steps(&self, watch: &mut dyn FnMut(CheckpointStep)) -> Result<()> {
        durable::sync_data(&self.wal.0, &self.wal.1)?;
        watch(CheckpointStep::LogSynced);
        failpoint::pass(Step::CheckpointLogSynced)?;
        let Mark {
            frames,
            to,
            page_count,
        } = self.mark;
        self.set(State::Checkpointing {
            to,
            page_count,
            frames,
            salts: self.salts,
        })?;
        watch(CheckpointStep::Announced);
        failpoint::pass(Step::CheckpointAnnounced)?;
        self.copy()?;
        watch(CheckpointStep::Copied);
        failpoint::pass(Step::CheckpointCopied)?;
        durable::sync_data(&self.database.0, &self.database.1)?;
        watch(CheckpointStep::DatabaseSynced);
        failpoint::pass(Step::CheckpointDatabaseSynced)?;
        self.set(State::At {
            position: to,
            page_count,
        })?;
        watch(CheckpointStep::Finished);
        failpoint::pass(Step::CheckpointFinished)?;
        Ok(())
    }

    fn set(&self, state: State) -> Result<()> {
        let mut meta = self
            .meta
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        meta.set(state)
    }

    /// Copies each page's newest frame; neighbours go in one write.
    fn copy(&self) -> Result<()> {
        let size = self.page_size as usize;
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (page, frame) in &self.pages {
            let end = start + (run.len() / size) as u32;
            if !run.is_empty() && (*page != end || run.len() >= RUN_BYTES) {
                self.write_run(start, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = *page;
            }
            let at = run.len();
            run.resize(at + size, 0);
            let offset = image_at(*frame, self.page_size);
            let read = durable::read_at(&self.wal.0, &self.wal.1, &mut run[at..], offset)?;
            if read < size {
                return Err(self.cut_short());
            }
        }
        self.write_run(start, &run)?;
        set_len(
            &self.database.0,
            &self.database.1,
            self.mark.page_count,
            self.page_size,
        )
    }

    fn write_run(&self, start: u32, run: &[u8]) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        let at = u64::from(start - 1) * u64::from(self.page_size);
        durable::write_at(&self.database.0, &self.database.1, run, at)
    }

    fn cut_short(&self) -> Error {
        let reason = "it ends before a committed frame; another program cut it";
        Error::new(
            Kind::Corrupt,
            "read",
            self.wal.1.display().to_string(),
            reason,
        )
    }
}
