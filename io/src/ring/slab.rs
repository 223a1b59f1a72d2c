//! Operations in flight, by the number that the kernel hands back.

use io_uring::types::Timespec;

use super::Token;
use super::payload::{Address, Descriptor, Message, Payload};

/// Memory that the kernel may read while it works on an operation, besides the payload.
pub(super) enum Hold {
    Nothing,
    /// Results are new descriptors.
    Accept,
    Moment(#[expect(dead_code, reason = "held for the kernel")] Box<Timespec>),
    Message(#[expect(dead_code, reason = "held for the kernel")] Box<Message>),
    Address(#[expect(dead_code, reason = "held for the kernel")] Box<Address>),
}

pub(super) struct Op {
    token: Token,
    /// Keeps the descriptor open, and its number from being reused, until the answer.
    _fd: Option<Descriptor>,
    payload: Payload,
    hold: Hold,
}

impl Op {
    pub(super) fn new(token: Token, fd: Option<Descriptor>, payload: Payload, hold: Hold) -> Op {
        Op {
            token,
            _fd: fd,
            payload,
            hold,
        }
    }
}

/// What an answered operation gives back.
pub(super) struct Answered {
    pub(super) token: Token,
    pub(super) payload: Payload,
    pub(super) accepts: bool,
}

#[derive(Default)]
pub(super) struct Slab {
    places: Vec<Option<Op>>,
    free: Vec<usize>,
}

impl Slab {
    pub(super) fn insert(&mut self, op: Op) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(op);
        place as u64
    }

    /// Operations held.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Ends the operation, or with `more` leaves it armed.
    pub(super) fn answer(&mut self, key: u64, more: bool) -> Option<Answered> {
        let place = self.places.get_mut(key as usize)?;
        let op = place.as_mut()?;
        let accepts = matches!(op.hold, Hold::Accept);
        // The kernel may still read the bytes of what stays armed.
        let payload = match more {
            true => Payload::Nothing,
            false => std::mem::take(&mut op.payload),
        };
        let answered = Answered {
            token: op.token,
            payload,
            accepts,
        };
        if !more {
            *place = None;
            self.free.push(key as usize);
        }
        Some(answered)
    }

    /// Keys of all operations with a token.
    pub(super) fn keys_of(&self, token: Token) -> Vec<u64> {
        self.keys(|op| op.token == token)
    }

    /// Keys of all operations that own such a payload.
    pub(super) fn keys_where(&self, is: impl Fn(&Payload) -> bool) -> Vec<u64> {
        self.keys(|op| is(&op.payload))
    }

    fn keys(&self, is: impl Fn(&Op) -> bool) -> Vec<u64> {
        let places = self.places.iter().enumerate();
        let found = places.filter(|(_, place)| place.as_ref().is_some_and(&is));
        found.map(|(key, _)| key as u64).collect()
    }
}
