//! Connections: urgent parcels overtake others, never the other way round; broken, half open,
//! partitioned.

use std::collections::BTreeMap;
use std::rc::Rc;

use foreshadow::effect::Class;
use foreshadow::event::{Cargo, Event, LinkId};
use foreshadow::shard::refusal;
use wal::message::Message;
use wal::{PartitionId, Span, Time};

use super::disk::Content;
use super::world::{Happening, Place, World};

/// What travels.
#[derive(Clone, Debug)]
pub enum Parcel {
    Message(Message),
    Frame(PartitionId, Cargo, Rc<Payload>),
}

/// What a data frame holds.
#[derive(Debug)]
pub enum Payload {
    Writes(Vec<u32>),
    Pages,
    Whole(Content),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WireId(pub u64);

/// One connection. A cut direction swallows what is sent and says nothing.
#[derive(Debug)]
pub struct Wire {
    pub ends: [End; 2],
    pub cut: bool,
    /// When the last parcel of each class arrives, by sending end.
    last: [[Time; 3]; 2],
}

#[derive(Clone, Copy, Debug)]
pub struct End {
    pub place: Place,
    pub life: u64,
    pub link: LinkId,
}

#[derive(Default)]
pub struct Network {
    pub wires: BTreeMap<WireId, Wire>,
    next: u64,
    /// The connection that a shard has for a link now.
    pub current: BTreeMap<(Place, LinkId), WireId>,
    /// Pairs of nodes that can't reach each other.
    pub parted: Vec<(usize, usize)>,
}

impl Network {
    pub fn are_parted(&self, one: usize, two: usize) -> bool {
        self.parted.contains(&(one.min(two), one.max(two)))
    }
}

impl World {
    /// The other end's view of a link.
    fn opposite(&self, from: Place, link: LinkId) -> Option<(Place, LinkId)> {
        let there = self.nodes.iter().position(|node| node.id == link.peer)?;
        let shard = usize::from(link.lane) % self.nodes[there].shards.len().max(1);
        let back = LinkId {
            peer: self.nodes[from.node].id,
            lane: link.lane,
        };
        Some((Place { node: there, shard }, back))
    }

    pub fn dial(&mut self, from: Place, link: LinkId) {
        let life = self.nodes[from.node].life;
        let delay = self.random.micros(50, 3_000);
        self.later(delay, Happening::Connect { from, life, link });
    }

    pub fn connect(&mut self, from: Place, life: u64, link: LinkId) {
        let Some((to, back)) = self.opposite(from, link) else {
            return;
        };
        let alive = self.nodes[from.node].is_in(life);
        if !alive || self.network.are_parted(from.node, to.node) {
            // Nobody answers: the shard gives up by itself.
            return;
        }
        let refused = self.random.chance(self.plan.dial_fails) && self.faulty();
        if !self.nodes[to.node].up || refused {
            let reason = "connection refused".to_owned();
            return self.tell(from, Event::LinkDown { link, reason });
        }
        let hello = |place: Place, link: LinkId, world: &World| {
            world.nodes[place.node].settings[place.shard].hello(link)
        };
        let greetings = [
            (from, link, hello(to, back, self)),
            (to, back, hello(from, link, self)),
        ];
        for (place, link, hello) in &greetings {
            let settings = &self.nodes[place.node].settings[place.shard];
            assert_eq!(refusal(settings, *link, hello), None);
        }
        let id = WireId(self.network.next);
        self.network.next += 1;
        let end = |place: Place, link, world: &World| End {
            place,
            life: world.nodes[place.node].life,
            link,
        };
        let ends = [end(from, link, self), end(to, back, self)];
        let last = [[self.now; 3]; 2];
        self.network.wires.insert(
            id,
            Wire {
                ends,
                cut: false,
                last,
            },
        );
        for (place, link, hello) in greetings {
            // A second connection for the same lane replaces the first.
            if let Some(old) = self.network.current.insert((place, link), id) {
                self.break_wire(old, Some(place));
            }
            self.tell(place, Event::LinkUp { link, hello });
        }
    }

    pub fn send(&mut self, from: Place, link: LinkId, class: Class, parcel: Parcel) -> bool {
        let Some(id) = self.network.current.get(&(from, link)).copied() else {
            return false;
        };
        let latency = self.plan.latency;
        let delay = self.random.micros(latency / 4, latency);
        let now = self.now;
        let Some(wire) = self.network.wires.get_mut(&id) else {
            return false;
        };
        let side = usize::from(wire.ends[0].place != from);
        if wire.cut {
            return true;
        }
        // One stream of bytes: nothing overtakes what was sent before it in its own class or a more
        // urgent one.
        let last = &mut wire.last[side];
        let before = last[..=class as usize].iter().max().copied();
        let at = (now + delay).max(before.unwrap_or(now) + Span(1));
        last[class as usize] = at;
        self.at(
            at,
            Happening::Deliver {
                wire: id,
                to: 1 - side,
                parcel,
            },
        );
        true
    }

    pub fn deliver(&mut self, id: WireId, to: usize, parcel: Parcel) {
        let Some(wire) = self.network.wires.get(&id) else {
            return;
        };
        let End { place, life, link } = wire.ends[to];
        let current = self.network.current.get(&(place, link)) == Some(&id);
        if wire.cut || !current || !self.nodes[place.node].is_in(life) {
            return;
        }
        match parcel {
            Parcel::Message(message) => self.tell(place, Event::Received { link, message }),
            Parcel::Frame(partition, cargo, payload) => {
                let frame = self.hold(payload, cargo);
                self.tell(
                    place,
                    Event::Arrived {
                        link,
                        partition,
                        frame,
                        cargo,
                    },
                );
            }
        }
    }

    /// Ends a connection; each end hears of it in its own time, but not `quiet`, who knows. What is
    /// sent until then goes nowhere.
    pub fn break_wire(&mut self, id: WireId, quiet: Option<Place>) {
        let Some(wire) = self.network.wires.get_mut(&id) else {
            return;
        };
        let silent = std::mem::replace(&mut wire.cut, true);
        let ends = wire.ends;
        for end in ends {
            if quiet == Some(end.place) {
                self.forget_wire(end, id);
            } else if !silent {
                let delay = self.random.micros(10, 2_000);
                self.later(delay, Happening::Lost { wire: id, end });
            }
        }
    }

    fn forget_wire(&mut self, end: End, id: WireId) -> bool {
        let key = (end.place, end.link);
        let current = self.network.current.get(&key) == Some(&id);
        if current {
            self.network.current.remove(&key);
        }
        let ends = self.network.wires.get(&id).map(|wire| wire.ends);
        let known = |end: &End| self.network.current.get(&(end.place, end.link)) == Some(&id);
        if ends.is_some_and(|ends| !ends.iter().any(known)) {
            self.network.wires.remove(&id);
        }
        current
    }

    /// An end hears that its connection broke, unless it has a newer one.
    pub fn lost(&mut self, id: WireId, end: End) {
        if self.forget_wire(end, id) && self.nodes[end.place.node].is_in(end.life) {
            let (link, reason) = (end.link, "the connection broke".to_owned());
            self.tell(end.place, Event::LinkDown { link, reason });
        }
    }

    pub fn hang_up(&mut self, from: Place, link: LinkId) {
        if let Some(id) = self.network.current.get(&(from, link)).copied() {
            self.break_wire(id, Some(from));
        }
    }
}
