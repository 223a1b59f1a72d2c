//! What people and accidents do, and when; operators' wishes.

use foreshadow::effect::{Effect, Effects};
use foreshadow::event::{Asked, Event};
use foreshadow::serve::query::{MoveId, NodeName, Query};
use foreshadow::serve::reply::Reply;
use wal::{PartitionId, Span, Time};

use super::world::{Happening, Place, World};

/// Somebody does something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A connection begins a commit; the second number tells its attempts apart.
    Write(usize, u64),
    Commit(usize, u64),
    Move,
    Cancel,
    Promote,
    Trim,
    Checkpoint,
    Crash,
    CrashNode(usize, bool),
    Power,
    Kill,
    Start(usize),
    Break,
    Cut,
    Part,
    KeeperDown,
    Full,
    Slow,
    Heal,
}

/// What was done so far, and when faults end.
#[derive(Default)]
pub struct People {
    pub faulty_until: Time,
    pub moves: u64,
    pub crashes: u64,
    pub takeovers: u64,
    pub writes: u64,
    pub accidents: u64,
    /// Somebody asked for a shadow to go: there may be fewer than configured.
    pub unwanted: bool,
}

impl World {
    pub fn begin(&mut self) {
        self.people.faulty_until = self.now + self.plan.faulty();
        for number in 0..self.writers.len() {
            let delay = self.random.micros(1, 2 * self.plan.write_every);
            self.later(delay, Happening::Act(Act::Write(number, 0)));
        }
        for act in [
            Act::Move,
            Act::Cancel,
            Act::Promote,
            Act::Trim,
            Act::Checkpoint,
            Act::Crash,
            Act::Power,
            Act::Kill,
            Act::Break,
            Act::Cut,
            Act::Part,
            Act::KeeperDown,
            Act::Full,
            Act::Slow,
        ] {
            self.again(act);
        }
        if self.plan.endless == 0 {
            let end = self.people.faulty_until;
            self.at(end, Happening::Act(Act::Heal));
        }
    }

    pub fn faulty(&self) -> bool {
        self.now < self.people.faulty_until
    }

    pub fn faulty_until(&self) -> Time {
        self.people.faulty_until
    }

    /// Mean time between two acts of a kind.
    fn every(&self, act: Act) -> u64 {
        let plan = &self.plan;
        match act {
            Act::Move => plan.move_every,
            Act::Cancel => plan.cancel_every,
            Act::Promote => plan.promote_every,
            Act::Trim => plan.trim_every,
            Act::Checkpoint => plan.checkpoint_every,
            Act::Crash => plan.crash_every,
            Act::Power => plan.power_every,
            Act::Kill => plan.kill_every,
            Act::Break => plan.break_every,
            Act::Cut => plan.cut_every,
            Act::Part => plan.part_every,
            Act::KeeperDown => plan.keeper_down_every,
            Act::Full => plan.full_every,
            Act::Slow => plan.slow_every,
            Act::Write(..) | Act::Commit(..) | Act::CrashNode(..) | Act::Start(_) | Act::Heal => 0,
        }
    }

    fn again(&mut self, act: Act) {
        let every = self.every(act);
        if every > 0 {
            let delay = self.random.micros(every / 2, every * 3 / 2);
            self.later(delay, Happening::Act(act));
        }
    }

    pub fn act(&mut self, act: Act) {
        match act {
            Act::Write(number, attempt) => return self.begin_commit(number, attempt),
            Act::Commit(number, attempt) => return self.end_commit(number, attempt),
            Act::Start(node) => return self.start(node),
            Act::Heal => return self.heal(),
            _ => {}
        }
        if !self.faulty() {
            return;
        }
        match act {
            Act::Move => self.start_move(),
            Act::Cancel => self.cancel_move(),
            Act::Promote => self.promote(),
            Act::Checkpoint => self.checkpoint(),
            _ if self.people.accidents >= self.plan.accidents => {}
            _ => {
                self.people.accidents += 1;
                self.accident(act);
            }
        }
        self.again(act);
    }

    pub fn any_node(&mut self) -> usize {
        self.random.below(self.nodes.len() as u64) as usize
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
        let query = match self.random.below(16) {
            0 => Query::AddShadow { partition, to },
            1 => {
                self.people.unwanted = true;
                Query::RemoveShadow {
                    partition,
                    node: to,
                }
            }
            2..4 => Query::Rollback { partition },
            _ => Query::StartMove {
                partition,
                to,
                dry_run: false,
                timeout: Span::millis(self.random.between(50, 10_000)),
            },
        };
        self.people.moves += 1;
        for node in 0..self.nodes.len() {
            let disk = self.nodes[node].disks.get(&id);
            if disk.is_some_and(|disk| disk.live.is_some()) {
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

    /// Somebody makes a shadow the owner: mostly where its owner does not run.
    fn promote(&mut self) {
        let id = self.any_partition();
        let partition = self.names[&id].clone();
        let held = |node: &super::world::Node| {
            let disk = node.disks.get(&id);
            disk.is_some_and(|disk| disk.copy.is_some())
        };
        let owner = self.keeper.records.get(&id).map(|record| record.owner);
        let runs = |node: &super::world::Node| node.up && Some(node.id) == owner;
        if self.nodes.iter().any(runs) && !self.random.chance(150) {
            return;
        }
        let force = self.random.chance(400);
        let first = self.any_node();
        let count = self.nodes.len();
        for node in (0..count).map(|step| (first + step) % count) {
            if self.nodes[node].up && held(&self.nodes[node]) {
                return self.ask(node, id, Query::Promote { partition, force });
            }
        }
    }

    fn newest_move(&mut self, place: Place) -> Option<MoveId> {
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
