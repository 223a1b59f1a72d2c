//! Two real daemons and one hot database: lag to durable and to applied, bytes on the wire, the
//! first copy, and what the writer keeps of its throughput.

#[allow(dead_code, reason = "every bench uses a part of it")]
mod application;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod observer;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use application::{Application, Commit, Plan, Work};
use bounds::megabytes;
use foreshadow::cli::demo::harness::{Cluster, Tenant, percentile};
use observer::{Observer, Seen, lags_ms};
use report::{Bar, Bound, Figure, Report};
use stage::{Stage, has_ready_shadow, wait_for};
use wal::{PartitionId, PartitionName};

const HOT: &str = "tenant00.db";
const LARGE: &str = "tenant01.db";
const OWNER: &str = "node-a";
const HOT_MEGABYTES: f64 = 12.0;
const LARGE_MEGABYTES: f64 = 256.0;
const WAL_FRAME: f64 = 4096.0 + 24.0;
const LAG_TIME: Duration = Duration::from_secs(15);
/// 200 transactions a second: each is on its own, and both cores have time left.
const LAG_EVERY_US: u64 = 5000;
/// Slices of each side of an A/B comparison, and how long one is.
const SLICES: usize = 10;
const SLICE: Duration = Duration::from_millis(1500);
const SHADOW_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    application::become_application();
    let stage = Stage::new("ship");
    let mut report = Report::new("ship");
    report.note(&format!("on {}", stage.filesystem()));
    let options = stage.options("c", 2);
    let mut cluster = Cluster::start(&options).expect("two daemons");
    let hot = [Tenant::new(0, OWNER, HOT_MEGABYTES)];
    cluster.create_tenants(&hot).expect("a database");
    wait_for("a shadow of the hot database", SHADOW_LIMIT, || {
        has_ready_shadow(&cluster, OWNER, HOT).then_some(())
    });
    lag(&mut report, &stage, &mut cluster);
    for synchronous in ["FULL", "NORMAL"] {
        let rates = throughput(&stage, &cluster, synchronous);
        let case = format!("writer flat out, synchronous={synchronous}, one shadow");
        rates.report(&mut report, &case, |bound| Bar::AtLeast(0.9 * bound));
    }
    first_copy(&mut report, &mut cluster);
    cluster.stop().expect("two daemons end");
    whose_loss(&mut report, &stage);
    report.finish()
}

/// What the writer loses to the owner's sidecar, and what to its peer, which is on the same disk
/// here: the same without a peer, and with a peer that has no disk.
fn whose_loss(report: &mut Report, stage: &Stage) {
    let elsewhere = Path::new("/dev/shm").join(format!("fs-ship-{}", std::process::id()));
    for (nodes, what) in [(1, "no shadow"), (2, "one shadow on tmpfs")] {
        let copies = (nodes - 1).to_string();
        let options = stage.options(&what.replace(' ', "-"), nodes);
        let options = options.tweak("[ship]", "copies", &copies);
        let mut cluster = Cluster::prepare(&options).expect("a configuration");
        if nodes == 2 {
            move_aside(&cluster.root().join("node-b"), &elsewhere);
        }
        cluster.start_all().expect("daemons");
        let hot = [Tenant::new(0, OWNER, HOT_MEGABYTES)];
        cluster.create_tenants(&hot).expect("a database");
        wait_for("the hot database is attached", SHADOW_LIMIT, || {
            let shadowed = nodes == 1 || has_ready_shadow(&cluster, OWNER, HOT);
            (shadowed && cluster.owner_of(HOT).is_ok()).then_some(())
        });
        let rates = throughput(stage, &cluster, "FULL");
        let case = format!("writer flat out, synchronous=FULL, {what}");
        rates.report(report, &case, |_| Bar::None);
        cluster.stop().expect("daemons end");
    }
    std::fs::remove_dir_all(&elsewhere).expect("a directory in memory");
}

/// Moves a directory to another file system and leaves a link.
fn move_aside(dir: &Path, to: &Path) {
    let moved = std::process::Command::new("mv").args([dir, to]).status();
    assert!(moved.expect("mv runs").success(), "mv {}", dir.display());
    std::os::unix::fs::symlink(to, dir).expect("a link");
}

/// A paced writer; what its commits needed to become durable and applied at the peer.
fn lag(report: &mut Report, stage: &Stage, cluster: &mut Cluster) {
    let plan = plan(stage, &cluster.routes().join(HOT), LAG_EVERY_US, "FULL");
    let states: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| node.place.state())
        .collect();
    application::prepare(&plan.database, plan.accounts, plan.log.clone());
    // Wakes the database and its shadow up.
    Application::run_for(&plan, Duration::from_secs(1));
    std::thread::sleep(Duration::from_millis(200));
    let mut application = Application::start(&plan);
    std::thread::sleep(Duration::from_millis(100));
    let (change, slot) = (
        observer::change_of(&plan.database),
        observer::slot(&states[0], hot_id()),
    );
    let sent_before: Vec<u64> = cluster
        .nodes
        .iter_mut()
        .map(|node| node.bytes_out())
        .collect();
    let observer = Observer::start(&states, hot_id());
    application.go();
    std::thread::sleep(LAG_TIME);
    let commits = application.stop();
    std::thread::sleep(Duration::from_millis(200));
    let seen = observer.stop();
    let sent: Vec<u64> = cluster
        .nodes
        .iter_mut()
        .map(|node| node.bytes_out())
        .collect();
    let lsn = |index: usize| slot.change_offset.lsn(change + 1 + index as u32);
    let ends: Vec<_> = commits
        .iter()
        .enumerate()
        .map(|(i, c)| (c.end_ns, lsn(i)))
        .collect();
    lag_cases(report, stage, &ends, &seen);
    let count = commits.len() as f64;
    for (name, nodes) in [("owner to shadow", 0..1), ("both directions", 0..2)] {
        let bytes: u64 = nodes.map(|node| sent[node] - sent_before[node]).sum();
        report.case(
            &format!("wire bytes per one-page update, {name}"),
            Figure(bytes as f64 / count, "B"),
            Bound(WAL_FRAME, "its frame in the WAL"),
            Bar::AtMost(100.0),
        );
    }
    commits_case(report, &commits);
}

fn lag_cases(report: &mut Report, stage: &Stage, ends: &[(u64, wal::Lsn)], seen: &[Seen]) {
    let mut trip = bounds::ping_pong(3000);
    let mut write = bounds::write_dsync(stage.path(), 500);
    let cases = [
        ("read by the owner", &seen[0].consumed, Bar::None),
        ("applied at the shadow", &seen[1].applied, Bar::AtMost(0.2)),
        ("durable at the shadow", &seen[1].durable, Bar::None),
        (
            "durable, known to the owner",
            &seen[0].durable,
            Bar::AtMost(2.0),
        ),
    ];
    for (name, sightings, bar) in cases {
        let mut lags = lags_ms(ends.iter().copied(), sightings);
        let synced = name.starts_with("durable");
        for (tail, share, bar) in [("p50", 0.5, bar), ("p99", 0.99, Bar::None)] {
            let mut bound = percentile(&mut trip, share);
            if synced {
                bound += percentile(&mut write, share);
            }
            let against = match synced {
                true => "loopback round trip + 4 KiB O_DSYNC",
                false => "loopback round trip",
            };
            report.case(
                &format!("commit to {name}, {tail}"),
                Figure(percentile(&mut lags, share), "ms"),
                Bound(bound / 1e3, against),
                bar,
            );
        }
        if lags.len() < ends.len() {
            let missed = ends.len() - lags.len();
            report.fail(format!("{missed} commits were never {name}"));
        }
    }
}

fn commits_case(report: &Report, commits: &[Commit]) {
    let took = commits
        .iter()
        .map(|commit| (commit.end_ns - commit.start_ns) as f64 / 1e6);
    let mut took: Vec<f64> = took.collect();
    report.note(&format!(
        "{} commits of the writer took p50 {:.2} ms, p99 {:.2} ms",
        took.len(),
        percentile(&mut took, 0.5),
        percentile(&mut took, 0.99)
    ));
}

/// Transactions a second of one writer.
struct Rates {
    attached: f64,
    alone: f64,
}

impl Rates {
    fn report(&self, report: &mut Report, case: &str, bar: impl Fn(f64) -> Bar) {
        let (ours, bound) = (
            Figure(self.attached, "txn/s"),
            Bound(self.alone, "none attached"),
        );
        report.case(case, ours, bound, bar(self.alone));
    }
}

/// One writer flat out, in turns on an attached database and on one that is alone.
fn throughput(stage: &Stage, cluster: &Cluster, synchronous: &str) -> Rates {
    let alone = stage.path().join("alone.db");
    let accounts = cluster.tenants[0].accounts;
    application::create(&alone, accounts);
    let attached = cluster.routes().join(HOT);
    // As an application's pool does: without it SQLite deletes the WAL at the end of a slice, and
    // the next one commits into a file that grows, which costs a third of its throughput.
    let holding = Plan {
        log: stage.path().join("holding.log"),
        ..plan(stage, &alone, 0, synchronous)
    };
    let holder = Application::start(&holding);
    let mut rates = [Vec::new(), Vec::new()];
    for slice in 0..SLICES * 2 {
        // A B B A: neither side always comes second.
        let side = [0, 1, 1, 0][slice % 4];
        let database = if side == 0 { &attached } else { &alone };
        let plan = plan(stage, database, 0, synchronous);
        let commits = Application::run_for(&plan, SLICE);
        let first = commits.first().map_or(0, |commit| commit.start_ns);
        let last = commits.last().map_or(1, |commit| commit.end_ns);
        rates[side].push(commits.len() as f64 * 1e9 / (last - first) as f64);
        // The shadow catches up and both sides begin in silence.
        std::thread::sleep(Duration::from_millis(150));
    }
    holder.stop();
    for suffix in ["", "-wal", "-shm"] {
        // SQLite itself removes the last two when nobody else holds them.
        let _ = std::fs::remove_file(format!("{}{suffix}", alone.display()));
    }
    let [mut attached, mut alone] = rates;
    Rates {
        attached: percentile(&mut attached, 0.5),
        alone: percentile(&mut alone, 0.5),
    }
}

/// From a database appearing until its shadow is ready, against cp and fsync of the same file.
fn first_copy(report: &mut Report, cluster: &mut Cluster) {
    let large = [Tenant::new(1, OWNER, LARGE_MEGABYTES)];
    cluster.create_tenants(&large).expect("a large database");
    let begun = Instant::now();
    let live = cluster.nodes[0].place.live().join(LARGE);
    let bytes = std::fs::metadata(&live).expect("it is there").len() as usize;
    wait_for("a shadow of the large database", SHADOW_LIMIT, || {
        has_ready_shadow(cluster, OWNER, LARGE).then_some(())
    });
    let rate = megabytes(bytes) / begun.elapsed().as_secs_f64();
    let mut copies: Vec<f64> = (0..3).map(|_| bounds::copy_rate(&live)).collect();
    report.case(
        "found, hashed, copied, durable",
        Figure(rate, "MB/s"),
        Bound(percentile(&mut copies, 0.5), "cp and fsync"),
        Bar::None,
    );
}

fn plan(stage: &Stage, database: &Path, every_us: u64, synchronous: &str) -> Plan {
    Plan {
        database: database.to_owned(),
        accounts: (HOT_MEGABYTES * 10_000.0) as u64,
        work: Work::Update,
        every_us,
        synchronous: synchronous.to_owned(),
        log: stage.path().join("application.log"),
    }
}

fn hot_id() -> PartitionId {
    PartitionName::new(HOT).expect("a valid name").id()
}
