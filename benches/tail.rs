//! The tail of a live database: how soon a commit is read, against a spin on the mapped index, and
//! how fast a backlog is verified and read, against memcpy.

#[allow(dead_code, reason = "every bench uses a part of it")]
mod application;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::hint::{black_box, spin_loop};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use application::{Application, Plan, Work, now_ns};
use bounds::megabytes;
use foreshadow::cli::demo::harness::percentile;
use io::engine::sqlite::{Adopted, Source, SourceOptions};
use report::{Bar, Bound, Figure, Report};
use stage::Stage;
use wal::sqlite::{Checksum, WordOrder, checksum};

const ACCOUNTS: u64 = 100_000;
const WAL_FRAME: usize = 4096 + 24;
/// The hot tier's period.
const SWEEP: Duration = Duration::from_micros(100);
/// Phases of each way of looking, alternated.
const PHASES: usize = 6;
const PHASE: Duration = Duration::from_secs(3);
const ROUNDS: usize = 15;
/// Bytes of one read: what stays in the second-level cache.
const CHUNK: usize = 64 * WAL_FRAME;

fn main() -> ExitCode {
    application::become_application();
    let stage = Stage::new("tail");
    let mut report = Report::new("tail");
    // The default slack of 50 us would be half of the sweep's period.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
    latency(&mut report, &stage);
    chain(&mut report);
    backlog(&mut report, &stage);
    report.finish()
}

/// Microseconds from COMMIT returning until the change is read, verified and ready to be shipped.
fn latency(report: &mut Report, stage: &Stage) {
    let [mut swept, mut spun] = [Vec::new(), Vec::new()];
    for phase in 0..PHASES {
        for (spin, lags) in [(false, &mut swept), (true, &mut spun)] {
            let plan = plan(stage, &format!("latency-{phase}-{spin}"), 2000);
            let mut source = attach(&plan.database);
            let mut application = Application::start(&plan);
            application.go();
            let seen = watch(&mut source, spin);
            let commits = application.stop();
            // The last commits came after the watch ended.
            let pairs = seen.iter().zip(&commits);
            let lag = pairs.map(|(seen, commit)| seen.saturating_sub(commit.end_ns) as f64 / 1e3);
            lags.extend(lag);
        }
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        report.case(
            &format!("commit to change polled, 100 us sweep, {name}"),
            Figure(percentile(&mut swept, share), "us"),
            Bound(percentile(&mut spun, share), "spin on the index, same read"),
            Bar::None,
        );
    }
}

/// When each commit, in order, had been read.
fn watch(source: &mut Source, spin: bool) -> Vec<u64> {
    let mut seen = Vec::new();
    let until = Instant::now() + PHASE;
    while Instant::now() < until {
        if spin {
            spin_loop();
        } else {
            std::thread::sleep(SWEEP);
        }
        if !source.changed() {
            continue;
        }
        while let Some(change) = source.poll(64).expect("polled") {
            let at = now_ns();
            seen.extend((0..change.commits).map(|_| at));
            source.consume(&change);
        }
    }
    seen
}

/// SQLite's chain of sums over frames in cache, against copying them.
fn chain(report: &mut Report) {
    let frames: Vec<u8> = (0..CHUNK).map(|at| ((at * 31) >> 3) as u8).collect();
    let mut copy = vec![0; CHUNK];
    let [mut summing, mut copying] = [Vec::new(), Vec::new()];
    let rate = |begun: Instant| megabytes(CHUNK * 200) / begun.elapsed().as_secs_f64();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut sum = Checksum::default();
        for _ in 0..200 {
            sum = checksum(WordOrder::Little, sum, black_box(&frames));
        }
        black_box(sum);
        summing.push(rate(begun));
        let begun = Instant::now();
        for _ in 0..200 {
            copy.copy_from_slice(black_box(&frames));
            black_box(&copy);
        }
        copying.push(rate(begun));
    }
    report.case(
        "checksum chain",
        Figure(percentile(&mut summing, 0.5), "MB/s"),
        Bound(percentile(&mut copying, 0.5), "memcpy of the frames"),
        Bar::None,
    );
}

/// Reading what a writer left in the WAL: salts, chain, hashes, images before and after.
fn backlog(report: &mut Report, stage: &Stage) {
    let [mut ours, mut bound] = [Vec::new(), Vec::new()];
    for round in 0..5 {
        let plan = plan(stage, &format!("backlog-{round}"), 0);
        let mut source = attach(&plan.database);
        let commits = Application::run_for(&plan, Duration::from_millis(500)).len();
        let bytes = commits * WAL_FRAME;
        let begun = Instant::now();
        let mut read = 0;
        while let Some(change) = source.poll(64).expect("polled") {
            read += change.commits as usize;
            source.consume(&change);
        }
        ours.push(megabytes(bytes) / begun.elapsed().as_secs_f64());
        assert_eq!(read, commits, "every commit is read once");
        let log = sibling(&plan.database, "-wal");
        let begun = Instant::now();
        black_box(std::fs::read(&log).expect("the WAL is readable"));
        bound.push(megabytes(bytes) / begun.elapsed().as_secs_f64());
    }
    report.case(
        "backlog of one-page commits polled",
        Figure(percentile(&mut ours, 0.5), "MB/s"),
        Bound(percentile(&mut bound, 0.5), "read(2) of the WAL"),
        Bar::None,
    );
}

fn plan(stage: &Stage, name: &str, every_us: u64) -> Plan {
    let database = stage.path().join(format!("{name}.db"));
    application::create(&database, ACCOUNTS);
    Plan {
        database,
        accounts: ACCOUNTS,
        work: Work::Update,
        every_us,
        synchronous: "NORMAL".to_owned(),
        log: stage.path().join(format!("{name}.log")),
    }
}

fn attach(database: &Path) -> Source {
    let mut source = Source::attach(database, &SourceOptions::default()).expect("attached");
    let task = source.scan().expect("a first scan is possible");
    let scan = task.run(&mut |_, _| std::ops::ControlFlow::Continue(()));
    let adopted = source.adopt(scan.expect("scanned")).expect("adopted");
    assert!(matches!(adopted, Adopted::Ready));
    source
}

fn sibling(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
