//! Waking a shard from any thread: an eventfd that is written only for a shard that sleeps.
//!
//! There are two, one for each way to sleep. One that serves both (polled by the ring, whose
//! answer rings the other) does not work: the kernel refuses to signal an eventfd from inside a
//! write to an eventfd, and defers it to an RCU grace period.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::ring::Descriptor;

/// Ends a shard's sleep, from any thread. Many calls before the shard looks cost one system call,
/// and none while the shard is awake.
#[derive(Clone, Debug)]
pub struct Wake(pub(super) Arc<Bell>);

impl Wake {
    pub fn wake(&self) {
        self.0.ring();
    }

    /// How often the eventfd was written.
    pub fn rung(&self) -> u64 {
        self.0.rung.load(Ordering::Relaxed)
    }
}

/// How a shard sleeps, and so which eventfd ends the sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sleep {
    /// In its own ring, which polls the doorbell.
    Alone = ALONE as isize,
    /// In glommio's, which reads the eventfd that the ring signals too.
    Beside = BESIDE as isize,
}

/// Which of the four a shard is in; an eventfd is written only on the way from sleep to WOKEN.
const AWAKE: u8 = 0;
const ALONE: u8 = 1;
const BESIDE: u8 = 2;
const WOKEN: u8 = 3;

#[derive(Debug)]
pub(super) struct Bell {
    state: AtomicU8,
    rung: AtomicU64,
    pub(super) doorbell: Descriptor,
    /// Read by glommio, signalled by the ring.
    pub(super) signal: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> Result<Bell> {
        let (doorbell, signal) = (Descriptor::from(eventfd()?), eventfd()?);
        Ok(Bell {
            state: AtomicU8::new(AWAKE),
            rung: AtomicU64::new(0),
            doorbell,
            signal,
        })
    }

    fn ring(&self) {
        let sleeper = match self.state.swap(WOKEN, Ordering::AcqRel) {
            ALONE => self.doorbell.as_fd(),
            BESIDE => self.signal.as_fd(),
            _ => return,
        };
        self.rung.fetch_add(1, Ordering::Relaxed);
        write(sleeper);
    }

    /// Says "asleep" unless a wake-up came first; that one is then consumed.
    pub(super) fn sleep(&self, how: Sleep) -> bool {
        let asleep = how as u8;
        let slept = self
            .state
            .compare_exchange(AWAKE, asleep, Ordering::AcqRel, Ordering::Acquire);
        if slept.is_err() {
            // Only a waker changes the state meanwhile; what it announced is seen after this.
            self.state.swap(AWAKE, Ordering::AcqRel);
        }
        slept.is_ok()
    }

    /// Says "awake" and tells whether there was a wake-up, which is consumed.
    pub(super) fn awake(&self) -> bool {
        self.state.swap(AWAKE, Ordering::AcqRel) == WOKEN
    }
}

fn eventfd() -> Result<OwnedFd> {
    // SAFETY: a plain system call that returns a new descriptor or -1.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::system("create", "an eventfd", error));
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd's count.
pub(super) fn write(eventfd: BorrowedFd<'_>) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: writes the eight bytes of `one` to a descriptor that is open for the call. It can't
    // fail short of a count of 2^64-1.
    unsafe { libc::write(eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}
