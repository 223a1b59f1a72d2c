//! The peer's end of a shadow: keep a prefix of the source, journalled before it is applied.
//!
//! A delta is accepted only if it starts exactly where this copy will stand once everything in
//! flight is applied (I3), under an epoch no older than the newest one heard of (I4). Anything else
//! means `Lost`: the owner compares page hashes and mends the copy.

use wal::PartitionId;
use wal::lsn::{Epoch, Position};
use wal::message::{Attributes, Message, Standing};

use crate::effect::{Effect, Effects, ShadowOperation};
use crate::event::{Cargo, Failure, FrameKey, LinkId, Outcome, Remains, Task, Ticket};
use crate::mutation::{self, Mutation};

/// Deltas accepted and not durable yet. The sender's window is the usual bound.
const IN_FLIGHT_MAX: u32 = 8192;

/// What this node holds of the partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Copy {
    Nothing,
    Creating,
    /// Pages of no known position.
    Filling,
    /// The last pages of a fill are being made durable.
    Completing,
    /// Everything up to `durable` survives a power cut; `applied` is where the copy stands.
    Following {
        applied: Position,
        durable: Position,
    },
    /// An operation failed; the copy is being brought back to a known state.
    Restarting,
}

/// The peer's end of one shadow.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Receiver {
    partition: PartitionId,
    copy: Copy,
    epoch_seen: Epoch,
    /// Effects whose results are not here yet.
    in_flight: u32,
    /// Distinguishes results of before a restart of the copy.
    session: u64,
    /// An acknowledgement is due at the end of this batch of events.
    ack_due: bool,
    link: Option<LinkId>,
    /// A takeover is asked for: nothing may change the copy. Whether something was turned away.
    held: Option<bool>,
    /// Landings that are being given up.
    abandoning: u32,
    /// A crash met a landing: only its digest is known, until it lands or is given up.
    unproven: bool,
    pub page_size: u32,
    pub attributes: Attributes,
}

impl Receiver {
    pub fn new(partition: PartitionId, epoch_seen: Epoch) -> Receiver {
        Receiver {
            partition,
            copy: Copy::Nothing,
            epoch_seen,
            in_flight: 0,
            session: 0,
            ack_due: false,
            link: None,
            held: None,
            abandoning: 0,
            unproven: false,
            page_size: 0,
            attributes: Attributes::default(),
        }
    }

    /// The machine after a restart, with what was found on disk.
    pub fn recover(partition: PartitionId, remains: Remains) -> Receiver {
        let mut receiver = Receiver::new(partition, Epoch(0));
        receiver.unproven = matches!(remains, Remains::Landing { .. });
        receiver.copy = match remains {
            Remains::Partial => Copy::Filling,
            Remains::At(position) | Remains::Landing { position, .. } => {
                receiver.epoch_seen = position.epoch;
                Copy::Following {
                    applied: position,
                    durable: position,
                }
            }
        };
        receiver
    }

    pub fn copy(&self) -> Copy {
        self.copy
    }

    pub fn applied(&self) -> Option<Position> {
        match self.copy {
            Copy::Following { applied, .. } => Some(applied),
            _ => None,
        }
    }

    /// Takes nothing more into the copy; false when there is no position to keep.
    pub fn hold(&mut self) -> bool {
        let stands = matches!(self.copy, Copy::Following { .. });
        if stands {
            self.held.get_or_insert(false);
        }
        stands
    }

    /// Nothing is on its way into the copy.
    pub fn is_settled(&self) -> bool {
        let still = self.in_flight == 0 && self.abandoning == 0;
        still && matches!(self.copy, Copy::Following { .. })
    }

    /// A landing is being given up.
    pub fn on_abandon(&mut self) {
        self.abandoning += 1;
    }

    /// It was given up: one that a crash met may be back where it was before it was prepared.
    pub fn on_abandoned(&mut self, result: Result<Outcome, Failure>) {
        self.abandoning = self.abandoning.saturating_sub(1);
        let unproven = std::mem::take(&mut self.unproven);
        let stands = unproven && matches!(self.copy, Copy::Following { .. });
        if let (Ok(Outcome::Durable(position)), true) = (result, stands) {
            self.copy = Copy::Following {
                applied: position,
                durable: position,
            };
        }
    }

    /// Goes on following; what was turned away meanwhile is compared.
    pub fn let_go(&mut self, out: &mut Effects) {
        if self.held.take() == Some(true)
            && let Some(link) = self.link
        {
            self.lose(link, "it was to be taken over".to_owned(), out);
        }
    }

    pub fn on_offer(
        &mut self,
        link: LinkId,
        at: Position,
        page_size: u32,
        attributes: Attributes,
        out: &mut Effects,
    ) {
        let partition = self.partition;
        if at.epoch < self.epoch_seen {
            let reason = format!("epoch {} is over, {} was seen", at.epoch, self.epoch_seen);
            out.send(link, Message::Decline { partition, reason });
            return;
        }
        if self.held.is_some() {
            return self.say_busy(link, out);
        }
        self.epoch_seen = at.epoch;
        self.link = Some(link);
        self.attributes = attributes;
        if self.page_size != 0 && self.page_size != page_size && self.copy != Copy::Nothing {
            self.restart(out);
        }
        self.page_size = page_size;
        let standing = match self.copy {
            Copy::Nothing => {
                self.copy = Copy::Creating;
                let operation = ShadowOperation::Create {
                    page_size,
                    attributes,
                };
                self.ask(Task::Create, operation, out);
                return;
            }
            Copy::Creating | Copy::Completing | Copy::Restarting => Standing::Busy,
            Copy::Filling => Standing::Partial,
            // What is in flight may fail yet: only a settled copy has a position to resume from.
            Copy::Following { .. } if !self.is_settled() => Standing::Busy,
            Copy::Following { applied, .. } => Standing::At(applied),
        };
        out.send(
            link,
            Message::Stand {
                partition,
                standing,
            },
        );
    }

    pub fn on_created(&mut self, number: u64, result: Result<Outcome, Failure>, out: &mut Effects) {
        if number != self.session || self.copy != Copy::Creating {
            return;
        }
        let partition = self.partition;
        let message = match result {
            Ok(_) => {
                self.copy = Copy::Filling;
                let standing = Standing::Nothing;
                Message::Stand {
                    partition,
                    standing,
                }
            }
            Err(failure) => {
                self.copy = Copy::Nothing;
                let reason = failure.reason().to_owned();
                Message::Decline { partition, reason }
            }
        };
        if let Some(link) = self.link {
            out.send(link, message);
        }
    }

    pub fn on_ask_hashes(&mut self, link: LinkId, out: &mut Effects) {
        let partition = self.partition;
        match self.copy {
            Copy::Filling | Copy::Following { .. }
                if self.talks_with(link) && self.held.is_none() =>
            {
                self.copy = Copy::Filling;
                self.session += 1;
                self.in_flight = 0;
                out.push(Effect::SendHashes { link, partition });
            }
            // `Lost` is said once the copy is in a known state again.
            Copy::Restarting if self.link == Some(link) => {}
            // Also to a former owner that has not heard of its successor: it will be declined.
            _ => self.say_busy(link, out),
        }
    }

    fn say_busy(&self, link: LinkId, out: &mut Effects) {
        let (partition, standing) = (self.partition, Standing::Busy);
        out.send(
            link,
            Message::Stand {
                partition,
                standing,
            },
        );
    }

    pub fn on_frame(&mut self, link: LinkId, frame: FrameKey, cargo: Cargo, out: &mut Effects) {
        // Another node made an offer since: what a former owner still sends is not for this copy.
        if !self.talks_with(link) {
            return;
        }
        if let Some(turned_away) = &mut self.held {
            *turned_away = true;
            return;
        }
        match (cargo, self.copy) {
            (Cargo::Pages, Copy::Filling) => {
                self.ask(Task::Fill, ShadowOperation::Fill { frame }, out);
            }
            (Cargo::LastPages { at }, Copy::Filling) if at.epoch >= self.epoch_seen => {
                self.epoch_seen = at.epoch;
                self.copy = Copy::Completing;
                self.ask(Task::Fill, ShadowOperation::Fill { frame }, out);
            }
            (Cargo::Delta { from, to }, Copy::Following { applied, durable }) => {
                if to.epoch < self.epoch_seen {
                    return;
                }
                if to.lsn <= applied.lsn {
                    // Shipped twice over a break: the owner has not heard how far this copy is.
                    self.ack_due = true;
                    return;
                }
                if from.lsn != applied.lsn || from.digest != applied.digest {
                    let reason = format!("a delta from {from} came to a copy at {applied}");
                    self.lose(link, reason, out);
                    return;
                }
                if self.in_flight >= IN_FLIGHT_MAX {
                    self.lose(link, "too many deltas in flight".to_owned(), out);
                    return;
                }
                self.epoch_seen = to.epoch;
                self.in_flight += 1;
                self.copy = Copy::Following {
                    applied: to,
                    durable,
                };
                self.ask(Task::Accept, ShadowOperation::Accept { frame }, out);
            }
            // Left over from a session that a break ended: the owner would wait for an
            // acknowledgement for ever.
            (Cargo::LastPages { .. }, Copy::Following { .. } | Copy::Completing)
            | (Cargo::Delta { .. }, Copy::Completing) => {
                let reason = "the copy is at another point of the conversation".to_owned();
                let partition = self.partition;
                out.send(link, Message::Lost { partition, reason });
            }
            _ => {}
        }
    }

    /// A delta is durable and applied, or failed.
    pub fn on_accepted(
        &mut self,
        number: u64,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        if number != self.session {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match (result, self.copy) {
            (Ok(Outcome::Durable(position)), Copy::Following { applied, durable })
                if position.lsn > durable.lsn =>
            {
                self.copy = Copy::Following {
                    applied,
                    durable: position,
                };
                self.ack_due = true;
            }
            (Err(_), _) if mutation::is(Mutation::FailedDeltaApplied) => {}
            // With or without a link: what was counted as applied is not there.
            (Err(failure), Copy::Following { .. }) => match self.link {
                Some(link) => self.lose(link, failure.reason().to_owned(), out),
                None => self.restart(out),
            },
            _ => {}
        }
    }

    /// Pages were written, or the fill is complete, or it failed.
    pub fn on_filled(&mut self, number: u64, result: Result<Outcome, Failure>, out: &mut Effects) {
        if number != self.session {
            return;
        }
        match (result, self.copy) {
            (Ok(Outcome::Durable(position)), Copy::Completing) => {
                self.copy = Copy::Following {
                    applied: position,
                    durable: position,
                };
                self.ack_due = true;
            }
            (Err(failure), Copy::Filling | Copy::Completing) => {
                self.copy = Copy::Filling;
                if let Some(link) = self.link {
                    let (partition, reason) = (self.partition, failure.reason().to_owned());
                    out.send(link, Message::Lost { partition, reason });
                }
            }
            _ => {}
        }
    }

    pub fn on_restarted(
        &mut self,
        number: u64,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        if number != self.session || self.copy != Copy::Restarting {
            return;
        }
        let partition = self.partition;
        self.copy = if result.is_ok() {
            Copy::Filling
        } else {
            Copy::Nothing
        };
        if let Some(link) = self.link {
            let reason = "the copy was reset".to_owned();
            out.send(link, Message::Lost { partition, reason });
        }
    }

    /// The owner no longer wants the shadow.
    pub fn discard(&mut self, out: &mut Effects) {
        self.session += 1;
        self.in_flight = 0;
        self.copy = Copy::Nothing;
        self.ask(Task::Restore, ShadowOperation::Discard, out);
    }

    pub fn on_link_down(&mut self, link: LinkId) {
        if self.link == Some(link) {
            self.link = None;
        }
    }

    /// The end of a batch of events: one acknowledgement for all that became durable in it.
    pub fn flush(&mut self, out: &mut Effects) {
        if !std::mem::take(&mut self.ack_due) {
            return;
        }
        if let (Some(link), Copy::Following { durable, .. }) = (self.link, self.copy) {
            out.send(
                link,
                Message::Ack {
                    partition: self.partition,
                    durable,
                },
            );
        }
    }

    fn talks_with(&self, link: LinkId) -> bool {
        self.link == Some(link)
    }

    fn lose(&mut self, link: LinkId, reason: String, out: &mut Effects) {
        out.send(
            link,
            Message::Lost {
                partition: self.partition,
                reason,
            },
        );
        self.restart(out);
    }

    fn restart(&mut self, out: &mut Effects) {
        self.session += 1;
        self.in_flight = 0;
        self.copy = Copy::Restarting;
        self.ask(Task::Restore, ShadowOperation::Restart, out);
    }

    fn ask(&self, task: Task, operation: ShadowOperation, out: &mut Effects) {
        let ticket = Ticket {
            partition: self.partition,
            task,
            number: self.session,
        };
        out.push(Effect::Shadow { ticket, operation });
    }
}
