//! Who of us may hold SQLite's WRITE lock, and how far the tail has come.
//!
//! The tail, a checkpoint and a freeze share one descriptor of the `-shm`, because only the owner
//! of the pin can turn it into an exclusive lock without letting go. Locks of one descriptor do not
//! exclude one another, so this gate does. It is also how a checkpoint on another thread learns
//! which frames the tail has consumed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use wal::sqlite::Salts;

/// What one attached database shares between its threads.
#[derive(Debug, Default)]
pub(super) struct Gate {
    write: Mutex<Writer>,
    consumed: AtomicU64,
    scans: AtomicU32,
    /// Checkpoints running now: at most one.
    checkpoints: AtomicU32,
}

/// Which of us has, or waits for, the WRITE lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Writer {
    #[default]
    Nobody,
    /// Held for a moment, by a checkpoint that restarts the WAL.
    Brief,
    /// A freeze is waiting for it in the kernel.
    Waiting,
    /// Frozen: held until it is thawed.
    Frozen,
    /// Held while a fence is being written on another thread.
    Fencing,
}

impl Gate {
    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        // A thread that panicked left a plain word behind, which is still what it last stored.
        self.write
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Goes from `from` to `to`; false when it was not `from`.
    pub fn turn(&self, from: Writer, to: Writer) -> bool {
        let mut writer = self.writer();
        let right = *writer == from;
        if right {
            *writer = to;
        }
        right
    }

    /// The tail has consumed everything up to `frame` of the WAL with `salts`.
    pub fn set_consumed(&self, salts: Salts, frame: u32) {
        self.consumed.store(pack(salts, frame), Ordering::Release);
    }

    /// The frame up to which the tail has consumed the WAL with `salts`; 0 if it knows another.
    pub fn consumed(&self, salts: Salts) -> u32 {
        let packed = self.consumed.load(Ordering::Acquire);
        if packed >> 32 == u64::from(salts.0[0]) {
            packed as u32
        } else {
            0
        }
    }

    /// While a scan runs, pages in the database file must stay as old as its mark.
    pub fn begin_scan(&self) {
        self.scans.fetch_add(1, Ordering::AcqRel);
    }

    pub fn end_scan(&self) {
        self.scans.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn is_scanning(&self) -> bool {
        self.scans.load(Ordering::Acquire) > 0
    }

    /// One checkpoint at a time; false when one is running.
    pub fn begin_checkpoint(&self) -> bool {
        self.checkpoints
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub fn end_checkpoint(&self) {
        self.checkpoints.store(0, Ordering::Release);
    }

    pub fn is_checkpointing(&self) -> bool {
        self.checkpoints.load(Ordering::Acquire) > 0
    }
}

fn pack(salts: Salts, frame: u32) -> u64 {
    u64::from(salts.0[0]) << 32 | u64::from(frame)
}
