//! One small cluster whose daemons obey boards of steps, and one round in it.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use foreshadow::cli::demo::harness::{
    Cluster, Engine, Load, Options, Pace, PendingMove, Program, Tenant, Writers,
};
use io::failpoint::{Action, BOARD_LEN, Board, Step};

use super::table::{By, place};
use super::tally::Tally;
use crate::cluster::{LIMIT, options, until};
use crate::look::{both_open, wrong_rows};
use crate::seed::Dice;

const TENANTS: u32 = 3;
/// Megabytes of a database: small, so that most of a round is what is tested.
const MEGABYTES: f64 = 0.1;
const WRITES_PER_SECOND: f64 = 15.0;
/// An append is one write and nothing else: with more of them there is one under way at every seal.
const APPENDS_PER_SECOND: f64 = 60.0;
/// A kill at a random moment comes so long after a move was asked for, at most.
const RANDOM_US_MAX: u64 = 60_000;
/// Longer than the `pause_timeout` of the rounds in which a daemon stands still.
const STOPPED: Duration = Duration::from_millis(700);

/// Who dies while a daemon is at the step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Victim {
    Daemon,
    Peer,
    Writer,
    DaemonAndPeer,
    DaemonAndWriter,
}

pub const VICTIMS: [Victim; 5] = [
    Victim::Daemon,
    Victim::Peer,
    Victim::Writer,
    Victim::DaemonAndPeer,
    Victim::DaemonAndWriter,
];

impl Victim {
    pub fn daemon(self) -> bool {
        !matches!(self, Victim::Peer | Victim::Writer)
    }

    fn peer(self) -> bool {
        matches!(self, Victim::Peer | Victim::DaemonAndPeer)
    }

    fn writer(self) -> bool {
        matches!(self, Victim::Writer | Victim::DaemonAndWriter)
    }
}

/// A cluster with boards and writers.
pub struct Stage {
    engine: Engine,
    pub cluster: Cluster,
    pub tally: Tally,
    pub dice: Dice,
    pub boards: Vec<Board>,
    writers: Option<Writers>,
    /// The move that was asked for last to meet a step.
    pub pending: Option<PendingMove>,
}

impl Stage {
    /// Two daemons, three tenants of an engine, every one with two writers: with SQLite's
    /// databases in a process of each SQLite, with native logs in one process of either.
    pub fn start(engine: Engine, seed: u64, pause_timeout: &str) -> Stage {
        let of = Options {
            engine,
            ..options(2)
        };
        let options = of
            .tweak("[ship]", "reconnect_min", "\"10ms\"")
            .tweak("[ship]", "reconnect_max", "\"100ms\"")
            .tweak("[switch]", "max_pause", "\"500ms\"")
            .tweak("[switch]", "pause_timeout", &format!("{pause_timeout:?}"));
        let mut cluster = Cluster::prepare(&options).expect("prepared");
        let boards = cluster.nodes.iter().map(|node| {
            let path = node.place.state().join("steps");
            fs::write(&path, [0; BOARD_LEN]).expect("written");
            Board::open(&path).expect("mapped")
        });
        let boards = boards.collect();
        let home = |number: u32| ["node-a", "node-b"][number as usize % 2];
        let tenants: Vec<Tenant> = (0..TENANTS)
            .map(|number| Tenant::of(engine, number, home(number), MEGABYTES))
            .collect();
        cluster
            .create_tenants(&tenants)
            .expect("databases are made");
        cluster.start_all().expect("every daemon is ready");
        cluster.wait_for_shadows(LIMIT).expect("ready shadows");
        let other = cluster
            .python()
            .map_or(Program::Bundled, |_| Program::Python);
        let mut load = Load::new(&[Program::Bundled, other]);
        let pace = Pace::Rate(match engine {
            Engine::Sqlite => WRITES_PER_SECOND,
            Engine::Native => APPENDS_PER_SECOND,
        });
        for tenant in &tenants {
            (0..2).for_each(|process| load.add(process, tenant, pace));
        }
        let writers = cluster.start_writers(&load).expect("writers start");
        let stage = Stage {
            engine,
            cluster,
            tally: Tally::default(),
            dice: Dice::of(seed),
            boards,
            writers: Some(writers),
            pending: None,
        };
        stage.goes_on((0..TENANTS).collect());
        stage
    }

    /// One round: `step` is met and `victim` dies there.
    pub fn round(&mut self, step: Step, victim: Victim) {
        let said = format!("{} {victim:?}", step.name());
        let (_, by) = place(step);
        let Some(tenant) = self.tenant_for(by) else {
            return self.tally.missed.push(format!("{said}: every file moved"));
        };
        let owner = self.owner(&tenant);
        let action = match victim {
            Victim::Daemon => Action::Kill,
            _ => Action::Hold,
        };
        let (at, met) = self.meet(step, action, &tenant, owner);
        self.tally.rounds += 1;
        if !met {
            self.boards[at].disarm();
            self.heal(&said, &tenant);
            return self.tally.missed.push(said);
        }
        self.tally.fired(step, victim);
        self.strike(at, victim);
        self.look_at_both(&said, &tenant);
        self.boards[at].release();
        self.heal(&said, &tenant);
    }

    /// One round in which the daemon stands still at the step, past every deadline of a move.
    pub fn stopped_round(&mut self, step: Step) {
        let said = format!("{} stopped", step.name());
        let tenant = self.tenant_for(By::Move).expect("a tenant");
        let owner = self.owner(&tenant);
        self.pending = None;
        let (at, met) = self.meet(step, Action::Stop, &tenant, owner);
        self.tally.rounds += 1;
        if met {
            self.tally.fired(step, Victim::Daemon);
            sleep(STOPPED);
            self.look_at_both(&said, &tenant);
            self.cluster.nodes[at].suspend(false);
        } else {
            self.boards[at].disarm();
            self.tally.missed.push(said.clone());
        }
        // Nobody died, so its end is known; until then nobody knows who the owner will be.
        if let Some(pending) = self.pending.take() {
            let ended = self.cluster.finish_move(&pending, LIMIT);
            ended.unwrap_or_else(|error| panic!("{said}: {error}"));
        }
        self.heal(&said, &tenant);
    }

    /// One round in which the step answers EIO, where it can; then the daemon is killed.
    pub fn failed_round(&mut self, step: Step) {
        let said = format!("{} failed", step.name());
        let tenant = self.tenant_for(By::Move).expect("a tenant");
        let owner = self.owner(&tenant);
        let (at, met) = self.meet(step, Action::Fail, &tenant, owner);
        self.tally.rounds += 1;
        if met {
            self.tally.fired(step, Victim::Daemon);
            self.goes_on_after_an_error(&said, &tenant, at);
            self.kill(at, Victim::Daemon);
        } else {
            self.boards[at].disarm();
            self.tally.missed.push(said.clone());
        }
        self.heal(&said, &tenant);
    }

    /// Without a restart: a start that met the error may end, a database may be refused for it; the
    /// applications must go on.
    fn goes_on_after_an_error(&mut self, said: &str, tenant: &str, at: usize) {
        let node = &mut self.cluster.nodes[at];
        until("it is ready, or ended for the error", || {
            let ready = node.get("/v1/status");
            let ready = ready.is_ok_and(|body| body["ready"] == true);
            (ready || !node.is_running()).then_some(())
        });
        if self.cluster.nodes[at].is_running() {
            let number = self.cluster.tenant(tenant).expect("it is there").number;
            let writers = self.writers_of(&[number]);
            if let Err(error) = self.cluster.wait_for_progress(&writers, LIMIT) {
                panic!("{said}: {error}\n{:#?}", self.cluster.views().get(tenant));
            }
        }
        self.look_at_both(said, tenant);
    }

    /// One round without a step: a move begins, and a moment later somebody dies.
    pub fn random_round(&mut self, victim: Victim) {
        let tenant = self.tenant_for(By::Move).expect("a tenant");
        let owner = self.owner(&tenant);
        let pending = self.ask(&tenant, 1 - owner);
        let at = self.dice.below(2) as usize;
        let delay = Duration::from_micros(self.dice.below(RANDOM_US_MAX));
        sleep(delay);
        self.tally.rounds += 1;
        self.tally.random += 1;
        let said = format!("{victim:?} {delay:?} after a move began ({pending})");
        self.kill(at, victim);
        self.look_at_both(&said, &tenant);
        self.heal(&said, &tenant);
    }

    /// The step is met: kills who has to die there.
    fn strike(&mut self, at: usize, victim: Victim) {
        if victim == Victim::Daemon {
            self.bury(at);
            self.tally.kills += 1;
        } else {
            self.kill(at, victim);
        }
    }

    /// kill -9 of everybody of whom the victim consists.
    pub fn kill(&mut self, at: usize, victim: Victim) {
        if victim.writer() {
            let index = self.dice.below(2) as usize;
            self.writers.as_mut().expect("they run").kill9(index);
            self.tally.kills += 1;
        }
        for (node, dies) in [(at, victim.daemon()), (1 - at, victim.peer())] {
            if dies {
                self.cluster.nodes[node].kill_at_once();
                self.tally.kills += 1;
            }
        }
    }

    /// Every writer dies, and every shadow comes to where its owner is.
    pub fn stop_writing(&mut self) {
        let writers = self.writers.as_mut().expect("they run");
        (0..writers.count()).for_each(|index| writers.kill9(index));
        let behind = self.cluster.settle(LIMIT);
        assert!(behind.is_empty(), "{behind:?}");
    }

    /// Waits for a daemon that kills itself.
    pub fn bury(&mut self, at: usize) {
        until("the daemon dies at its step", || {
            (!self.cluster.nodes[at].is_running()).then_some(())
        });
        self.cluster.nodes[at].kill_at_once();
    }

    /// Starts who is dead; then everything has to be as if nothing had happened.
    pub fn heal(&mut self, said: &str, tenant: &str) {
        if let Err(error) = self.cluster.start_all() {
            panic!("{said}: {error}");
        }
        let writers = self.writers.as_mut().expect("they run");
        for index in 0..writers.count() {
            writers.restart_if_dead(index).expect("it starts again");
        }
        let owner = self.cluster.wait_for_one_owner(tenant, LIMIT);
        let owner = owner.unwrap_or_else(|error| {
            let views = self.cluster.views();
            panic!("{said}: {error}\n{:#?}", views.get(tenant))
        });
        self.look_at_both(said, tenant);
        let number = self.cluster.tenant(tenant).expect("it is there").number;
        let all = self.writers_of(&[number]);
        if let Err(error) = self.cluster.wait_for_progress(&all, LIMIT) {
            panic!("{said}, {owner} owns {tenant}: {error}");
        }
        let wrong = wrong_rows(&self.cluster, tenant, &all);
        self.tally.looks += 1;
        for line in wrong {
            self.tally.wrong.push(format!("{said}: {line}"));
        }
        self.look_at_both(said, tenant);
    }

    pub fn look_at_both(&mut self, said: &str, tenant: &str) {
        if both_open(&self.cluster, tenant) {
            self.tally.both_open += 1;
            let line = format!("{said}: {tenant} is open at both nodes");
            self.tally.wrong.push(line);
        }
    }

    /// Writers of so many tenants: one of each process.
    fn writers_of(&self, tenants: &[u32]) -> Vec<u32> {
        tenants
            .iter()
            .flat_map(|tenant| [2 * tenant + 1, 2 * tenant + 2])
            .collect()
    }

    fn goes_on(&self, tenants: Vec<u32>) {
        let writers = self.writers_of(&tenants);
        let went = self.cluster.wait_for_progress(&writers, LIMIT);
        went.expect("the applications write");
    }

    pub fn owner(&self, tenant: &str) -> usize {
        let owner = self.cluster.owner_of(tenant).expect("one owner");
        usize::from(owner == "node-b")
    }

    /// A tenant with a ready shadow, any; for a first move one that has not moved yet.
    pub fn tenant_for(&mut self, by: By) -> Option<String> {
        let plain = |name: &str| {
            let mut paths = self
                .cluster
                .nodes
                .iter()
                .map(|one| one.place.live().join(name));
            paths.any(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()))
                && self
                    .cluster
                    .nodes
                    .iter()
                    .all(|one| !one.place.live().join(name).is_symlink())
        };
        let names = self
            .cluster
            .tenants
            .iter()
            .map(|tenant| tenant.name.clone());
        let names: Vec<String> = names
            .filter(|name| by != By::FirstMove || plain(name))
            .collect();
        if names.is_empty() {
            return None;
        }
        Some(self.dice.pick(&names).clone())
    }

    pub fn wait_for_shadow(&self, tenant: &str) {
        until(&format!("{tenant} has a ready shadow"), || {
            let views = self.cluster.views();
            let mut views = views.get(tenant)?.iter();
            views.any(|view| !view.ready.is_empty()).then_some(())
        });
    }

    /// A move that nothing disturbs.
    pub fn moves(&mut self, tenant: &str, target: usize) {
        self.wait_for_shadow(tenant);
        let name = self.cluster.nodes[target].place.name.clone();
        let report = self.cluster.move_partition(tenant, &name, LIMIT);
        let report = report.expect("the move ends");
        assert!(report.is_done(), "{report:?}");
    }

    pub fn board(&self, at: usize) -> &Board {
        &self.boards[at]
    }

    pub fn ask(&mut self, tenant: &str, target: usize) -> String {
        self.wait_for_shadow(tenant);
        let name = self.cluster.nodes[target].place.name.clone();
        match self.cluster.begin_move(tenant, &name) {
            Ok(pending) => pending.id,
            Err(error) => error.to_string(),
        }
    }

    /// What the nodes list, and what lies beside that which they serve.
    pub fn look_around(&self) {
        let names = self.cluster.tenants.iter().map(|tenant| &tenant.name[..]);
        let names: Vec<&str> = names.collect();
        for node in &self.cluster.nodes {
            let listed = node.get("/v1/partitions").expect("listed");
            let listed = listed.as_array().expect("a list").iter();
            let mut listed: Vec<&str> = listed.filter_map(|one| one["name"].as_str()).collect();
            listed.sort_unstable();
            assert_eq!(listed, names, "{} lists each once", node.place.name);
            for name in names.iter().filter(|_| self.engine == Engine::Native) {
                until(
                    &format!("no -wal lies beside {name}, which is served"),
                    || {
                        // A node that never had it has nothing there.
                        let log = node.place.live().join(name).canonicalize();
                        let dir = log.ok().and_then(|log| Some(log.parent()?.to_owned()));
                        let wal = dir.map(|dir| dir.join(format!("{name}-wal")));
                        wal.is_none_or(|wal| !wal.exists()).then_some(())
                    },
                );
            }
        }
    }

    /// Stops everything and compares every acknowledged row with what is on disk.
    pub fn end(mut self) -> Tally {
        self.goes_on((0..TENANTS).collect());
        let writers = self.writers.take().expect("they run");
        writers.stop().expect("every writer ends");
        self.cluster.settle(LIMIT);
        self.look_around();
        self.cluster.stop().expect("every daemon ends");
        let verdict = self.cluster.verify().expect("judged");
        self.tally.judge(&verdict);
        if !self.tally.wrong.is_empty() {
            self.cluster.keep();
            println!("kept: {}", self.cluster.root().display());
        }
        std::mem::take(&mut self.tally)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster.keep();
            println!("kept: {}", self.cluster.root().display());
        }
    }
}
