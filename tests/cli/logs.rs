//! Native logs under real daemons: found, mirrored, moved, and given back after a restart.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, Engine, Options as ClusterOptions};
use serde_json::Value;
use wal::PartitionName;
use wal::log::{Appender, Control, Durability, Error, Kind, Options, Scanner};

use crate::cluster::{LIMIT, options, until};
use crate::command::ask_at;
use crate::first;

const NAME: &str = "orders.log";
/// Longer than a round trip to a peer ever takes here.
const MIRROR_LIMIT: Duration = Duration::from_secs(20);

/// Two daemons that look after native logs, and a log at the first.
fn cluster() -> (Cluster, Appender) {
    let options = ClusterOptions {
        engine: Engine::Native,
        ..options(2)
    };
    let mut cluster = Cluster::prepare(&options).expect("prepared");
    cluster.start_all().expect("every daemon is ready");
    let appender = open(&cluster, 0, Durability::Local);
    wait_ready(&cluster, "node-a");
    (cluster, appender)
}

fn path(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.nodes[node].place.live().join(NAME)
}

fn open(cluster: &Cluster, node: usize, durability: Durability) -> Appender {
    let options = Options {
        id: PartitionName::new(NAME).expect("a name").id(),
        segment_bytes: 64 << 10,
        durability,
        ..Options::default()
    };
    Appender::open(&path(cluster, node), &options).expect("a log")
}

/// Waits until a move from `owner` can begin.
fn wait_ready(cluster: &Cluster, owner: &str) {
    until("its shadow is ready", || {
        let rows = ask_at(cluster, owner, &["--json", "list"]).exits(0).json();
        let rows = rows.as_array()?;
        let is_ready = |row: &Value| {
            row["name"] == NAME && row["role"] == "owner" && row["shadows"][0]["ready"] == true
        };
        rows.iter().any(is_ready).then_some(())
    });
}

/// All payloads of the log at a node.
fn payloads(cluster: &Cluster, node: usize) -> Vec<String> {
    let control = Control::open(&path(cluster, node)).expect("a log");
    let mut scanner = Scanner::new(&control).expect("a reader");
    let mut found = Vec::new();
    while let Some(group) = scanner.next_group().expect("whole groups") {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        found.extend(group.records().map(|record| text(record.payload)));
    }
    found
}

#[test]
fn a_log_is_found_and_listed_and_other_files_of_that_name_are_not() {
    let (cluster, _appender) = cluster();
    std::fs::write(cluster.nodes[0].place.live().join("access.log"), "GET /").expect("written");
    sleep(Duration::from_millis(500));
    let rows = ask_at(&cluster, "node-a", &["--json", "list"])
        .exits(0)
        .json();
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    let row = first(&rows);
    assert_eq!(row["engine"], "native");
    assert_eq!(row["path"], path(&cluster, 0).display().to_string());
}

#[test]
fn a_mirrored_append_waits_for_the_peer_and_says_so_when_it_is_not_there() {
    let (mut cluster, appender) = cluster();
    drop(appender);
    let mirrored = Durability::Mirrored {
        timeout: MIRROR_LIMIT,
    };
    let appender = open(&cluster, 0, mirrored);
    let began = Instant::now();
    for _ in 0..20 {
        let lsn = appender.append(Kind(1), b"mirrored").expect("acknowledged");
        assert!(appender.control().mirrored() > lsn);
    }
    assert!(began.elapsed() < MIRROR_LIMIT);
    drop(appender);
    cluster.nodes[1].suspend(true);
    let hasty = Durability::Mirrored {
        timeout: Duration::from_millis(300),
    };
    let appender = open(&cluster, 0, hasty);
    let refused = appender.append(Kind(1), b"here alone");
    assert!(
        matches!(refused, Err(Error::NotMirrored { .. })),
        "{refused:?}"
    );
    cluster.nodes[1].suspend(false);
    let control = Control::open(&path(&cluster, 0)).expect("a log");
    until("the peer catches up", || {
        (control.mirrored() >= control.word().lsn).then_some(())
    });
    cluster.stop().expect("every daemon ends");
}

#[test]
fn a_log_moves_and_an_appender_that_was_refused_goes_on_where_it_is() {
    let (mut cluster, mut appender) = cluster();
    let mut written = Vec::new();
    for round in 0..4 {
        let (from, to) = (round % 2, 1 - round % 2);
        for number in 0..30 {
            let text = format!("{round}.{number}");
            appender
                .append(Kind(1), text.as_bytes())
                .expect("acknowledged");
            written.push(text);
        }
        let (at, goal) = (
            format!("node-{}", ["a", "b"][from]),
            ["node-a", "node-b"][to],
        );
        wait_ready(&cluster, &at);
        ask_at(&cluster, &at, &["move", NAME, "--to", goal, "--wait"]).exits(0);
        let refused = appender.append(Kind(1), b"too late");
        assert!(matches!(refused, Err(Error::Sealed { .. })), "{refused:?}");
        drop(appender);
        let grave = Appender::open(&path(&cluster, from), &Options::default());
        assert!(matches!(grave, Err(Error::Sealed { .. })), "{grave:?}");
        appender = open(&cluster, to, Durability::Local);
        assert_eq!(payloads(&cluster, to), written);
    }
    cluster.stop().expect("every daemon ends");
}

#[test]
fn after_a_kill_of_both_daemons_log_and_shadow_go_on() {
    let (mut cluster, appender) = cluster();
    for number in 0..50 {
        appender
            .append(Kind(1), format!("{number}").as_bytes())
            .expect("acknowledged");
    }
    for node in ["node-a", "node-b"] {
        cluster.kill9(node).expect("it ran");
    }
    appender
        .append(Kind(1), b"while nobody looks")
        .expect("acknowledged");
    for node in ["node-a", "node-b"] {
        cluster.restart(node).expect("it starts");
    }
    wait_ready(&cluster, "node-a");
    ask_at(
        &cluster,
        "node-a",
        &["move", NAME, "--to", "node-b", "--wait"],
    )
    .exits(0);
    drop(appender);
    let all = payloads(&cluster, 1);
    assert_eq!(all.len(), 51);
    assert_eq!(all.last().map(String::as_str), Some("while nobody looks"));
    let began = Instant::now();
    cluster.stop().expect("every daemon ends");
    assert!(began.elapsed() < LIMIT);
}
