//! Landing: the shadow becomes the database that applications open.
//!
//! Before the pause [`Shadow::prepare_landing`] brings the database file to the position, puts one
//! committed frame into the -wal (an application's first commit into an empty -wal would sync its
//! header first), makes room so that a sync changes no size, and says so durably. In the pause the
//! last delta is applied and [`LandingSync`] does the one fdatasync. Afterwards either the path is
//! exchanged and [`Shadow::promote`] hands the files over, or [`Shadow::abandon_landing`] goes
//! back.
//!
//! Invariant: while landing the database file stays at `base`, so abandoning loses nothing that
//! the journal does not hold. Only a native log's copy that was made a log (`native`) is beyond it:
//! abandoned in a crash, it is compared anew.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use wal::delta::Decoder;
use wal::frame::Frame;
use wal::{Epoch, Position};

use super::meta::State;
use super::recover::Opened;
use super::{Phase, Shadow, busy, refused};
use crate::durable;
use crate::error::Result;
use crate::failpoint::{self, Step};

/// Room made in the -wal for what arrives between the preparation and the end of the pause. A sync
/// of more than this is still right, only slower.
const ROOM_BYTES: u64 = 4 << 20;

/// The sync inside the pause; on any thread.
#[derive(Debug)]
pub struct LandingSync {
    file: Arc<File>,
    path: PathBuf,
    position: Position,
}

impl LandingSync {
    /// One fdatasync. On return the landed -wal holds [`LandingSync::position`] after any crash.
    pub fn run(self) -> Result<Position> {
        durable::sync_data(&self.file, &self.path)?;
        failpoint::pass(Step::RemapSynced)?;
        Ok(self.position)
    }

    pub fn position(&self) -> Position {
        self.position
    }
}

impl Shadow {
    /// Makes ready to land in `epoch`: a checkpoint, up to 4 MiB of zeros and about five syncs, so
    /// run it on a helper thread, before the pause. Deltas may be applied afterwards as before.
    pub fn prepare_landing(&mut self, epoch: Epoch) -> Result<()> {
        match self.phase {
            Phase::Following => {}
            Phase::Landing { epoch: now, .. } if now == epoch => return Ok(()),
            _ => {
                let reason = "it is filling, suspect or landing in another epoch";
                return Err(refused(
                    "prepare the landing of",
                    &self.paths.database,
                    reason,
                ));
            }
        }
        if self.checkpoint.is_some() {
            return Err(busy("prepare the landing of", &self.paths.database));
        }
        if let Some(task) = self.checkpoint_task() {
            self.checkpoint_done(task.run())?;
        } else {
            self.wal.restart()?;
        }
        let (base, base_pages) = (self.position, self.page_count());
        let mut image = vec![0; self.page_size() as usize];
        self.read_page(1, &mut image)?;
        let mut tail = self.wal.begin();
        tail.push(1, &image)?;
        self.wal.commit(tail, base_pages)?;
        failpoint::pass(Step::RemapPreparing)?;
        self.wal.make_room(ROOM_BYTES)?;
        let len = self.wal.bytes() + ROOM_BYTES;
        durable::flush_slowly(&self.wal.file(), self.wal.path(), len)?;
        self.wal.sync()?;
        self.meta().set(State::Landing {
            epoch,
            base,
            page_count: base_pages,
        })?;
        self.phase = Phase::Landing {
            epoch,
            base,
            base_pages,
            settled: true,
        };
        failpoint::pass(Step::RemapPrepared)
    }

    /// The epoch in which it is landing.
    pub fn landing_epoch(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Landing { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// The sync that makes the present position servable; `None` when not landing or when, after
    /// a crash, the position is not known.
    pub fn landing_sync(&self) -> Option<LandingSync> {
        self.landing_epoch()?;
        let (file, path) = (self.wal.file(), self.wal.path().to_owned());
        Some(LandingSync {
            file,
            path,
            position: self.position()?,
        })
    }

    /// [`Shadow::landing_sync`], run here.
    pub fn land_sync(&self) -> Result<Position> {
        match self.landing_sync() {
            Some(sync) => sync.run(),
            None => Err(refused("sync", &self.paths.wal, "it is not landing")),
        }
    }

    /// After a crash while landing: says that what the -wal holds is `position`. `Corrupt` when
    /// the digest proves that it is not.
    pub fn settle(&mut self, position: Position) -> Result<()> {
        let Phase::Landing {
            epoch,
            base,
            base_pages,
            ..
        } = self.phase
        else {
            return Err(refused("settle", &self.paths.database, "it is not landing"));
        };
        if self.wal.frames() == 0 {
            let reason = "the -wal that was prepared is gone: another program wrote it";
            return Err(self.corrupt("settle", reason.to_owned()));
        }
        if position.digest != self.digest {
            let reason = format!("its digest is {}, not that of {position}", self.digest);
            return Err(self.corrupt("settle", reason));
        }
        self.phase = Phase::Landing {
            epoch,
            base,
            base_pages,
            settled: true,
        };
        self.position = position;
        Ok(())
    }

    /// After a crash while landing: applies a delta of the journal, which the -wal may have lost.
    /// The first one that starts or ends at what is there also says where that is; `None` until
    /// then.
    pub fn catch_up(&mut self, frame: &Frame) -> Result<Option<Position>> {
        let Phase::Landing { base, settled, .. } = self.phase else {
            return self.apply(frame).map(Some);
        };
        if !settled {
            let head = Decoder::delta_head(frame).map_err(|e| self.decoding(e))?;
            // Contents come again: of before the base none is meant.
            let before = head.from.lsn < base.lsn || head.to.epoch < base.epoch;
            if before || self.wal.frames() == 0 {
                return Ok(None);
            }
            let here = [head.from, head.to];
            let Some(here) = here.into_iter().find(|at| at.digest == self.digest) else {
                return Ok(None);
            };
            self.settle(here)?;
        }
        self.apply(frame).map(Some)
    }

    /// What was prepared for another epoch lands under this one; durable on return.
    pub fn land_under(&mut self, epoch: Epoch) -> Result<()> {
        let Phase::Landing {
            epoch: prepared,
            base,
            base_pages,
            settled,
        } = self.phase
        else {
            return Err(refused("land", &self.paths.database, "it is not landing"));
        };
        if prepared == epoch {
            return Ok(());
        }
        self.meta().set(State::Landing {
            epoch,
            base,
            page_count: base_pages,
        })?;
        self.phase = Phase::Landing {
            epoch,
            base,
            base_pages,
            settled,
        };
        Ok(())
    }

    /// Goes back to following. A shadow that was settled keeps its position; one found after a
    /// crash goes back to the base, and reads the whole database for it.
    pub fn abandon_landing(&mut self) -> Result<Position> {
        let Phase::Landing {
            base,
            base_pages,
            settled,
            ..
        } = self.phase
        else {
            return Err(refused(
                "abandon the landing of",
                &self.paths.database,
                "it is not landing",
            ));
        };
        self.meta().set(State::At {
            position: base,
            page_count: base_pages,
        })?;
        self.phase = Phase::Following;
        self.checkpointed = base;
        if !settled {
            match Shadow::open(&self.paths)? {
                Opened::Shadow(shadow, _) => *self = *shadow,
                Opened::Promoted(_) => {
                    return Err(self.corrupt("reopen", "it was promoted meanwhile".to_owned()));
                }
            }
        }
        // A copy that was made a log went beyond its base: it has to be compared anew.
        match self.position() {
            Some(position) => Ok(position),
            None => Err(self.corrupt("abandon the landing of", "it is not at its base".to_owned())),
        }
    }

    /// After the exchange, off the pause: says durably that the files belong to applications. On
    /// an error repeat it with [`Shadow::mark_promoted`].
    pub fn promote(self, epoch: Epoch) -> Result<()> {
        match self.phase {
            Phase::Landing {
                epoch: now,
                settled: true,
                ..
            } if now == epoch => {
                self.meta().set(State::Promoted { epoch })?;
                failpoint::pass(Step::RemapPromoted)
            }
            Phase::Landing { .. } => {
                let reason = "it is landing in another epoch, or at a position not known";
                Err(refused("promote", &self.paths.database, reason))
            }
            _ => Err(refused(
                "promote",
                &self.paths.database,
                "it is not landing",
            )),
        }
    }
}
