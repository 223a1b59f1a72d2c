//! Accidents: processes and machines that die, links, disks and a coordinator that fail.

use foreshadow::effect::{Effect, EngineOperation, ShadowOperation};

use super::network::WireId;
use super::people::Act;
use super::start;
use super::world::{Happening, World};

impl World {
    pub fn accident(&mut self, act: Act) {
        match act {
            Act::Trim => {
                let node = self.any_node();
                for disk in self.nodes[node].disks.values_mut() {
                    disk.log.deltas.clear();
                }
            }
            Act::Crash => {
                let node = self.any_node();
                self.crash_for_a_while(node);
            }
            Act::CrashNode(node, true) => self.power_cut(node),
            Act::CrashNode(node, false) => self.crash_for_a_while(node),
            Act::Power => {
                let node = self.any_node();
                self.power_cut(node);
            }
            Act::Kill => {
                let node = self.any_node();
                self.kill_writers(node, false);
            }
            Act::Break => {
                if let Some(wire) = self.any_wire() {
                    self.break_wire(wire, None);
                }
            }
            Act::Cut => {
                if let Some(wire) = self.any_wire() {
                    self.cut(wire);
                }
            }
            Act::Part => self.part(),
            Act::KeeperDown => {
                let time = self.random.micros(10_000, 3_000_000);
                self.keeper.down_until = self.now + time;
            }
            Act::Full => {
                let (node, time) = (self.any_node(), self.random.micros(1_000, 2_000_000));
                self.nodes[node].full_until = self.now + time;
            }
            Act::Slow => {
                let (node, time) = (self.any_node(), self.random.micros(1_000, 500_000));
                self.nodes[node].slow_until = self.now + time;
            }
            _ => {}
        }
    }

    fn crash_for_a_while(&mut self, node: usize) {
        if self.nodes[node].up {
            self.people.crashes += 1;
            self.crash(node);
            let longest = if self.random.chance(500) {
                20_000
            } else {
                2_000_000
            };
            let delay = self.random.micros(1_000, longest);
            self.later(delay, Happening::Act(Act::Start(node)));
        }
    }

    /// A step of a switchover: just then, or a moment later, a node dies.
    pub fn aim(&mut self, node: usize, effect: &Effect) {
        let step = match effect {
            Effect::Record { .. } | Effect::Coordinate { .. } => true,
            Effect::Engine { operation, .. } => {
                !matches!(operation, EngineOperation::Thaw | EngineOperation::Detach)
            }
            Effect::Shadow { operation, .. } => matches!(
                operation,
                ShadowOperation::PrepareLanding { .. }
                    | ShadowOperation::SyncLanding
                    | ShadowOperation::Remap { .. }
                    | ShadowOperation::Abandon
                    | ShadowOperation::Discard
            ),
            _ => false,
        };
        if !step || !self.faulty() || !self.random.chance(self.plan.aimed) {
            return;
        }
        let other = self.any_node();
        for (node, chance) in [(node, 600), (other, 400)] {
            if self.random.chance(chance) {
                let delay = self
                    .random
                    .micros(1, 1 + 2 * self.plan.disk + self.plan.latency);
                let power = self.plan.power_every > 0 && self.random.chance(400);
                self.later(delay, Happening::Act(Act::CrashNode(node, power)));
            }
        }
    }

    /// A machine loses its power: its daemon, its applications, and what no disk had yet.
    fn power_cut(&mut self, node: usize) {
        if self.nodes[node].dark {
            return;
        }
        self.people.crashes += 1;
        self.say(|| format!("{} loses its power", self.nodes[node].name));
        self.crash(node);
        self.kill_writers(node, true);
        self.nodes[node].dark = true;
        let kept = self.random.below(6) as usize;
        let now = self.now;
        let World { nodes, random, .. } = self;
        let mut cut = Vec::new();
        for (id, disk) in &mut nodes[node].disks {
            let live = disk.live.as_ref().filter(|live| !live.fenced);
            let epoch = live.map(|live| live.epoch);
            start::power_cut(disk, random, now, kept);
            let live = disk.live.as_ref().map(|live| live.content.len());
            let undone = disk.copy.as_ref().map(|copy| copy.content.len());
            if let (Some(epoch), Some(len)) = (epoch, live.or(undone)) {
                cut.push((*id, epoch, len));
            }
        }
        for (id, epoch, len) in cut {
            self.touched.insert(id);
            let ledger = self.ledgers.entry(id).or_default();
            if epoch < ledger.floor || ledger.open {
                continue;
            }
            if len < ledger.durable {
                let lost = ledger.durable - len;
                self.broken = Some(format!("a power cut took {lost} synced writes"));
            }
            ledger.cut(len);
        }
        let delay = self.random.micros(50_000, 5_000_000);
        self.later(delay, Happening::Act(Act::Start(node)));
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

    /// The log of a database begins anew: mostly because the daemon has read all of it, sometimes
    /// because an application did it in a moment without a pin.
    pub fn checkpoint(&mut self) {
        let node = self.any_node();
        let rude = self.random.chance(100);
        for disk in self.nodes[node].disks.values_mut() {
            let Some(live) = disk.live.as_mut().filter(|live| live.writer.is_none()) else {
                continue;
            };
            let read = live.tail.is_none_or(|tail| {
                let all = tail.consumed == live.content.len();
                tail.lock == super::live::Lock::Free && (all || rude)
            });
            if read && !live.fenced {
                live.checkpoint();
            }
        }
    }

    /// No accidents from here on: everybody runs and reaches everybody.
    pub fn heal(&mut self) {
        self.say(|| "faults end".to_owned());
        self.network.parted.clear();
        self.keeper.down_until = self.now;
        for node in 0..self.nodes.len() {
            self.nodes[node].full_until = self.now;
            self.nodes[node].slow_until = self.now;
            self.start(node);
        }
    }

    /// How long a step on disk takes at most, just now.
    pub fn disk_time(&self, node: usize) -> u64 {
        let factor = if self.now < self.nodes[node].slow_until {
            10
        } else {
            1
        };
        self.plan.disk * factor
    }

    pub fn is_full(&self, node: usize) -> bool {
        self.now < self.nodes[node].full_until
    }
}
