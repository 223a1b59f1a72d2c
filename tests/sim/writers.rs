//! Applications: connections that commit step by step, stall, die, and look for the owner.

use wal::{PartitionId, Span};

use super::live::{Answer, Live};
use super::people::Act;
use super::world::{Happening, World};

/// A connection tries again after as long, at most, when the lock is taken.
const BUSY_MICROS: u64 = 500;
/// And when it has no database.
const LOOK_MICROS: u64 = 3_000;

/// One connection of an application to one database.
#[derive(Debug)]
pub struct Connection {
    pub partition: PartitionId,
    /// The file that is open: a node's generation.
    pub open: Option<(usize, u64)>,
    /// `synchronous=FULL`
    pub full: bool,
    /// Counts attempts: what belongs to an earlier one is over.
    pub attempt: u64,
}

impl World {
    /// A connection begins its next commit.
    pub fn begin_commit(&mut self, number: usize, attempt: u64) {
        if self.writers[number].attempt != attempt {
            return;
        }
        // Applications rest once nothing goes wrong any more, so that a run comes to an end.
        if self.now > self.faulty_until() + Span::secs(2) {
            return;
        }
        let id = self.writers[number].partition;
        if self.writers[number].open.is_some() && self.random.chance(20) {
            self.writers[number].open = None;
        }
        if self.writers[number].open.is_none() {
            self.open(number);
        }
        let write = self.next_write + 1;
        let answer = match self.opened(number) {
            None => Answer::ReadOnly,
            Some(live) => live.lock(number, write),
        };
        match answer {
            Answer::ReadOnly => {
                self.writers[number].open = None;
                let delay = self.random.micros(100, LOOK_MICROS);
                self.later(delay, Happening::Act(Act::Write(number, attempt)));
            }
            Answer::Busy => {
                let delay = self.random.micros(20, BUSY_MICROS);
                self.later(delay, Happening::Act(Act::Write(number, attempt)));
            }
            Answer::Writing => {
                self.next_write = write;
                self.touched.insert(id);
                let delay = self.commit_time(number);
                self.later(delay, Happening::Act(Act::Commit(number, attempt)));
            }
        }
    }

    fn commit_time(&mut self, number: usize) -> Span {
        if self.faulty() && self.random.chance(self.plan.stalls) {
            return self.random.micros(1_000, 900_000);
        }
        let longest = if self.writers[number].full {
            20 + self.plan.disk / 4
        } else {
            40
        };
        self.random.micros(5, longest)
    }

    /// The last step of a commit.
    pub fn end_commit(&mut self, number: usize, attempt: u64) {
        let writer = &self.writers[number];
        let (partition, open, full) = (writer.partition, writer.open, writer.full);
        if attempt != writer.attempt {
            return;
        }
        let published = self.opened(number).and_then(|live| {
            let write = live.publish(number, full)?;
            Some((live.epoch, write))
        });
        if let (Some((epoch, write)), Some((node, _))) = (published, open) {
            self.touched.insert(partition);
            self.committed_under(partition, epoch, write, full);
            self.people.writes += 1;
            self.committed(node, partition);
        }
        let every = self.plan.write_every;
        let delay = self.random.micros(every / 2, every * 3 / 2);
        self.later(delay, Happening::Act(Act::Write(number, attempt)));
    }

    /// Opens the live database of the first node that has one.
    fn open(&mut self, number: usize) {
        let id = self.writers[number].partition;
        let first = self.any_node();
        let count = self.nodes.len();
        for node in (0..count).map(|step| (first + step) % count) {
            if self.nodes[node].dark {
                continue;
            }
            let live = self.nodes[node].disks.get(&id);
            let Some(generation) = live.and_then(|disk| Some(disk.live.as_ref()?.generation))
            else {
                continue;
            };
            self.recover_log(node, id);
            self.writers[number].open = Some((node, generation));
            return;
        }
    }

    /// The file that a connection has open, if it still exists.
    fn opened(&mut self, number: usize) -> Option<&mut Live> {
        let (id, (node, generation)) = (self.writers[number].partition, self.writers[number].open?);
        self.nodes[node].disks.get_mut(&id)?.generation(generation)
    }

    /// If nobody has the live database open, its log is recovered by whoever comes first.
    pub fn recover_log(&mut self, node: usize, id: PartitionId) {
        let Some(live) = self.nodes[node].disks.get_mut(&id) else {
            return;
        };
        let Some(live) = live.live.as_mut().filter(|live| live.tail.is_none()) else {
            return;
        };
        let open = Some((node, live.generation));
        let mut others = self.writers.iter();
        if others.any(|writer| writer.partition == id && writer.open == open) {
            return;
        }
        live.writer = None;
        if let Some(write) = live.recover_log() {
            let epoch = live.epoch;
            self.touched.insert(id);
            self.committed_under(id, epoch, write, false);
        }
    }

    /// The applications of a node die: at most all, mostly one.
    pub fn kill_writers(&mut self, node: usize, all: bool) {
        for number in 0..self.writers.len() {
            let ours = self.writers[number].open.is_some_and(|(at, _)| at == node);
            if !ours || !all && self.random.chance(500) {
                continue;
            }
            if let Some(live) = self.opened(number)
                && live.writer == Some(number)
            {
                live.writer = None;
            }
            let writer = &mut self.writers[number];
            writer.open = None;
            writer.attempt += 1;
            let attempt = writer.attempt;
            let delay = self.random.micros(1_000, 200_000);
            self.later(delay, Happening::Act(Act::Write(number, attempt)));
        }
    }
}
