//! The commit thread: makes submitted bytes durable, many submissions with one write.
//!
//! One OS thread of its own, because a commit on a shard's executor would hold up everything else,
//! and because only a thread of its own may run at real-time priority, which is what keeps a 4 KiB
//! commit near 0.1 ms on a busy machine. The thread takes what is waiting, up to 1 MiB, as one
//! *group*, writes it with `O_DIRECT | O_DSYNC` into a segment that was filled with zeros before
//! (so no write changes size or extents), and then answers each submission. One group is in
//! flight at a time: under load it grows, and acknowledgement by prefix needs no bookkeeping.
//! Where `O_DIRECT` is not supported (tmpfs) it falls back to a buffered write and fdatasync.
//!
//! Invariants: submissions are answered in order, each exactly once, errors included; a group
//! starts on a block of its own, so an acknowledged block is never written again; after a failed
//! write its segment is left for good.

mod group;
mod segments;
mod thread;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use wal::frame::Frame;

use crate::error::{Error, Kind, Result};

use group::BLOCK;
pub use group::{GroupHead, HEAD_LEN as GROUP_HEAD_LEN, MAGIC as GROUP_MAGIC};
pub use segments::{Group, groups_of};
pub(crate) use segments::{Slot, SlotIndex, clean_slots, scan_slots};

/// Most bytes of one group, except that one submission may be larger.
pub const GROUP_BYTES_MAX: usize = 1 << 20;
/// Most submissions that may wait; more are answered `Retry` at once.
pub const WAITING_MAX: usize = 65_536;

/// Number of a segment: grows by one with each segment begun, never repeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNumber(pub u64);

/// The submitter's name for a submission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// How the thread works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitOptions {
    /// Bytes of a new segment.
    pub segment_bytes: u64,
    /// Bytes of all segments together.
    pub bytes_max: u64,
    /// Ask for `O_DIRECT | O_DSYNC`.
    pub direct: bool,
    /// Ask for real-time priority.
    pub realtime: bool,
    /// How long a submission may wait for others. One that comes alone is written at once; a
    /// stream of them shares its writes.
    pub gather_max: Duration,
}

impl Default for CommitOptions {
    fn default() -> CommitOptions {
        CommitOptions {
            segment_bytes: 8 << 20,
            bytes_max: 256 << 20,
            direct: true,
            realtime: true,
            gather_max: Duration::from_millis(2),
        }
    }
}

/// What the thread got of what it asked for; for `status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitMode {
    pub direct: bool,
    pub realtime: bool,
}

/// The answer to a submission: where it is durable, or why it is not.
#[derive(Debug)]
pub struct Committed {
    pub ticket: Ticket,
    pub result: Result<Place>,
}

/// Where a submission is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub segment: SegmentNumber,
    pub(crate) slot: SlotIndex,
    /// Bytes of the segment's file.
    pub(crate) bytes: u64,
}

/// The submitting end. Dropping it ends the thread after what was submitted is answered.
#[derive(Debug)]
pub struct Commit {
    orders: Option<flume::Sender<Order>>,
    answers: flume::Receiver<Committed>,
    wake: Arc<Wake>,
    mode: CommitMode,
    dir: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
pub(crate) enum Order {
    Write(Ticket, Frame),
    /// This slot's segment is no longer needed.
    Free(SlotIndex),
}

impl Commit {
    /// Starts the thread on the segments in `dir`. `slots` are those that exist, `next` is the
    /// number of the segment to begin with.
    pub(crate) fn start(
        dir: &Path,
        options: &CommitOptions,
        slots: Vec<Slot>,
        next: SegmentNumber,
    ) -> Result<Commit> {
        let (orders, inbox) = flume::bounded(WAITING_MAX);
        let (outbox, answers) = flume::unbounded();
        let wake = Arc::new(Wake::new()?);
        let worker = thread::Worker::new(dir, options, slots, next, outbox, wake.clone())?;
        let direct = worker.is_direct();
        let (mode_out, mode_in) = flume::bounded(1);
        let realtime = options.realtime;
        let thread = std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || {
                let granted = realtime && crate::urgent::ask_realtime();
                // The starter waits for this; it can only be gone if it panicked.
                let _ = mode_out.send(granted);
                worker.run(&inbox);
            })
            .map_err(|e| Error::system("start", "the commit thread", e))?;
        let realtime = mode_in.recv().unwrap_or(false);
        Ok(Commit {
            orders: Some(orders),
            answers,
            wake,
            mode: CommitMode { direct, realtime },
            dir: dir.to_owned(),
            thread: Some(thread),
        })
    }

    /// Submits `frame`; its answer comes out of [`Commit::answer`]. An error here is the answer.
    pub fn submit(&self, ticket: Ticket, frame: Frame) -> Result<()> {
        self.order(Order::Write(ticket, frame))
    }

    /// The next answer, if one is there.
    pub fn answer(&self) -> Option<Committed> {
        self.answers.try_recv().ok()
    }

    /// Waits for the next answer; `None` after the thread ended. For tests and for shutting down.
    pub fn wait(&self) -> Option<Committed> {
        self.answers.recv().ok()
    }

    /// An eventfd that is readable when answers came since it was last read.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }

    /// Resets the eventfd; call it before taking the answers.
    pub fn clear_wake(&self) {
        self.wake.clear();
    }

    pub fn mode(&self) -> CommitMode {
        self.mode
    }

    pub(crate) fn free(&self, slot: SlotIndex) -> Result<()> {
        self.order(Order::Free(slot))
    }

    fn order(&self, order: Order) -> Result<()> {
        let sent = self.orders.as_ref().map(|orders| orders.try_send(order));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(flume::TrySendError::Full(_))) => {
                let reason = format!("{WAITING_MAX} submissions are waiting");
                Err(Error::new(Kind::Retry, "submit to", self.subject(), reason))
            }
            _ => Err(Error::new(
                Kind::Fatal,
                "submit to",
                self.subject(),
                "the thread ended",
            )),
        }
    }

    fn subject(&self) -> String {
        format!("the commit thread of {}", self.dir.display())
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic was printed where it happened; there is nobody here to tell.
            let _ = thread.join();
        }
    }
}

/// An eventfd that wakes the submitter's executor.
#[derive(Debug)]
struct Wake(OwnedFd);

impl Wake {
    fn new() -> Result<Wake> {
        // SAFETY: eventfd(2) takes two numbers and returns a new descriptor or -1.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::system("make", "an eventfd", error));
        }
        // SAFETY: the descriptor is fresh and nobody else's.
        Ok(Wake(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes, as eventfd(2) wants. EAGAIN means that it is ringing.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes, as eventfd(2) wants. EAGAIN means that it was silent.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}
