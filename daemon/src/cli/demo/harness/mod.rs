//! A cluster on this machine made of real processes, for the demo, the crash tests and the benches:
//! daemons, tenant databases, writers, moves, kills, and a verdict on what became of every write.
//!
//! ```text
//! let mut cluster = Cluster::start(&Options { binary, ..Options::default() })?;
//! cluster.create_tenants(&tenants)?;
//! cluster.wait_for_shadows(Duration::from_secs(20))?;
//! let mut writers = cluster.start_writers(&load)?;
//! let report = cluster.move_partition("tenant00.db", "node-b", limit)?;
//! writers.stop()?;
//! cluster.settle(limit)?;
//! cluster.stop()?;
//! let verdict = cluster.verify()?;
//! assert!(verdict.is_clean(), "{:?}", verdict.notes);
//! ```
//!
//! Invariants: this process never opens a database (whoever links SQLite works in a child, and the
//! verifier on copies); everything started is killed by its number when dropped.

mod error;
mod evidence;
mod gaps;
mod moves;
mod node;
mod process;
mod settle;
mod tenant;
mod verify;
mod writers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use super::acks::Ack;
pub use super::engine::Engine;
pub use super::plan::{OneWriter, Pace, Tally, Verdict};
pub use error::Error;
pub use gaps::{gaps_ms, percentile, steady_ms};
pub use moves::{MoveReport, Outcome, PendingMove, Step};
pub use node::{Node, Place, Sections};
pub use process::{Process, Threads, become_child, kill_children};
pub use settle::{View, Views};
pub use tenant::Tenant;
#[cfg(test)]
pub(super) use writers::python_script;
pub use writers::{Load, Program, Writers, four_writers, python};

use evidence::Evidence;

/// How to build a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The foreshadow binary; tests pass `CARGO_BIN_EXE_foreshadow`.
    pub binary: PathBuf,
    /// Where everything lives; a new temporary directory if none is given.
    pub root: Option<PathBuf>,
    pub nodes: usize,
    /// What its tenants are.
    pub engine: Engine,
    /// Leaves the root behind.
    pub keep: bool,
    /// The root is there already with what its nodes left in it: after a power cut.
    pub found: bool,
    pub seed: u64,
    /// Lines that replace or extend the configuration of every node.
    pub tweaks: Sections,
}

impl Default for Options {
    fn default() -> Options {
        let binary = std::env::current_exe().unwrap_or_else(|_| "foreshadow".into());
        Options {
            binary,
            root: None,
            nodes: 3,
            engine: Engine::default(),
            keep: false,
            found: false,
            seed: 1,
            tweaks: Sections::new(),
        }
    }
}

impl Options {
    /// Sets one line of the configuration of every node, as `("[switch]", "max_pause",
    /// "\"80ms\"")`.
    #[must_use]
    pub fn tweak(mut self, section: &str, key: &str, value: &str) -> Options {
        let lines = self.tweaks.entry(section.to_owned()).or_default();
        lines.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub tenants: Vec<Tenant>,
    binary: PathBuf,
    engine: Engine,
    seed: u64,
    /// Links to what owners served before they gave a partition away.
    evidence: Vec<Evidence>,
    /// What the last look at owners and shadows found wrong.
    unsettled: Vec<String>,
    /// Every owner's digest, as that look saw it.
    digests: BTreeMap<String, String>,
    /// Dropped after the daemons that live in it.
    root: Root,
}

impl Cluster {
    /// Starts the daemons and waits until each is ready.
    pub fn start(options: &Options) -> Result<Cluster, Error> {
        let mut cluster = Cluster::prepare(options)?;
        cluster.start_all()?;
        Ok(cluster)
    }

    /// Makes directories and configurations; no daemon runs yet.
    pub fn prepare(options: &Options) -> Result<Cluster, Error> {
        let root = Root::make(options)?;
        for dir in ["coordinator", "routes", "acks", "evidence", "plans"] {
            let path = root.path.join(dir);
            fs::create_dir_all(&path).map_err(|error| Error::at("create", &path, error))?;
        }
        let mut places = Vec::new();
        for name in ('a'..='z')
            .take(options.nodes)
            .map(|letter| format!("node-{letter}"))
        {
            places.push(Place {
                dir: root.path.join(&name),
                port: node::free_port()?,
                name,
            });
        }
        let nodes = places
            .iter()
            .map(|place| Node::prepare(&root.path, place, &places, options));
        let nodes = nodes.collect::<Result<Vec<Node>, Error>>()?;
        let binary = options.binary.clone();
        Ok(Cluster {
            nodes,
            tenants: Vec::new(),
            binary,
            engine: options.engine,
            seed: options.seed,
            evidence: Vec::new(),
            unsettled: Vec::new(),
            digests: BTreeMap::new(),
            root,
        })
    }

    /// Starts every daemon that is not running and waits until each is ready.
    pub fn start_all(&mut self) -> Result<(), Error> {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.start()?;
            }
        }
        self.nodes
            .iter_mut()
            .try_for_each(|node| node.wait_ready(Duration::from_secs(20)))
    }

    /// Where everything lives.
    pub fn root(&self) -> &Path {
        &self.root.path
    }

    /// Keeps the root when the cluster is dropped.
    pub fn keep(&mut self) {
        self.root.keep = true;
    }

    /// The directory whose symlinks lead writers to the owner.
    pub fn routes(&self) -> PathBuf {
        self.root().join("routes")
    }

    /// The directory of the ack journals.
    pub fn acks(&self) -> PathBuf {
        self.root().join("acks")
    }

    pub fn node(&self, name: &str) -> Result<&Node, Error> {
        let found = self.nodes.iter().find(|node| node.place.name == name);
        found.ok_or_else(|| Error::new(format!("no node {name}")))
    }

    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node, Error> {
        let found = self.nodes.iter_mut().find(|node| node.place.name == name);
        found.ok_or_else(|| Error::new(format!("no node {name}")))
    }

    /// kill -9 of one daemon.
    pub fn kill9(&mut self, name: &str) -> Result<(), Error> {
        self.node_mut(name).map(Node::kill)
    }

    /// Starts a dead daemon again and waits until it is ready.
    pub fn restart(&mut self, name: &str) -> Result<(), Error> {
        let node = self.node_mut(name)?;
        node.start()?;
        node.wait_ready(Duration::from_secs(20))
    }

    /// Ends all daemons in good order.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.nodes.iter_mut().try_for_each(Node::stop)
    }

    /// CPU seconds of all daemons, dead incarnations included.
    pub fn cpu_seconds(&self) -> f64 {
        self.nodes.iter().map(Node::cpu_seconds).sum()
    }

    /// Bytes that the daemons sent to each other.
    pub fn wire_bytes(&mut self) -> u64 {
        self.nodes.iter_mut().map(Node::bytes_out).sum()
    }

    /// Runs one of our own helpers to its end; its output goes to `plans/<part>.log`.
    fn run_part(&self, part: &str, plan: &Path, limit: Duration) -> Result<(), Error> {
        let arguments = ["demo".into(), part.into(), plan.as_os_str().to_owned()];
        let log = self.root().join(format!("plans/{part}.log"));
        let mut process = Process::start(&self.binary, &self.binary, &arguments, &log)?;
        let status = process.wait(limit)?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        Err(Error::new(format!(
            "{part} failed ({status}): {}",
            said.trim()
        )))
    }

    fn write_plan<T: serde::Serialize>(&self, name: &str, plan: &T) -> Result<PathBuf, Error> {
        let path = self.root().join("plans").join(name);
        let json =
            serde_json::to_vec_pretty(plan).map_err(|error| Error::new(error.to_string()))?;
        fs::write(&path, json).map_err(|error| Error::at("write", &path, error))?;
        Ok(path)
    }
}

/// The directory of one run; removed at the end if it is ours and nothing asks for it.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    keep: bool,
}

impl Root {
    fn make(options: &Options) -> Result<Root, Error> {
        let path = match &options.root {
            Some(path) => std::path::absolute(path),
            None => Ok(unused_name()),
        };
        let path = path.map_err(|error| Error::new(format!("root: {error}")))?;
        let used = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if used && !options.found {
            return Err(Error::new(format!("{}: not empty", path.display())));
        }
        fs::create_dir_all(&path).map_err(|error| Error::at("create", &path, error))?;
        Ok(Root {
            path,
            keep: options.keep,
        })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if !self.keep && !thread::panicking() {
            // What can't be removed is only litter in a temporary directory.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn unused_name() -> PathBuf {
    let dir = std::env::temp_dir();
    let mut names = (0..).map(|n| dir.join(format!("foreshadow-{}-{n}", std::process::id())));
    names.find(|path| !path.exists()).unwrap_or(dir)
}

/// Sleeps a few milliseconds between two looks at the cluster.
fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// Asks `look` every few milliseconds until it finds something; `what` names it if it never does.
fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("waited {limit:?} in vain: {what}")));
        }
        pause(10);
    }
}
