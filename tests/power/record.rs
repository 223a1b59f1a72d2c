//! One scenario under load: moves there and back, real writers, and a tick every few milliseconds
//! that ties the logs of all disks to one clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use foreshadow::cli::demo::acks;
use foreshadow::cli::demo::engine::Engine;
use foreshadow::cli::demo::harness::{
    Ack, Cluster, Load, MoveReport, Node, Options, Pace, PendingMove, Program, Tenant,
};
use foreshadow::cli::demo::plan::{CreatePlan, DatabasePlan};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::disk::{self, Care, Logged, Mounted, text, tool};
use crate::image::Image;
use crate::ioctls::Marker;
use crate::log::Log;

/// Disks: one of each node, one of the coordinator that both share.
pub const DISKS: [&str; 3] = ["node-a", "node-b", "coordinator"];
/// Longest wait for what takes a second or two in an emulated machine that has a core of its own.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Between two ticks while something moves, and else.
const TICK: Duration = Duration::from_millis(4);
const TICK_IDLE: Duration = Duration::from_millis(40);
/// How long deltas stream before each move.
const STREAM: Duration = Duration::from_millis(1500);
/// How long after its end a move is still settling in the background.
pub const SETTLING: Duration = Duration::from_millis(400);
const ACCOUNTS: u64 = 500;
const RATE: f64 = 12.0;

/// Who loses power, on which file system.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub kind: &'static str,
    pub megabytes: u64,
    /// Of [`DISKS`], in that order.
    pub care: [Care; 3],
    /// Partitions to be moved, each to the node that does not own it.
    pub moves: &'static [&'static str],
}

/// A moment at which every log got a mark.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Before the first and after the last of its marks.
    pub before_ns: u64,
    pub after_ns: u64,
}

/// How often to tick, and when to end.
#[derive(Debug, Default)]
struct Pulse {
    moving: AtomicBool,
    stop: AtomicBool,
}

/// What a shadow's node had acknowledged as durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    pub at_ns: u64,
    pub partition: String,
    pub node: String,
    pub epoch: u64,
    pub lsn: u64,
}

/// All that is left of a scenario.
#[derive(Debug)]
pub struct Recording {
    pub dir: PathBuf,
    pub tenants: Vec<Tenant>,
    pub bases: Vec<Image>,
    pub logs: Vec<Log>,
    pub ticks: Vec<Tick>,
    pub moves: Vec<MoveReport>,
    pub promises: Vec<Promise>,
    pub acks: Vec<Vec<Ack>>,
    /// Why its logs can't be replayed, if they can't.
    pub disorder: Option<String>,
}

/// CLOCK_MONOTONIC, as in the ack journals.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The cluster of a root that may hold what was left there.
pub fn cluster(binary: &Path, root: &Path) -> Result<Cluster, String> {
    let options = Options {
        binary: binary.to_owned(),
        root: Some(root.to_owned()),
        nodes: 2,
        keep: true,
        found: true,
        ..Options::default()
    };
    // Times of an emulated processor are no measure of anything.
    let options = options
        .tweak("[switch]", "max_pause", "\"10s\"")
        .tweak("[switch]", "pause_timeout", "\"20s\"")
        .tweak("[[engine.sqlite]]", "sweep_hot", "\"2ms\"")
        .tweak("[[engine.sqlite]]", "sweep_warm", "\"10ms\"")
        .tweak("[[engine.sqlite]]", "sweep_cold", "\"20ms\"");
    Cluster::prepare(&options).map_err(|error| error.to_string())
}

/// Starts the daemons of these nodes and waits until each is ready.
pub fn start(cluster: &mut Cluster, nodes: &[&str]) -> Result<(), String> {
    let said = |error: foreshadow::cli::demo::harness::Error| error.to_string();
    for name in nodes {
        cluster.node_mut(name).and_then(Node::start).map_err(said)?;
    }
    for name in nodes {
        let node = cluster.node_mut(name).map_err(said)?;
        node.wait_ready(LIMIT).map_err(said)?;
    }
    Ok(())
}

pub fn record(scenario: &Scenario, binary: &Path, dir: &Path) -> Result<Recording, String> {
    let root = dir.join("root");
    let tenants = vec![
        Tenant {
            accounts: ACCOUNTS,
            ..Tenant::new(0, "node-a", 1.0)
        },
        Tenant {
            accounts: ACCOUNTS,
            ..Tenant::new(1, "node-b", 1.0)
        },
    ];
    let mut bases = Vec::new();
    for disk in DISKS {
        bases.push(prepare_disk(scenario, binary, dir, disk, &tenants)?);
    }
    let mut mounted = Vec::new();
    for (disk, care) in DISKS.iter().zip(scenario.care) {
        let image = dir.join(format!("{disk}.img"));
        let name = format!("lw-{disk}");
        mounted.push(Logged::mount(&name, &image, &root.join(disk), care)?);
    }
    let devices: Vec<String> = mounted.iter().map(|disk| disk.device.clone()).collect();
    let pulse = Pulse::default();
    let (played, ticks) = scope(|threads| {
        let ticker = threads.spawn(|| tick(&devices, &pulse));
        let played = play(scenario, binary, &root, &tenants, &pulse);
        pulse.stop.store(true, Ordering::Release);
        (played, ticker.join().expect("the ticker does not panic"))
    });
    let (moves, promises) = played?;
    let (mut logs, mut disorder) = (Vec::new(), None);
    for ((disk, name), base) in mounted.into_iter().zip(DISKS).zip(&bases) {
        let log = Log::read(&disk.end()?)?;
        let differs = differs(base, &log, &dir.join(format!("{name}.img")))?;
        disorder = disorder.or(differs.map(|at| format!("{name} differs from its log at {at}")));
        logs.push(log);
    }
    let acks = acks::read_all(&root.join("acks")).map_err(|error| error.to_string())?;
    Ok(Recording {
        dir: dir.to_owned(),
        tenants,
        bases,
        logs,
        ticks: ticks?,
        moves,
        promises,
        acks,
        disorder,
    })
}

/// Where a disk is not what its whole log makes of it. The target logs a write when a flush that
/// followed it is done; of two flushes side by side the later one may be done first, and its writes
/// are logged before older ones to the same place. What such a log makes never was on the disk.
fn differs(base: &Image, log: &Log, disk: &Path) -> Result<Option<usize>, String> {
    let mut replayed = base.clone();
    replayed.forward(log, log.entries.len())?;
    Ok(replayed.first_difference(&Image::read(disk)?))
}

/// An empty disk, or with the databases that begin on it; all of it is durable.
fn prepare_disk(
    scenario: &Scenario,
    binary: &Path,
    dir: &Path,
    disk: &str,
    tenants: &[Tenant],
) -> Result<Image, String> {
    let (image, at) = (dir.join(format!("{disk}.img")), dir.join("root").join(disk));
    fs::create_dir_all(&at).map_err(|error| error.to_string())?;
    disk::format(&image, scenario.kind, scenario.megabytes)?;
    let mounted = Mounted::new(&image, &at)?;
    let here = tenants.iter().filter(|tenant| tenant.node == disk);
    let databases: Vec<DatabasePlan> = here
        .map(|tenant| DatabasePlan {
            path: at.join("live").join(&tenant.name),
            page_size: tenant.page_size,
            accounts: tenant.accounts,
        })
        .collect();
    if !databases.is_empty() {
        let stage = at.join("stage");
        let plan = serde_json::to_vec(&CreatePlan {
            engine: Engine::Sqlite,
            stage,
            databases,
        });
        let path = dir.join("create.json");
        let written = fs::write(&path, plan.map_err(|error| error.to_string())?);
        written.map_err(|error| error.to_string())?;
        tool(text(binary), &["demo", "create", text(&path)])?;
    }
    mounted.end()?;
    Image::read(&image)
}

/// Marks every log, twice for each tick: whatever lies between the two marks of one tick in any
/// log makes the tick no moment that is exact.
fn tick(devices: &[String], pulse: &Pulse) -> Result<Vec<Tick>, String> {
    let marker = Marker::open().map_err(|error| format!("/dev/mapper/control: {error}"))?;
    let mut ticks = Vec::new();
    while !pulse.stop.load(Ordering::Acquire) {
        let number = ticks.len();
        let before_ns = now_ns();
        for word in [format!("b{number}"), format!("e{number}")] {
            for device in devices {
                let marked = marker.mark(device, &word);
                marked.map_err(|error| format!("a mark in {device}: {error}"))?;
            }
        }
        ticks.push(Tick {
            before_ns,
            after_ns: now_ns(),
        });
        let busy = pulse.moving.load(Ordering::Acquire);
        sleep(if busy { TICK } else { TICK_IDLE });
    }
    Ok(ticks)
}

type Played = (Vec<MoveReport>, Vec<Promise>);

fn play(
    scenario: &Scenario,
    binary: &Path,
    root: &Path,
    of: &[Tenant],
    pulse: &Pulse,
) -> Result<Played, String> {
    let said = |error: foreshadow::cli::demo::harness::Error| error.to_string();
    let mut cluster = cluster(binary, root)?;
    cluster.tenants = of.to_vec();
    start(&mut cluster, &DISKS[..2])?;
    cluster.wait_for_shadows(LIMIT).map_err(said)?;
    let mut load = Load::new(&[Program::Bundled, Program::Python]);
    for tenant in of {
        load.add(0, tenant, Pace::Rate(RATE));
        load.add(1, tenant, Pace::Rate(RATE));
    }
    let writers = cluster.start_writers(&load).map_err(said)?;
    cluster
        .wait_for_progress(&[1, 2, 3, 4], LIMIT)
        .map_err(said)?;
    let (mut moves, mut promises) = (Vec::new(), Vec::new());
    for name in scenario.moves {
        cluster.wait_for_shadows(LIMIT).map_err(said)?;
        listen(&cluster, &mut promises);
        pulse.moving.store(true, Ordering::Release);
        moves.push(one_move(&mut cluster, name)?);
        // What is done behind the pause is a part of the move.
        sleep(SETTLING);
        pulse.moving.store(false, Ordering::Release);
    }
    // On a busy host a link may be silent for too long: a move that is given up is a story too.
    let done = moves.iter().filter(|one| one.is_done()).count();
    if done * 2 < scenario.moves.len() {
        return Err(format!("too few moves: {moves:#?}"));
    }
    listen(&cluster, &mut promises);
    let tallies = writers.stop().map_err(said)?;
    cluster.stop().map_err(said)?;
    let strange: u64 = tallies
        .iter()
        .map(|tally| tally.strange + tally.stuck)
        .sum();
    match strange {
        0 => Ok((moves, promises)),
        _ => Err(format!(
            "the writers met what no move explains: {tallies:?}"
        )),
    }
}

/// Hears for a while how far every shadow is durable, by the word of its owner.
fn listen(cluster: &Cluster, into: &mut Vec<Promise>) {
    let until = Instant::now() + STREAM;
    while Instant::now() < until {
        for node in &cluster.nodes {
            let rows = node.get("/v1/partitions");
            let at_ns = now_ns();
            let Ok(Value::Array(rows)) = rows else {
                continue;
            };
            for row in rows.iter().filter(|row| row["role"] == "owner") {
                for shadow in row["shadows"].as_array().into_iter().flatten() {
                    into.push(Promise {
                        at_ns,
                        partition: row["name"].as_str().unwrap_or_default().to_owned(),
                        node: shadow["node"].as_str().unwrap_or_default().to_owned(),
                        epoch: row["epoch"].as_u64().unwrap_or(0),
                        lsn: shadow["lsn"].as_u64().unwrap_or(0),
                    });
                }
            }
        }
        sleep(Duration::from_millis(40));
    }
}

fn one_move(cluster: &mut Cluster, name: &str) -> Result<MoveReport, String> {
    let from = cluster.owner_of(name).map_err(|error| error.to_string())?;
    let to = if from == "node-a" { "node-b" } else { "node-a" };
    let started_ns = now_ns();
    let body = json!({ "partition": name, "to": to });
    let node = cluster.node(&from).map_err(|error| error.to_string())?;
    let answer = node.ask("POST", "/v1/moves", Some(&body));
    let answer = answer.map_err(|error| error.to_string())?;
    let id = match &answer.body["id"] {
        Value::String(id) => id.clone(),
        other => other.to_string(),
    };
    let pending = PendingMove {
        id,
        partition: name.to_owned(),
        tenant: 0,
        from,
        to: to.to_owned(),
        started_ns,
    };
    let report = cluster
        .finish_move(&pending, LIMIT)
        .map_err(|error| error.to_string())?;
    Ok(report)
}
