//! One core's brain: a plain struct that owns the partitions hashed to it.
//!
//! `step(now, event, &mut effects)` is the only door, and the only place that matches the whole
//! event enum. There is no clock, socket, file, thread or randomness in here; the daemon, the
//! simulator and the explorer execute the effects. `flush` ends a batch of events: what can be said
//! once for many events is said there.

mod ask;
mod claim;
mod deposed;
mod landing;
mod links;
mod moves;
mod orphan;
mod owner;
mod partition;
mod report;
mod retire;
mod shadow;

use std::collections::{BTreeMap, BTreeSet};

use wal::{NodeId, PartitionId, PartitionName, Span, Time};

pub use links::{Link, refusal};
pub use moves::Move;
pub use partition::{Owner, Partition, Role, Shadow};
pub use report::Census;

use crate::effect::{Effect, Effects, Note, Notice, NoticeKind};
use crate::event::{Event, Outcome, Task, Ticket};
use crate::{ship, switch};

/// A peer as configured.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    pub name: String,
    pub address: String,
    /// Least common multiple of both nodes' shard counts.
    pub lanes: u16,
}

/// What a shard has to know of its node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    pub node: NodeId,
    pub name: String,
    pub cluster: String,
    pub shard: u16,
    pub shards: u16,
    pub peers: BTreeMap<NodeId, Peer>,
    pub ship: ship::Settings,
    pub switch: switch::Settings,
}

/// One core's brain.
#[derive(Clone, Debug)]
pub struct Shard {
    settings: Settings,
    links: BTreeMap<links::LinkKey, Link>,
    partitions: BTreeMap<PartitionId, Partition>,
    moves: moves::Moves,
    /// Partitions that an event touched since the last flush.
    dirty: BTreeSet<PartitionId>,
    /// Deadlines of partitions, earliest first; idle partitions cost nothing.
    timers: BTreeSet<(Time, PartitionId)>,
    timer_of: BTreeMap<PartitionId, Time>,
    /// Notes about partitions whose name is not known yet.
    early_notes: BTreeMap<PartitionId, Vec<Note>>,
}

/// How often a switchover that waits for its moment is looked at.
const CONVERGE_EVERY: Span = Span::millis(2);

impl Shard {
    /// A shard that knows its peers and nothing else.
    pub fn new(settings: Settings) -> Shard {
        Shard {
            links: BTreeMap::new(),
            partitions: BTreeMap::new(),
            moves: moves::Moves::new(settings.shard),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            early_notes: BTreeMap::new(),
            settings,
        }
    }

    /// Begins: the effects dial the peers.
    pub fn open(&mut self, now: Time, out: &mut Effects) {
        self.open_links(now, out);
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn partitions(&self) -> &BTreeMap<PartitionId, Partition> {
        &self.partitions
    }

    /// What all partitions come to.
    pub fn census(&self) -> Census {
        report::census(self)
    }

    /// The moves that are remembered, oldest first.
    pub fn moves(&self) -> impl Iterator<Item = &Move> {
        self.moves.iter()
    }

    /// How long the last finished move of a partition held its writers.
    pub fn last_pause(&self, partition: PartitionId) -> Option<Span> {
        let moves = self
            .moves
            .iter()
            .filter(|entry| entry.partition == partition);
        moves.filter_map(|entry| entry.pause).last()
    }

    /// One event happened.
    pub fn step(&mut self, now: Time, event: Event, out: &mut Effects) {
        match event {
            Event::Found { name } => self.on_found(name, out),
            Event::Vanished { partition, reason } => self.on_vanished(partition, &reason, out),
            Event::Rejected { name, reason } => self.on_rejected(name, reason, out),
            Event::Recovered { name, remains } => self.on_recovered(now, name, remains),
            Event::Noted { partition, note } => self.on_noted(partition, note),
            Event::Advanced {
                partition,
                position,
                bytes,
            } => {
                self.on_advanced(partition, position, bytes, out);
            }
            Event::Broken { partition, reason } => self.on_broken(partition, reason, out),
            Event::LinkUp { link, hello } => self.on_link_up(now, link, &hello, out),
            Event::LinkDown { link, reason } => self.on_link_down(now, link, reason, out),
            Event::Received { link, message } => self.on_message(now, link, message, out),
            Event::Arrived {
                link,
                partition,
                frame,
                cargo,
            } => {
                if let Some((partition, _)) = self.entry(partition) {
                    partition.on_frame(link, frame, cargo, out);
                }
            }
            Event::Owned { name, ownership } => self.on_owned(now, name, ownership, out),
            Event::Asked { asked, query } => self.on_asked(now, asked, query, out),
            Event::Done { ticket, result } => self.on_done(now, ticket, result, out),
        }
    }

    /// The end of a batch of events.
    pub fn flush(&mut self, now: Time, out: &mut Effects) {
        let window = self.settings.ship.window;
        self.dirty.extend(self.moves.partitions());
        for id in std::mem::take(&mut self.dirty) {
            let Some(partition) = self.partitions.get_mut(&id) else {
                continue;
            };
            self.moves.follow(now, id, partition, &self.links, out);
            partition.flush(window, out);
            let deadline = partition.deadline();
            self.set_timer(id, deadline);
        }
    }

    /// When [`Shard::on_time`] has to be called at the latest.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let links = self.links.values().filter_map(Link::deadline);
        let partitions = self.timers.first().map(|(time, _)| *time);
        let moves = self.moves.is_waiting().then_some(now + CONVERGE_EVERY);
        links.chain(partitions).chain(moves).min()
    }

    /// A deadline may have passed.
    pub fn on_time(&mut self, now: Time, out: &mut Effects) {
        self.tend_links(now, out);
        while let Some((time, id)) = self.timers.first().copied()
            && time <= now
        {
            self.set_timer(id, None);
            self.dirty.insert(id);
            self.tend_partition(now, id, out);
        }
    }

    fn set_timer(&mut self, id: PartitionId, deadline: Option<Time>) {
        if let Some(old) = self.timer_of.remove(&id) {
            self.timers.remove(&(old, id));
        }
        if let Some(deadline) = deadline {
            self.timers.insert((deadline, id));
            self.timer_of.insert(id, deadline);
        }
    }

    fn on_done(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Outcome, crate::event::Failure>,
        out: &mut Effects,
    ) {
        if matches!(ticket.task, Task::Claim | Task::Pass | Task::Seize) {
            self.on_coordinated(now, ticket, result, out);
            return;
        }
        if let Some((partition, settings)) = self.entry(ticket.partition) {
            partition.on_done(now, ticket, result, settings, out);
        }
        if ticket.task == Task::Attach {
            self.check_deposed(ticket.partition, out);
        }
        if ticket.task == Task::Attach || ticket.task == Task::Retire {
            self.refresh_senders(ticket.partition, out);
        }
    }

    fn entry(&mut self, id: PartitionId) -> Option<(&mut Partition, &Settings)> {
        self.dirty.insert(id);
        let partition = self.partitions.get_mut(&id)?;
        Some((partition, &self.settings))
    }

    /// The partition of this name, made if it is not known yet.
    fn known(&mut self, name: PartitionName) -> &mut Partition {
        self.dirty.insert(name.id());
        let notes = self.early_notes.remove(&name.id()).unwrap_or_default();
        let partition = self
            .partitions
            .entry(name.id())
            .or_insert_with(|| Partition::new(name));
        for note in notes {
            partition.take_note(note);
        }
        partition
    }

    fn lane_link(&self, partition: PartitionId, peer: NodeId) -> Option<links::LinkKey> {
        let lanes = self.settings.peers.get(&peer)?.lanes;
        Some(links::LinkKey {
            peer,
            lane: (partition.0 % u64::from(lanes)) as u16,
        })
    }
}

/// Tells people and metrics.
pub(crate) fn publish(
    out: &mut Effects,
    partition: PartitionId,
    kind: NoticeKind,
    text: impl Into<String>,
) {
    out.push(Effect::Publish {
        notice: Notice {
            partition,
            kind,
            text: text.into(),
        },
    });
}
