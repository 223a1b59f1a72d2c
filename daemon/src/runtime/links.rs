//! A shard's connections: frames out by class, frames in to the brain.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use io::link::{Bounds, Class as LinkClass, Counters, LinkEvent, TcpLink};
use io::ring::{Completion, Ring};
use wal::Time;
use wal::delta::PageEdit;
use wal::frame::Frame;
use wal::message::Hello;

use super::codecs::WORTH_A_LOOK;
use crate::effect::Class;
use crate::event::LinkId;
use crate::ship::codec::{Chooser, Codec, IdleCores, LinkRate};

/// Tokens below this belong to links; the listener of shard 0 uses this one.
pub const LISTENER: u64 = u64::MAX >> 8;
/// Bulk frames that wait for room in the link's own queue: a table of page hashes of a database of
/// 32 GiB with 4 KiB pages.
const BACKLOG_FRAMES_MAX: usize = 1024;

/// Bytes of pages in one bulk frame, between these bounds what the link sends at a time; as they
/// are and with their numbers they have to fit [`io::link::outbox::BULK_LEN_MAX`].
pub const BULK_MIN: usize = 64 << 10;
pub const BULK_MAX: usize = 448 << 10;

struct Wire {
    id: LinkId,
    link: TcpLink,
    /// Bulk frames for which the link had no room.
    backlog: VecDeque<Frame>,
    chooser: Chooser,
    /// Bytes that were sent when the link was last looked at.
    looked: u64,
}

/// How a link carries what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub codec: Codec,
    pub rate: Option<LinkRate>,
    pub zero_copy: &'static str,
}

/// Something that came in, or the end of a link.
pub enum Incoming {
    Frame(LinkId, Frame),
    Down(LinkId, String),
}

/// The connections of one shard.
#[derive(Default)]
pub struct Links {
    wires: BTreeMap<u64, Wire>,
    owners: BTreeMap<LinkId, u64>,
    next_owner: u64,
    frames: Vec<Frame>,
    /// What links of the past have moved, by peer lane.
    moved: BTreeMap<LinkId, Counters>,
}

impl Links {
    /// Takes a connection over whose greetings were exchanged; an older one for the same lane ends.
    pub fn add(
        &mut self,
        ring: &mut Ring,
        now: Time,
        id: LinkId,
        stream: TcpStream,
        address: SocketAddr,
    ) -> io::Result<()> {
        self.hang_up(ring, now, id);
        self.next_owner += 1;
        let owner = self.next_owner;
        let link = TcpLink::accepted(owner, OwnedFd::from(stream), address, Bounds::default())?;
        self.wires.insert(
            owner,
            Wire {
                id,
                link,
                backlog: VecDeque::new(),
                chooser: Chooser::default(),
                looked: 0,
            },
        );
        self.owners.insert(id, owner);
        self.pump_one(ring, now, owner, &mut Vec::new());
        Ok(())
    }

    /// Whether bulk frames can be given to the link now.
    pub fn has_bulk_room(&self, id: LinkId) -> bool {
        self.wire(id).is_some_and(|wire| wire.backlog.is_empty())
    }

    pub fn is_up(&self, id: LinkId) -> bool {
        self.owners.contains_key(&id)
    }

    /// Queues a frame; `false` when the link is gone or drowning, and then it is ended by the
    /// caller.
    pub fn send(&mut self, id: LinkId, class: Class, frame: Frame) -> bool {
        let Some(wire) = self
            .owners
            .get(&id)
            .and_then(|owner| self.wires.get_mut(owner))
        else {
            return false;
        };
        match class {
            Class::Urgent => wire.link.enqueue(LinkClass::Urgent, frame).is_ok(),
            Class::Live => wire.link.enqueue(LinkClass::Live, frame).is_ok(),
            Class::Bulk => {
                wire.backlog.push_back(frame);
                wire.feed();
                wire.backlog.len() <= BACKLOG_FRAMES_MAX
            }
        }
    }

    /// Room for live frames, in bytes that already wait.
    pub fn live_waiting(&self, id: LinkId) -> usize {
        self.wire(id)
            .map_or(0, |wire| wire.link.queued_bytes(LinkClass::Live))
    }

    pub fn counters(&self, id: LinkId) -> Counters {
        let past = self.moved.get(&id).copied().unwrap_or_default();
        let live = self
            .wire(id)
            .map(|wire| wire.link.counters())
            .unwrap_or_default();
        sum(past, live)
    }

    /// What is known of a link that is up, for people.
    pub fn path(&self, id: LinkId) -> Option<Path> {
        let wire = self.wire(id)?;
        Some(Path {
            codec: wire.chooser.pages(),
            rate: wire.rate(),
            zero_copy: wire.link.zero_copy().word(),
        })
    }

    /// What bulk pages to a peer travel with, and how many bytes of them one frame carries.
    pub fn bulk(&self, id: LinkId) -> (Codec, usize) {
        let Some(wire) = self.wire(id) else {
            return (Codec::default(), BULK_MIN);
        };
        let len = wire.link.pace().send_len().clamp(BULK_MIN, BULK_MAX);
        (wire.chooser.pages(), len)
    }

    /// What a delta is packed with that every peer gets: what the slowest of the links wants.
    pub fn delta_codec(&self, edits: &[PageEdit<'_>]) -> Codec {
        let bytes = |edits: &mut dyn Iterator<Item = &PageEdit<'_>>| -> usize {
            edits.map(|edit| edit.after.len()).sum()
        };
        let len = bytes(&mut edits.iter());
        let fresh = bytes(&mut edits.iter().filter(|edit| edit.before.is_none()));
        let mut wanted = self.wires.values().map(|w| w.chooser.delta(len, fresh));
        let first = wanted.next().unwrap_or(Codec::Prefix);
        match wanted.all(|other| other == first) {
            true => first,
            false => Codec::Prefix,
        }
    }

    /// Links that carried enough since they were last looked at.
    pub fn busy(&mut self) -> Vec<u64> {
        let mut busy = Vec::new();
        for (owner, wire) in &mut self.wires {
            let sent = wire.link.counters().bytes_out;
            if sent - wire.looked >= WORTH_A_LOOK {
                wire.looked = sent;
                busy.push(*owner);
            }
        }
        busy
    }

    /// Tells the choosers of these links how things are.
    pub fn observe(&mut self, now: Time, busy: &[u64], idle: IdleCores) {
        for owner in busy {
            if let Some(wire) = self.wires.get_mut(owner) {
                wire.chooser.observe(now, wire.rate(), idle);
            }
        }
    }

    /// Ends a link; its `Down` is not reported, because the caller knows.
    pub fn hang_up(&mut self, ring: &mut Ring, now: Time, id: LinkId) {
        let Some(owner) = self.owners.remove(&id) else {
            return;
        };
        if let Some(wire) = self.wires.get_mut(&owner) {
            wire.link.close(now);
            wire.backlog.clear();
        }
        self.pump_one(ring, now, owner, &mut Vec::new());
    }

    pub fn ids(&self) -> Vec<LinkId> {
        self.owners.keys().copied().collect()
    }

    /// Takes a completion of one of the links.
    pub fn on_completion(
        &mut self,
        ring: &mut Ring,
        completion: Completion,
        incoming: &mut Vec<Incoming>,
    ) {
        let owner = completion.token.owner();
        let Some(wire) = self.wires.get_mut(&owner) else {
            return;
        };
        let event = wire.link.on_completion(ring, completion, &mut self.frames);
        let id = wire.id;
        let current = self.owners.get(&id) == Some(&owner);
        for frame in self.frames.drain(..) {
            if current {
                incoming.push(Incoming::Frame(id, frame));
            }
        }
        self.settle(owner, event, incoming);
    }

    /// Starts whatever can be started, on every link.
    pub fn pump(&mut self, ring: &mut Ring, now: Time, incoming: &mut Vec<Incoming>) {
        let owners: Vec<u64> = self.wires.keys().copied().collect();
        for owner in owners {
            self.pump_one(ring, now, owner, incoming);
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        self.wires
            .values()
            .filter_map(|wire| wire.link.deadline())
            .min()
    }

    fn pump_one(&mut self, ring: &mut Ring, now: Time, owner: u64, incoming: &mut Vec<Incoming>) {
        let Some(wire) = self.wires.get_mut(&owner) else {
            return;
        };
        wire.feed();
        let event = wire.link.pump(ring, now);
        self.settle(owner, event, incoming);
    }

    fn settle(&mut self, owner: u64, event: LinkEvent, incoming: &mut Vec<Incoming>) {
        let LinkEvent::Closed(reason) = event else {
            return;
        };
        let Some(wire) = self.wires.remove(&owner) else {
            return;
        };
        let past = self.moved.entry(wire.id).or_default();
        *past = sum(*past, wire.link.counters());
        if self.owners.get(&wire.id) == Some(&owner) {
            self.owners.remove(&wire.id);
            incoming.push(Incoming::Down(wire.id, reason.to_string()));
        }
    }

    fn wire(&self, id: LinkId) -> Option<&Wire> {
        self.owners.get(&id).and_then(|owner| self.wires.get(owner))
    }
}

impl Wire {
    fn rate(&self) -> Option<LinkRate> {
        self.link.pace().rate().map(|rate| LinkRate(rate.0))
    }

    fn feed(&mut self) {
        while let Some(frame) = self.backlog.front() {
            if self.link.enqueue(LinkClass::Bulk, frame.clone()).is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }
}

fn sum(one: Counters, two: Counters) -> Counters {
    Counters {
        bytes_out: one.bytes_out + two.bytes_out,
        bytes_in: one.bytes_in + two.bytes_in,
        frames_out: one.frames_out + two.frames_out,
        frames_in: one.frames_in + two.frames_in,
    }
}

/// Who is on the other end of a greeting, as a link.
pub fn link_of(hello: &Hello) -> LinkId {
    LinkId {
        peer: hello.node,
        lane: hello.lane,
    }
}
