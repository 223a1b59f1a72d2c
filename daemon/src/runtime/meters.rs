//! What a shard counts for Prometheus. Gauges are refreshed once a second; names and meanings are
//! declared in `control::metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, gauge, histogram};
use wal::{Span, Time};

use super::host::Host;
use crate::control::metrics as declared;
use crate::effect::{Notice, NoticeKind};
use crate::shard::Census;

/// How often gauges are refreshed.
const EVERY: Span = Span::secs(1);
/// With more partitions, counting them every second is what an idle daemon does most.
const FLEET: usize = 256;
/// How often gauges are refreshed then: still within a usual scrape interval.
const EVERY_IN_A_FLEET: Span = Span::secs(10);
/// A full disk is told for so long after the last write that failed for it.
const FULL_FOR: Span = Span::secs(10);
/// When a write failed for lack of space, on any shard; 0 is never.
static FULL_AT: AtomicU64 = AtomicU64::new(0);

/// Takes note of a write that failed for lack of space.
pub fn disk_is_full() {
    FULL_AT.store(io::reactor::now().0, Ordering::Relaxed);
}

/// When the gauges are due, and what is gathered until then.
#[derive(Clone, Copy, Default, Debug)]
pub struct Meters {
    due: Time,
    tail_lag: Span,
}

impl Meters {
    /// A commit was found that may have waited since the last look.
    pub fn saw_tail_lag(&mut self, lag: Span) {
        self.tail_lag = self.tail_lag.max(lag);
    }
}

impl Host {
    /// Refreshes the gauges when they are due.
    pub fn measure(&mut self) {
        if self.meters.due > self.now {
            return;
        }
        let tail_lag = self.meters.tail_lag;
        self.meters = Meters {
            due: self.now + EVERY,
            tail_lag: Span::ZERO,
        };
        let shard = self.brain.settings().shard.to_string();
        let census = self.brain.census();
        let count = self.brain.partitions().len();
        if count > FLEET {
            self.meters.due = self.now + EVERY_IN_A_FLEET;
        }
        gauge!(declared::TAIL_LAG_SECONDS.name, "shard" => shard.clone())
            .set(tail_lag.as_millis_f64() / 1e3);
        measure_partitions(&shard, &census);
        if count <= declared::LABELLED_PARTITIONS_MAX {
            self.measure_tokens();
        }
        self.measure_links(&shard);
        let full_at = Time(FULL_AT.load(Ordering::Relaxed));
        let full = full_at != Time(0) && self.now - full_at < FULL_FOR;
        gauge!(declared::DISK_FULL.name).set(if full { 1.0 } else { 0.0 });
    }

    fn measure_tokens(&self) {
        for entry in self.brain.partitions().values() {
            let epoch = entry.ownership.map_or(0, |ownership| ownership.epoch.0);
            if entry.owner().is_some() {
                gauge!(declared::FENCING_TOKEN.name, "partition" => entry.name.to_string())
                    .set(epoch as f64);
            }
        }
    }

    fn measure_links(&self, shard: &str) {
        for (key, link) in self.brain.links() {
            let peer = self
                .setup
                .config
                .name_of(key.peer)
                .map_or_else(|| key.peer.to_string(), |name| name.to_string());
            let lane = key.lane.to_string();
            gauge!(declared::PEER_UP.name, "peer" => peer.clone(), "lane" => lane.clone())
                .set(if link.is_up() { 1.0 } else { 0.0 });
            let counters = self.links.counters(*key);
            for (dir, bytes) in [("out", counters.bytes_out), ("in", counters.bytes_in)] {
                counter!(declared::DELTA_BYTES_TOTAL.name, "dir" => dir, "stage" => "wire",
                    "peer" => peer.clone(), "lane" => lane.clone())
                .absolute(bytes);
            }
        }
        counter!(declared::DELTA_BYTES_TOTAL.name, "dir" => "out", "stage" => "encoded",
            "shard" => shard.to_owned())
        .absolute(self.lives.encoded_bytes);
    }

    /// Counts what became of moves.
    pub fn count(&self, notice: &Notice) {
        let result = match notice.kind {
            NoticeKind::MoveDone => "done",
            NoticeKind::MoveAborted => "aborted",
            NoticeKind::ShadowLost => {
                counter!(declared::VERIFY_FAILURES_TOTAL.name).increment(1);
                return;
            }
            _ => return,
        };
        counter!(declared::SWITCHOVER_TOTAL.name, "result" => result).increment(1);
        if let Some(pause) = self.brain.last_pause(notice.partition)
            && result == "done"
        {
            histogram!(declared::SWITCHOVER_PAUSE_SECONDS.name).record(pause.as_millis_f64() / 1e3);
        }
    }
}

fn measure_partitions(shard: &str, census: &Census) {
    let roles = [
        (census.owned, "owner"),
        (census.shadowed, "shadow"),
        (census.others, "remote"),
        (census.refused, "refused"),
    ];
    for (count, word) in roles {
        gauge!(declared::PARTITIONS.name, "role" => word, "shard" => shard.to_owned())
            .set(count as f64);
    }
    gauge!(declared::SHADOW_LAG_BYTES.name, "shard" => shard.to_owned())
        .set(census.lag_bytes_max as f64);
    let ratio = match census.shadows {
        0 => 1.0,
        all => census.streaming as f64 / all as f64,
    };
    gauge!(declared::SHADOW_WARM_RATIO.name, "shard" => shard.to_owned()).set(ratio);
}
