//! Sizes and faults of one run, drawn from its seed: each run is strong in some and free of others.

use wal::Span;

use super::random::Random;

/// A struct of numbers that can be set by name, so that a smaller failing run can be told.
macro_rules! numbers {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            pub const NAMES: &[&str] = &[$(stringify!($field)),*];

            pub fn field(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($field) => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    /// Times are in microseconds. `every` is the mean time between two of a kind, 0 for never.
    #[derive(Clone, Debug)]
    pub struct Plan {
        nodes,
        shards,
        partitions,
        /// Connections per database.
        writers,
        copies,
        keep_reverse,
        /// Of a thousand: native logs, and connections that sync each commit.
        native,
        full,
        /// Longest times of a message, of a step on disk, of the coordinator.
        latency,
        disk,
        keeper,
        /// Accidents begin as long.
        faulty,
        /// Accidents that are let happen: for making a failing run smaller.
        accidents,
        /// Accidents go on to the very end, where nothing is asked but safety.
        endless,
        crash_every,
        power_every,
        kill_every,
        break_every,
        cut_every,
        part_every,
        keeper_down_every,
        full_every,
        slow_every,
        move_every,
        cancel_every,
        promote_every,
        trim_every,
        checkpoint_every,
        write_every,
        /// In a thousand.
        dial_fails,
        work_fails,
        answers_lost,
        stalls,
        /// Steps of a switchover at which a node dies, or the other one, or both.
        aimed,
        /// Copies and logs that a start finds damaged: what was written is not there, or elsewhere.
        rot,
    }
}

impl Plan {
    pub fn draw(random: &mut Random) -> Plan {
        // Some runs are in a hurry: moves follow each other faster than news of them spread.
        let hurry = random.chance(300);
        let mut often = |per_mille: u64, first: u64, last: u64| match random.chance(per_mille) {
            true => random.between(first, last),
            false => 0,
        };
        let crash_every = often(700, 100_000, 3_000_000);
        let power_every = often(250, 300_000, 5_000_000);
        let kill_every = often(300, 50_000, 2_000_000);
        let break_every = often(600, 20_000, 2_000_000);
        let cut_every = often(300, 200_000, 4_000_000);
        let part_every = often(300, 500_000, 5_000_000);
        let keeper_down_every = often(250, 300_000, 4_000_000);
        let full_every = often(150, 500_000, 5_000_000);
        let slow_every = often(200, 300_000, 4_000_000);
        let cancel_every = often(300, 50_000, 1_000_000);
        let promote_every = often(200, 200_000, 4_000_000);
        let trim_every = often(300, 50_000, 1_000_000);
        let checkpoint_every = often(500, 20_000, 1_000_000);
        let dial_fails = often(300, 50, 500);
        let work_fails = often(400, 2, 100);
        let answers_lost = often(400, 10, 300);
        let stalls = often(300, 1, 20);
        let aimed = often(300, 5, 150);
        let keeper = draw_keeper(random, hurry);
        let move_every = draw_move_every(random, hurry);
        // From a generator of its own: older seeds stay what they were.
        let rot = draw_rot(&mut Random::new(aimed ^ crash_every ^ keeper));
        Plan {
            nodes: random.between(2, 4),
            shards: random.between(1, 2),
            partitions: if hurry { 1 } else { random.between(1, 3) },
            writers: random.between(1, 3),
            copies: random.between(1, 2),
            keep_reverse: u64::from(random.chance(800)),
            native: random.between(0, 3) * 333,
            full: random.between(0, 2) * 500,
            latency: random.between(20, 5_000),
            disk: random.between(20, if hurry { 2_000 } else { 20_000 }),
            keeper,
            faulty: random.between(1_000_000, 12_000_000),
            accidents: u64::MAX,
            endless: u64::from(random.chance(150)),
            crash_every,
            power_every,
            kill_every,
            break_every,
            cut_every,
            part_every,
            keeper_down_every,
            full_every,
            slow_every,
            move_every,
            cancel_every,
            promote_every,
            trim_every,
            checkpoint_every,
            write_every: random.between(1_000, 50_000),
            dial_fails,
            work_fails,
            answers_lost,
            stalls,
            aimed,
            rot,
        }
    }

    pub fn faulty(&self) -> Span {
        Span::micros(self.faulty)
    }
}

fn draw_keeper(random: &mut Random, hurry: bool) -> u64 {
    match random.chance(if hurry { 700 } else { 200 }) {
        true => random.between(100_000, 3_000_000),
        false => 0,
    }
}

fn draw_move_every(random: &mut Random, hurry: bool) -> u64 {
    match hurry {
        true => random.between(5_000, 150_000),
        false => random.between(100_000, 1_500_000),
    }
}

fn draw_rot(random: &mut Random) -> u64 {
    match random.chance(150) {
        true => random.between(5, 300),
        false => 0,
    }
}
