//! Time, the queue of what is to happen, and the nodes it happens to.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use foreshadow::effect::{Effects, Note};
use foreshadow::event::{Cargo, Event, FrameKey, LinkId, Ticket};
use foreshadow::runtime::errands::ownership;
use foreshadow::shard::{Peer, Settings, Shard};
use foreshadow::{ship, switch};
use wal::{NodeId, PartitionId, PartitionName, Span, Time};

use super::disk::{Content, Disk};
use super::invariants;
use super::keeper::Keeper;
use super::ledger::Ledgers;
use super::live::{Kind, Live};
use super::network::{End, Network, Parcel, Payload, WireId};
use super::people::{Act, People};
use super::plan::Plan;
use super::queue::Queue;
use super::random::Random;
use super::shell::Work;
use super::writers::Connection;

/// A run takes a hundred thousand steps; one that takes more goes round in circles.
const STEPS_MAX: u64 = 3_000_000;

/// A shard of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    pub node: usize,
    pub shard: usize,
}

/// One storage host.
pub struct Node {
    pub id: NodeId,
    pub name: String,
    pub settings: Vec<Settings>,
    pub up: bool,
    /// Counts starts: what an earlier life asked for is answered to nobody.
    pub life: u64,
    pub shards: Vec<Shard>,
    timers: Vec<Option<Time>>,
    pub disks: BTreeMap<PartitionId, Disk>,
    pub notes: BTreeMap<PartitionId, Note>,
    pub wishes: BTreeMap<(PartitionId, NodeId), Note>,
    /// Without power: nothing runs.
    pub dark: bool,
    /// Nothing can be written, or only slowly, until then.
    pub full_until: Time,
    pub slow_until: Time,
    /// When each queue of helper threads is free again.
    pub busy: BTreeMap<(PartitionId, u8), Time>,
}

impl Node {
    pub fn is_in(&self, life: u64) -> bool {
        self.up && self.life == life
    }
}

/// What is going to happen.
#[derive(Debug)]
pub enum Happening {
    Event {
        place: Place,
        life: u64,
        event: Event,
    },
    Timer {
        place: Place,
        life: u64,
    },
    Connect {
        from: Place,
        life: u64,
        link: LinkId,
    },
    Deliver {
        wire: WireId,
        to: usize,
        parcel: Parcel,
    },
    Lost {
        wire: WireId,
        end: End,
    },
    Work {
        place: Place,
        life: u64,
        ticket: Ticket,
        work: Work,
    },
    Look {
        place: Place,
        life: u64,
        partition: PartitionId,
    },
    Announce {
        node: usize,
        life: u64,
        partition: PartitionId,
    },
    Act(Act),
}

pub struct World {
    pub now: Time,
    pub random: Random,
    pub plan: Plan,
    pub nodes: Vec<Node>,
    pub names: BTreeMap<PartitionId, PartitionName>,
    pub network: Network,
    pub keeper: Keeper,
    pub people: People,
    pub ledgers: Ledgers,
    pub writers: Vec<Connection>,
    pub next_write: u32,
    kinds: BTreeMap<PartitionId, Kind>,
    queue: Queue,
    next: u64,
    frames: BTreeMap<FrameKey, (Rc<Payload>, Cargo)>,
    pub steps: u64,
    pub trace: bool,
    /// The first broken promise.
    pub broken: Option<String>,
    pub memory: invariants::Memory,
    /// What may have changed since the promises were looked at.
    pub touched: BTreeSet<PartitionId>,
}

impl World {
    /// The world of a seed, with some numbers of its plan `set` otherwise.
    pub fn new(seed: u64, set: &[(String, u64)], trace: bool) -> World {
        let mut random = Random::new(seed);
        let mut plan = Plan::draw(&mut random);
        for (name, value) in set {
            *plan.field(name).expect("the command line was checked") = *value;
        }
        let names = (0..plan.partitions).map(|number| {
            let name = PartitionName::new(&format!("t{number}.db")).expect("a plain name");
            (name.id(), name)
        });
        let mut world = World {
            now: Time(1_000_000_000),
            nodes: (0..plan.nodes as usize)
                .map(|index| make_node(&plan, index))
                .collect(),
            names: names.collect(),
            network: Network::default(),
            keeper: Keeper::default(),
            people: People::default(),
            ledgers: Ledgers::new(),
            writers: Vec::new(),
            next_write: 0,
            kinds: BTreeMap::new(),
            queue: Queue::default(),
            next: 0,
            frames: BTreeMap::new(),
            steps: 0,
            trace,
            broken: None,
            memory: invariants::Memory::default(),
            touched: BTreeSet::new(),
            random,
            plan,
        };
        world.populate();
        world.begin();
        world
    }

    /// Databases at their homes, connections, and daemons that start.
    fn populate(&mut self) {
        let ids: Vec<PartitionId> = self.names.keys().copied().collect();
        for id in ids {
            let home = self.any_node();
            let kind = match self.random.chance(self.plan.native) {
                true => Kind::Native,
                false => Kind::Sqlite,
            };
            self.kinds.insert(id, kind);
            let generation = self.new_generation();
            let live = Live::new(kind, generation, Content::default());
            self.nodes[home].disks.entry(id).or_default().live = Some(live);
            self.ledgers.entry(id).or_default();
            for _ in 0..self.plan.writers {
                let full = self.random.chance(self.plan.full);
                self.writers.push(Connection {
                    partition: id,
                    open: None,
                    full,
                    attempt: 0,
                });
            }
        }
        for node in 0..self.nodes.len() {
            self.start(node);
        }
    }

    pub fn kind_of(&self, id: PartitionId) -> Kind {
        self.kinds[&id]
    }

    pub fn new_generation(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn at(&mut self, time: Time, happening: Happening) {
        self.next += 1;
        self.queue.push(time, self.next, happening);
    }

    pub fn later(&mut self, delay: Span, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    pub fn tell(&mut self, place: Place, event: Event) {
        let life = self.nodes[place.node].life;
        self.at(self.now, Happening::Event { place, life, event });
    }

    pub fn hold(&mut self, payload: Rc<Payload>, cargo: Cargo) -> FrameKey {
        self.next += 1;
        self.frames.insert(FrameKey(self.next), (payload, cargo));
        FrameKey(self.next)
    }

    pub fn held_frame(&self, frame: FrameKey) -> Option<(Rc<Payload>, Cargo)> {
        self.frames.get(&frame).cloned()
    }

    pub fn place_of(&self, node: usize, id: PartitionId) -> Place {
        let shards = self.nodes[node].settings.len() as u64;
        Place {
            node,
            shard: (id.0 % shards) as usize,
        }
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", self.now.0 as f64 / 1e9, text());
        }
    }

    /// Runs until `end`, or until a promise is broken.
    pub fn run_until(&mut self, end: Time) {
        while self.broken.is_none() {
            let Some((time, happening)) = self.queue.pop(end) else {
                break;
            };
            self.now = time;
            self.steps += 1;
            self.happen(happening);
            if let Err(reason) = invariants::check(self) {
                self.broken = Some(reason);
            }
            if self.steps > STEPS_MAX {
                self.broken = Some("it comes to no end".to_owned());
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Event { place, life, event } => {
                let frame = match &event {
                    Event::Arrived { frame, .. } => Some(*frame),
                    _ => None,
                };
                if self.nodes[place.node].is_in(life) {
                    self.say(|| format!("{} <- {event:?}", self.nodes[place.node].name));
                    self.call(place, |shard, now, out| shard.step(now, event, out));
                }
                if let Some(frame) = frame {
                    self.frames.remove(&frame);
                }
            }
            Happening::Timer { place, life } if self.nodes[place.node].is_in(life) => {
                self.nodes[place.node].timers[place.shard] = None;
                self.call(place, |shard, now, out| shard.on_time(now, out));
            }
            Happening::Timer { .. } => {}
            Happening::Connect { from, life, link } => self.connect(from, life, link),
            Happening::Deliver { wire, to, parcel } => self.deliver(wire, to, parcel),
            Happening::Lost { wire, end } => self.lost(wire, end),
            Happening::Work {
                place,
                life,
                ticket,
                work,
            } => {
                if self.nodes[place.node].is_in(life) {
                    self.work(place, ticket, work);
                }
            }
            Happening::Look {
                place,
                life,
                partition,
            } => {
                if self.nodes[place.node].is_in(life) {
                    self.look(place, partition);
                }
            }
            Happening::Announce {
                node,
                life,
                partition,
            } => {
                if self.nodes[node].is_in(life) {
                    self.announce(node, partition);
                }
            }
            Happening::Act(act) => self.act(act),
        }
    }

    /// The newest record of the coordinator reaches a node.
    fn announce(&mut self, node: usize, partition: PartitionId) {
        let Some(record) = self.keeper.records.get(&partition) else {
            return;
        };
        let (name, ownership) = (record.name.clone(), ownership(record, self.nodes[node].id));
        self.tell(
            self.place_of(node, partition),
            Event::Owned { name, ownership },
        );
    }

    pub fn call(&mut self, place: Place, call: impl FnOnce(&mut Shard, Time, &mut Effects)) {
        let (now, mut out) = (self.now, Effects::default());
        let shard = &mut self.nodes[place.node].shards[place.shard];
        call(shard, now, &mut out);
        shard.flush(now, &mut out);
        for effect in out.0 {
            self.execute(place, effect);
        }
        self.set_timer(place);
    }

    fn set_timer(&mut self, place: Place) {
        let node = &mut self.nodes[place.node];
        let Some(deadline) = node.shards[place.shard].deadline(self.now) else {
            return;
        };
        let deadline = deadline.max(self.now + Span::micros(1));
        let timer = &mut node.timers[place.shard];
        if timer.is_none_or(|set| set > deadline) {
            *timer = Some(deadline);
            let life = node.life;
            self.at(deadline, Happening::Timer { place, life });
        }
    }

    /// A daemon starts and finds what is on its disk, as runtime/recover.rs tells it.
    pub fn start(&mut self, node: usize) {
        let world = &mut self.nodes[node];
        if world.up {
            return;
        }
        world.up = true;
        world.dark = false;
        world.life += 1;
        world.busy.clear();
        world.shards = world.settings.iter().cloned().map(Shard::new).collect();
        world.timers = vec![None; world.shards.len()];
        self.say(|| format!("{} starts", self.nodes[node].name));
        for (partition, event) in super::start::found(&mut self.nodes[node], &self.names) {
            self.tell(self.place_of(node, partition), event);
        }
        for shard in 0..self.nodes[node].shards.len() {
            self.call(Place { node, shard }, |shard, now, out| {
                shard.open(now, out)
            });
        }
        for partition in self.names.keys().copied().collect::<Vec<_>>() {
            self.let_know(node, partition);
        }
    }

    /// kill -9 of a daemon.
    pub fn crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.say(|| format!("{} dies", self.nodes[node].name));
        self.nodes[node].up = false;
        self.nodes[node].shards.clear();
        let wires = self.network.wires.iter();
        let ours = wires.filter(|(_, wire)| wire.ends.iter().any(|end| end.place.node == node));
        for id in ours.map(|(id, _)| *id).collect::<Vec<_>>() {
            let ends = self.network.wires[&id].ends;
            let own = ends.iter().find(|end| end.place.node == node);
            self.break_wire(id, own.map(|end| end.place));
        }
        self.touched.extend(self.names.keys());
        let (rot, faulty) = (self.plan.rot, self.faulty());
        let Node {
            disks, id: ours, ..
        } = &mut self.nodes[node];
        for (id, disk) in disks {
            super::start::daemon_died(disk, &mut self.random);
            let record = self.keeper.records.get(id);
            let counts = record.is_some_and(|record| record.owner == *ours);
            if rot > 0 && faulty && !counts {
                super::start::rot(disk, rot, &mut self.random);
            }
        }
    }

    /// Someone changed the record of a partition: everybody hears of it, sooner or later.
    pub fn spread(&mut self, partition: PartitionId) {
        for node in 0..self.nodes.len() {
            self.let_know(node, partition);
        }
    }

    /// A node hears of the newest record in its own time.
    fn let_know(&mut self, node: usize, partition: PartitionId) {
        let life = self.nodes[node].life;
        let delay = self.random.micros(100, 100_000);
        let news = Happening::Announce {
            node,
            life,
            partition,
        };
        self.later(delay, news);
    }
}

fn node_name(index: usize) -> String {
    format!("n{index}")
}

fn make_node(plan: &Plan, index: usize) -> Node {
    let others = (0..plan.nodes as usize).filter(|other| *other != index);
    let peers: BTreeMap<NodeId, Peer> = others
        .map(|other| {
            let name = node_name(other);
            let peer = Peer {
                name: name.clone(),
                address: String::new(),
                lanes: plan.shards as u16,
            };
            (NodeId::of(&name), peer)
        })
        .collect();
    let name = node_name(index);
    let settings = (0..plan.shards as u16).map(|shard| Settings {
        node: NodeId::of(&name),
        name: name.clone(),
        cluster: "sim".to_owned(),
        shard,
        shards: plan.shards as u16,
        peers: peers.clone(),
        ship: ship::Settings {
            copies: plan.copies as u16,
            ..ship::Settings::default()
        },
        switch: switch::Settings {
            keep_reverse: plan.keep_reverse > 0,
            ..switch::Settings::default()
        },
    });
    Node {
        id: NodeId::of(&name),
        settings: settings.collect(),
        name,
        up: false,
        dark: false,
        full_until: Time(0),
        slow_until: Time(0),
        life: 0,
        shards: Vec::new(),
        timers: Vec::new(),
        disks: BTreeMap::new(),
        notes: BTreeMap::new(),
        wishes: BTreeMap::new(),
        busy: BTreeMap::new(),
    }
}
