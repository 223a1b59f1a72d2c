//! What 1,000 databases cost that nobody writes to: processor, memory and descriptors of whoever
//! keeps them replicated, once everything that follows from attaching them has ended.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, Error, Node};
use serde_json::Value;

use crate::litestream::{Litestream, Tuning};
use crate::sqlite;
use crate::table::{Row, System, Table};
use crate::wait::until;
use crate::{Scene, clear, ours, progress};

const LIMIT: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(200);
/// Ours calls a database idle after 10 s.
const COOL_OURS: Duration = Duration::from_secs(25);
/// Litestream's first compaction of each database comes within 30 s.
const COOL_LITESTREAM: Duration = Duration::from_secs(45);
/// As long as one round of Litestream's compactions, so that each window has one.
const WATCHED: Duration = Duration::from_secs(30);
/// Ours may cost at most this share of Litestream's.
const BAR: f64 = 1.0 / 20.0;

/// A row: its name, its unit, and where its figure is.
type Figure = (&'static str, &'static str, fn(&Idle) -> f64);

/// What a process used while it was watched.
struct Idle {
    core_percent: f64,
    /// Owner and keeper of the shadows together.
    both_percent: f64,
    mebibytes: f64,
    descriptors: f64,
}

pub fn measure(table: &mut Table, scene: &Scene<'_>) {
    let seed = scene.stage.path().join("idle-seed.db");
    if table.take("idle", sqlite::create(&seed, 20)).is_none() {
        return;
    }
    let count = scene.pick(1000, 300);
    progress(&format!("idle: ours, {count} databases"));
    let ours = table.take("idle, ours", of_ours(scene, &seed, count));
    progress(&format!("idle: litestream, {count} databases"));
    let litestream = table.take("idle, litestream", of_litestream(scene, &seed, count));
    let figures: [Figure; 4] = [
        ("processor", "% of a core", |idle| idle.core_percent),
        (
            "processor, keeper of the copies too",
            "% of a core",
            |idle| idle.both_percent,
        ),
        ("resident", "MiB", |idle| idle.mebibytes),
        ("descriptors", "fds", |idle| idle.descriptors),
    ];
    for (name, unit, figure) in figures {
        let row = Row::new(&format!("{count} idle databases: {name}"), unit)
            .cell(System::Ours, ours.as_ref().map(figure))
            .cell(System::Litestream, litestream.as_ref().map(figure));
        table.row(match name {
            "processor" => row.bar(System::Litestream, BAR),
            _ => row,
        });
    }
}

fn of_ours(scene: &Scene<'_>, seed: &Path, count: usize) -> Result<Idle, Error> {
    let mut cluster = ours::start(scene, "idle-ours")?;
    for number in 0..count {
        ours::put(seed, &ours::live(&cluster, &name(number)))?;
    }
    until("all are shadowed", LIMIT, LOOK, || {
        Ok((shadowed(&cluster) == count).then_some(()))
    })?;
    std::thread::sleep(COOL_OURS);
    let threads = || cluster.nodes.iter().map(Node::threads);
    let (begun, before) = (Instant::now(), threads().collect::<Vec<_>>());
    std::thread::sleep(WATCHED);
    let seconds = begun.elapsed().as_secs_f64();
    let spent = threads()
        .zip(&before)
        .map(|(now, then)| now.seconds_since(then));
    let spent: Vec<f64> = spent.collect();
    let pid = cluster.nodes[0]
        .id()
        .ok_or_else(|| Error::new("the owner is gone"))?;
    let idle = Idle {
        core_percent: spent[0] / seconds * 100.0,
        both_percent: spent.iter().sum::<f64>() / seconds * 100.0,
        mebibytes: resident(pid),
        descriptors: descriptors(pid),
    };
    if shadowed(&cluster) != count {
        return Err(Error::new("not all are shadowed at the end"));
    }
    cluster.stop()?;
    Ok(idle)
}

fn of_litestream(scene: &Scene<'_>, seed: &Path, count: usize) -> Result<Idle, Error> {
    let dir = scene.dir("idle-litestream")?;
    scene.dir("idle-litestream/live")?;
    for number in 0..count {
        ours::put(seed, &dir.join("live").join(name(number)))?;
    }
    let litestream = Litestream::start(scene.peers.litestream()?, &dir, Tuning::Default)?;
    until("all are replicated", LIMIT, LOOK, || {
        let there = |number: &usize| litestream.newest(&name(*number)) > 0;
        Ok((0..count).all(|number| there(&number)).then_some(()))
    })?;
    std::thread::sleep(COOL_LITESTREAM);
    let process = litestream.process();
    let (begun, before) = (Instant::now(), process.threads());
    std::thread::sleep(WATCHED);
    let seconds = begun.elapsed().as_secs_f64();
    let core_percent = process.threads().seconds_since(&before) / seconds * 100.0;
    let idle = Idle {
        core_percent,
        both_percent: core_percent,
        mebibytes: resident(process.id()),
        descriptors: descriptors(process.id()),
    };
    litestream.stop()?;
    clear(&dir);
    Ok(idle)
}

fn name(number: usize) -> String {
    format!("tenant{number:04}.db")
}

fn shadowed(cluster: &Cluster) -> usize {
    let Ok(Value::Array(rows)) = cluster.nodes[0].get("/v1/partitions") else {
        return 0;
    };
    let is_ready = |row: &&Value| {
        let shadows = row["shadows"].as_array();
        shadows.is_some_and(|all| all.iter().any(|shadow| shadow["ready"] == true))
    };
    rows.iter().filter(is_ready).count()
}

fn descriptors(pid: u32) -> f64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as f64
}

fn resident(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
