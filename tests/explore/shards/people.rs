//! What people ask of a node, and how a model comes to its beginning.

use foreshadow::effect::{Effect, Effects};
use foreshadow::event::{Asked, Event};
use foreshadow::serve::query::{MOVE_TIMEOUT, NodeName, Query};
use foreshadow::shard::Role;

use super::world::{Limits, NOW, Start, World, database, name_of};
use super::{Action, promises};
use crate::bfs::Model;

/// More steps than this to the beginning of a model mean that it has none.
const STEPS_MAX: usize = 500;

impl World {
    /// Asks, and says whether it was agreed to.
    fn asks(&mut self, node: usize, query: Query) -> bool {
        let asked = Asked(1);
        let mut out = Effects::default();
        let mut probe = self.nodes[node].shard.clone().expect("asked while it runs");
        let event = Event::Asked { asked, query };
        probe.step(NOW, event.clone(), &mut out);
        let refused = |effect: &Effect| matches!(effect, Effect::Reply { reply: Err(_), .. });
        let agreed = !out.0.iter().any(refused);
        if agreed {
            self.tell(node, event);
        }
        agreed
    }

    pub fn rolls_back(&mut self, node: usize) {
        let partition = database();
        self.used.rollbacks += u8::from(self.asks(node, Query::Rollback { partition }));
    }

    pub fn cancels(&mut self, node: usize) {
        let shard = self.nodes[node]
            .shard
            .as_ref()
            .expect("offered while it runs");
        let newest = shard.moves().filter(|entry| !entry.stage.is_final()).last();
        if let Some(id) = newest.map(|entry| entry.id) {
            self.used.cancels += u8::from(self.asks(node, Query::CancelMove { id }));
        }
    }

    /// Of a takeover that people insist on: reachable or not.
    pub fn promotes(&mut self, node: usize) {
        let (partition, force) = (database(), true);
        let query = Query::Promote { partition, force };
        self.used.promotes += u8::from(self.asks(node, query));
    }
}

impl Limits {
    pub fn add_people(&self, world: &World, actions: &mut Vec<Action>) {
        let used = &world.used;
        for (index, node) in world.nodes.iter().enumerate() {
            let live = node.disk.live.as_ref();
            if used.writes < self.writes && live.is_some_and(|live| live.is_writable()) {
                actions.push(Action::Write(index));
            }
            match node.role() {
                Some(Role::Owner(owner)) => {
                    if used.rollbacks < self.rollbacks && owner.source.is_serving() {
                        actions.push(Action::Rollback(index));
                    }
                    if used.cancels < self.cancels {
                        actions.push(Action::Cancel(index));
                    }
                }
                Some(Role::Shadow(_)) if used.promotes < self.promotes => {
                    actions.push(Action::Promote(index));
                }
                _ => {}
            }
        }
    }
}

/// The world at the beginning of a model: the same steps each time.
pub fn start(limits: &Limits) -> World {
    let calm = Limits {
        writes: 0,
        rollbacks: 0,
        cancels: 0,
        promotes: 0,
        crashes: 0,
        powers: 0,
        breaks: 0,
        failures: 0,
        losses: 0,
        early: 0,
        ..*limits
    };
    let mut world = World::new(limits);
    until(&calm, &mut world, promises::is_settled);
    if matches!(limits.start, Start::Moving | Start::Moved) {
        let query = Query::StartMove {
            partition: database(),
            to: NodeName::new(name_of(1)).expect("a plain name"),
            dry_run: false,
            timeout: MOVE_TIMEOUT,
        };
        assert!(world.asks(0, query), "a settled database can be moved");
        until(&calm, &mut world, |world| world.nodes[1].serves().is_some());
    }
    if limits.start == Start::Moved {
        until(&calm, &mut world, promises::is_settled);
    }
    world.variant = limits.variant;
    world.cut = limits.cut;
    if limits.cut {
        (0..world.wires.len()).for_each(|wire| world.breaks(wire));
    }
    if limits.start == Start::Lost {
        world.crashes(0);
    }
    world.take_prints();
    world
}

/// Goes on until `there`, the last node first.
fn until(calm: &Limits, world: &mut World, there: impl Fn(&World) -> bool) {
    for step in 0..STEPS_MAX {
        if there(world) {
            return;
        }
        let actions = calm.actions(world);
        let timeless: Vec<&Action> = actions
            .iter()
            .filter(|action| !matches!(action, Action::Time(_)))
            .collect();
        let action = match timeless.last() {
            Some(action) => **action,
            None => actions[step % actions.len()],
        };
        calm.apply(world, &action);
    }
    panic!("no way to the beginning: {}", calm.describe(world));
}
