//! Whole shards, their disks, the links between them, and what may happen to each.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use foreshadow::effect::{EngineOperation, Note, ShadowOperation};
use foreshadow::event::{Cargo, Event, Failure, LinkId, Outcome, Ticket};
use foreshadow::shard::{Peer, Role, Settings, Shard};
use foreshadow::{ship, switch};
use wal::message::Message;
use wal::{Epoch, NodeId, PartitionName, Time};

use super::disk::{Content, Disk};
use super::keeper::{Errand, Keeper};
use super::variants::Variant;

/// What is said and done is said and done at once; a deadline is never over by itself.
pub const NOW: Time = Time(u64::MAX - 1);
/// Here every deadline is over.
pub const END: Time = Time(u64::MAX);

/// How much may happen in one model.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub nodes: usize,
    pub start: Start,
    /// All links break at first and stay broken: only the coordinator is reached.
    pub cut: bool,
    pub writes: u8,
    pub rollbacks: u8,
    pub cancels: u8,
    pub promotes: u8,
    pub crashes: u8,
    /// Crashes that also undo an exchange of the path, where one is not durable.
    pub powers: u8,
    pub breaks: u8,
    pub failures: u8,
    /// Answers of the coordinator that never come, whether or not it did what was asked.
    pub losses: u8,
    /// Deadlines that pass while something is under way; when nothing is they pass by themselves.
    pub early: u8,
    pub variant: Variant,
}

/// Where a model begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The first node owns the database, all others stream.
    Owned,
    /// As owned, but the first node's daemon is down, and starts whenever it does.
    Lost,
    /// It was moved to the second node, which serves; the first one has not put its copy away.
    Moving,
    /// It was moved to the second node, and all is settled.
    Moved,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Used {
    pub writes: u8,
    pub rollbacks: u8,
    pub cancels: u8,
    pub promotes: u8,
    pub crashes: u8,
    pub powers: u8,
    pub breaks: u8,
    pub failures: u8,
    pub losses: u8,
    pub early: u8,
}

/// What travels on a link.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Parcel {
    Message(Message),
    Frame(Cargo, Content),
}

/// One job of a node's shell; each queue runs in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    Engine(Ticket, EngineOperation),
    Copy(Ticket, ShadowOperation, Option<(Cargo, Content)>),
    Journal(Ticket, Note),
}

/// One node: its brain while it runs, and what outlives it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub shard: Option<Shard>,
    pub disk: Disk,
    pub note: Option<Note>,
    /// By queue: engine, copies, journal.
    pub jobs: [VecDeque<Job>; 3],
    pub errands: VecDeque<Errand>,
    /// The coordinator's answers that were not heard yet.
    pub answers: VecDeque<(Ticket, Result<Outcome, Failure>)>,
    /// The newest change of the coordinator that this life of the daemon was told.
    pub told: u64,
    /// Since it started it asked the coordinator, or was granted a landing.
    pub asked: bool,
    print: u64,
}

/// Both directions between two nodes.
#[derive(Clone, Hash, Debug, Default)]
pub struct Wire {
    pub up: bool,
    pub queues: [VecDeque<Parcel>; 2],
}

/// The whole state.
#[derive(Clone, Debug)]
pub struct World {
    pub nodes: Vec<Rc<Node>>,
    /// Between 0 and 1, 0 and 2, 1 and 2.
    pub wires: Vec<Wire>,
    pub keeper: Keeper,
    /// Every write that was acknowledged, in order.
    pub ledger: Content,
    /// The epoch under which each of them was acknowledged, 0 where no daemon had said it yet.
    pub under: Vec<Epoch>,
    pub used: Used,
    pub variant: Variant,
    pub cut: bool,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

pub fn database() -> PartitionName {
    PartitionName::new("t.db").expect("a plain name")
}

pub fn id_of(node: usize) -> NodeId {
    NodeId::of(name_of(node))
}

pub fn index_of(node: NodeId) -> usize {
    let known = (0..NAMES.len()).find(|index| id_of(*index) == node);
    known.expect("a node of the model")
}

pub fn link_to(node: usize) -> LinkId {
    LinkId {
        peer: id_of(node),
        lane: 0,
    }
}

fn settings(node: usize, nodes: usize) -> Settings {
    let others = (0..nodes).filter(|other| *other != node);
    let peer = |other: usize| Peer {
        name: name_of(other).to_owned(),
        address: String::new(),
        lanes: 1,
    };
    Settings {
        node: id_of(node),
        name: name_of(node).to_owned(),
        cluster: "model".to_owned(),
        shard: 0,
        shards: 1,
        peers: others.map(|other| (id_of(other), peer(other))).collect(),
        ship: ship::Settings {
            copies: nodes as u16 - 1,
            ..ship::Settings::default()
        },
        switch: switch::Settings::default(),
    }
}

pub fn name_of(node: usize) -> &'static str {
    NAMES[node]
}

/// Between whom each wire is.
pub const ENDS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

pub fn wire_between(one: usize, two: usize) -> usize {
    one.min(two) + one.max(two) - 1
}

impl World {
    /// Nodes that know nothing of each other, a database with one write at the first.
    pub fn new(limits: &Limits) -> World {
        let wires = limits.nodes * (limits.nodes - 1) / 2;
        let mut world = World {
            nodes: (0..limits.nodes).map(|_| Rc::default()).collect(),
            wires: vec![Wire::default(); wires],
            keeper: Keeper::default(),
            ledger: vec![0],
            under: vec![Epoch(0)],
            used: Used::default(),
            variant: Variant::Right,
            cut: false,
        };
        let mut live = super::disk::Live::new(vec![0]);
        live.log_from = 0;
        world.node(0).disk.live = Some(live);
        for node in 0..limits.nodes {
            world.starts(node);
        }
        world
    }

    pub fn node(&mut self, node: usize) -> &mut Node {
        let node = Rc::make_mut(&mut self.nodes[node]);
        node.print = 0;
        node
    }

    /// States are told apart by what is kept here.
    pub fn take_prints(&mut self) {
        for node in &mut self.nodes {
            if node.print == 0 {
                let node = Rc::make_mut(node);
                node.print = node.fingerprint();
            }
        }
    }

    /// A daemon starts and finds what is on its disk, as runtime/recover.rs tells it.
    pub fn starts(&mut self, index: usize) {
        let new = Shard::new(settings(index, self.nodes.len()));
        let node = self.node(index);
        let mut events = VecDeque::new();
        if let Some(live) = &mut node.disk.live
            && let Some((epoch, position)) = live.landing.take()
        {
            node.note = Some(Note::Landed { epoch, position });
        }
        if let Some(copy) = &mut node.disk.copy
            && let Some(epoch) = copy.landing
            && !node.note.is_some_and(|note| note.expects_landing(epoch))
        {
            copy.abandon();
        }
        let (name, partition) = (database(), database().id());
        if let Some(note) = node.note {
            events.push_back(Event::Noted { partition, note });
        }
        if let Some(remains) = node.disk.remains() {
            let name = name.clone();
            events.push_back(Event::Recovered { name, remains });
        }
        if node.disk.live.is_some() {
            events.push_back(Event::Found { name });
        }
        node.shard = Some(new);
        self.call(index, None, |shard, out| shard.open(NOW, out));
        for event in events {
            self.tell(index, event);
        }
    }

    /// Locks and what was not done yet die with the daemon.
    pub fn crashes(&mut self, index: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            self.breaks(wire_between(index, other));
        }
        let node = self.node(index);
        let (disk, note) = (std::mem::take(&mut node.disk), node.note);
        *node = Node {
            disk,
            note,
            ..Node::default()
        };
        if let Some(live) = &mut node.disk.live {
            (live.attached, live.frozen) = (false, false);
        }
        if let Some(copy) = &mut node.disk.copy {
            copy.unsettled = copy.landing.is_some();
        }
    }

    /// Its machine loses power before the exchange of the path is durable.
    pub fn loses_power(&mut self, index: usize) {
        self.used.powers += 1;
        self.crashes(index);
        self.node(index).disk.undo_exchange();
    }

    pub fn breaks(&mut self, wire: usize) {
        if !self.wires[wire].up {
            return;
        }
        self.wires[wire] = Wire::default();
        let (one, two) = ENDS[wire];
        for (here, there) in [(one, two), (two, one)] {
            let reason = "the link broke".to_owned();
            let link = link_to(there);
            self.tell(here, Event::LinkDown { link, reason });
        }
    }

    pub fn joins(&mut self, wire: usize) {
        self.wires[wire].up = true;
        let (one, two) = ENDS[wire];
        for (here, there) in [(one, two), (two, one)] {
            let hello = settings(there, self.nodes.len()).hello(link_to(here));
            let link = link_to(there);
            self.tell(here, Event::LinkUp { link, hello });
        }
    }

    /// An application commits, and the tail sees it.
    pub fn writes(&mut self, index: usize) {
        self.used.writes += 1;
        let write = self.used.writes;
        self.ledger.push(write);
        let node = self.node(index);
        let live = node.disk.live.as_mut().expect("offered where one is");
        live.content.push(write);
        let landing = live.landing.map_or(Epoch(0), |(epoch, _)| epoch);
        let under = live.epoch.max(landing);
        let at = super::disk::position(live.epoch, &live.content);
        let serves = node.partition().is_some_and(|one| one.owner().is_some());
        self.under.push(under);
        if serves {
            let event = Event::Advanced {
                partition: database().id(),
                position: at,
                bytes: 256,
            };
            self.tell(index, event);
        }
    }

    /// Nothing happens any more unless time passes or somebody does something.
    pub fn is_quiet(&self) -> bool {
        let idle = self.nodes.iter().all(|node| {
            let jobs = node.jobs.iter().all(VecDeque::is_empty);
            jobs && node.errands.is_empty() && node.answers.is_empty()
        });
        let silent = self
            .wires
            .iter()
            .all(|wire| wire.queues.iter().all(VecDeque::is_empty));
        let revision = self.revision();
        let told = |node: &Rc<Node>| node.shard.is_none() || node.told == revision;
        idle && silent && self.nodes.iter().all(told)
    }

    pub fn revision(&self) -> u64 {
        let record = self.keeper.record.as_ref();
        record.map_or(0, |record| record.revision.0)
    }
}

impl Node {
    pub fn partition(&self) -> Option<&foreshadow::shard::Partition> {
        self.shard.as_ref()?.partitions().get(&database().id())
    }

    pub fn role(&self) -> Option<&Role> {
        self.partition().map(|partition| &partition.role)
    }

    /// The epoch under which this node serves.
    pub fn serves(&self) -> Option<Epoch> {
        self.partition()?.owner().map(|owner| owner.position.epoch)
    }

    /// Sessions are counted, but only whether a ticket is of the present one matters; averages of
    /// measured delays and nonces of pings decide nothing here.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut text = String::with_capacity(2048);
        let mut session = 0;
        if let Some(shard) = &self.shard {
            let mut all = String::with_capacity(2048);
            write!(all, "{:?}", shard.partitions()).expect("a string takes all");
            session = without_counts(&all, &mut text);
            for entry in shard.moves() {
                (entry.id, entry.to, entry.stage.word()).hash(&mut hasher);
            }
            for (link, state) in shard.links() {
                (link, state.is_up()).hash(&mut hasher);
            }
        }
        let state = (&text, &self.disk, self.note, self.told, self.asked);
        state.hash(&mut hasher);
        for job in self.jobs.iter().flatten() {
            match job {
                Job::Engine(ticket, operation) => (ticket, operation).hash(&mut hasher),
                Job::Journal(ticket, note) => (ticket, note).hash(&mut hasher),
                Job::Copy(ticket, operation, frame) => {
                    let current = ticket.number == session;
                    (ticket.task, current, operation, frame).hash(&mut hasher);
                }
            }
        }
        (&self.errands, self.shard.is_some()).hash(&mut hasher);
        for (ticket, result) in &self.answers {
            (ticket, result).hash(&mut hasher);
        }
        hasher.finish().max(1)
    }
}

/// Copies a shard's text without what only counts; says the last session in it.
fn without_counts(all: &str, text: &mut String) -> u64 {
    let mut session = 0;
    let mut rest = all;
    while let Some((before, after)) = rest.split_once("session: ") {
        text.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit());
        let end = end.unwrap_or(after.len());
        session = after[..end].parse().expect("digits");
        rest = &after[end..];
        if let Some(at) = rest.find("acknowledgement: ")
            && rest.find("session: ").is_none_or(|next| at < next)
            && let Some(close) = rest[at..].find("reason: ")
        {
            text.push_str(&rest[..at]);
            rest = &rest[at + close..];
        }
    }
    text.push_str(rest);
    session
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for node in &self.nodes {
            state.write_u64(node.print);
        }
        (
            &self.wires,
            &self.keeper,
            &self.ledger,
            &self.under,
            self.used,
        )
            .hash(state);
    }
}
