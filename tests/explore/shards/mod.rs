//! Whole shards at small scope: rollback after a move, and takeover through the coordinator.
//!
//! | file | what it holds |
//! |---|---|
//! | `world` | nodes, links, crash and start, how states are told apart |
//! | `shell`, `disk` | the executor of effects: databases of numbered writes |
//! | `keeper` | the coordinator, deciding with the daemon's own function |
//! | `promises` | what must be true of every state |
//! | `variants` | worlds that are known to be wrong |
//! | `tests` | the models: what is explored, and what must be found |
//!
//! A job and its answer are one step, or the daemon dies between them. Within a link everything
//! arrives in order. While something is under way deadlines pass only as often as a model allows.

mod disk;
mod keeper;
mod people;
mod promises;
mod shell;
mod tests;
mod variants;
mod world;

use std::fmt;

use crate::bfs::Model;
use disk::Live;
use foreshadow::shard::Role;
use world::{ENDS, Limits, World, name_of};

/// One step of the world; nodes, wires and queues by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Write(usize),
    Rollback(usize),
    Cancel(usize),
    Promote(usize),
    Crash(usize),
    Power(usize),
    Start(usize),
    Break(usize),
    Join(usize),
    Deliver(usize, usize),
    Run(usize, usize),
    Fail(usize, usize),
    /// A job is done, and the daemon dies before it knows.
    RunAndDie(usize, usize),
    Coordinate(usize),
    /// The coordinator does it, and the answer is lost.
    AnswerLost(usize),
    /// The coordinator never hears.
    Unheard(usize),
    Hear(usize),
    News(usize),
    Time(usize),
    /// Deadlines pass although something is under way.
    TimeEarly(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Model for Limits {
    type State = World;
    type Action = Action;

    fn start(&self) -> World {
        people::start(self)
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::with_capacity(24);
        self.add_people(world, &mut actions);
        for index in 0..world.nodes.len() {
            self.add_node(world, index, &mut actions);
        }
        self.add_network(world, &mut actions);
        actions
    }

    fn apply(&self, world: &mut World, action: &Action) {
        match *action {
            Action::Write(node) => world.writes(node),
            Action::Rollback(node) => world.rolls_back(node),
            Action::Cancel(node) => world.cancels(node),
            Action::Promote(node) => world.promotes(node),
            Action::Crash(node) => {
                world.used.crashes += 1;
                world.crashes(node);
            }
            Action::Power(node) => world.loses_power(node),
            Action::Start(node) => world.starts(node),
            Action::Break(wire) => {
                world.used.breaks += 1;
                world.breaks(wire);
            }
            Action::Join(wire) => world.joins(wire),
            Action::Deliver(wire, direction) => world.delivers(wire, direction),
            Action::Run(node, queue) => world.runs(node, queue, false),
            Action::Fail(node, queue) => {
                world.used.failures += 1;
                world.runs(node, queue, true);
            }
            Action::RunAndDie(node, queue) => {
                world.used.crashes += 1;
                world.runs(node, queue, false);
                world.crashes(node);
            }
            Action::Coordinate(node) => world.coordinates(node, true, true),
            Action::AnswerLost(node) => {
                world.used.losses += 1;
                world.coordinates(node, true, false);
            }
            Action::Unheard(node) => {
                world.used.losses += 1;
                world.coordinates(node, false, false);
            }
            Action::Hear(node) => world.hears(node),
            Action::News(node) => world.news(node),
            Action::Time(node) => world.time_passes(node),
            Action::TimeEarly(node) => {
                world.used.early += 1;
                world.time_passes(node);
            }
        }
        world.take_prints();
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        promises::broken(self, world)
    }

    /// Whoever took over may have died of it: somebody promotes again. States in which nobody does
    /// any more are not judged.
    fn is_settled(&self, world: &World) -> bool {
        promises::is_settled(world) || self.promotes > 0 && world.used.promotes >= self.promotes
    }

    fn is_progress(&self, action: &Action) -> bool {
        match action {
            Action::Start(_)
            | Action::Join(_)
            | Action::Deliver(..)
            | Action::Run(..)
            | Action::Coordinate(_)
            | Action::Hear(_)
            | Action::News(_)
            | Action::Promote(_)
            | Action::Time(_) => true,
            Action::Write(_)
            | Action::Rollback(_)
            | Action::Cancel(_)
            | Action::Crash(_)
            | Action::Power(_)
            | Action::Break(_)
            | Action::Fail(..)
            | Action::RunAndDie(..)
            | Action::AnswerLost(_)
            | Action::Unheard(_)
            | Action::TimeEarly(_) => false,
        }
    }

    fn describe(&self, world: &World) -> String {
        let mut text = String::new();
        for (index, node) in world.nodes.iter().enumerate() {
            let role = match node.role() {
                None if node.shard.is_none() => "down".to_owned(),
                None => "knows nothing".to_owned(),
                Some(Role::Owner(owner)) => {
                    format!("owner {} {}", owner.position, first(owner.source.state()))
                }
                Some(Role::Shadow(shadow)) => format!(
                    "shadow {} {}",
                    first(&shadow.receiver.copy()),
                    first(shadow.target.state())
                ),
                Some(role) => first(role),
            };
            let (live, copy) = (&node.disk.live, &node.disk.copy);
            let live = live
                .as_ref()
                .map(|live| (&live.content, live.is_writable()));
            let copy = copy.as_ref().map(|copy| (&copy.content, copy.landing));
            let jobs: usize = node.jobs.iter().map(|queue| queue.len()).sum();
            text += &format!(
                "{}: {role}, live {live:?}, copy {copy:?}, {:?}, {jobs} jobs, {} errands | ",
                name_of(index),
                node.note,
                node.errands.len() + node.answers.len()
            );
        }
        let record = world.keeper.record.as_ref();
        let record = record.map(|record| (record.owner, record.epoch, record.reserved));
        let wires: Vec<String> = world
            .wires
            .iter()
            .map(|wire| match wire.up {
                false => "down".to_owned(),
                true => format!("{}+{}", wire.queues[0].len(), wire.queues[1].len()),
            })
            .collect();
        format!("{text}record {record:?}, links {wires:?}")
    }
}

fn first(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find([' ', '(', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}

impl Limits {
    fn add_node(&self, world: &World, index: usize, actions: &mut Vec<Action>) {
        let (node, used) = (&world.nodes[index], &world.used);
        let may_crash = used.crashes < self.crashes;
        if node.shard.is_none() {
            actions.push(Action::Start(index));
            return;
        }
        for (queue, jobs) in node.jobs.iter().enumerate() {
            if jobs.is_empty() {
                continue;
            }
            actions.push(Action::Run(index, queue));
            if used.failures < self.failures {
                actions.push(Action::Fail(index, queue));
            }
            if may_crash {
                actions.push(Action::RunAndDie(index, queue));
            }
        }
        if !node.errands.is_empty() {
            actions.push(Action::Coordinate(index));
            if used.losses < self.losses {
                actions.push(Action::AnswerLost(index));
                actions.push(Action::Unheard(index));
            }
        }
        if !node.answers.is_empty() {
            actions.push(Action::Hear(index));
        }
        if node.told != world.revision() {
            actions.push(Action::News(index));
        }
        if may_crash {
            actions.push(Action::Crash(index));
        }
        let landing = |live: &Live| live.landing.is_some();
        if used.powers < self.powers && node.disk.live.as_ref().is_some_and(landing) {
            actions.push(Action::Power(index));
        }
        if world.is_quiet() {
            actions.push(Action::Time(index));
        } else if used.early < self.early {
            actions.push(Action::TimeEarly(index));
        }
    }

    fn add_network(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, wire) in world.wires.iter().enumerate() {
            let (one, two) = ENDS[index];
            let up = |node: usize| world.nodes[node].shard.is_some();
            if !wire.up {
                if up(one) && up(two) && !world.cut {
                    actions.push(Action::Join(index));
                }
                continue;
            }
            for (direction, queue) in wire.queues.iter().enumerate() {
                if !queue.is_empty() {
                    actions.push(Action::Deliver(index, direction));
                }
            }
            if world.used.breaks < self.breaks {
                actions.push(Action::Break(index));
            }
        }
    }
}
