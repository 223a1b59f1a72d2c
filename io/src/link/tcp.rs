//! One TCP connection to a peer, driven by its shard's loop.
//!
//! At most one receive and one send are in flight, and zero-copy sends that wait for their
//! notification. Closing in order: what is queued is sent, then
//! the sending direction is shut, then everything the peer still says is read; a close with unread
//! bytes would send RST and could destroy bytes that the peer has not read yet.

mod sending;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use wal::frame::Frame;
use wal::{Span, Time};

use super::inbox::{Inbox, Room};
use super::outbox::Outbox;
use super::pace::{Pace, SEND_LEN_MAX};
use super::socket::{self, End};
use super::zerocopy::ZeroCopy;
use super::{Backpressure, Bounds, Class, Counters, LinkEvent, Reason};
use crate::error::{Error, Kind, Result};
use crate::reactor::now;
use crate::ring::{Completion, Descriptor, Payload, Ring, Token};
use sending::{Sending, ZERO_COPY};

/// How long a connection may take to come about.
const CONNECT_MAX: Span = Span::secs(5);
/// How long a close in order may take before the connection is cut.
const LINGER_MAX: Span = Span::secs(5);
/// Of a frame that can't be delivered before it is whole, so many bytes are waited for at once: a
/// wake-up per segment took a fifth of the processor time of a link.
const LOW_WATER_MAX: usize = SEND_LEN_MAX;
/// And one part in so many of the receive buffer. What waits unread closes the window: with a
/// quarter a link of 20 ms lost a tenth of its rate, with an eighth one of 200 ms a quarter, and
/// with half the buffer never grew.
const ROOM_SHARE: usize = 16;

const CONNECT: u8 = 0;
const RECEIVE: u8 = 1;
const SEND: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Wanted, not yet given to the ring.
    Fresh,
    Connecting {
        until: Time,
    },
    Open,
    /// Sending what is left; then the direction is shut.
    Finishing {
        until: Time,
    },
    /// Everything is said; listening until the peer has said everything too.
    Listening {
        until: Time,
    },
    Closed,
}

/// A link over TCP.
#[derive(Debug)]
pub struct TcpLink {
    owner: u64,
    socket: Descriptor,
    peer: SocketAddr,
    state: State,
    outbox: Outbox,
    inbox: Inbox,
    sending: Sending,
    receiving: bool,
    /// So many bytes make the socket readable.
    low_water: usize,
    /// The application has enough; the peer's sends back up behind the window.
    paused: bool,
    /// The peer has shut its sending direction.
    peer_ended: bool,
    /// This end was asked to close before the peer did.
    asked: bool,
    /// Bytes of the present send that are out.
    sent: usize,
    /// The operation of the last zero-copy send.
    turn: u8,
    zero_copy: ZeroCopy,
    pace: Pace,
    counters: Counters,
}

impl TcpLink {
    /// A link that will connect to `peer`. `owner` marks its completions ([`Token::owner`]) and
    /// must not be used for another link of the same ring.
    pub fn connect(owner: u64, peer: SocketAddr, bounds: Bounds) -> Result<TcpLink> {
        TcpLink::new(
            owner,
            socket::unconnected(peer)?,
            peer,
            bounds,
            State::Fresh,
        )
    }

    /// A link over a connection that a [`super::Listener`] accepted.
    pub fn accepted(
        owner: u64,
        socket: OwnedFd,
        peer: SocketAddr,
        bounds: Bounds,
    ) -> Result<TcpLink> {
        TcpLink::new(owner, socket, peer, bounds, State::Open)
    }

    fn new(
        owner: u64,
        socket: OwnedFd,
        peer: SocketAddr,
        bounds: Bounds,
        state: State,
    ) -> Result<TcpLink> {
        socket::tune(&socket, &peer.to_string())?;
        Ok(TcpLink {
            owner,
            socket: Descriptor::from(socket),
            peer,
            state,
            outbox: Outbox::new(bounds),
            inbox: Inbox::default(),
            sending: Sending::Nothing,
            receiving: false,
            low_water: 1,
            paused: false,
            peer_ended: false,
            asked: false,
            sent: 0,
            turn: ZERO_COPY,
            zero_copy: ZeroCopy::default(),
            pace: Pace::default(),
            counters: Counters::default(),
        })
    }

    pub fn owner(&self) -> u64 {
        self.owner
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Queues a frame; it goes out with the next `pump`. Nothing is queued after `close`.
    pub fn enqueue(&mut self, class: Class, frame: Frame) -> std::result::Result<(), Backpressure> {
        match self.state {
            State::Fresh | State::Connecting { .. } | State::Open => {
                self.outbox.enqueue(class, frame)
            }
            _ => Err(Backpressure::Closed),
        }
    }

    /// Bytes of frames that wait in a class.
    pub fn queued_bytes(&self, class: Class) -> usize {
        self.outbox.queued_bytes(class)
    }

    pub fn counters(&self) -> Counters {
        Counters {
            frames_out: self.outbox.frames_out(),
            ..self.counters
        }
    }

    /// How fast the connection is, as far as it is known.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Stops or resumes reading. One receive that is under way still delivers its frames.
    pub fn pause_reading(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Ends the link in order; `Closed(Finished)` follows.
    pub fn close(&mut self, now: Time) {
        match self.state {
            State::Open => {
                self.asked = true;
                self.state = State::Finishing {
                    until: now + LINGER_MAX,
                };
            }
            State::Fresh => self.state = State::Closed,
            // Nothing was said yet: the connect may fail or be cut by its deadline.
            State::Connecting { .. } => self.state = State::Connecting { until: now },
            _ => {}
        }
    }

    /// Starts whatever can be started. Call it after `enqueue`, after every completion and when
    /// [`TcpLink::deadline`] has come; an event other than `Nothing` is the link's end.
    pub fn pump(&mut self, ring: &mut Ring, now: Time) -> LinkEvent {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            return self.out_of_time(ring);
        }
        if self.state == State::Fresh {
            ring.connect(self.token(CONNECT), &self.socket, self.peer);
            self.state = State::Connecting {
                until: now + CONNECT_MAX,
            };
        }
        if matches!(
            self.state,
            State::Fresh | State::Connecting { .. } | State::Closed
        ) {
            return LinkEvent::Nothing;
        }
        self.measure(now);
        self.start_receive(ring);
        self.start_send(ring)
    }

    /// When `pump` must be called again at the latest.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Connecting { until }
            | State::Finishing { until }
            | State::Listening { until } => Some(until),
            State::Fresh | State::Open | State::Closed => None,
        }
    }

    /// Takes the answer to one of this link's operations. Call `pump` afterwards.
    pub fn on_completion(
        &mut self,
        ring: &mut Ring,
        completion: Completion,
        frames: &mut Vec<Frame>,
    ) -> LinkEvent {
        if completion.token.op() >= ZERO_COPY {
            return self.on_zero_copy(ring, completion);
        }
        let event = match (completion.token.op(), completion.payload) {
            (CONNECT, _) => self.on_connected(completion.result),
            (RECEIVE, payload) => {
                self.receiving = false;
                self.on_received(ring, payload, completion.result, frames)
            }
            (SEND, Payload::Gather(gather)) => self.on_sent(ring, gather, completion.result),
            _ => LinkEvent::Nothing,
        };
        if matches!(event, LinkEvent::Closed(_)) {
            self.end(ring);
        }
        event
    }

    fn token(&self, op: u8) -> Token {
        Token::new(self.owner, op)
    }

    fn start_receive(&mut self, ring: &mut Ring) {
        let enough = self.paused && self.state == State::Open;
        if self.receiving || self.peer_ended || enough {
            return;
        }
        self.receiving = true;
        let token = self.token(RECEIVE);
        match self.inbox.room(&mut ring.pool) {
            Room::Buffer { buffer, filled } => {
                self.set_low_water(1);
                ring.recv(token, &self.socket, buffer, filled);
            }
            Room::Rest(draft) => {
                let room = socket::receive_room(&self.socket) / ROOM_SHARE;
                self.set_low_water(draft.missing().min(room).clamp(1, LOW_WATER_MAX));
                ring.recv_rest(token, &self.socket, draft);
            }
        }
    }

    fn set_low_water(&mut self, len: usize) {
        if self.low_water != len {
            self.low_water = len;
            socket::set_low_water(&self.socket, len);
        }
    }

    fn on_connected(&mut self, result: std::io::Result<usize>) -> LinkEvent {
        match (self.state, result) {
            (State::Connecting { .. }, Ok(_)) => {
                self.state = State::Open;
                LinkEvent::Connected
            }
            (State::Connecting { .. }, Err(error)) => {
                let error = Error::system("connect to", self.peer.to_string(), error);
                LinkEvent::Closed(Reason::Unreachable(error))
            }
            _ => LinkEvent::Nothing,
        }
    }

    fn on_received(
        &mut self,
        ring: &mut Ring,
        payload: Payload,
        result: std::io::Result<usize>,
        frames: &mut Vec<Frame>,
    ) -> LinkEvent {
        let count = match result {
            Ok(count) if self.state != State::Closed => count,
            Err(error) if self.state != State::Closed => {
                return LinkEvent::Closed(self.lost("receive from", error));
            }
            _ => 0,
        };
        self.counters.bytes_in += count as u64;
        let before = frames.len();
        let received = match payload {
            Payload::Buffer(buffer) if count == 0 => {
                ring.pool.give(buffer);
                Ok(())
            }
            Payload::Buffer(buffer) => self.inbox.received(buffer, count, &mut ring.pool, frames),
            Payload::Draft(draft) => self.inbox.received_rest(draft, count, frames),
            _ => Ok(()),
        };
        let added = frames.len() - before;
        self.counters.frames_in += added as u64;
        match received {
            Ok(()) if self.state == State::Closed => LinkEvent::Nothing,
            Ok(()) if count == 0 => self.on_end(),
            Ok(()) if added > 0 => LinkEvent::Frames(added),
            Ok(()) => LinkEvent::Nothing,
            Err(error) => {
                let subject = self.peer.to_string();
                let error = Error::new(Kind::Corrupt, "receive from", subject, error.to_string());
                LinkEvent::Closed(Reason::Corrupt(error))
            }
        }
    }

    /// The peer has said everything it had to say.
    fn on_end(&mut self) -> LinkEvent {
        self.peer_ended = true;
        if !self.inbox.is_between_records() {
            let reason = "it closed in the middle of a record";
            let subject = self.peer.to_string();
            let error = Error::new(Kind::Retry, "receive from", subject, reason);
            return LinkEvent::Closed(Reason::Lost(error));
        }
        match self.state {
            State::Listening { .. } => return LinkEvent::Closed(self.finished()),
            // What was queued still goes out; the peer listens until we are done.
            State::Open => {
                self.state = State::Finishing {
                    until: now() + LINGER_MAX,
                }
            }
            _ => {}
        }
        LinkEvent::Nothing
    }

    fn finished(&self) -> Reason {
        if self.asked {
            Reason::Finished
        } else {
            Reason::PeerFinished
        }
    }

    fn lost(&self, op: &'static str, error: std::io::Error) -> Reason {
        Reason::Lost(Error::system(op, self.peer.to_string(), error))
    }

    fn out_of_time(&mut self, ring: &mut Ring) -> LinkEvent {
        let op = match self.state {
            State::Connecting { .. } => "connect to",
            _ => "close in order with",
        };
        let connecting = matches!(self.state, State::Connecting { .. });
        self.end(ring);
        let error = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
        let error = Error::system(op, self.peer.to_string(), error);
        LinkEvent::Closed(match connecting {
            true => Reason::Unreachable(error),
            false => Reason::Lost(error),
        })
    }

    /// Cuts the connection. Operations in flight end soon; their answers mean nothing any more.
    fn end(&mut self, ring: &mut Ring) {
        if matches!(self.state, State::Connecting { .. }) {
            ring.cancel(self.token(CONNECT));
        }
        self.state = State::Closed;
        self.inbox.release(&mut ring.pool);
        socket::shutdown(&self.socket, End::Both);
    }
}

impl Drop for TcpLink {
    /// Ends operations in flight of a link that was not closed: their descriptor lives until then.
    fn drop(&mut self) {
        if self.state != State::Closed {
            socket::shutdown(&self.socket, End::Both);
        }
    }
}
