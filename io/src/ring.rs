//! A raw io_uring ring on the executor's own thread, completion-queue style.
//!
//! The shard loop is one loop, so there are no futures here: an operation carries a [`Token`] and
//! its answer is a [`Completion`] with the same token. glommio's rings serve the executor; this
//! one carries the data (0.5 us per operation where glommio's file API takes 1.6–8.8 us).
//!
//! Invariants:
//! - bytes and descriptors of an operation are owned by the ring until the kernel's answer, so a
//!   forgotten operation can't write into freed memory nor act on a reused descriptor;
//! - every operation is answered exactly once (a multishot one: until `more` is false);
//! - dropping the ring ends what is in flight first; what does not end is leaked, never freed.
//!
//! How many operations are in flight is bounded by the callers (a link has at most three); more
//! than the kernel takes at once wait here, and answers that don't fit the queue wait in the
//! kernel.

mod bell;
mod build;
mod now;
mod payload;
mod slab;
mod sleep;
#[cfg(test)]
mod tests;
mod zerocopy;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use wal::Time;
use wal::frame::Draft;

use crate::buffer::{Buffer, Pool};
use crate::error::{Error, Kind, Result};
pub use bell::Bell;
use build::build;
use payload::{Address, Message};
pub use payload::{Chunk, Descriptor, Gather, Payload};
use slab::{Hold, Op, Slab};

/// Entries of the submission queue; the completion queue has four times as many.
const DEPTH: u32 = 256;
/// Below this a ring is of no use, and ENOMEM is waited out instead of halving further.
const DEPTH_MIN: u32 = 32;
/// The kernel frees rings of an earlier process late, so ENOMEM at start may pass within this time.
const MEMORY_WAIT: Duration = Duration::from_secs(1);
/// How long a dropped ring waits for its operations to end.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// Tries to submit while the kernel says EAGAIN or EBUSY.
const SUBMIT_TRIES: u32 = 1000;

/// IORING_RECVSEND_POLL_FIRST of linux/io_uring.h: waits for the socket before the first try.
const POLL_FIRST: u16 = 1;

/// User data of requests whose answers nobody waits for.
const IGNORED: u64 = u64::MAX;
/// Token of the ring's own operations: their answers are not handed out.
const SILENT: Token = Token(u64::MAX);
/// Token of the poll of the doorbell.
const DOORBELL: Token = Token(u64::MAX - 1);
/// User data of a batch read is this bit and the index of the read.
const NOW: u64 = 1 << 63;

/// Whose operation it is and which: owner in the upper 56 bits, operation in the lower 8.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

impl Token {
    pub const fn new(owner: u64, op: u8) -> Token {
        Token(owner << 8 | op as u64)
    }

    /// Which part of the shard it belongs to: a link, a listener, a tail.
    pub const fn owner(self) -> u64 {
        self.0 >> 8
    }

    /// Which of its owner's operations it is.
    pub const fn op(self) -> u8 {
        self.0 as u8
    }
}

/// The kernel's answer to one operation.
#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    /// Bytes moved, or the events polled.
    pub result: std::io::Result<usize>,
    /// What the operation owned.
    pub payload: Payload,
    /// A multishot operation that stays armed.
    pub more: bool,
}

/// The ring of one shard thread; it can't leave its thread.
pub struct Ring {
    kernel: IoUring,
    slab: Slab,
    /// Requests that did not fit the submission queue.
    waiting: VecDeque<squeue::Entry>,
    ready: VecDeque<Completion>,
    alarm: Option<(u64, Time)>,
    doorbell: Option<Descriptor>,
    /// The poll of the doorbell ended (its queue overflowed) and must be started again.
    rearm: bool,
    batch: now::Batch,
    /// Receive buffers of this thread.
    pub pool: Pool,
    /// IORING_SETUP_SINGLE_ISSUER: only the thread that made the ring may enter it.
    _thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (depth, in_flight) = (self.kernel.params().sq_entries(), self.in_flight());
        write!(
            f,
            "Ring(depth {depth}, {in_flight} in flight, {} ready)",
            self.ready.len()
        )
    }
}

impl Ring {
    /// A ring with as many entries as memory allows, at most 256.
    pub fn new() -> Result<Ring> {
        let started = Instant::now();
        let mut depth = DEPTH;
        let kernel = loop {
            match build(depth) {
                Ok(kernel) => break kernel,
                Err(error) if error.raw_os_error() != Some(libc::ENOMEM) => {
                    return Err(Error::system("create", "an io_uring ring", error));
                }
                Err(_) if depth > DEPTH_MIN => depth /= 2,
                Err(_) if started.elapsed() < MEMORY_WAIT => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => {
                    let reason = format!("{error}; raise LimitMEMLOCK or set fewer shards");
                    return Err(Error::new(
                        Kind::Refused,
                        "create",
                        "an io_uring ring",
                        reason,
                    ));
                }
            }
        };
        Ok(Ring {
            kernel,
            slab: Slab::default(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            alarm: None,
            doorbell: None,
            rearm: false,
            batch: now::Batch::default(),
            pool: Pool::default(),
            _thread: PhantomData,
        })
    }

    /// Receives into `buffer[from..]`; completes with as many bytes as there are, 0 at the end.
    pub fn recv(&mut self, token: Token, fd: &Descriptor, mut buffer: Buffer, from: usize) {
        let entry = receive(fd, &mut buffer[from..], 0);
        self.start(
            token,
            Some(fd),
            Payload::Buffer(buffer),
            Hold::Nothing,
            entry,
        );
    }

    /// Receives of what is missing of a frame as much as is there once the socket is readable,
    /// which SO_RCVLOWAT decides. It does not look before: whatever it took then would be missing
    /// of what makes the socket readable, for good if nothing follows the frame.
    pub fn recv_rest(&mut self, token: Token, fd: &Descriptor, mut draft: Draft) {
        let entry = receive(fd, draft.rest(), POLL_FIRST);
        self.start(token, Some(fd), Payload::Draft(draft), Hold::Nothing, entry);
    }

    /// Sends all of `gather` after its first `from` bytes. Short only on an error after some bytes.
    pub fn send(&mut self, token: Token, fd: &Descriptor, gather: Gather, from: usize) {
        let message = Message::new(&gather, from);
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        let entry = opcode::SendMsg::new(raw(fd), message.header())
            .flags(flags)
            .build();
        self.start(
            token,
            Some(fd),
            Payload::Gather(gather),
            Hold::Message(message),
            entry,
        );
    }

    /// Reads at `offset` of a file into the first `len` bytes of `buffer`.
    pub fn read_at(
        &mut self,
        token: Token,
        fd: &Descriptor,
        mut buffer: Buffer,
        len: usize,
        offset: u64,
    ) {
        let place = &mut buffer[..len];
        let entry = opcode::Read::new(raw(fd), place.as_mut_ptr(), place.len() as u32);
        let entry = entry.offset(offset).build();
        self.start(
            token,
            Some(fd),
            Payload::Buffer(buffer),
            Hold::Nothing,
            entry,
        );
    }

    /// Completes at a moment of the monotonic clock, with `Ok(0)`.
    pub fn timeout(&mut self, token: Token, at: Time) {
        let moment = timespec(at);
        let entry = opcode::Timeout::new(&*moment)
            .flags(TimeoutFlags::ABS)
            .build();
        self.start(token, None, Payload::Nothing, Hold::Moment(moment), entry);
    }

    /// Completes whenever one of `events` (POLLIN, ...) arises, until cancelled.
    pub fn poll_multishot(&mut self, token: Token, fd: &Descriptor, events: i16) {
        let entry = opcode::PollAdd::new(raw(fd), events as u32)
            .multi(true)
            .build();
        self.start(token, Some(fd), Payload::Nothing, Hold::Nothing, entry);
    }

    /// Accepts connections until cancelled; each comes as [`Payload::Accepted`].
    pub fn accept_multishot(&mut self, token: Token, fd: &Descriptor) {
        let entry = opcode::AcceptMulti::new(raw(fd))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.start(token, Some(fd), Payload::Nothing, Hold::Accept, entry);
    }

    /// Connects a socket.
    pub fn connect(&mut self, token: Token, fd: &Descriptor, address: SocketAddr) {
        let address = Address::new(address);
        let entry = opcode::Connect::new(raw(fd), address.pointer(), address.len).build();
        self.start(
            token,
            Some(fd),
            Payload::Nothing,
            Hold::Address(address),
            entry,
        );
    }

    /// Asks for the end of every operation with this token; each still completes (ECANCELED, or
    /// with what it did before).
    pub fn cancel(&mut self, token: Token) {
        for key in self.slab.keys_of(token) {
            let entry = opcode::AsyncCancel::new(key).build().user_data(IGNORED);
            self.push(entry);
        }
    }

    /// Operations not yet answered by the kernel.
    pub fn in_flight(&self) -> usize {
        self.slab.len()
    }

    /// Hands everything to the kernel and collects the answers it has.
    pub fn submit(&mut self) -> Result<()> {
        if std::mem::take(&mut self.rearm)
            && let Some(doorbell) = self.doorbell.clone()
        {
            self.listen(&doorbell);
        }
        self.enter(0, None)
            .map_err(|error| Error::system("submit to", "the io_uring ring", error))
    }

    /// Like `submit`, and sleeps until an answer or the doorbell is there or the time is over.
    pub fn submit_and_wait(&mut self, longest: Option<Duration>) -> Result<()> {
        let want = usize::from(self.ready.is_empty());
        let done = self.enter(want, longest);
        done.map_err(|error| Error::system("wait for", "the io_uring ring", error))
    }

    /// The next answer collected by `submit` or by a wait.
    pub fn completion(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    /// Whether an answer is there.
    pub fn has_completion(&self) -> bool {
        !self.ready.is_empty()
    }

    /// All answers collected so far.
    pub fn completions(&mut self) -> std::collections::vec_deque::Drain<'_, Completion> {
        self.ready.drain(..)
    }

    fn start(
        &mut self,
        token: Token,
        fd: Option<&Descriptor>,
        payload: Payload,
        hold: Hold,
        entry: squeue::Entry,
    ) -> u64 {
        let key = self.slab.insert(Op::new(token, fd.cloned(), payload, hold));
        self.push(entry.user_data(key));
        key
    }

    fn push(&mut self, entry: squeue::Entry) {
        let mut queue = self.kernel.submission();
        // SAFETY: whatever the entry points at is held by the slab (or by `read_now`, which does
        // not return before the answer), so it outlives the operation.
        if !self.waiting.is_empty() || unsafe { queue.push(&entry) }.is_err() {
            self.waiting.push_back(entry);
        }
    }

    /// Moves waiting entries into the queue; true when none is left.
    fn refill(&mut self) -> bool {
        let mut queue = self.kernel.submission();
        while let Some(entry) = self.waiting.pop_front() {
            // SAFETY: as in `push`.
            if unsafe { queue.push(&entry) }.is_err() {
                self.waiting.push_front(entry);
                return false;
            }
        }
        true
    }

    fn enter(&mut self, want: usize, longest: Option<Duration>) -> std::io::Result<()> {
        for _ in 0..SUBMIT_TRIES {
            let all = self.refill();
            let quiet = want == 0 && {
                let queue = self.kernel.submission();
                queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
            };
            let entered = match longest {
                _ if quiet => Ok(0),
                _ if !all => self.kernel.submit(),
                None => self.kernel.submit_and_wait(want),
                Some(longest) => {
                    let longest = Timespec::from(longest);
                    let args = SubmitArgs::new().timespec(&longest);
                    self.kernel.submitter().submit_with_args(want, &args)
                }
            };
            self.reap();
            let all = all && self.kernel.submission().is_empty();
            match entered.map_err(|error| error.raw_os_error()) {
                Ok(_) if all => return Ok(()),
                Err(Some(libc::ETIME | libc::EINTR)) if all => return Ok(()),
                Ok(_) | Err(Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME)) => {}
                Err(code) => return Err(std::io::Error::from_raw_os_error(code.unwrap_or(0))),
            }
        }
        Err(std::io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Turns the kernel's answers into completions.
    fn reap(&mut self) {
        loop {
            let Some(answer) = self.kernel.completion().next() else {
                return;
            };
            self.answered(&answer);
        }
    }

    fn answered(&mut self, answer: &cqueue::Entry) {
        let key = answer.user_data();
        if key == IGNORED {
            return;
        }
        if key & NOW != 0 {
            self.batch.answered((key & !NOW) as usize, answer.result());
            return;
        }
        let more = cqueue::more(answer.flags());
        let Some(mut taken) = self.slab.answer(key, more) else {
            return;
        };
        if self.alarm.is_some_and(|(alarm, _)| alarm == key) {
            self.alarm = None;
        }
        if taken.token == DOORBELL && !more {
            self.rearm = true;
        }
        if taken.token == SILENT || taken.token == DOORBELL {
            return;
        }
        let notified = cqueue::notif(answer.flags());
        if notified {
            taken.payload = zerocopy::released(taken.payload, answer.result());
        }
        let result = match answer.result() {
            _ if notified => Ok(0),
            result if result >= 0 => Ok(result as usize),
            code if -code == libc::ETIME => Ok(0),
            code => Err(std::io::Error::from_raw_os_error(-code)),
        };
        if let (true, Ok(fd)) = (taken.accepts, &result) {
            // SAFETY: a successful accept answers with a new descriptor that nobody else owns.
            taken.payload = Payload::Accepted(unsafe { OwnedFd::from_raw_fd(*fd as RawFd) });
        }
        let (token, payload) = (taken.token, taken.payload);
        self.ready.push_back(Completion {
            token,
            result,
            payload,
            more,
        });
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let everything = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        let started = Instant::now();
        while self.slab.len() > 0 && started.elapsed() < DRAIN_WAIT {
            self.push(everything.clone().user_data(IGNORED));
            if self.enter(1, Some(Duration::from_millis(10))).is_err() {
                break;
            }
            self.ready.clear();
        }
        if self.slab.len() > 0 {
            tracing::warn!(
                operations = self.slab.len(),
                "io_uring operations did not end; leaked"
            );
            std::mem::forget(std::mem::take(&mut self.slab));
        }
    }
}

fn receive(fd: &Descriptor, place: &mut [u8], flags: u16) -> squeue::Entry {
    opcode::Recv::new(raw(fd), place.as_mut_ptr(), place.len() as u32)
        .ioprio(flags)
        .build()
}

fn raw(fd: &Descriptor) -> Fd {
    Fd(fd.as_fd().as_raw_fd())
}

fn timespec(at: Time) -> Box<Timespec> {
    let (seconds, nanos) = (at.0 / 1_000_000_000, at.0 % 1_000_000_000);
    Box::new(Timespec::new().sec(seconds).nsec(nanos as u32))
}
