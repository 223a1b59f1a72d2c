//! Native logs under real daemons: how soon a record is applied at the peer, what ten thousand logs
//! at rest cost, and how long an application waits that moves with its log.
//!
//! FORESHADOW_MOVES sets how many moves (default 100), FORESHADOW_FLEET how many logs rest (default
//! 10000).

#[allow(dead_code, reason = "every bench uses a part of it")]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod observer;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{
    Cluster, Engine, Node, Options as ClusterOptions, Place, percentile,
};
use observer::{Observer, lags_ms, slot};
use report::{Bar, Bound, Figure, Report};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use stage::{Stage, has_ready_shadow, wait_for};
use wal::log::control::Creation;
use wal::log::{Appender, BLOCK, Control, Kind, Options};
use wal::{Epoch, Lsn, PartitionId, PartitionName};

const NAME: &str = "tenant00.log";
const RECORD: [u8; 128] = [0x5a; 128];
const SEGMENT: u32 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Between two records: each is seen on its own.
const GAP: Duration = Duration::from_millis(2);
const RECORDS: usize = 5000;
const IDLE: Duration = Duration::from_secs(20);
/// A log is at rest after a second here; then everything that follows from it gets time to end.
const COOL: Duration = Duration::from_secs(8);
/// How often an application that was refused looks where its log is now.
const LOOK: Duration = Duration::from_micros(50);

fn main() -> ExitCode {
    let number = |key: &str, default| {
        let given = std::env::var(key).ok().and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let stage = Stage::new("logs");
    let mut report = Report::new("logs");
    report.note(&format!("on {}", stage.filesystem()));
    // The default slack of 50 us is as much as what is measured.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
    lag(&mut report, &stage);
    pause(&mut report, &stage, number("FORESHADOW_MOVES", 100));
    rest(&mut report, &stage, number("FORESHADOW_FLEET", 10_000));
    report.finish()
}

/// A cluster whose directories hold native logs.
fn cluster(stage: &Stage, name: &str, nodes: usize) -> Cluster {
    let options = stage
        .options(name, nodes)
        .tweak("[ship]", "copies", &usize::from(nodes > 1).to_string())
        .tweak("[[engine.native]]", "idle_after", "\"1s\"");
    let options = ClusterOptions {
        engine: Engine::Native,
        ..options
    };
    Cluster::prepare(&options).expect("a configuration")
}

fn options() -> Options {
    Options {
        id: PartitionName::new(NAME).expect("a name").id(),
        segment_bytes: SEGMENT,
        ..Options::default()
    }
}

fn live(place: &Place) -> PathBuf {
    place.live().join(NAME)
}

/// Two daemons, and a log at the first with a ready shadow at the second.
fn pair(stage: &Stage, name: &str) -> (Cluster, Appender) {
    let mut cluster = cluster(stage, name, 2);
    let appender = Appender::open(&live(&cluster.nodes[0].place), &options()).expect("a log");
    cluster.start_all().expect("two daemons");
    wait_for("a ready shadow", LIMIT, || {
        has_ready_shadow(&cluster, "node-a", NAME).then_some(())
    });
    (cluster, appender)
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Microseconds from an append's return until the record is applied, and until it is durable, at
/// the peer.
fn lag(report: &mut Report, stage: &Stage) {
    let (mut cluster, appender) = pair(stage, "lag");
    let partition = PartitionName::new(NAME).expect("a name").id();
    // The peer has a position to show once something was applied there.
    for _ in 0..100 {
        appender.append(Kind(1), &RECORD).expect("appended");
    }
    sleep(Duration::from_millis(500));
    let states = [0, 1].map(|node: usize| cluster.nodes[node].place.state());
    let consumed = slot(&states[0], partition).consumed;
    let observer = Observer::start(&states, partition);
    let mut ends = Vec::new();
    let (mut echo, mut round_trips) = (bounds::Echo::start(), Vec::new());
    for number in 1..=RECORDS as u64 {
        appender.append(Kind(1), &RECORD).expect("appended");
        ends.push((now_ns(), consumed.after(number)));
        sleep(GAP / 2);
        // The bound breathes with the machine as the lag does, and finds it as idle.
        round_trips.extend(bounds::sample(1, || echo.ping()));
        sleep(GAP / 2);
    }
    sleep(Duration::from_millis(200));
    let seen = observer.stop();
    let round_trip = percentile(&mut round_trips, 0.5);
    let busy = percentile(&mut bounds::ping_pong(5000), 0.5);
    report.note(&format!("ping-pong p50 one after the other: {busy:.1} us"));
    let cases = [
        ("read at the owner", &seen[0].consumed, None),
        ("applied at the peer", &seen[1].applied, Some(3.0)),
        ("durable at the peer", &seen[1].durable, None),
    ];
    for (case, sightings, bar) in cases {
        let mut lags = lags_ms(ends.iter().copied(), sightings);
        if lags.len() < ends.len() {
            report.fail(format!("{case}: {} of {} seen", lags.len(), ends.len()));
        }
        for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
            let bar = bar.filter(|_| word == "p50");
            report.case(
                &format!("append to {case}, {word}"),
                Figure(percentile(&mut lags, share) * 1000.0, "us"),
                Bound(round_trip, "loopback ping-pong at the same pace"),
                bar.map_or(Bar::None, |times| Bar::AtMost(times * round_trip)),
            );
        }
    }
    drop(appender);
    cluster.stop().expect("daemons end");
}

/// What one move did to the application.
#[derive(Default)]
struct Pauses {
    sealed: Vec<f64>,
    felt: Vec<f64>,
}

/// Milliseconds from the seal, and from the last append at the source, until the first append at
/// the target has returned.
fn pause(report: &mut Report, stage: &Stage, moves: usize) {
    let (mut cluster, mut appender) = pair(stage, "pause");
    let mut pauses = Pauses::default();
    let mut written = 0;
    for number in 0..moves {
        let (from, to) = (number % 2, 1 - number % 2);
        let names = [from, to].map(|node| cluster.nodes[node].place.name.clone());
        wait_for("a ready shadow", LIMIT, || {
            has_ready_shadow(&cluster, &names[0], NAME).then_some(())
        });
        sleep(Duration::from_millis(100));
        let target = live(&cluster.nodes[to].place);
        let (tell, told) = mpsc::channel();
        let application = std::thread::spawn(move || {
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
            tell.send(()).expect("somebody listens");
            goes_along(appender, &target)
        });
        told.recv().expect("it writes");
        sleep(Duration::from_millis(20));
        move_to(&cluster.nodes[from], &names[1]);
        let gone = application.join().expect("it goes along");
        pauses.sealed.push(gone.sealed_ms);
        pauses.felt.push(gone.felt_ms);
        (appender, written) = (gone.appender, written + gone.appended);
    }
    let exchange = bounds::exchange(stage.path(), 200);
    let sync = bounds::write_dsync(stage.path(), 200);
    let bound = [exchange, sync].map(|mut all| percentile(&mut all, 0.5) / 1e3);
    let bound = Bound(bound[0] + bound[1], "write with O_DSYNC + exchange");
    let bars = [
        (
            "seal to first append at the target",
            pauses.sealed,
            [1.0, 3.0],
        ),
        (
            "last append to first at the target",
            pauses.felt,
            [f64::NAN; 2],
        ),
    ];
    for (case, mut all, bars) in bars {
        for ((word, share), bar) in [("p50", 0.5), ("p99", 0.99)].into_iter().zip(bars) {
            let bar = match bar.is_nan() {
                true => Bar::None,
                false => Bar::AtMost(bar),
            };
            let figure = Figure(percentile(&mut all, share), "ms");
            report.case(&format!("{case}, {word}"), figure, bound, bar);
        }
    }
    let records = count(appender.control());
    report.note(&format!(
        "{moves} moves, {written} acknowledged, {records} records"
    ));
    if records != written {
        report.fail(format!("{written} acknowledged, {records} in the log"));
    }
    drop(appender);
    cluster.stop().expect("daemons end");
}

/// An application that went along with its log.
struct Gone {
    appender: Appender,
    appended: u64,
    sealed_ms: f64,
    felt_ms: f64,
}

/// Appends until it is refused, then at `target` as soon as the log is there.
fn goes_along(appender: Appender, target: &Path) -> Gone {
    let mut appended = 0;
    let mut last = Instant::now();
    while appender.append(Kind(1), &RECORD).is_ok() {
        (appended, last) = (appended + 1, Instant::now());
        sleep(Duration::from_micros(200));
    }
    let refused = Instant::now();
    drop(appender);
    let there = Options {
        create: false,
        ..options()
    };
    loop {
        let opened = Appender::open(target, &there);
        if let Ok(appender) = opened {
            appender.append(Kind(1), &RECORD).expect("it is served");
            return Gone {
                appender,
                appended: appended + 1,
                sealed_ms: refused.elapsed().as_secs_f64() * 1e3,
                felt_ms: last.elapsed().as_secs_f64() * 1e3,
            };
        }
        assert!(refused.elapsed() < LIMIT, "it is not served: {opened:?}");
        sleep(LOOK);
    }
}

fn move_to(node: &Node, to: &str) {
    let body = json!({ "partition": NAME, "to": to });
    let answer = node.ask("POST", "/v1/moves", Some(&body));
    let answer = answer.expect("the daemon answers");
    assert_eq!(answer.status, 202, "{}", answer.body);
}

fn count(control: &Control) -> u64 {
    let mut scanner = wal::log::Scanner::new(control).expect("a log");
    let mut records = 0;
    while let Some(group) = scanner.next_group().expect("whole groups") {
        records += group.records().count() as u64;
    }
    records
}

/// Percent of a core of a daemon whose logs are all at rest.
fn rest(report: &mut Report, stage: &Stage, logs: usize) {
    let mut shares = [0.0; 2];
    for (share, count) in shares.iter_mut().zip([0, logs]) {
        let mut cluster = cluster(stage, &format!("rest-{count}"), 1);
        let dir = cluster.nodes[0].place.live();
        for number in 0..count {
            let begin = Lsn(BLOCK as u64);
            let creation = Creation {
                id: PartitionId(number as u64 + 1),
                segment_bytes: 64 << 10,
                epoch: Epoch(1),
                first: begin,
                lsn: begin,
                sealed: false,
            };
            Control::create(&dir.join(format!("log{number:05}.log")), creation).expect("a log");
        }
        cluster.start_all().expect("a daemon");
        wait_for("all are attached", LIMIT * 4, || {
            let status = cluster.nodes[0].get("/v1/status").ok()?;
            (status["owned"].as_u64()? == count as u64).then_some(())
        });
        sleep(COOL);
        let node = &cluster.nodes[0];
        let (begun, before) = (Instant::now(), node.threads());
        sleep(IDLE);
        let spent = node.threads().seconds_since(&before);
        *share = spent / begun.elapsed().as_secs_f64() * 100.0;
        cluster.stop().expect("the daemon ends");
    }
    report.case(
        &format!("{logs} logs at rest: processor"),
        Figure(shares[1], "% core"),
        Bound(shares[0].max(0.001), "a daemon without logs"),
        Bar::AtMost(0.1),
    );
}
