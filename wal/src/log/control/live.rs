//! The live words of a control page: positions, lease, bells. True while the machine is up.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::{Control, Word};
use crate::lsn::Lsn;

/// How often who waits for a thaw looks whether the one who froze the log is alive.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) const DURABLE: usize = 128;
const LEASE: usize = 192;
const BELL: usize = 256;
const BELL_WAITING: usize = 260;
const MIRROR_BELL: usize = 264;
const MIRROR_WAITING: usize = 268;
const FREEZE_BELL: usize = 272;
const FREEZE_WAITING: usize = 276;
const FROZEN_UNTIL: usize = 280;
const SHIPPED: usize = 384;
const MIRRORED: usize = 392;
const HOLD: usize = 400;
const RECENT: usize = 408;
pub(super) const UNUSED_RUN: usize = 416;

impl Control {
    /// What an earlier boot left: nobody waits, nothing is shipped, no lease is granted.
    pub(super) fn forget_live(&self, durable: Lsn) {
        for at in [SHIPPED, MIRRORED, HOLD, RECENT, UNUSED_RUN, LEASE] {
            self.page.store_long(at, 0);
        }
        for at in [BELL_WAITING, MIRROR_WAITING, FREEZE_WAITING] {
            self.page.store(at, 0);
        }
        self.page.store_long(DURABLE, durable.0);
    }

    /// Makes the page writable to this process ahead of a seal: the first store after the page went
    /// to the disk is a page fault, which may wait for the file system.
    pub fn warm(&self) {
        self.page.add(BELL_WAITING, 0);
    }

    /// Freezes the log: appends wait, nothing is acknowledged, until [`Control::thaw`], a seal, or
    /// `until` ([`boottime`]), when the appender goes on by himself. Returns the word as it stays
    /// meanwhile; fails if the log is sealed.
    pub fn freeze(&self, until: Duration) -> std::result::Result<Word, Word> {
        self.page.store_long(FROZEN_UNTIL, nanos(until));
        let mut old = self.word();
        while !old.sealed {
            let frozen = Word {
                frozen: true,
                ..old
            };
            match self.swap(old, frozen) {
                Ok(()) => return Ok(frozen),
                Err(now) => old = now,
            }
        }
        Err(old)
    }

    /// Lets appends go on as if nothing had been.
    pub fn thaw(&self) {
        let old = self.word();
        let thawed = Word {
            frozen: false,
            ..old
        };
        // It can only be thawed or sealed already: a frozen word changes in no other way.
        let _ = self.swap(old, thawed);
        self.wake_frozen();
    }

    pub(super) fn wake_frozen(&self) {
        self.page.add(FREEZE_BELL, 1);
        if self.page.load_ordered(FREEZE_WAITING) > 0 {
            self.page.wake(FREEZE_BELL);
        }
    }

    /// Waits while the log is frozen; thaws it when its time is over, for the one who froze it may
    /// be dead.
    pub(in crate::log) fn wait_thawed(&self) {
        self.page.add(FREEZE_WAITING, 1);
        loop {
            let seen = self.page.load_ordered(FREEZE_BELL);
            let word = self.word();
            if !word.frozen {
                break;
            }
            let until = Duration::from_nanos(self.page.load_long(FROZEN_UNTIL));
            let left = until.saturating_sub(boottime());
            if left.is_zero() || self.is_abandoned() {
                self.thaw();
            } else {
                self.page
                    .wait(FREEZE_BELL, seen, Some(left.min(LOOK_EVERY)));
            }
        }
        self.page.subtract(FREEZE_WAITING, 1);
    }

    /// Nobody tails this log any more: who froze it is dead.
    fn is_abandoned(&self) -> bool {
        self.tail().is_ok_and(|lock| lock.is_some())
    }

    /// Everything below is on stable storage here.
    pub fn durable(&self) -> Lsn {
        Lsn(self.page.load_long(DURABLE))
    }

    pub(in crate::log) fn set_durable(&self, lsn: Lsn) {
        self.page.store_long(DURABLE, lsn.0);
    }

    /// Everything below was sent to a peer.
    pub fn shipped(&self) -> Lsn {
        Lsn(self.page.load_long(SHIPPED))
    }

    pub fn set_shipped(&self, lsn: Lsn) {
        self.page.store_long(SHIPPED, lsn.0);
    }

    /// Everything below is on stable storage at a peer.
    pub fn mirrored(&self) -> Lsn {
        Lsn(self.page.load_long(MIRRORED))
    }

    /// Says how far a peer has everything durably, and wakes who waits for that.
    pub fn set_mirrored(&self, lsn: Lsn) {
        self.page.store_long(MIRRORED, lsn.0);
        self.page.add(MIRROR_BELL, 1);
        if self.page.load_ordered(MIRROR_WAITING) > 0 {
            self.page.wake(MIRROR_BELL);
        }
    }

    /// Waits for a change of [`Control::mirrored`], at most `limit`, unless `done` already.
    pub(in crate::log) fn wait_mirrored(&self, limit: Duration, done: impl Fn(Lsn) -> bool) {
        self.page.add(MIRROR_WAITING, 1);
        let seen = self.page.load_ordered(MIRROR_BELL);
        if !done(self.mirrored()) {
            self.page.wait(MIRROR_BELL, seen, Some(limit));
        }
        self.page.subtract(MIRROR_WAITING, 1);
    }

    /// Segments at or above this are not used again while somebody tails ([`Control::tail`]) and
    /// still reads them. 0 holds nothing.
    pub fn hold(&self) -> Lsn {
        Lsn(self.page.load_long(HOLD))
    }

    pub fn set_hold(&self, lsn: Lsn) {
        self.page.store_long(HOLD, lsn.0);
    }

    /// The name of the memory that the newest groups are shared in ([`crate::log::recent`]); 0:
    /// there is none.
    pub(in crate::log) fn recent(&self) -> u64 {
        self.page.load_long(RECENT)
    }

    pub(in crate::log) fn set_recent(&self, name: u64) {
        self.page.store_long(RECENT, name);
    }

    /// Takes the run that the log was made with, which nobody used before: nothing was left behind
    /// by it, so it need not be told from an earlier one by another sync.
    pub(in crate::log) fn take_unused(&self, run: u32) -> bool {
        run > 0 && self.page.exchange_long(UNUSED_RUN, run.into(), 0).is_ok()
    }

    /// Until when ([`boottime`]) writers may acknowledge; 0 means for ever.
    pub fn set_lease(&self, deadline: Duration) {
        self.page.store_long(LEASE, nanos(deadline));
    }

    /// Nobody may acknowledge any more.
    pub fn lease_is_over(&self) -> bool {
        match self.page.load_long(LEASE) {
            0 => false,
            deadline => boottime().as_nanos() >= u128::from(deadline),
        }
    }

    /// Tells the sidecar that there is more, if it sleeps.
    pub(in crate::log) fn ring(&self) {
        self.page.add(BELL, 1);
        if self.page.load_ordered(BELL_WAITING) > 0 {
            self.page.wake(BELL);
        }
    }

    /// How often the bell was rung; [`Control::wait_bell`] returns once that is another number.
    pub fn bell(&self) -> u32 {
        self.page.load_ordered(BELL)
    }

    /// Where the bell lies, for who waits for it with a ring; valid as long as this lives.
    pub fn bell_address(&self) -> *const AtomicU32 {
        self.page.address(BELL)
    }

    /// Whoever commits wakes who waits for the bell, until [`Control::unlisten`].
    pub fn listen(&self) {
        self.page.add(BELL_WAITING, 1);
    }

    pub fn unlisten(&self) {
        self.page.subtract(BELL_WAITING, 1);
    }

    /// Waits until the bell is rung again, at most `limit`.
    pub fn wait_bell(&self, seen: u32, limit: Duration) {
        self.listen();
        self.page.wait(BELL, seen, Some(limit));
        self.unlisten();
    }
}

/// The clock of leases: it goes on while the machine sleeps, and nobody sets it.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(secs, u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
