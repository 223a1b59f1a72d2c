//! Stopping the appenders of a native log: for a moment, for good, and not after all.
//!
//! Freeze and seal are one compare-and-swap of the commit word each. A freeze ends with us; a seal
//! that is durable ends the log at exactly the position at which it was frozen.

use std::sync::Arc;
use std::time::Duration;

use wal::Lsn;
use wal::log::control::boottime;
use wal::log::{Control, Word};

use super::source::Source;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// A freeze ends by itself after this, should we be stopped; if we die it ends at once.
const FREEZE_MAX: Duration = Duration::from_secs(30);

impl Source {
    /// Makes appends wait, for as long as we live and at most 30 seconds.
    pub fn freeze(&mut self) -> Result<()> {
        match self.control.freeze(boottime() + FREEZE_MAX) {
            Ok(frozen) => self.frozen = Some(frozen),
            Err(_) => return Err(self.refused("freeze", "it is sealed")),
        }
        failpoint::reach(Step::FenceLocked);
        Ok(())
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Lets appends go on as if nothing had been.
    pub fn thaw(&mut self) {
        if self.frozen.take().is_some() {
            self.control.thaw();
        }
    }

    /// The seal; run it on a thread that may wait for the disk. Everything must be consumed.
    pub fn fence(&mut self) -> Result<FenceTask> {
        let Some(frozen) = self.frozen else {
            return Err(self.refused("seal", "it is not frozen"));
        };
        if frozen.lsn != self.lsn() {
            let subject = self.control.path().display().to_string();
            let reason = "groups are left to be consumed";
            return Err(Error::new(Kind::Retry, "seal", subject, reason));
        }
        self.frozen = None;
        let control = Arc::clone(&self.control);
        Ok(FenceTask { control, frozen })
    }

    /// Takes back a seal that nobody was told of. Appenders that met it open the log again.
    pub fn lift_fence(&mut self) -> LiftTask {
        self.frozen = None;
        LiftTask {
            control: Arc::clone(&self.control),
        }
    }

    pub fn is_fenced(&self) -> bool {
        self.control.word().sealed
    }
}

/// The seal of a frozen log.
#[derive(Debug)]
pub struct FenceTask {
    control: Arc<Control>,
    frozen: Word,
}

impl FenceTask {
    /// Seals exactly what was frozen, durably. `Retry`: the freeze had ended before. When it fails
    /// the log is neither sealed nor frozen, unless the disk refuses that as well.
    pub fn run(self) -> Result<Lsn> {
        if self.control.seal_at(self.frozen).is_err() {
            let subject = self.control.path().display().to_string();
            let reason = "the freeze was over: somebody appended meanwhile";
            return Err(Error::new(Kind::Retry, "seal", subject, reason));
        }
        let save = || self.control.save_seal().map_err(Error::from);
        match failpoint::pass(Step::FencePublished).and_then(|()| save()) {
            Ok(sealed) => {
                failpoint::reach(Step::FenceSynced);
                Ok(sealed.lsn)
            }
            Err(error) => {
                self.control.unseal()?;
                Err(error)
            }
        }
    }
}

/// The end of a seal.
#[derive(Debug)]
pub struct LiftTask {
    control: Arc<Control>,
}

impl LiftTask {
    /// Durable when it returns; a log that is not sealed stays as it is.
    pub fn run(self) -> Result<()> {
        self.control.unseal()?;
        Ok(())
    }
}
