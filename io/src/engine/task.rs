//! What helper threads do for a live partition of any engine.

use std::ops::ControlFlow;
use std::sync::Arc;

use wal::log::Control;

use super::{native, sqlite};
use crate::error::Result;

pub use super::sqlite::CheckpointTask;

/// Hashing every page.
#[derive(Debug)]
pub enum ScanTask {
    Sqlite(sqlite::ScanTask),
    Native(native::ScanTask),
}

/// The result of a scan, for [`super::Source::adopt`].
#[derive(Debug)]
pub enum Scan {
    Sqlite(sqlite::Scan),
    Native(native::Scan),
}

impl ScanTask {
    /// Reads and hashes all pages. `progress` hears of pages done and in all, and may break off.
    pub fn run(self, progress: &mut dyn FnMut(u32, u32) -> ControlFlow<()>) -> Result<Scan> {
        Ok(match self {
            ScanTask::Sqlite(task) => Scan::Sqlite(task.run(progress)?),
            ScanTask::Native(task) => Scan::Native(task.run(progress)?),
        })
    }
}

/// Stopping writers for a moment; may block.
#[derive(Debug)]
pub enum FreezeTask {
    Sqlite(sqlite::FreezeTask),
    /// It was frozen when this was made; or could not be.
    Native(Result<Arc<Control>>),
}

impl FreezeTask {
    /// `Retry`: it could not be had within the budget.
    pub fn run(self) -> Result<()> {
        match self {
            FreezeTask::Sqlite(task) => task.run(),
            FreezeTask::Native(frozen) => {
                // The seal comes next: its store should meet no page fault.
                frozen?.warm();
                Ok(())
            }
        }
    }
}

/// Stopping writers for good, or taking that back; waits for the disk.
#[derive(Debug)]
pub enum FenceTask {
    Sqlite(sqlite::FenceTask),
    Native(native::FenceTask),
    Lift(native::LiftTask),
}

impl FenceTask {
    /// When this returns `Ok` it is durable and in force.
    pub fn run(self) -> Result<()> {
        match self {
            FenceTask::Sqlite(task) => task.run(),
            FenceTask::Native(task) => task.run().map(|_| ()),
            FenceTask::Lift(task) => task.run(),
        }
    }
}
