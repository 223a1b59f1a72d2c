//! A shadow of a native log lands: the copy of its image becomes a log that can be appended to.
//!
//! The -wal of the shadow means nothing to a log, so what it holds is copied into the file, and
//! page 1, which of an image says what the log is, becomes the control page. All of it happens in
//! the new generation before the path is exchanged, and may be repeated: a log that was appended to
//! since is left alone.

use wal::log::Control;
use wal::log::control::Creation;
use wal::log::saved::Ownership;
use wal::{Epoch, Lsn};

use super::{Phase, Shadow, refused};
use crate::durable;
use crate::engine::native::Image;
use crate::error::{Kind, Result};

impl Shadow {
    /// Makes the landed copy the log of `epoch`, durably; returns where it ends. One sync, and as
    /// many writes as pages came since the landing was prepared.
    pub fn become_log(&mut self, epoch: Epoch) -> Result<Lsn> {
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
        if let Some(end) = self.is_log(epoch)? {
            return Ok(end);
        }
        let mut image = vec![0; self.page_size() as usize];
        self.read_page(1, &mut image)?;
        let Some((segment_bytes, id, first, lsn)) = Image::parse_state(&image) else {
            let reason = "its page 1 is not that of a native log".to_owned();
            return Err(self.corrupt("make a log of", reason));
        };
        let path = &self.paths.database;
        for (page, frame) in self.wal.map().iter().filter(|(page, _)| **page != 1) {
            self.wal.read_frame(*frame, &mut image)?;
            let at = u64::from(page - 1) * image.len() as u64;
            durable::write_at(&self.database, path, &image, at)?;
        }
        let creation = Creation {
            id,
            segment_bytes,
            epoch,
            first,
            lsn,
            sealed: false,
        };
        durable::write_at(&self.database, path, &creation.page(), 0)?;
        durable::sync_data(&self.database, path)?;
        Ok(lsn)
    }

    /// Where the file ends if it is the log of `epoch` already.
    fn is_log(&self, epoch: Epoch) -> Result<Option<Lsn>> {
        let control = match Control::open(&self.paths.database).map_err(crate::Error::from) {
            Ok(control) => control,
            Err(error) if error.kind() == Kind::Corrupt => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_ours = control.saved::<Ownership>()?.epoch >= epoch;
        Ok(is_ours.then(|| control.word().lsn))
    }
}
