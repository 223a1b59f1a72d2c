//! Attachments that are under way, so many at once and no more: each holds some files from when a
//! helper has opened them until the shard has taken it in and cooled it, and at a start there are
//! ten thousand.

use std::collections::VecDeque;

use wal::lsn::Epoch;

use super::host::Host;
use crate::event::Ticket;

/// Several for each helper, so that none of them waits for the shard.
const AT_ONCE_MAX: usize = 256;

#[derive(Default)]
pub struct Attaching {
    under_way: usize,
    waiting: VecDeque<(Ticket, Epoch)>,
}

impl Attaching {
    /// Counts one that begins; `false` if it has to wait, and is begun by [`Host::attach_next`].
    pub fn begin(&mut self, ticket: Ticket, epoch: Epoch) -> bool {
        let begins = self.under_way < AT_ONCE_MAX;
        match begins {
            true => self.under_way += 1,
            false => self.waiting.push_back((ticket, epoch)),
        }
        begins
    }

    fn end(&mut self) -> Option<(Ticket, Epoch)> {
        self.under_way -= 1;
        self.waiting.pop_front()
    }
}

impl Host {
    /// One that had begun was taken in, or failed.
    pub fn attach_next(&mut self) {
        if let Some((ticket, epoch)) = self.lives.attaching.end() {
            self.attach(ticket, epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use wal::PartitionId;

    use super::*;
    use crate::event::Task;

    #[test]
    fn each_begins_at_last_and_never_too_many_at_once() {
        const ALL: usize = 3 * AT_ONCE_MAX;
        let mut attaching = Attaching::default();
        let ticket = |number: usize| Ticket {
            partition: PartitionId(number as u64),
            task: Task::Attach,
            number: 0,
        };
        let mut begun = (0..ALL)
            .filter(|number| attaching.begin(ticket(*number), Epoch(1)))
            .count();
        assert_eq!(begun, AT_ONCE_MAX);
        for _ in 0..ALL {
            if let Some((next, epoch)) = attaching.end() {
                assert!(attaching.begin(next, epoch), "there is room for it");
                assert_eq!(next, ticket(begun), "in order");
                begun += 1;
            }
            assert!(attaching.under_way <= AT_ONCE_MAX);
        }
        assert_eq!((begun, attaching.under_way), (ALL, 0));
    }
}
