//! Applications, operators and accidents.

use std::collections::BTreeMap;

use foreshadow::effect::Effects;
use foreshadow::event::{Asked, Event};
use foreshadow::serve::query::{MoveId, NodeName, Query};
use wal::{PartitionId, Span, Time};

use super::network::WireId;
use super::world::{Happening, World};

/// Somebody does something.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Write(PartitionId),
    Move,
    Cancel,
    Trim,
    Crash,
    Start(usize),
    Break,
    Cut,
    Part,
    Heal,
}

/// What applications remember, and when faults end.
#[derive(Default)]
pub struct People {
    /// Every acknowledged write of a partition, in the order of the commits.
    pub acknowledged: BTreeMap<PartitionId, Vec<u32>>,
    next_write: u32,
    faulty_until: Time,
    pub moves: u64,
    pub crashes: u64,
    /// Somebody asked for a shadow to go: there may be fewer than configured.
    pub unwanted: bool,
}

impl World {
    pub fn begin(&mut self) {
        self.people.faulty_until = self.now + self.plan.faulty;
        for id in self.names.keys().copied().collect::<Vec<_>>() {
            self.again(self.plan.write_every, Act::Write(id));
        }
        let plan = self.plan.clone();
        self.again(plan.move_every, Act::Move);
        self.again(plan.cancel_every, Act::Cancel);
        self.again(plan.trim_every, Act::Trim);
        self.again(plan.crash_every, Act::Crash);
        self.again(plan.break_every, Act::Break);
        self.again(plan.cut_every, Act::Cut);
        self.again(plan.part_every, Act::Part);
        let end = self.people.faulty_until;
        self.at(end, Happening::Act(Act::Heal));
    }

    pub fn faulty(&self) -> bool {
        self.now < self.people.faulty_until
    }

    pub fn faulty_until(&self) -> Time {
        self.people.faulty_until
    }

    fn again(&mut self, every: u64, act: Act) {
        if every > 0 {
            let delay = self.random.micros(every / 2, every * 3 / 2);
            self.later(delay, Happening::Act(act));
        }
    }

    pub fn act(&mut self, act: Act) {
        let ends = !matches!(act, Act::Write(_) | Act::Start(_) | Act::Heal);
        if ends && !self.faulty() {
            return;
        }
        match act {
            Act::Write(id) => self.write(id),
            Act::Move => {
                self.start_move();
                self.again(self.plan.move_every, act);
            }
            Act::Cancel => {
                self.cancel_move();
                self.again(self.plan.cancel_every, act);
            }
            Act::Trim => {
                let node = self.any_node();
                for disk in self.nodes[node].disks.values_mut() {
                    disk.log.deltas.clear();
                }
                self.again(self.plan.trim_every, act);
            }
            Act::Crash => {
                let node = self.any_node();
                if self.nodes[node].up {
                    self.people.crashes += 1;
                    self.crash(node);
                    let delay = self.random.micros(1_000, 2_000_000);
                    self.later(delay, Happening::Act(Act::Start(node)));
                }
                self.again(self.plan.crash_every, act);
            }
            Act::Start(node) => {
                if !self.nodes[node].up {
                    self.start(node);
                }
            }
            Act::Break => {
                if let Some(wire) = self.any_wire() {
                    self.break_wire(wire, None);
                }
                self.again(self.plan.break_every, act);
            }
            Act::Cut => {
                if let Some(wire) = self.any_wire() {
                    self.cut(wire);
                }
                self.again(self.plan.cut_every, act);
            }
            Act::Part => {
                self.part();
                self.again(self.plan.part_every, act);
            }
            Act::Heal => self.heal(),
        }
    }

    fn any_node(&mut self) -> usize {
        self.random.below(self.nodes.len() as u64) as usize
    }

    fn any_wire(&mut self) -> Option<WireId> {
        let count = self.network.wires.len() as u64;
        let nth = self.random.below(count) as usize;
        self.network.wires.keys().nth(nth).copied()
    }

    fn cut(&mut self, wire: WireId) {
        if let Some(wire) = self.network.wires.get_mut(&wire) {
            wire.cut = true;
        }
    }

    /// Two nodes can't reach each other for a while.
    fn part(&mut self) {
        let (one, two) = (self.any_node(), self.any_node());
        if self.random.chance(500) {
            self.network.parted.clear();
        }
        if one == two {
            return;
        }
        self.network.parted.push((one.min(two), one.max(two)));
        for wire in self.network.wires.values_mut() {
            let nodes = wire.ends.map(|end| end.place.node);
            if nodes == [one, two] || nodes == [two, one] {
                wire.cut = true;
            }
        }
    }

    /// No accidents from here on: everybody runs and reaches everybody.
    fn heal(&mut self) {
        self.say(|| "faults end".to_owned());
        self.network.parted.clear();
        for node in 0..self.nodes.len() {
            if !self.nodes[node].up {
                self.start(node);
            }
        }
    }

    /// An application tries the nodes until one takes its write.
    fn write(&mut self, id: PartitionId) {
        let write = self.people.next_write + 1;
        let first = self.any_node();
        let count = self.nodes.len();
        for node in (0..count).map(|step| (first + step) % count) {
            let disk = self.nodes[node].disks.get_mut(&id);
            let Some(live) = disk.and_then(|disk| disk.live.as_mut()) else {
                continue;
            };
            if live.commit(write) {
                self.people.next_write = write;
                self.people.acknowledged.entry(id).or_default().push(write);
                self.committed(node, id);
                break;
            }
        }
        // Applications rest once nothing goes wrong any more, so that a run comes to an end.
        let quiet = self.now > self.people.faulty_until + Span::secs(10);
        if !quiet {
            self.again(self.plan.write_every, Act::Write(id));
        }
    }

    fn ask(&mut self, node: usize, id: PartitionId, query: Query) {
        if self.nodes[node].up {
            let asked = Asked(1);
            let place = self.place_of(node, id);
            self.tell(place, Event::Asked { asked, query });
        }
    }

    fn any_partition(&mut self) -> PartitionId {
        let nth = self.random.below(self.names.len() as u64) as usize;
        *self.names.keys().nth(nth).expect("there are some")
    }

    fn start_move(&mut self) {
        let id = self.any_partition();
        let partition = self.names[&id].clone();
        let to = self.any_node();
        let to = NodeName::new(&self.nodes[to].name).expect("a node name");
        let query = match self.random.below(8) {
            0 => Query::AddShadow { partition, to },
            1 => {
                self.people.unwanted = true;
                Query::RemoveShadow {
                    partition,
                    node: to,
                }
            }
            2 => Query::Rollback { partition },
            _ => Query::StartMove {
                partition,
                to,
                dry_run: false,
                timeout: Span::millis(self.random.between(50, 10_000)),
            },
        };
        self.people.moves += 1;
        for node in 0..self.nodes.len() {
            let serves = self.nodes[node]
                .disks
                .get(&id)
                .is_some_and(|disk| disk.live.is_some());
            if serves {
                self.ask(node, id, query.clone());
            }
        }
    }

    fn cancel_move(&mut self) {
        let id = self.any_partition();
        for node in 0..self.nodes.len() {
            let place = self.place_of(node, id);
            if let Some(move_id) = self.newest_move(place) {
                self.ask(node, id, Query::CancelMove { id: move_id });
            }
        }
    }

    fn newest_move(&mut self, place: super::world::Place) -> Option<MoveId> {
        use foreshadow::effect::Effect;
        use foreshadow::serve::reply::Reply;
        let now = self.now;
        let shard = self.nodes[place.node].shards.get_mut(place.shard)?;
        let mut out = Effects::default();
        let event = Event::Asked {
            asked: Asked(2),
            query: Query::Moves,
        };
        shard.step(now, event, &mut out);
        out.0.into_iter().find_map(|effect| match effect {
            Effect::Reply {
                reply: Ok(Reply::Moves(moves)),
                ..
            } => moves.last().map(|entry| entry.id),
            _ => None,
        })
    }
}
