//! What a node holds of one partition, on its disk and in the memory of its daemon.
//!
//! A database is the list of the writes that were committed to it, in order. Its file outlives the
//! daemon; locks, the tail and what a shadow applied but did not make durable do not.

use std::collections::VecDeque;

use foreshadow::event::Remains;
use wal::{Digest, Epoch, Lsn, Position};

/// A list of writes and its digest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Content {
    writes: Vec<u32>,
    digests: Vec<u64>,
}

impl Content {
    pub fn push(&mut self, write: u32) {
        let last = self.digests.last().copied().unwrap_or(1);
        let mixed = (last ^ u64::from(write).wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(17);
        self.digests.push(mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        self.writes.push(write);
    }

    pub fn len(&self) -> usize {
        self.writes.len()
    }

    pub fn writes(&self) -> &[u32] {
        &self.writes
    }

    pub fn digest(&self) -> Digest {
        self.digest_at(self.len())
    }

    pub fn digest_at(&self, len: usize) -> Digest {
        Digest(if len == 0 { 1 } else { self.digests[len - 1] })
    }

    pub fn prefix(&self, len: usize) -> Content {
        Content {
            writes: self.writes[..len].to_vec(),
            digests: self.digests[..len].to_vec(),
        }
    }
}

/// The delta log of a node: it outlives moves, and a crash may take the newest deltas.
#[derive(Debug, Default)]
pub struct Log {
    pub deltas: VecDeque<Delta>,
    pub end: Option<Position>,
}

impl Log {
    /// A crash, or a cap: the log ends or begins elsewhere.
    pub fn drop_newest(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(delta) = self.deltas.pop_back() {
                self.end = Some(delta.from);
            }
        }
    }

    /// The source's position at `lsn`, if the log knows it.
    pub fn position_at(&self, lsn: Lsn) -> Option<Position> {
        let ends = self.deltas.iter().rev().map(|delta| delta.to);
        let base = self.deltas.front().map(|delta| delta.from);
        ends.chain(base).chain(self.end).find(|at| at.lsn == lsn)
    }

    /// Where the first delta after `lsn` is; `None` when `lsn` is no boundary.
    pub fn place_after(&self, lsn: Lsn) -> Option<usize> {
        if self.end.is_some_and(|end| end.lsn == lsn) {
            return Some(self.deltas.len());
        }
        self.deltas.iter().position(|delta| delta.from.lsn == lsn)
    }
}

/// One delta in the log of an owner.
#[derive(Clone, Debug)]
pub struct Delta {
    pub from: Position,
    pub to: Position,
    pub writes: Vec<u32>,
}

/// The database at the live path.
#[derive(Debug)]
pub struct Live {
    pub content: Content,
    pub fenced: bool,
    /// The landing that put it there; its note may be missing.
    pub landed: Option<Epoch>,
    pub tail: Option<Tail>,
}

/// The attachment of a running daemon.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    pub position: Position,
    /// Writes that were consumed.
    pub consumed: usize,
    pub lock: Lock,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    Free,
    /// A freeze of this number waits for it.
    Waiting(u64),
    Held,
}

impl Live {
    pub fn new(content: Content) -> Live {
        Live {
            content,
            fenced: false,
            landed: None,
            tail: None,
        }
    }

    /// Attaches as runtime/lives.rs does.
    pub fn attach(&mut self, log: &mut Log, epoch: Epoch, landed_at: Option<Position>) -> Position {
        let digest = self.content.digest();
        let at = |lsn: Lsn| Position { epoch, lsn, digest };
        let position = match (landed_at, log.end) {
            (Some(landed), _) if landed.digest == digest => at(landed.lsn),
            (Some(landed), _) => at(landed.lsn.after(1)),
            (None, Some(newest)) if newest.digest == digest => at(newest.lsn),
            (None, Some(newest)) => at(newest.lsn.after(1)),
            (None, None) => at(Lsn(1)),
        };
        if log.end != Some(position) {
            log.deltas.clear();
            log.end = Some(position);
        }
        self.tail = Some(Tail {
            position,
            consumed: self.content.len(),
            lock: Lock::Free,
        });
        position
    }

    /// Consumes what is committed; `None` if that is nothing.
    pub fn read(&mut self, log: &mut Log) -> Option<(Position, u64)> {
        let (content, tail) = (&self.content, self.tail.as_mut()?);
        let writes = content.writes()[tail.consumed..].to_vec();
        if writes.is_empty() {
            return None;
        }
        let from = tail.position;
        let to = Position {
            epoch: from.epoch,
            lsn: from.lsn.after(writes.len() as u64),
            digest: content.digest(),
        };
        (tail.position, tail.consumed) = (to, content.len());
        let bytes = 40 + 10 * writes.len() as u64;
        log.deltas.push_back(Delta { from, to, writes });
        log.end = Some(to);
        Some((to, bytes))
    }

    pub fn is_writable(&self) -> bool {
        !self.fenced
    }

    fn is_locked(&self) -> bool {
        self.tail.is_some_and(|tail| tail.lock == Lock::Held)
    }

    /// An application commits; `false` while it has to wait or is refused.
    pub fn commit(&mut self, write: u32) -> bool {
        if self.fenced || self.is_locked() {
            return false;
        }
        self.content.push(write);
        true
    }
}

/// What is known of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Filling,
    At(Position),
}

/// A shadow.
#[derive(Clone, Debug)]
pub struct Copy {
    pub content: Content,
    pub state: State,
    /// Applied, not yet durable: what a crash takes back, the oldest first.
    pub unsynced: VecDeque<(Position, usize)>,
    pub durable: Option<(Position, usize)>,
    pub landing: Option<Epoch>,
}

impl Copy {
    pub fn empty() -> Copy {
        Copy {
            content: Content::default(),
            state: State::Filling,
            unsynced: VecDeque::new(),
            durable: None,
            landing: None,
        }
    }

    pub fn at(content: Content, position: Position) -> Copy {
        let durable = Some((position, content.len()));
        Copy {
            content,
            state: State::At(position),
            unsynced: VecDeque::new(),
            durable,
            landing: None,
        }
    }

    pub fn position(&self) -> Option<Position> {
        match self.state {
            State::At(position) => Some(position),
            State::Filling => None,
        }
    }

    /// Everything applied up to `position` is durable now.
    pub fn synced(&mut self, position: Position) {
        while let Some((at, len)) = self.unsynced.front().copied() {
            if at.lsn > position.lsn {
                return;
            }
            self.durable = Some((at, len));
            self.unsynced.pop_front();
        }
    }

    /// The daemon dies; of what was under way to the disk the first `kept` came there.
    pub fn crash(&mut self, kept: usize) {
        for (at, len) in self.unsynced.drain(..).take(kept) {
            self.durable = Some((at, len));
        }
        match (self.state, self.durable) {
            (State::At(_), Some((at, len))) => {
                self.state = State::At(at);
                self.content = self.content.prefix(len);
            }
            _ => self.state = State::Filling,
        }
    }

    pub fn remains(&self) -> Remains {
        match (self.state, self.landing) {
            (State::Filling, _) => Remains::Partial,
            (State::At(position), None) => Remains::At(position),
            (State::At(position), Some(epoch)) => {
                // How far the landing came is known by its digest alone, as in runtime/recover.rs.
                let lsn = position.lsn.after(1);
                Remains::Landing {
                    epoch,
                    position: Position { lsn, ..position },
                }
            }
        }
    }
}

/// Everything of one partition at one node.
#[derive(Debug, Default)]
pub struct Disk {
    pub live: Option<Live>,
    pub copy: Option<Copy>,
    pub log: Log,
    /// Where a landing of this daemon's life was remapped; the attachment takes it over.
    pub landed_at: Option<Position>,
}
