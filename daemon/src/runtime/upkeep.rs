//! What a live database needs besides being read: checkpoints, a pin that makes way, and a look
//! whether it is still the same files.

use std::time::Instant;

use io::engine::sqlite::{Obstacle, PinState};
use wal::{PartitionId, Span, Time};

use super::freeze::Freeze;
use super::host::Host;
use super::pools::Where;

/// How long to wait before names are checked again.
const VERIFY_EVERY: Span = Span::secs(1);
/// A WAL of this size is copied back even while writers are at work, as SQLite itself would do
/// after 1,000 pages.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// A database that has not committed for so long is checkpointed whatever the size of its WAL.
const QUIET: Span = Span::millis(500);
/// Wait between checkpoints of one database.
const CHECKPOINT_EVERY: Span = Span::millis(250);
/// The same while the WAL is above its cap.
const CHECKPOINT_EVERY_FULL: Span = Span::millis(100);
/// Checkpoints in a row that left the WAL above its cap before the pin is dropped.
const OVER_CAP_MAX: u32 = 20;

/// When what was done last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upkeep {
    committed_at: Time,
    checkpoint_at: Time,
    verify_at: Time,
    checkpointing: bool,
    /// The quiet WAL was copied back; nothing to do until the next commit.
    clean: bool,
    over_cap: u32,
    attached_at: Time,
}

impl Upkeep {
    pub fn new(now: Time) -> Upkeep {
        Upkeep {
            attached_at: now,
            ..Upkeep::default()
        }
    }

    /// Nothing was committed for `idle_after`, and what was is in the database file.
    pub fn is_at_rest(&self, now: Time, idle_after: Span) -> bool {
        let since = self.committed_at.max(self.attached_at);
        self.clean && !self.checkpointing && now - since > idle_after
    }

    /// When it committed last; 0 if never since it was attached.
    pub fn committed_at(&self) -> Time {
        self.committed_at
    }

    pub fn on_commit(&mut self, now: Time) {
        self.committed_at = now;
        self.clean = false;
    }
}

impl Host {
    /// Called with each look at the database.
    pub fn tend_live(&mut self, id: PartitionId) {
        let now = self.now;
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        match live.source.make_way(Instant::now()) {
            Ok(PinState::Dropped) => {
                // Transactions may have been missed meanwhile; the audit finds out.
                if let Err(error) = live.source.take_pin() {
                    tracing::debug!(partition = %live.name, %error, "still without a pin");
                }
            }
            Ok(_) => {}
            Err(error) => return self.broken(id, error.to_string()),
        }
        if live.upkeep.verify_at <= now {
            live.upkeep.verify_at = now + VERIFY_EVERY;
            if let Err(error) = live.source.verify_names() {
                return self.broken(id, error.to_string());
            }
        }
        self.checkpoint_live(id);
        self.cool_if_idle(id);
    }

    fn checkpoint_live(&mut self, id: PartitionId) {
        let now = self.now;
        let moving = self.is_moving(id);
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        let upkeep = &mut live.upkeep;
        let quiet = !upkeep.clean && now - upkeep.committed_at > QUIET;
        let wanted = quiet || live.source.wal_bytes() > CHECKPOINT_BYTES;
        let free = !upkeep.checkpointing && !moving && live.freeze == Freeze::None;
        if !wanted || !free || upkeep.checkpoint_at > now {
            return;
        }
        upkeep.checkpoint_at = now + CHECKPOINT_EVERY;
        let Some(task) = live.source.checkpoint() else {
            upkeep.clean = quiet;
            return;
        };
        upkeep.checkpointing = true;
        self.offload(
            Where::Disk,
            move || task.run(),
            move |host, done| {
                let now = host.now;
                let Some(live) = host.lives.by_id.get_mut(&id) else {
                    return;
                };
                live.upkeep.checkpointing = false;
                match done {
                    Ok(Ok(done)) => {
                        let reader = done.obstacle == Some(Obstacle::Reader);
                        live.upkeep.clean = quiet && (done.restarted || reader);
                        if !done.over_cap {
                            live.upkeep.over_cap = 0;
                            return;
                        }
                        live.upkeep.over_cap += 1;
                        live.upkeep.checkpoint_at = now + CHECKPOINT_EVERY_FULL;
                        if live.upkeep.over_cap >= OVER_CAP_MAX {
                            live.upkeep.over_cap = 0;
                            host.drop_pin(id);
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(partition = %live.name, %error, "checkpoint failed");
                    }
                    Err(panic) => tracing::error!(partition = %live.name, "checkpoint: {panic}"),
                }
            },
        );
    }

    /// The WAL grew beyond its cap and nothing helped: the application's own checkpoints may run,
    /// and what is missed is found by comparison.
    fn drop_pin(&mut self, id: PartitionId) {
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        tracing::warn!(
            partition = %live.name,
            bytes = live.source.wal_bytes(),
            "the WAL stays above max_wal (a long reader?); the pin is given up for now"
        );
        if let Err(error) = live.source.drop_pin() {
            self.broken(id, error.to_string());
        }
    }

    pub fn is_moving(&self, id: PartitionId) -> bool {
        let partition = self.brain.partitions().get(&id);
        let owner = partition.and_then(|partition| partition.owner());
        owner.is_some_and(|owner| !owner.source.is_serving())
    }
}
