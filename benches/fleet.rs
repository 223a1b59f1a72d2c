//! Ten thousand attached databases that nobody writes to: processor time, descriptors and memory of
//! the daemon, and how fast they are attached.
//!
//! FORESHADOW_FLEET sets how many the large fleet has (default 10000).

#[allow(dead_code, reason = "every bench uses a part of it")]
mod application;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, Node};
use io::engine::{Sweeper, Watch, sqlite};
use report::{Bar, Bound, Figure, Report};
use rustix::time::{ClockId, clock_gettime};
use stage::{Stage, wait_for};

/// The period of the tier that idle databases are in.
const SWEEP: Duration = Duration::from_millis(5);
const IDLE: Duration = Duration::from_secs(20);
/// A database is idle after a second here; then everything that follows from it gets time to end.
const COOL: Duration = Duration::from_secs(6);
const ATTACH_LIMIT: Duration = Duration::from_secs(120);

/// What one fleet is asked for.
struct Fleet {
    databases: usize,
    nodes: usize,
    core_share_max: Bar,
    descriptors_max: Bar,
    resident_max: Bar,
}

fn main() -> ExitCode {
    application::become_application();
    let large = std::env::var("FORESHADOW_FLEET").ok();
    let large = large.and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let stage = Stage::new("fleet");
    let mut report = Report::new("fleet");
    let seed = stage.path().join("seed.db");
    application::create(&seed, 1);
    let alone = |databases, core, resident| Fleet {
        databases,
        nodes: 1,
        core_share_max: Bar::AtMost(core),
        descriptors_max: Bar::AtMost(1.0),
        resident_max: resident,
    };
    let with_peer = Fleet {
        databases: 1000,
        nodes: 2,
        core_share_max: Bar::None,
        descriptors_max: Bar::None,
        resident_max: Bar::None,
    };
    let fleets = [
        alone(1000, 1.0, Bar::None),
        alone(large, 4.0, Bar::AtMost(200.0)),
        with_peer,
    ];
    for fleet in &fleets {
        play(&mut report, &stage, &seed, fleet);
    }
    report.finish()
}

fn play(report: &mut Report, stage: &Stage, seed: &Path, fleet: &Fleet) {
    let count = fleet.databases;
    let copies = usize::from(fleet.nodes > 1).to_string();
    let options = stage
        .options(&format!("c{count}-{}", fleet.nodes), fleet.nodes)
        .tweak("[ship]", "copies", &copies)
        .tweak("[[engine.sqlite]]", "sweep_cold", "\"5ms\"")
        .tweak("[[engine.sqlite]]", "idle_after", "\"1s\"");
    let mut cluster = Cluster::prepare(&options).expect("a configuration");
    let empty = empty_descriptors(&mut cluster);
    let live = cluster.nodes[0].place.live();
    for number in 0..count {
        let to = live.join(format!("db{number:05}.db"));
        fs::copy(seed, to).expect("a copy of the seed");
    }
    let read_rate = read_rate(&live, count);
    let begun = Instant::now();
    cluster
        .nodes
        .iter_mut()
        .try_for_each(Node::start)
        .expect("daemons");
    let name = match fleet.nodes {
        1 => format!("{count} idle"),
        nodes => format!("{count} idle, {} peer", nodes - 1),
    };
    let done = wait_for("all are attached", ATTACH_LIMIT, || {
        attached(&cluster, count).then(|| begun.elapsed())
    });
    report.case(
        &format!("{name}: attached per second"),
        Figure(count as f64 / done.as_secs_f64(), "/s"),
        Bound(read_rate, "each opened and read"),
        Bar::None,
    );
    if fleet.nodes > 1 {
        let shadowed = wait_for("all are shadowed", ATTACH_LIMIT, || {
            shadowed(&cluster, count).then(|| begun.elapsed())
        });
        let rate = count as f64 / shadowed.as_secs_f64();
        let bound = Bound(read_rate, "each opened and read");
        report.case(
            &format!("{name}: shadowed per second"),
            Figure(rate, "/s"),
            bound,
            Bar::None,
        );
    }
    std::thread::sleep(COOL);
    let idle = Idle::watch(&cluster);
    if !attached(&cluster, count) {
        report.fail(format!("{name}: not all are attached at the end"));
    }
    cluster.stop().expect("daemons end");
    let floor = bare_sweep(&live, count);
    cases(report, fleet, &name, &idle, idle.descriptors - empty, floor);
}

/// What an idle daemon was seen to use.
struct Idle {
    core_percent: f64,
    descriptors: usize,
    resident: f64,
    note: String,
}

impl Idle {
    fn watch(cluster: &Cluster) -> Idle {
        let node = &cluster.nodes[0];
        let pid = node.id().expect("the daemon runs");
        let (begun, before) = (Instant::now(), node.threads());
        std::thread::sleep(IDLE);
        let spent = node.threads().seconds_since(&before);
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        Idle {
            core_percent: spent / begun.elapsed().as_secs_f64() * 100.0,
            descriptors: entries(&format!("/proc/{pid}/fd")),
            resident: status_mebibytes(pid, "VmRSS:"),
            note: format!(
                "{} threads, {} mappings, anonymous {:.0} MiB, files {:.0} MiB",
                entries(&format!("/proc/{pid}/task")),
                maps.lines().count(),
                status_mebibytes(pid, "RssAnon:"),
                status_mebibytes(pid, "RssFile:") + status_mebibytes(pid, "RssShmem:"),
            ),
        }
    }
}

fn cases(
    report: &mut Report,
    fleet: &Fleet,
    name: &str,
    idle: &Idle,
    descriptors: usize,
    floor: f64,
) {
    let count = fleet.databases as f64;
    report.case(
        &format!("{name}: processor"),
        Figure(idle.core_percent, "% core"),
        Bound(floor, "one load per WAL-index every 5 ms"),
        fleet.core_share_max,
    );
    report.case(
        &format!("{name}: descriptors per database"),
        Figure(descriptors as f64 / count, ""),
        Bound(1.0, "its WAL-index"),
        fleet.descriptors_max,
    );
    report.case(
        &format!("{name}: resident"),
        Figure(idle.resident, "MiB"),
        Bound(count / 256.0, "one page of each WAL-index"),
        fleet.resident_max,
    );
    report.note(&idle.note);
}

/// Descriptors of a daemon without any database.
fn empty_descriptors(cluster: &mut Cluster) -> usize {
    cluster.start_all().expect("daemons without databases");
    std::thread::sleep(Duration::from_millis(500));
    let pid = cluster.nodes[0].id().expect("the daemon runs");
    let count = entries(&format!("/proc/{pid}/fd"));
    cluster.stop().expect("daemons end");
    count
}

fn attached(cluster: &Cluster, count: usize) -> bool {
    owned(cluster, 0) == Some(count as u64)
}

fn owned(cluster: &Cluster, node: usize) -> Option<u64> {
    let status = cluster.nodes[node].get("/v1/status").ok()?;
    status["owned"].as_u64()
}

fn shadowed(cluster: &Cluster, count: usize) -> bool {
    let rows = cluster.nodes[0].get("/v1/partitions");
    let rows = rows.ok().and_then(|rows| rows.as_array().cloned());
    let is_ready = |row: &&serde_json::Value| {
        let shadows = row["shadows"].as_array();
        shadows.is_some_and(|all| all.iter().any(|shadow| shadow["ready"] == true))
    };
    rows.is_some_and(|rows| rows.iter().filter(is_ready).count() == count)
}

/// Databases per second that one thread opens and reads: what anybody who attaches must do.
fn read_rate(live: &Path, count: usize) -> f64 {
    let begun = Instant::now();
    for number in 0..count {
        let path = live.join(format!("db{number:05}.db"));
        std::hint::black_box(fs::read(path).expect("it was just written"));
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Percent of a core for nothing but the sweep: a sleep, and a load from each WAL-index, once the
/// daemon has let go of them.
fn bare_sweep(live: &Path, count: usize) -> f64 {
    let mut sweeper = Sweeper::default();
    for number in 0..count {
        let path = live.join(format!("db{number:05}.db"));
        let watch = sqlite::Watch::attach(&path).expect("it could be attached before");
        sweeper.add(number as u32, &Watch::Sqlite(watch));
    }
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
    let spent = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    let (begun, before) = (Instant::now(), spent());
    while begun.elapsed() < Duration::from_secs(4) {
        sweeper.sweep(|_| {});
        std::thread::sleep(SWEEP);
    }
    (spent() - before) / begun.elapsed().as_secs_f64() * 100.0
}

fn entries(dir: &str) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// A line of /proc/<pid>/status, which counts in kB.
fn status_mebibytes(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
