//! Planned switchover: every interleaving of the grant protocol at small scope.
//!
//! | file | what it holds |
//! |---|---|
//! | `world` | nodes, disks, network, coordinator |
//! | `source_node`, `target_node` | the shells around the two machines, crash and recovery |
//! | `network` | what a delivered message does |
//! | `invariants` | the promises, by name |
//! | `variants` | protocols that are known to be wrong |
//! | `tests` | the models: what is explored, and what must be found |

mod invariants;
mod network;
mod source_node;
mod target_node;
mod tests;
mod variants;
mod world;

use std::fmt;

use crate::bfs::Model;
use source_node::SourceQueue;
use target_node::TargetQueue;
use world::{Limits, Packet, SourceRole, TargetRole, World};

/// What a crash takes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The daemon dies; everything written stays.
    Killed,
    /// What was not synced is gone too.
    PowerCut,
}

/// How an effect ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Done,
    Failed,
    /// It failed, but what it wrote is there, and may vanish in a power cut.
    FailedHalfway,
}

/// One step of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Start,
    Cancel,
    WriteAtSource,
    WriteAtTarget,
    Converge,
    SourceTimer,
    SourceRuns(SourceQueue, Fate),
    SourceHears(SourceQueue),
    SourceCrashes(Crash),
    SourceRestarts,
    TargetTimer,
    TargetRuns(TargetQueue, Fate),
    TargetHears(TargetQueue),
    TargetCrashes(Crash),
    TargetRestarts,
    TargetPasses,
    /// The next delta reaches the target.
    Stream,
    /// A lost copy is compared and filled again.
    Refill,
    Deliver(Packet),
    DeliverTwice(Packet),
    Lose(Packet),
    LinkBreaks,
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
        World::new()
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::with_capacity(16);
        self.add_people(world, &mut actions);
        world.source.add_actions(self, &world.used, &mut actions);
        let may_ask = !self.patient || world.network.is_empty();
        world
            .target
            .add_actions(self, &world.used, may_ask, &mut actions);
        self.add_meetings(world, &mut actions);
        self.add_network(world, &mut actions);
        actions
    }

    fn apply(&self, world: &mut World, action: &Action) {
        match *action {
            Action::Start => world.start_attempt(self),
            Action::Cancel => world.cancel(self),
            Action::WriteAtSource => world.source.content += 1,
            Action::WriteAtTarget => world.target.writes += 1,
            Action::Converge => world.converge(self),
            Action::SourceTimer => world.source_timer(self),
            Action::SourceRuns(queue, fate) => world.source_runs(queue, fate),
            Action::SourceHears(queue) => world.source_hears(self, queue),
            Action::SourceCrashes(crash) => world.source_crashes(crash),
            Action::SourceRestarts => world.source_restarts(self),
            Action::TargetTimer => world.target_timer(self),
            Action::TargetRuns(queue, fate) => world.target_runs(queue, fate),
            Action::TargetHears(queue) => world.target_hears(self, queue),
            Action::TargetCrashes(crash) => world.target_crashes(crash),
            Action::TargetRestarts => world.target_restarts(self),
            Action::TargetPasses => world.target_passes(),
            Action::Stream => world.stream(self),
            Action::Refill => world.refill(),
            Action::Deliver(packet) => {
                world.network.remove(&packet);
                world.deliver(self, packet);
            }
            Action::DeliverTwice(packet) => {
                world.used.duplicates += 1;
                world.deliver(self, packet);
            }
            Action::Lose(packet) => {
                world.used.losses += 1;
                world.network.remove(&packet);
            }
            Action::LinkBreaks => world.link_breaks(self),
        }
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        invariants::broken(world, self.variant)
    }

    fn is_settled(&self, world: &World) -> bool {
        invariants::is_settled(world)
    }

    fn is_progress(&self, action: &Action) -> bool {
        match action {
            Action::Start
            | Action::Cancel
            | Action::WriteAtSource
            | Action::WriteAtTarget
            | Action::SourceCrashes(_)
            | Action::TargetCrashes(_)
            | Action::DeliverTwice(_)
            | Action::Lose(_)
            | Action::LinkBreaks => false,
            Action::SourceRuns(_, fate) | Action::TargetRuns(_, fate) => *fate == Fate::Done,
            _ => true,
        }
    }

    fn describe(&self, world: &World) -> String {
        let (source, target) = (&world.source, &world.target);
        let machine = match &source.role {
            SourceRole::Owner(source) => name(source.state()),
            role => name(role),
        };
        let other = match &target.role {
            TargetRole::Shadow(target) => name(target.state()),
            role => name(role),
        };
        format!(
            "A: {machine}, {:?}, content {}{}, fence {:?} | B: {other}, {:?}, at {}{}{} | net {:?}",
            source.note,
            source.content,
            if source.locked { ", locked" } else { "" },
            source.fence,
            target.note,
            target.applied,
            if target.exchanged { ", live" } else { "" },
            match target.landing {
                Some(epoch) => format!(", landing {epoch}"),
                None => String::new(),
            },
            world.network
        )
    }
}

/// The name of a variant, without its fields.
fn name(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find([' ', '(', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}

impl Limits {
    fn add_people(&self, world: &World, actions: &mut Vec<Action>) {
        let source = &world.source;
        if source.acknowledges() && source.content < self.writes_at_source {
            actions.push(Action::WriteAtSource);
        }
        let target = &world.target;
        if target.exchanged && target.writes < self.writes_at_target {
            actions.push(Action::WriteAtTarget);
        }
        let Some(machine) = source.machine() else {
            return;
        };
        // What is being done to the engine ends before the next attempt begins.
        if machine.is_serving() && world.used.attempts < self.attempts {
            actions.push(Action::Start);
        }
        if world.used.cancels < self.cancels && !machine.is_serving() {
            actions.push(Action::Cancel);
        }
    }

    fn add_meetings(&self, world: &World, actions: &mut Vec<Action>) {
        let (source, target) = (&world.source, &world.target);
        if source.machine().is_none() {
            return;
        }
        let Some(machine) = target.machine() else {
            return;
        };
        match target.expected {
            Some(expected) if expected < source.content => actions.push(Action::Stream),
            None if machine.is_following() && target.is_idle() => actions.push(Action::Refill),
            _ => {}
        }
    }

    fn add_network(&self, world: &World, actions: &mut Vec<Action>) {
        for packet in &world.network {
            let heard = if packet.goes_to_target() {
                world.target.role != TargetRole::Down
            } else {
                world.source.role != SourceRole::Down
            };
            if heard {
                actions.push(Action::Deliver(*packet));
                if world.used.duplicates < self.duplicates {
                    actions.push(Action::DeliverTwice(*packet));
                }
            }
            if world.used.losses < self.losses {
                actions.push(Action::Lose(*packet));
            }
        }
        if world.used.breaks < self.breaks {
            actions.push(Action::LinkBreaks);
        }
    }
}
