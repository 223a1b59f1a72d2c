//! Sizes and faults of one run, drawn from its seed: each run is strong in some and free of others.

use wal::Span;

use super::random::Random;

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub shards: u16,
    pub partitions: usize,
    pub copies: u16,
    pub keep_reverse: bool,
    /// Microseconds, at most, of a message and of a step on disk.
    pub latency: u64,
    pub disk: u64,
    /// Faults last as long.
    pub faulty: Span,
    /// Mean time between faults of each kind, in microseconds; 0: never.
    pub crash_every: u64,
    pub break_every: u64,
    pub cut_every: u64,
    pub part_every: u64,
    pub move_every: u64,
    pub cancel_every: u64,
    pub trim_every: u64,
    pub write_every: u64,
    /// In a thousand.
    pub dial_fails: u64,
    pub work_fails: u64,
    pub answers_lost: u64,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Plan {
        let mut often = |per_mille: u64, first: u64, last: u64| {
            if random.chance(per_mille) {
                random.between(first, last)
            } else {
                0
            }
        };
        let crash_every = often(700, 100_000, 3_000_000);
        let break_every = often(600, 20_000, 2_000_000);
        let cut_every = often(300, 200_000, 4_000_000);
        let part_every = often(300, 500_000, 5_000_000);
        let cancel_every = often(300, 50_000, 1_000_000);
        let trim_every = often(300, 50_000, 1_000_000);
        let dial_fails = often(300, 50, 500);
        let work_fails = often(400, 2, 100);
        let answers_lost = often(400, 10, 300);
        Plan {
            nodes: random.between(2, 4) as usize,
            shards: random.between(1, 2) as u16,
            partitions: random.between(1, 3) as usize,
            copies: random.between(1, 2) as u16,
            keep_reverse: random.chance(800),
            latency: random.between(20, 5_000),
            disk: random.between(20, 20_000),
            faulty: Span::millis(random.between(1_000, 15_000)),
            crash_every,
            break_every,
            cut_every,
            part_every,
            move_every: random.between(50_000, 1_500_000),
            cancel_every,
            trim_every,
            write_every: random.between(500, 50_000),
            dial_fails,
            work_fails,
            answers_lost,
        }
    }
}
