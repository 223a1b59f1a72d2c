//! Nodes, links and the coordinator of a script.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foreshadow::control::coordinator::{
    Act, Conflict, OwnerRecord, Request as Asked, Revision, decide,
};
use foreshadow::effect::{Effect, Effects, Note, Request};
use foreshadow::event::{Event, Failure, LinkId, Outcome, Remains, Ticket};
use foreshadow::runtime::errands::{self, ownership};
use foreshadow::shard::{Peer, Settings, Shard, refusal};
use foreshadow::{ship, switch};
use wal::message::Message;
use wal::{NodeId, PartitionName, Span, Time};

use crate::shell::Disk;
use crate::words;

/// One node: its brain while it runs, and what outlives it.
pub struct Node {
    pub name: String,
    pub settings: Settings,
    pub shard: Option<Shard>,
    pub disk: Disk,
    /// Its newest note of a switchover, and per peer its newest wish for a shadow.
    pub note: Option<Note>,
    pub wishes: BTreeMap<NodeId, Note>,
    pub inbox: VecDeque<Event>,
    /// Answers that come later.
    pub late: VecDeque<Event>,
}

/// Something that a script keeps back, by one word of its line.
pub struct Held {
    pub node: String,
    pub word: String,
    pub kept: VecDeque<Effect>,
}

#[derive(Default)]
pub struct World {
    pub now: Time,
    pub nodes: BTreeMap<String, Node>,
    pub links: Vec<(String, String)>,
    pub owner: Option<OwnerRecord>,
    /// The coordinator's news do not reach them.
    pub deaf: BTreeSet<String>,
    pub held: Vec<Held>,
    pub log: Vec<String>,
    pub writes: u64,
}

pub fn database() -> PartitionName {
    PartitionName::new("t.db").expect("a plain name")
}

impl World {
    pub fn add_nodes(&mut self, names: &[&str]) {
        for name in names {
            let others = names.iter().filter(|other| *other != name);
            let peers = others.map(|other| {
                let peer = Peer {
                    name: (*other).to_owned(),
                    address: String::new(),
                    lanes: 1,
                };
                (NodeId::of(other), peer)
            });
            let settings = Settings {
                node: NodeId::of(name),
                name: (*name).to_owned(),
                cluster: "demo".to_owned(),
                shard: 0,
                shards: 1,
                peers: peers.collect(),
                ship: ship::Settings {
                    copies: 0,
                    ..ship::Settings::default()
                },
                switch: switch::Settings::default(),
            };
            let node = Node {
                name: (*name).to_owned(),
                settings,
                shard: None,
                disk: Disk::default(),
                note: None,
                wishes: BTreeMap::new(),
                inbox: VecDeque::new(),
                late: VecDeque::new(),
            };
            self.nodes.insert((*name).to_owned(), node);
        }
        for name in names {
            self.start(name);
        }
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        let known = self.nodes.get_mut(name);
        known.unwrap_or_else(|| panic!("no node is called {name}"))
    }

    pub fn name_of(&self, id: NodeId) -> String {
        let found = self.nodes.values().find(|node| node.settings.node == id);
        found.map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    pub fn id_of(&self, name: &str) -> NodeId {
        self.nodes[name].settings.node
    }

    /// A daemon starts and finds what is on its disk, as runtime/recover.rs tells it.
    pub fn start(&mut self, name: &str) {
        let node = self.node(name);
        node.shard = Some(Shard::new(node.settings.clone()));
        node.disk.settle_landing(node.note);
        let partition = database().id();
        for note in node.note.iter().chain(node.wishes.values()) {
            let note = *note;
            node.inbox.push_back(Event::Noted { partition, note });
        }
        if let Some(remains) = node.disk.remains() {
            let name = database();
            node.inbox.push_back(Event::Recovered { name, remains });
        }
        if node.disk.live.is_some() && !matches!(node.disk.remains(), Some(Remains::Landing { .. }))
        {
            node.inbox.push_back(Event::Found { name: database() });
        }
        self.call(name, |shard, now, out| shard.open(now, out));
        // Every record is told to a daemon that starts.
        if !self.deaf.contains(name) {
            self.news(name);
        }
        self.settle();
    }

    pub fn crash(&mut self, name: &str) {
        let node = self.node(name);
        node.shard = None;
        node.inbox.clear();
        node.late.clear();
        node.disk.daemon_died();
        self.held.retain(|held| held.node != name);
        let ends: Vec<(String, String)> = self.links.clone();
        for (one, two) in ends {
            if one == name || two == name {
                self.link_breaks(&one, &two);
            }
        }
        self.settle();
    }

    pub fn lose_power(&mut self, name: &str) {
        self.crash(name);
        self.node(name).disk.undo_exchange();
    }

    pub fn link_comes_up(&mut self, one: &str, two: &str) {
        self.links.push((one.to_owned(), two.to_owned()));
        for (here, there) in [(one, two), (two, one)] {
            let link = LinkId {
                peer: self.id_of(there),
                lane: 0,
            };
            let back = LinkId {
                peer: self.id_of(here),
                lane: 0,
            };
            let hello = self.nodes[there].settings.hello(back);
            if let Some(reason) = refusal(&self.nodes[here].settings, link, &hello) {
                self.log.push(format!("{here} refuses: {reason}"));
            }
            self.tell(here, Event::LinkUp { link, hello });
        }
        self.settle();
    }

    pub fn link_breaks(&mut self, one: &str, two: &str) {
        let ends = |(a, b): &(String, String)| a == one && b == two || a == two && b == one;
        self.links.retain(|link| !ends(link));
        for (here, there) in [(one, two), (two, one)] {
            let link = LinkId {
                peer: self.id_of(there),
                lane: 0,
            };
            let reason = "the link broke".to_owned();
            self.tell(here, Event::LinkDown { link, reason });
        }
    }

    pub fn are_linked(&self, one: &str, two: &str) -> bool {
        let ends = |(a, b): &(String, String)| a == one && b == two || a == two && b == one;
        self.links.iter().any(ends)
    }

    pub fn tell(&mut self, name: &str, event: Event) {
        let node = self.node(name);
        if node.shard.is_some() {
            node.inbox.push_back(event);
        }
    }

    pub fn done(&mut self, name: &str, ticket: Ticket, result: Result<Outcome, Failure>) {
        self.tell(name, Event::Done { ticket, result });
    }

    /// Events are taken in turn until nothing happens any more.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let waiting = self.nodes.values().find(|node| !node.inbox.is_empty());
            let Some(name) = waiting.map(|node| node.name.clone()) else {
                return;
            };
            let event = self.node(&name).inbox.pop_front().expect("found above");
            self.call(&name, |shard, now, out| shard.step(now, event, out));
        }
        panic!("a script came to no end");
    }

    pub fn call(&mut self, name: &str, call: impl FnOnce(&mut Shard, Time, &mut Effects)) {
        let (now, mut out) = (self.now, Effects::default());
        let Some(shard) = self.node(name).shard.as_mut() else {
            return;
        };
        call(shard, now, &mut out);
        shard.flush(now, &mut out);
        for effect in out.0 {
            self.take(name, effect);
        }
    }

    /// Time passes; timers fire when they are due.
    pub fn tick(&mut self, span: Span) {
        let end = self.now + span;
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        while self.now < end {
            self.now = (self.now + Span::millis(50)).min(end);
            for name in &names {
                self.call(name, |shard, now, out| shard.on_time(now, out));
            }
            self.settle();
        }
    }

    /// An effect leaves the shard: it is kept back if the script says so, else executed.
    fn take(&mut self, name: &str, effect: Effect) {
        let line = words::line(self, &effect);
        let keeps = |held: &&mut Held| {
            let word = |line: &String| line.split(' ').any(|word| word == held.word);
            held.node == name && line.as_ref().is_some_and(word)
        };
        let is_done = !matches!(effect, Effect::Reply { .. } | Effect::Publish { .. });
        if let Some(held) = self.held.iter_mut().find(keeps).filter(|_| is_done) {
            held.kept.push_back(effect);
            let line = line.expect("only what has a line is kept");
            self.log.push(format!("{name} {line} [held]"));
            return;
        }
        if let Some(line) = line {
            self.log.push(format!("{name} {line}"));
        }
        self.execute(name, effect);
    }

    pub fn deliver(&mut self, name: &str, link: LinkId, message: Message) {
        let there = self.name_of(link.peer);
        if !self.are_linked(name, &there) {
            return;
        }
        let link = LinkId {
            peer: self.id_of(name),
            lane: 0,
        };
        self.tell(&there, Event::Received { link, message });
    }

    /// As runtime/errands.rs asks; the decision is the coordinator's own.
    pub fn coordinate(&mut self, name: &str, ticket: Ticket, request: Request) {
        let node = self.id_of(name);
        let before = self.owner.as_ref().map(|record| record.owner);
        let answer = self.decide(errands::act(node, request));
        let result = errands::outcome(node, ticket.task, answer);
        self.done(name, ticket, result);
        let after = self.owner.as_ref().map(|record| record.owner);
        if before.is_some() && before != after {
            self.announce(name);
        }
    }

    fn decide(&mut self, act: Act) -> Result<OwnerRecord, Conflict> {
        let name = database();
        let asked = Asked { name, act };
        if let Some(record) = decide(self.owner.as_ref(), &asked, Revision(1))? {
            self.owner = Some(record);
        }
        Ok(self.owner.clone().expect("decided on"))
    }

    /// The others hear of the newest owner, if they can.
    fn announce(&mut self, from: &str) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for other in names.iter().filter(|other| *other != from) {
            if !self.deaf.contains(other) {
                self.news(other);
            }
        }
    }

    /// The coordinator's newest record reaches a node.
    pub fn news(&mut self, name: &str) {
        let Some(record) = &self.owner else { return };
        let ownership = ownership(record, self.id_of(name));
        let event = Event::Owned {
            name: database(),
            ownership,
        };
        self.tell(name, event);
    }
}
