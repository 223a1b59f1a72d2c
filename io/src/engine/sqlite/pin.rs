//! The pin: a reader slot held shared with read mark 0.
//!
//! A shared lock on any of READ1 to READ4 keeps everyone from restarting the WAL, and mark 0 keeps
//! everyone from copying frames into the database file. So every frame stays readable until we
//! have consumed it, and all checkpoints are ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wal::sqlite::{CHECKPOINT_LOCK, READ_MARKS, WRITE_LOCK};

use super::locks::{self, byte};
use super::shm::{Pulse, Shm};
use crate::error::{Error, Kind, Result};

/// How long an application's checkpoint must have stood still before the pin makes way for it.
const STILL: Duration = Duration::from_millis(1);
/// How often the two locks are looked at while nothing suggests a checkpoint.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// Whether the WAL is kept from being restarted by others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinState {
    /// Nobody else restarts the WAL.
    Held,
    /// Let go for an application's own checkpoint; taken again when that ends.
    Yielded,
    /// Let go by [`super::Source::drop_pin`], or never taken: transactions may be missed.
    Dropped,
}

/// The pin of one database.
#[derive(Debug)]
pub(super) struct Pin {
    shm: Arc<Shm>,
    slot: usize,
    state: PinState,
    looked: Instant,
    /// Since when a checkpoint of the application has been waiting, and what the header was.
    waiting: Option<(Instant, Pulse)>,
}

impl Pin {
    /// Takes a free reader slot; `Retry` while readers hold all four.
    pub fn take(shm: Arc<Shm>, now: Instant) -> Result<Pin> {
        let dropped = PinState::Dropped;
        let mut pin = Pin {
            shm,
            slot: 0,
            state: dropped,
            looked: now,
            waiting: None,
        };
        pin.retake()?;
        Ok(pin)
    }

    pub fn state(&self) -> PinState {
        self.state
    }

    pub fn slot(&self) -> Option<usize> {
        (self.state == PinState::Held).then_some(self.slot)
    }

    /// Pins again. Slot 4 first: readers look for a slot from 1 on.
    pub fn retake(&mut self) -> Result<()> {
        if self.state == PinState::Held {
            return Ok(());
        }
        let fail = |e| Error::at("pin", self.shm.path(), e);
        for slot in (1..READ_MARKS).rev() {
            let lock = byte(wal::sqlite::read_lock(slot));
            if locks::try_exclusive(self.shm.file(), lock.clone()).map_err(fail)? {
                self.shm.set_read_mark(slot, 0);
                // Turns exclusive into shared in one step: no reader gets in between.
                locks::try_shared(self.shm.file(), lock).map_err(fail)?;
                self.slot = slot;
                self.state = PinState::Held;
                self.waiting = None;
                return Ok(());
            }
        }
        let reason = "readers hold all four reader slots";
        Err(Error::new(
            Kind::Retry,
            "pin",
            self.shm.path().display().to_string(),
            reason,
        ))
    }

    /// Lets go; other connections may checkpoint and restart the WAL from now on.
    pub fn release(&mut self, into: PinState) -> Result<()> {
        if self.state == PinState::Held {
            // The mark must not stay 0 behind us: without a lock it would only cost the next
            // checkpoint a moment, but a reader could take it over.
            let lock = byte(wal::sqlite::read_lock(self.slot));
            locks::unlock(self.shm.file(), lock)
                .map_err(|e| Error::at("unpin", self.shm.path(), e))?;
        }
        self.state = into;
        self.waiting = None;
        Ok(())
    }

    /// Makes way for an application's own checkpoint.
    ///
    /// `wal_checkpoint(FULL|RESTART|TRUNCATE)` takes CKPT and WRITE and then waits for our slot for
    /// its whole busy timeout, while every writer waits for WRITE. With WRITE held by it nothing
    /// can be appended, so if everything is consumed the slot may be let go until it is done.
    pub fn yield_if_asked(&mut self, now: Instant, all_consumed: bool) -> Result<PinState> {
        match self.state {
            PinState::Dropped => {}
            PinState::Yielded => {
                // WRITE goes first when a checkpoint ends; commits are possible from then on.
                let over = self.shm.holder(WRITE_LOCK)?.is_none()
                    || self.shm.holder(CHECKPOINT_LOCK)?.is_none();
                if over {
                    match self.retake() {
                        Err(error) if error.kind() != Kind::Retry => return Err(error),
                        _ => {}
                    }
                }
            }
            PinState::Held => self.look(now, all_consumed)?,
        }
        Ok(self.state)
    }

    fn look(&mut self, now: Instant, all_consumed: bool) -> Result<()> {
        if self.waiting.is_none() && now.duration_since(self.looked) < LOOK_EVERY {
            return Ok(());
        }
        self.looked = now;
        let exclusive = |at| -> Result<bool> {
            Ok(self.shm.holder(at)?.is_some_and(|holder| holder.exclusive))
        };
        let asked = all_consumed && exclusive(CHECKPOINT_LOCK)? && exclusive(WRITE_LOCK)?;
        let pulse = self.shm.pulse();
        match self.waiting {
            _ if !asked => self.waiting = None,
            Some((since, seen)) if seen == pulse => {
                if now.duration_since(since) >= STILL {
                    self.release(PinState::Yielded)?;
                }
            }
            _ => self.waiting = Some((now, pulse)),
        }
        Ok(())
    }
}
