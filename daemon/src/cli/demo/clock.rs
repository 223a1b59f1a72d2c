//! CLOCK_MONOTONIC in nanoseconds: the one time axis that all processes of the demo share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since an arbitrary point, the same for every process until the machine restarts.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
