//! Which moments can be made again exactly over several disks, and which of them are checked.
//!
//! The logs order what happened on one disk. Ticks order disks against each other: each puts a
//! mark into every log, and then a second one. If no log changed between the two marks of a tick,
//! all disks stood at their marks at one instant. And between two ticks, every entry of a disk is
//! an instant at which all others stood still, if they did.

use crate::log::{Entry, Log};
use crate::record::{Recording, SETTLING, Tick};

/// A moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// So many entries of each log had become durable.
    pub ends: Vec<usize>,
    /// On this disk some of the writes until this entry had been written out without a flush.
    pub torn: Option<(usize, usize)>,
    /// Every row acknowledged before this must be there; none begun after the second may be.
    pub owed_ns: u64,
    pub begun_ns: u64,
    /// Inside a move, or a little after it.
    pub moving: bool,
}

/// The target's own mark, when it is removed.
const THE_END: &str = "dm-log-writes-end";

/// Random choices that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Evenly in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Where the marks of each tick stand in one log.
struct Marks {
    begins: Vec<usize>,
    ends: Vec<usize>,
    /// How many entries before this one change the disk.
    changes: Vec<usize>,
}

impl Marks {
    fn of(log: &Log) -> Marks {
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        let mut changes = vec![0];
        for (index, entry) in log.entries.iter().enumerate() {
            if let Entry::Mark(word) = entry
                && word != THE_END
            {
                let list = if word.starts_with('b') {
                    &mut begins
                } else {
                    &mut ends
                };
                assert_eq!(word[1..].parse(), Ok(list.len()), "marks are in order");
                list.push(index);
            }
            changes.push(changes[index] + usize::from(entry.changes()));
        }
        Marks {
            begins,
            ends,
            changes,
        }
    }

    /// Nothing changed between two entries.
    fn still(&self, from: usize, to: usize) -> bool {
        self.changes[from] == self.changes[to]
    }
}

/// Every moment that is exact, in order of time, each state of the disks once.
pub fn exact(recording: &Recording) -> Vec<Cut> {
    let marks: Vec<Marks> = recording.logs.iter().map(Marks::of).collect();
    let ticks = &recording.ticks;
    let mut cuts: Vec<Cut> = Vec::new();
    let mut last: Vec<usize> = Vec::new();
    for number in 0..ticks.len().saturating_sub(1) {
        let (tick, next) = (ticks[number], ticks[number + 1]);
        let moving = is_moving(recording, tick, next);
        let at = |disk: usize| marks[disk].begins[number];
        if (0..marks.len()).all(|disk| marks[disk].still(at(disk), marks[disk].ends[number])) {
            let states: Vec<usize> = (0..marks.len())
                .map(|disk| marks[disk].changes[at(disk)])
                .collect();
            if states != last {
                last = states;
                cuts.push(Cut {
                    ends: (0..marks.len()).map(at).collect(),
                    torn: None,
                    owed_ns: tick.before_ns,
                    begun_ns: tick.after_ns,
                    moving,
                });
            }
        }
        for disk in 0..marks.len() {
            let others = |other: &usize| *other != disk;
            let quiet = |other: usize| {
                let marks = &marks[other];
                marks.still(marks.begins[number], marks.ends[number + 1])
            };
            if (0..marks.len()).filter(others).all(quiet) {
                let cut = Cut {
                    ends: (0..marks.len()).map(at).collect(),
                    torn: None,
                    owed_ns: tick.before_ns,
                    begun_ns: next.after_ns,
                    moving,
                };
                inside(
                    &recording.logs[disk],
                    disk,
                    marks[disk].begins[number + 1],
                    &cut,
                    &mut cuts,
                );
            }
        }
    }
    cuts
}

/// Every flush of one disk until `end`, and before each what a disk might have written by itself.
fn inside(log: &Log, disk: usize, end: usize, from: &Cut, into: &mut Vec<Cut>) {
    let mut begin = from.ends[disk];
    for index in from.ends[disk]..end {
        if !log.entries[index].ends() {
            continue;
        }
        if log.entries[begin..=index].iter().any(Entry::changes) {
            let mut torn = from.clone();
            torn.ends[disk] = begin;
            torn.torn = Some((disk, index));
            into.push(torn);
            let mut whole = from.clone();
            whole.ends[disk] = index + 1;
            into.push(whole);
        }
        begin = index + 1;
    }
}

fn is_moving(recording: &Recording, tick: Tick, next: Tick) -> bool {
    recording.moves.iter().any(|one| {
        next.after_ns >= one.started_ns
            && tick.before_ns <= one.ended_ns + SETTLING.as_nanos() as u64
    })
}

/// So many of them: of those inside a move and of the others an even sample each, three of four
/// from inside a move; in order.
pub fn sample(cuts: &[Cut], count: usize) -> Vec<Cut> {
    let (moving, still): (Vec<&Cut>, Vec<&Cut>) = cuts.iter().partition(|cut| cut.moving);
    let of_still = (count / 4).min(still.len());
    let of_moving = (count - of_still).min(moving.len());
    let mut chosen: Vec<Cut> = Vec::new();
    for (from, want) in [(&moving, of_moving), (&still, of_still)] {
        chosen.extend((0..want).map(|index| from[index * from.len() / want].clone()));
    }
    chosen.sort_by(|one, two| (one.owed_ns, &one.ends).cmp(&(two.owed_ns, &two.ends)));
    chosen
}
