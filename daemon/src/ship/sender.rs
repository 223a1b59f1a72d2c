//! The owner's end of a shadow: offer, resume or compare, copy, then stream.
//!
//! ```text
//! Waiting -> Offered -> Resuming -> Streaming
//!               |           |  (the log is too short, the peer lost its prefix)
//!               +-> Comparing -> Copying -> Settling -> Streaming
//! ```
//! A copy is never blind: pages are compared by hash first, and only what differs travels. While
//! pages travel the source goes on; the last, small difference is read at one position.

use std::collections::VecDeque;

use wal::lsn::{Lsn, Position};
use wal::message::{Attributes, Message, Standing};
use wal::{Digest, NodeId, PartitionId, PartitionName, Span, Time};

use crate::effect::{Class, Effect, Effects};
use crate::event::{Failure, LinkId, Outcome, Task, Ticket};
use crate::mutation::{self, Mutation};
use crate::ship::average::Average;

/// Pages that may differ when the last part of a copy is read at one position.
pub const LAST_PAGES_MAX: u64 = 1024;
/// Rounds of copying after which the rest is sent at one position whatever its size: the source
/// changes faster than it is copied, and only the log can catch up.
pub const ROUNDS_MAX: u32 = 64;
/// Deltas in flight; the window in bytes is the usual bound, this one bounds memory.
const IN_FLIGHT_MAX: usize = 4096;
/// Losses in a row that are mended at once.
const LOSSES_AT_ONCE: u32 = 3;
/// Wait after each further loss.
const LOSS_WAIT: Span = Span::millis(500);
/// Wait before offering again to a peer that declined or is busy.
const OFFER_AGAIN_AFTER: Span = Span::millis(50);

/// A part of the stream that was shipped and not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Part {
    to: Lsn,
    bytes: u64,
    shipped_at: Time,
}

/// How far the peer's shadow has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Progress {
    /// No link, or the peer asked for time.
    Waiting {
        offer_at: Option<Time>,
    },
    Offered,
    /// The shell checks whether the delta log still reaches back to the peer's position.
    Resuming {
        at: Position,
    },
    Comparing,
    Copying {
        rounds: u32,
        pages_left: u64,
    },
    /// The last pages are on their way; the peer has to prove that it stands here.
    Settling {
        at: Position,
    },
    Streaming,
}

/// The owner's end of one shadow of one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Sender {
    partition: PartitionId,
    link: LinkId,
    progress: Progress,
    /// Everything up to here was handed to the link.
    sent: Lsn,
    /// Everything up to here is durable at the peer; `None` before the first acknowledgement.
    acknowledged: Option<Position>,
    in_flight: VecDeque<Part>,
    /// A `Ship` whose result is not here yet.
    shipping: bool,
    /// Distinguishes results of an earlier session.
    session: u64,
    /// Times in a row that the peer lost its prefix before it streamed again.
    losses: u32,
    pub acknowledgement: Average,
    /// Delays of what was shipped before say nothing about now.
    measured_from: Time,
    /// Why the peer has no shadow, for people.
    pub reason: Option<String>,
}

/// What a sender needs to know of its partition.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub name: &'a PartitionName,
    pub position: Position,
    pub page_size: u32,
    pub attributes: Attributes,
    pub window: u64,
    /// A switchover to this peer is frozen: the window does not hold anything back.
    pub urgent: bool,
}

impl Sender {
    pub fn new(partition: PartitionId, link: LinkId) -> Sender {
        Sender {
            partition,
            link,
            progress: Progress::Waiting { offer_at: None },
            sent: Lsn(0),
            acknowledged: None,
            in_flight: VecDeque::new(),
            shipping: false,
            session: 0,
            losses: 0,
            acknowledgement: Average::default(),
            measured_from: Time(0),
            reason: None,
        }
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub fn peer(&self) -> NodeId {
        self.link.peer
    }

    pub fn link(&self) -> LinkId {
        self.link
    }

    pub fn acknowledged(&self) -> Option<Position> {
        self.acknowledged
    }

    pub fn sent(&self) -> Lsn {
        self.sent
    }

    /// Nothing is under way: an offer may be made.
    pub fn is_waiting(&self) -> bool {
        matches!(self.progress, Progress::Waiting { offer_at: None })
    }

    pub fn is_streaming(&self) -> bool {
        self.progress == Progress::Streaming
    }

    pub fn bytes_in_flight(&self) -> u64 {
        self.in_flight.iter().map(|part| part.bytes).sum()
    }

    /// The link is up, or the partition became ours: offer it.
    pub fn offer(&mut self, origin: Origin<'_>, out: &mut Effects) {
        self.begin_session();
        self.progress = Progress::Offered;
        out.send(
            self.link,
            Message::Offer {
                partition: self.partition,
                name: origin.name.as_str().to_owned(),
                at: origin.position,
                page_size: origin.page_size,
                attributes: origin.attributes,
            },
        );
    }

    pub fn on_link_down(&mut self) {
        self.begin_session();
        self.progress = Progress::Waiting { offer_at: None };
    }

    pub fn on_stand(&mut self, now: Time, standing: Standing, out: &mut Effects) {
        // A peer that was asked for its hashes may be busy too: it landed or was made anew.
        let comparing = self.progress == Progress::Comparing && standing == Standing::Busy;
        if self.progress != Progress::Offered && !comparing {
            return;
        }
        self.reason = None;
        match standing {
            Standing::Nothing => self.compare_with(Vec::new(), 1, true, out),
            Standing::Partial => self.ask_hashes(out),
            Standing::At(position) => {
                self.progress = Progress::Resuming { at: position };
                self.sent = position.lsn;
                let unproven = mutation::is(Mutation::ResumeUnproven);
                let digest = (!unproven).then_some(position.digest);
                self.ship(position.lsn, digest, 0, Class::Live, out);
            }
            Standing::Busy => self.wait(now),
        }
    }

    pub fn on_decline(&mut self, now: Time, reason: String) {
        self.begin_session();
        self.reason = Some(reason);
        self.progress = Progress::Waiting {
            offer_at: Some(now + Span::secs(5)),
        };
    }

    /// The peer's copy is not a prefix any more: find out where it differs.
    pub fn on_lost(&mut self, now: Time, reason: String, out: &mut Effects) {
        if matches!(self.progress, Progress::Waiting { .. } | Progress::Offered) {
            return;
        }
        self.begin_session();
        self.reason = Some(reason);
        self.losses = self.losses.saturating_add(1);
        if self.losses > LOSSES_AT_ONCE {
            // What keeps failing there, a full disk most likely, will not be mended by haste.
            let wait = Span(LOSS_WAIT.0 * u64::from(self.losses.min(20)));
            self.progress = Progress::Waiting {
                offer_at: Some(now + wait),
            };
        } else {
            self.ask_hashes(out);
        }
    }

    pub fn on_hashes(&mut self, first: u32, hashes: Vec<u64>, last: bool, out: &mut Effects) {
        if self.progress == Progress::Comparing {
            self.compare_with(hashes, first, last, out);
        }
    }

    /// The shell compared the tables.
    pub fn on_compared(
        &mut self,
        now: Time,
        number: u64,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        if number != self.session || self.progress != Progress::Comparing {
            return;
        }
        match result {
            Ok(Outcome::Copied { pages_left }) => self.copy(0, pages_left, out),
            Ok(_) => {}
            Err(failure) => self.fail(now, failure.reason()),
        }
    }

    pub fn on_copied(
        &mut self,
        now: Time,
        number: u64,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        let Progress::Copying { rounds, .. } = self.progress else {
            return;
        };
        if number != self.session {
            return;
        }
        match result {
            Ok(Outcome::Copied { pages_left }) => self.copy(rounds + 1, pages_left, out),
            Ok(Outcome::CopiedAll(position)) => {
                self.sent = position.lsn;
                self.progress = Progress::Settling { at: position };
            }
            Ok(_) => {}
            Err(failure) => self.fail(now, failure.reason()),
        }
    }

    pub fn on_shipped(
        &mut self,
        now: Time,
        number: u64,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        if number != self.session {
            return;
        }
        self.shipping = false;
        match result {
            Ok(Outcome::Shipped { to, bytes }) => {
                if let Progress::Resuming { at } = self.progress {
                    self.acknowledged = Some(at);
                    self.progress = Progress::Streaming;
                }
                if to > self.sent {
                    self.sent = to;
                    self.in_flight.push_back(Part {
                        to,
                        bytes,
                        shipped_at: now,
                    });
                }
            }
            Ok(_) => {}
            Err(Failure::Retry(reason)) => {
                if let Progress::Resuming { .. } = self.progress {
                    self.fail(now, &reason);
                }
            }
            Err(failure) => {
                self.begin_session();
                self.reason = Some(failure.reason().to_owned());
                self.ask_hashes(out);
            }
        }
    }

    pub fn on_ack(&mut self, now: Time, durable: Position) {
        match self.progress {
            Progress::Settling { at } if at.lsn == durable.lsn => {
                self.progress = Progress::Streaming;
            }
            Progress::Streaming if durable.lsn <= self.sent => {}
            _ => return,
        }
        let newer = self.acknowledged.is_none_or(|held| held.lsn < durable.lsn);
        if !newer {
            return;
        }
        self.acknowledged = Some(durable);
        self.losses = 0;
        while let Some(part) = self.in_flight.front().copied()
            && part.to <= durable.lsn
        {
            self.in_flight.pop_front();
            if part.shipped_at >= self.measured_from {
                self.acknowledgement.add(now - part.shipped_at);
            }
        }
    }

    /// Measures acknowledgements anew: while the peer prepared a landing they were held up.
    pub fn measure_anew(&mut self, now: Time) {
        self.acknowledgement = Average::default();
        self.measured_from = now;
    }

    /// Ships what the log has and the window allows.
    pub fn pump(&mut self, origin: Origin<'_>, out: &mut Effects) {
        if !self.is_streaming() || self.shipping || self.sent >= origin.position.lsn {
            return;
        }
        let room = origin.window.saturating_sub(self.bytes_in_flight());
        let full = room == 0 || self.in_flight.len() >= IN_FLIGHT_MAX;
        if full && !origin.urgent {
            return;
        }
        let class = if origin.urgent {
            Class::Urgent
        } else {
            Class::Live
        };
        let bytes_max = if origin.urgent { u64::MAX } else { room };
        self.ship(self.sent, None, bytes_max, class, out);
    }

    pub fn deadline(&self) -> Option<Time> {
        match self.progress {
            Progress::Waiting { offer_at } => offer_at,
            _ => None,
        }
    }

    fn ship(
        &mut self,
        from: Lsn,
        digest: Option<Digest>,
        bytes_max: u64,
        class: Class,
        out: &mut Effects,
    ) {
        self.shipping = true;
        let ticket = self.ticket(Task::Ship(self.link.peer));
        let link = self.link;
        out.push(Effect::Ship {
            ticket,
            link,
            class,
            from,
            digest,
            bytes_max,
        });
    }

    fn ask_hashes(&mut self, out: &mut Effects) {
        self.progress = Progress::Comparing;
        out.send(
            self.link,
            Message::AskHashes {
                partition: self.partition,
            },
        );
    }

    fn compare_with(&mut self, hashes: Vec<u64>, first: u32, last: bool, out: &mut Effects) {
        self.progress = Progress::Comparing;
        let ticket = self.ticket(Task::Compare(self.link.peer));
        out.push(Effect::Compare {
            ticket,
            peer: self.link.peer,
            first,
            hashes,
            last,
        });
    }

    fn copy(&mut self, rounds: u32, pages_left: u64, out: &mut Effects) {
        let last = pages_left <= LAST_PAGES_MAX || rounds >= ROUNDS_MAX && pages_left <= 1 << 16;
        self.progress = Progress::Copying { rounds, pages_left };
        let ticket = self.ticket(Task::Copy(self.link.peer));
        out.push(Effect::Copy {
            ticket,
            link: self.link,
            last,
        });
    }

    fn fail(&mut self, now: Time, reason: &str) {
        self.wait(now);
        self.reason = Some(reason.to_owned());
    }

    /// Ends the session; the next offer is made by time, for the link may stay up for ever.
    fn wait(&mut self, now: Time) {
        self.begin_session();
        self.progress = Progress::Waiting {
            offer_at: Some(now + OFFER_AGAIN_AFTER),
        };
    }

    /// Forgets everything in flight; results of the old session are ignored.
    fn begin_session(&mut self) {
        self.session += 1;
        self.shipping = false;
        self.in_flight.clear();
        self.acknowledged = None;
    }

    fn ticket(&self, task: Task) -> Ticket {
        Ticket {
            partition: self.partition,
            task,
            number: self.session,
        }
    }
}
