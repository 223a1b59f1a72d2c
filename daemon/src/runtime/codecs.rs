//! Which codec each link uses: what the choosers of `ship::codec` are told, once a second.
//!
//! Idle time is the machine's (/proc/stat), and what packing took itself is added: it would
//! otherwise look as if packing left no time for packing. Only links that carried bulk since the
//! last look are looked at, so an idle daemon reads nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use wal::{Span, Time};

use super::host::Host;
use crate::ship::codec::IdleCores;

/// How often links are looked at.
const EVERY: Span = Span::secs(1);
/// Samples that are further apart say nothing about now.
const STALE_AFTER: Span = Span::secs(5);
/// Bytes since the last look that make a link worth one.
pub const WORTH_A_LOOK: u64 = 1 << 20;
/// Nanoseconds that packing pages took on all threads.
static PACKED: AtomicU64 = AtomicU64::new(0);

/// Does `work` and counts its processor time as packing.
pub fn packing<T>(work: impl FnOnce() -> T) -> T {
    let clock = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let begun = clock();
    let done = work();
    PACKED.fetch_add(clock().saturating_sub(begun), Ordering::Relaxed);
    done
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Time,
    idle: u64,
    all: u64,
    packed: u64,
}

/// When to look again, and what was seen last.
#[derive(Clone, Copy, Default, Debug)]
pub struct Codecs {
    due: Time,
    last: Option<Look>,
}

impl Host {
    /// Tells the choosers of busy links about their rate and the idle cores.
    pub fn choose_codecs(&mut self) {
        if self.codecs.due > self.now {
            return;
        }
        self.codecs.due = self.now + EVERY;
        let busy = self.links.busy();
        if busy.is_empty() {
            return;
        }
        let Some(look) = look(self.now) else {
            return;
        };
        let before = self.codecs.last.replace(look);
        let fresh = before.filter(|before| look.at - before.at < STALE_AFTER);
        let threads = u64::from(self.setup.config.node.shards);
        if let Some(idle) = fresh.and_then(|before| idle_cores(&before, &look, threads)) {
            self.links.observe(self.now, &busy, idle);
        }
    }
}

fn look(now: Time) -> Option<Look> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let (idle, all) = ticks(&text)?;
    let packed = PACKED.load(Ordering::Relaxed);
    let at = now;
    Some(Look {
        at,
        idle,
        all,
        packed,
    })
}

/// Idle ticks of all processors, and all of their ticks (proc_stat(5): user, nice, system, idle,
/// iowait, irq, softirq, steal; guest time is part of user time).
fn ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Option<Vec<u64>> = line
        .split_whitespace()
        .take(8)
        .map(|field| field.parse().ok())
        .collect();
    let fields = fields?;
    let idle = fields.get(3)? + fields.get(4)?;
    Some((idle, fields.iter().sum()))
}

/// Cores that packing may use: idle ones and those it uses, at most as many as there are threads.
fn idle_cores(before: &Look, look: &Look, threads: u64) -> Option<IdleCores> {
    let all = look.all.checked_sub(before.all).filter(|all| *all > 0)?;
    let idle = look.idle.saturating_sub(before.idle);
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let packing = (look.packed - before.packed) * 1000 / (look.at - before.at).0.max(1);
    let free = idle * cores * 1000 / all + packing;
    Some(IdleCores(free.min(threads * 1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ticks_are_read_as_proc_writes_them() {
        let text = "cpu  100 5 50 800 40 3 2 1 7 0\ncpu0 1 2 3 4\n";
        assert_eq!(ticks(text), Some((840, 1001)));
        assert_eq!(ticks("cpu 1 2"), None);
        assert_eq!(ticks(""), None);
        assert!(look(Time(1)).is_some(), "this machine has /proc/stat");
    }

    #[test]
    fn packing_is_not_taken_for_load() {
        let look = |at, idle, all, packed| Look {
            at: Time(0) + Span::secs(at),
            idle,
            all,
            packed,
        };
        let idle = |packed| idle_cores(&look(1, 0, 0, 0), &look(2, 0, 200, packed), 4);
        assert_eq!(idle(0), Some(IdleCores(0)));
        assert_eq!(idle(500_000_000), Some(IdleCores(500)));
        assert_eq!(idle(9_000_000_000), Some(IdleCores(4000)));
        assert_eq!(idle_cores(&look(1, 0, 0, 0), &look(2, 0, 0, 0), 4), None);
    }
}
