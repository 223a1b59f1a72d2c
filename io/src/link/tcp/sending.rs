//! The sending half of a connection: one send after the other, plain or without a copy.
//!
//! What goes out without a copy stays owned by the ring until the kernel's notification, and the
//! next send does not wait for that. A zero-copy send that did not go out whole is continued
//! plainly, with the bytes that its notification gives back.

use wal::Time;

use super::super::zerocopy::Verdict;
use super::super::{LinkEvent, Reason};
use super::{End, SEND, State, TcpLink, socket};
use crate::ring::{Completion, Gather, Payload, Ring};

/// Zero-copy sends take the operations from here on in turn: several wait for their notification.
pub(super) const ZERO_COPY: u8 = 16;

/// What is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Sending {
    #[default]
    Nothing,
    Plain,
    /// A zero-copy send of so many bytes.
    ZeroCopy {
        len: usize,
    },
    /// It did not go out whole; its notification gives the rest back.
    Unfinished {
        op: u8,
    },
}

impl TcpLink {
    /// Whether large sends go out without a copy.
    pub fn zero_copy(&self) -> Verdict {
        self.zero_copy.verdict()
    }

    pub(super) fn start_send(&mut self, ring: &mut Ring) -> LinkEvent {
        if self.sending != Sending::Nothing || matches!(self.state, State::Listening { .. }) {
            return LinkEvent::Nothing;
        }
        match self.outbox.next_send(self.pace.send_len()) {
            Ok(Some(gather)) => self.send(ring, gather),
            Ok(None) => {
                if let State::Finishing { until } = self.state {
                    socket::shutdown(&self.socket, End::Sending);
                    self.state = State::Listening { until };
                    if self.peer_ended {
                        self.end(ring);
                        return LinkEvent::Closed(self.finished());
                    }
                }
            }
            Err(error) => {
                self.end(ring);
                return LinkEvent::Closed(Reason::Lost(error));
            }
        }
        LinkEvent::Nothing
    }

    fn send(&mut self, ring: &mut Ring, gather: Gather) {
        let len = gather.len();
        self.sent = 0;
        if !self.zero_copy.take(len) {
            return self.send_rest(ring, gather);
        }
        self.turn = self.turn.checked_add(1).unwrap_or(ZERO_COPY);
        self.sending = Sending::ZeroCopy { len };
        ring.send_zero_copy(self.token(self.turn), &self.socket, gather);
    }

    fn send_rest(&mut self, ring: &mut Ring, gather: Gather) {
        self.sending = Sending::Plain;
        ring.send(self.token(SEND), &self.socket, gather, self.sent);
    }

    /// Takes the answer to a plain send.
    pub(super) fn on_sent(
        &mut self,
        ring: &mut Ring,
        gather: Gather,
        result: std::io::Result<usize>,
    ) -> LinkEvent {
        self.sending = Sending::Nothing;
        if self.state == State::Closed {
            return LinkEvent::Nothing;
        }
        match result {
            Ok(count) => {
                self.count(count);
                if self.sent < gather.len() {
                    self.send_rest(ring, gather);
                    return LinkEvent::Nothing;
                }
                self.whole()
            }
            Err(error) => LinkEvent::Closed(self.lost("send to", error)),
        }
    }

    /// Takes one of the two answers to a zero-copy send.
    pub(super) fn on_zero_copy(&mut self, ring: &mut Ring, completion: Completion) -> LinkEvent {
        if self.state == State::Closed {
            return LinkEvent::Nothing;
        }
        let op = completion.token.op();
        let count = completion.result.unwrap_or(0);
        match completion.payload {
            Payload::Released { gather, copied } => {
                if self.sending == (Sending::Unfinished { op }) {
                    self.zero_copy.refused(gather.len());
                    self.send_rest(ring, gather);
                } else {
                    self.zero_copy.notified(gather.len(), copied);
                }
            }
            // No notification follows: nothing was taken.
            Payload::Gather(gather) => {
                self.zero_copy.refused(gather.len());
                self.count(count);
                self.send_rest(ring, gather);
            }
            _ => {
                self.count(count);
                if self.sending == (Sending::ZeroCopy { len: self.sent }) {
                    self.sending = Sending::Nothing;
                    return self.whole();
                }
                self.sending = Sending::Unfinished { op };
            }
        }
        LinkEvent::Nothing
    }

    fn count(&mut self, count: usize) {
        self.counters.bytes_out += count as u64;
        self.sent += count;
        self.pace.sent(count);
    }

    /// A send went out whole.
    fn whole(&mut self) -> LinkEvent {
        match self.outbox.has_room_again() {
            true => LinkEvent::Writable,
            false => LinkEvent::Nothing,
        }
    }

    /// Asks the kernel how fast the connection is, when enough was sent since it was asked last.
    pub(super) fn measure(&mut self, now: Time) {
        if !self.pace.is_due(now) {
            return;
        }
        let before = self.pace.send_len();
        self.pace.sampled(now, socket::sample(&self.socket));
        let unsent = self.pace.send_len();
        // What the socket holds unsent stands before an urgent frame as well.
        if unsent.abs_diff(before) > before / 8 {
            socket::hold_unsent(&self.socket, unsent);
        }
    }
}
