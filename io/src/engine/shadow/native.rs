//! A shadow of a native log lands: the copy of its image becomes a log that can be appended to.
//!
//! The -wal of the shadow means nothing to a log, so what it holds is copied into the file, and
//! page 1, which of an image says what the log is, becomes the control page. All of it happens in
//! the new generation before the path is exchanged, and may be repeated: only a log that was
//! appended to, or may be open, is left alone, since it was whole before anybody could. The -wal
//! was synced before, so a landing that is given up reads on through it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use wal::log::Control;
use wal::log::control::Creation;
use wal::log::saved::Ownership;
use wal::{Epoch, Lsn};

use super::walfile::image_at;
use super::{Phase, Shadow, ShadowPaths, refused};
use crate::durable;
use crate::engine::native::Image;
use crate::engine::native::image::PAGE;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// Makes a landed copy a log; on a thread that may wait for the disk, while the shadow takes
/// nothing more.
#[derive(Debug)]
pub struct LogTask {
    paths: ShadowPaths,
    database: Arc<File>,
    wal: Arc<File>,
    /// The newest frame of each page in the -wal.
    frames: HashMap<u32, u32>,
    creation: Creation,
}

impl Shadow {
    /// What is left to do until the landed copy is the log of `epoch`.
    pub fn log_task(&self, epoch: Epoch) -> Result<LogTask> {
        match self.phase {
            Phase::Landing {
                epoch: now,
                settled: true,
                ..
            } if now == epoch => {}
            _ => {
                let reason = "it is not landing in this epoch, or at a position not known";
                return Err(refused("make a log of", &self.paths.database, reason));
            }
        }
        let mut image = vec![0; PAGE];
        self.read_page(1, &mut image)?;
        let Some((segment_bytes, id, first, lsn)) = Image::parse_state(&image) else {
            let reason = "its page 1 is not that of a native log".to_owned();
            return Err(self.corrupt("make a log of", reason));
        };
        Ok(LogTask {
            paths: self.paths.clone(),
            database: Arc::clone(&self.database),
            wal: self.wal.file(),
            frames: self.wal.map().clone(),
            creation: Creation {
                id,
                segment_bytes,
                epoch,
                first,
                lsn,
                sealed: false,
            },
        })
    }

    /// [`Shadow::log_task`], run here.
    pub fn become_log(&mut self, epoch: Epoch) -> Result<Lsn> {
        self.log_task(epoch)?.run()
    }
}

impl LogTask {
    /// Durable when it returns; where the log ends. One sync, and as many writes as pages came
    /// since the landing was prepared.
    pub fn run(self) -> Result<Lsn> {
        match self.made_up_to()? {
            // Whoever appended synced it before.
            Some(end) if end > self.creation.lsn => return Ok(end),
            // Page 1 is written last; the sync may not have been made.
            Some(_) => {}
            None => self.write()?,
        }
        failpoint::pass(Step::RemapLogWritten)?;
        durable::sync_data(&self.database, &self.paths.database)?;
        Ok(self.creation.lsn)
    }

    fn write(&self) -> Result<()> {
        let (path, wal) = (&self.paths.database, &self.paths.wal);
        let mut image = vec![0; PAGE];
        for (page, frame) in self.frames.iter().filter(|(page, _)| **page != 1) {
            let at = image_at(*frame, PAGE as u32);
            durable::read_at(&self.wal, wal, &mut image, at)?;
            let at = u64::from(page - 1) * PAGE as u64;
            durable::write_at(&self.database, path, &image, at)?;
        }
        let page = self.creation.page_of(&self.database);
        let page = page.map_err(|error| Error::at("look at", path, error))?;
        durable::write_at(&self.database, path, &page, 0)
    }

    /// Where the log begins and will end.
    pub fn extent(&self) -> (Lsn, Lsn) {
        (self.creation.first, self.creation.lsn)
    }

    /// Where the file ends if it is this log already: appended to, or made since the machine was
    /// started, when somebody may have it open. One that ends where it was made before that is made
    /// again: of what was written then, a power cut may have left page 1 alone.
    fn made_up_to(&self) -> Result<Option<Lsn>> {
        if !wal::log::is_log(&self.database) {
            return Ok(None);
        }
        let awake = wal::log::is_awake(&self.database);
        let awake = awake.map_err(|error| Error::at("look at", &self.paths.database, error))?;
        let control = match Control::open(&self.paths.database).map_err(Error::from) {
            Ok(control) => control,
            Err(error) if error.kind() == Kind::Corrupt => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_ours = control.saved::<Ownership>()?.epoch >= self.creation.epoch;
        let end = control.word().lsn;
        // One that ends earlier was made for a landing that took more since.
        let is_made = end > self.creation.lsn || end == self.creation.lsn && awake;
        Ok((is_ours && is_made).then_some(end))
    }
}
