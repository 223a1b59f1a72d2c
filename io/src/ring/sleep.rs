//! What ends a shard's sleep besides its operations: a doorbell, an alarm, and an eventfd signalled
//! for a sleeper that waits elsewhere.

use std::os::fd::RawFd;

use io_uring::opcode;
use io_uring::types::TimeoutFlags;
use wal::Time;

use super::payload::{Descriptor, Payload};
use super::slab::Hold;
use super::{DOORBELL, Ring, SILENT, raw, timespec};
use crate::error::{Error, Result};

impl Ring {
    /// Lets every write to `doorbell` end a wait of this ring. The count is never read: a
    /// multishot poll completes once per write, whatever the count is.
    pub(crate) fn listen(&mut self, doorbell: &Descriptor) {
        self.doorbell = Some(doorbell.clone());
        let entry = opcode::PollAdd::new(raw(doorbell), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.start(
            DOORBELL,
            Some(doorbell),
            Payload::Nothing,
            Hold::Nothing,
            entry,
        );
    }

    /// Makes answers (and the alarm) write to an eventfd while [`Ring::notify`] is on.
    pub(crate) fn register_eventfd(&mut self, eventfd: RawFd) -> Result<()> {
        let registered = self.kernel.submitter().register_eventfd(eventfd);
        self.kernel.completion().disable_eventfd();
        registered.map_err(|error| Error::system("register", "an eventfd", error))
    }

    /// Turns the eventfd on before a sleep and off after it, so that a busy loop rings no bell.
    /// Returns whether something is already there: then sleeping would miss it.
    pub(crate) fn notify(&mut self, on: bool) -> bool {
        let queue = self.kernel.completion();
        if !on {
            queue.disable_eventfd();
            return false;
        }
        queue.enable_eventfd();
        // The kernel reads the flag after it published an answer; the fence orders our write of
        // the flag before our look at the queue, so one of the two sees the other.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        drop(queue);
        !self.kernel.completion().is_empty() || self.kernel.submission().taskrun()
    }

    /// Makes the eventfd ring at `at` at the latest. An alarm that is set for earlier stays: the
    /// caller looks at the clock and sleeps again, which is cheaper than moving it each time.
    pub(crate) fn alarm(&mut self, at: Time) {
        match self.alarm {
            Some((_, set)) if set <= at => {}
            Some((key, _)) => {
                let moment = timespec(at);
                let update = opcode::TimeoutUpdate::new(key, &*moment).flags(TimeoutFlags::ABS);
                self.start(
                    SILENT,
                    None,
                    Payload::Nothing,
                    Hold::Moment(moment),
                    update.build(),
                );
                self.alarm = Some((key, at));
            }
            None => {
                let moment = timespec(at);
                let entry = opcode::Timeout::new(&*moment)
                    .flags(TimeoutFlags::ABS)
                    .build();
                let key = self.start(SILENT, None, Payload::Nothing, Hold::Moment(moment), entry);
                self.alarm = Some((key, at));
            }
        }
    }
}
