//! Lag as an outsider measures it: from a commit being published until a peer has it durably. Also
//! counts the raw log that was written. Where each engine says so: its probe.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wal::PartitionName;

use super::clock::now_ns;
use super::engine::Engine;
use super::harness::Cluster;

/// How often watched databases are looked at.
const LOOK: Duration = Duration::from_micros(50);

/// How often routes are followed anew, and how often the others' logs are measured.
const FOLLOW_NS: u64 = 5_000_000;

/// Commits waiting for a durable position before older ones are given up: a peer is away.
const WAITING_MAX: usize = 100_000;

/// A look at one generation that is served now, from outside: it disturbs nobody.
pub trait Probe: Send {
    /// Bytes that writers appended to the log since the last call.
    fn appended(&mut self) -> Option<u64>;

    /// What is published and what a peer has.
    fn look(&mut self) -> Option<Look>;
}

/// What a probe saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Positions of different incarnations can't be compared.
    pub incarnation: (u64, u64),
    /// The last commit that is published, and when that was seen.
    pub published: u64,
    pub seen_ns: u64,
    /// The last commit that a peer has durably.
    pub durable: u64,
}

/// What a probe may read of the owner besides the database.
#[derive(Clone, Debug)]
pub struct State {
    /// The daemon's state directory.
    pub dir: PathBuf,
    pub partition: u64,
    pub page_size: u32,
}

/// What has been measured so far.
#[derive(Debug, Default)]
pub struct Measured {
    lags_ms: Mutex<Vec<f64>>,
    raw_wal_bytes: AtomicU64,
    stop: AtomicBool,
}

impl Measured {
    /// All lags so far.
    pub fn lags_ms(&self) -> Vec<f64> {
        self.lags_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Bytes that writers appended to logs so far.
    pub fn raw_wal_bytes(&self) -> u64 {
        self.raw_wal_bytes.load(Ordering::Relaxed)
    }
}

/// The sampling thread; stops when dropped.
#[derive(Debug)]
pub struct Sampler {
    pub measured: Arc<Measured>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Measures the lag of the first `watched` tenants, and the logs of all.
    pub fn start(cluster: &Cluster, watched: usize) -> Sampler {
        let places = cluster.nodes.iter().map(|node| &node.place);
        let nodes: Vec<_> = places
            .map(|place| (place.dir.clone(), place.state()))
            .collect();
        let mut logs: Vec<Log> = Vec::new();
        for (index, tenant) in cluster.tenants.iter().enumerate() {
            let route = cluster.routes().join(&tenant.name);
            let log = Log::new(tenant.engine, &tenant.name, route, tenant.page_size);
            logs.extend(log.map(|log| Log {
                watched: index < watched,
                ..log
            }));
        }
        let measured = Arc::new(Measured::default());
        let shared = Arc::clone(&measured);
        let thread = thread::spawn(move || run(&mut logs, &nodes, &shared));
        Sampler {
            measured,
            thread: Some(thread),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.measured.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panicking sampler only loses samples.
            let _ = thread.join();
        }
    }
}

fn run(logs: &mut [Log], nodes: &[(PathBuf, PathBuf)], measured: &Measured) {
    let mut followed_ns = 0;
    while !measured.stop.load(Ordering::Relaxed) {
        let now = now_ns();
        let follow = now.saturating_sub(followed_ns) > FOLLOW_NS;
        if follow {
            followed_ns = now;
        }
        for log in logs.iter_mut() {
            if follow {
                log.follow(nodes);
                log.count(measured);
            }
            if log.watched {
                log.look(measured);
            }
        }
        thread::sleep(LOOK);
    }
}

/// One database's log, wherever it is served now.
pub struct Log {
    engine: Engine,
    partition: u64,
    route: PathBuf,
    page_size: u32,
    watched: bool,
    served: Option<Served>,
}

/// The generation that is served now.
struct Served {
    database: PathBuf,
    probe: Box<dyn Probe>,
    last: Option<Look>,
    /// Commits seen and not yet durable at a peer: when, and which.
    waiting: VecDeque<(u64, u64)>,
}

impl Log {
    pub fn new(engine: Engine, name: &str, route: PathBuf, page_size: u32) -> Option<Log> {
        Some(Log {
            engine,
            partition: PartitionName::new(name)?.id().0,
            route,
            page_size,
            watched: false,
            served: None,
        })
    }

    /// Opens what is behind the route, if it is not what is open.
    pub fn follow(&mut self, nodes: &[(PathBuf, PathBuf)]) {
        let Ok(database) = fs::canonicalize(&self.route) else {
            return;
        };
        let is_served = |served: &Served| served.database == database;
        if self.served.as_ref().is_some_and(is_served) {
            return;
        }
        let state = nodes
            .iter()
            .find(|(dir, _)| database.starts_with(dir))
            .map(|(_, state)| self.state(state));
        let Some(probe) = self.engine.probe(&database, state.as_ref()) else {
            return;
        };
        self.served = Some(Served {
            database,
            probe,
            last: None,
            waiting: VecDeque::new(),
        });
    }

    fn state(&self, dir: &Path) -> State {
        State {
            dir: dir.to_owned(),
            partition: self.partition,
            page_size: self.page_size,
        }
    }

    /// Adds what was appended since the last look.
    pub fn count(&mut self, measured: &Measured) {
        let appended = self
            .served
            .as_mut()
            .and_then(|served| served.probe.appended());
        measured
            .raw_wal_bytes
            .fetch_add(appended.unwrap_or(0), Ordering::Relaxed);
    }

    /// Notes what was published, and how long what is durable now has waited.
    pub fn look(&mut self, measured: &Measured) {
        let Some(served) = &mut self.served else {
            return;
        };
        let Some(look) = served.probe.look() else {
            return;
        };
        let last = served.last.replace(look);
        let goes_on = last.filter(|last| {
            last.incarnation == look.incarnation && look.published >= last.published
        });
        match goes_on {
            // Another incarnation of the log: what waited can't be told apart any more.
            None => served.waiting.clear(),
            Some(last) => {
                if look.published > last.published && served.waiting.len() < WAITING_MAX {
                    served.waiting.push_back((look.seen_ns, look.published));
                }
            }
        }
        let now = now_ns();
        while let Some((seen_ns, commit)) = served.waiting.front().copied() {
            if look.durable < commit {
                break;
            }
            served.waiting.pop_front();
            let lag_ms = (now - seen_ns) as f64 / 1e6;
            measured
                .lags_ms
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(lag_ms);
        }
    }
}
