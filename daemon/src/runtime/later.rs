//! What can wait until the applications that were held up by a pause have gone on.
//!
//! A pause ends with the exchange of a path, and much is left to do: syncs that only spare the next
//! start a repetition, the tombstone, the attachment. Done at once it would compete with the first
//! open and the first commit at the new owner, for the disk's journal and for the processor.

use std::collections::VecDeque;

use wal::{Span, Time};

use super::host::Host;

/// Several times what opening and a first commit take, and less than anybody notices elsewhere.
const QUIET: Span = Span::millis(5);

type Work = Box<dyn FnOnce(&mut Host)>;

/// Work in the order of its time.
#[derive(Default)]
pub struct Later(VecDeque<(Time, Work)>);

impl Later {
    pub fn deadline(&self) -> Option<Time> {
        self.0.front().map(|(due, _)| *due)
    }

    fn add(&mut self, due: Time, work: Work) {
        let at = self.0.partition_point(|(other, _)| *other <= due);
        self.0.insert(at, (due, work));
    }

    fn take_due(&mut self, now: Time) -> Option<Work> {
        self.deadline().filter(|due| *due <= now)?;
        self.0.pop_front().map(|(_, work)| work)
    }
}

impl Host {
    /// Does `work` once the pause is over for a while. A daemon that ends before leaves it to the
    /// next start, which finds it undone as after a crash.
    pub fn after_the_pause(&mut self, work: impl FnOnce(&mut Host) + 'static) {
        self.later.add(self.now + QUIET, Box::new(work));
    }

    /// Does `work` once what this turn has to send is on its way.
    pub fn after_this_turn(&mut self, work: impl FnOnce(&mut Host) + 'static) {
        self.later.add(self.now, Box::new(work));
    }

    /// First in a turn: what the turn before has to send is on its way.
    pub fn do_what_waited(&mut self) {
        while let Some(work) = self.later.take_due(self.now) {
            work(self);
        }
    }
}
