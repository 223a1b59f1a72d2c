//! What a node holds of one partition, on its disk and in the memory of its daemon.
//!
//! A database is the list of the writes that were committed to it, in order (`live` says how). Its
//! file outlives the daemon; locks, the tail and what a shadow applied but did not make durable do
//! not, and a power cut takes more.

use std::collections::VecDeque;

use foreshadow::event::Remains;
use wal::{Digest, Epoch, Lsn, Position};

use super::live::Live;

/// Left generations that are kept.
const LEFT_MAX: usize = 3;

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
    /// In order, without gaps.
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
        let place = self.deltas.partition_point(|delta| delta.to.lsn < lsn);
        let end = self.deltas.get(place).map(|delta| delta.to);
        let base = self.deltas.front().map(|delta| delta.from);
        end.into_iter()
            .chain(base)
            .chain(self.end)
            .find(|at| at.lsn == lsn)
    }

    /// Where the first delta after `lsn` is; `None` when `lsn` is no boundary.
    pub fn place_after(&self, lsn: Lsn) -> Option<usize> {
        if self.end.is_some_and(|end| end.lsn == lsn) {
            return Some(self.deltas.len());
        }
        let place = self.deltas.partition_point(|delta| delta.from.lsn < lsn);
        self.deltas
            .get(place)
            .filter(|delta| delta.from.lsn == lsn)?;
        Some(place)
    }
}

/// One delta in the log of an owner.
#[derive(Clone, Debug)]
pub struct Delta {
    pub from: Position,
    pub to: Position,
    pub writes: Vec<u32>,
}

/// What is known of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Filling,
    At(Position),
}

/// A landing that was prepared, and what its files go back to when it is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Landing {
    pub epoch: Epoch,
    pub base: Position,
    pub base_len: usize,
    /// Where it stands is known; after a crash only the digest of what is there is.
    pub settled: bool,
}

/// A shadow.
#[derive(Clone, Debug)]
pub struct Copy {
    pub content: Content,
    pub state: State,
    /// Applied, not yet durable: what a crash takes back, the oldest first.
    pub unsynced: VecDeque<(Position, usize)>,
    pub durable: Option<(Position, usize)>,
    pub landing: Option<Landing>,
    /// It was live already: a power cut took the exchange of its path.
    pub undone: bool,
}

impl Copy {
    pub fn empty() -> Copy {
        Copy {
            content: Content::default(),
            state: State::Filling,
            unsynced: VecDeque::new(),
            durable: None,
            landing: None,
            undone: false,
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
            undone: false,
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
        if let Some(landing) = &mut self.landing {
            landing.settled = false;
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
            (State::At(_), Some(Landing { epoch, base, .. })) => {
                // How far the landing came is known by its digest alone, as in runtime/recover.rs.
                let (lsn, digest) = (base.lsn.after(1), self.content.digest());
                Remains::Landing {
                    epoch,
                    position: Position {
                        lsn,
                        digest,
                        ..base
                    },
                }
            }
        }
    }

    /// The landing will not happen, as io's shadow gives it up.
    pub fn abandon(&mut self) {
        if let Some(landing) = self.landing.take()
            && !landing.settled
        {
            let content = self.content.prefix(landing.base_len);
            *self = Copy::at(content, landing.base);
        }
    }
}

/// Everything of one partition at one node.
#[derive(Debug, Default)]
pub struct Disk {
    /// What the live path leads to.
    pub live: Option<Live>,
    /// Generations that the path left; applications may have them open.
    pub left: Vec<Live>,
    pub copy: Option<Copy>,
    pub log: Log,
    /// Where a landing of this daemon's life was remapped; the attachment takes it over.
    pub landed_at: Option<Position>,
}

impl Disk {
    pub fn generation(&mut self, generation: u64) -> Option<&mut Live> {
        let all = self.live.iter_mut().chain(&mut self.left);
        all.into_iter().find(|live| live.generation == generation)
    }

    /// The live path leads elsewhere from now on.
    pub fn leave(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.tail = None;
            self.left.push(live);
        }
        // What is left long enough is deleted, if nobody can write there any more.
        if self.left.len() > LEFT_MAX && self.left[0].fenced {
            self.left.remove(0);
        }
    }

    /// Every file that takes writes.
    pub fn writable(&self) -> impl Iterator<Item = &Live> {
        let all = self.live.iter().chain(&self.left);
        all.filter(|live| !live.fenced)
    }
}
