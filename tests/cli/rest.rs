//! Partitions at rest: a daemon that has nothing to do sleeps, and misses nothing while it does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, Node, Options};
use rusqlite::Connection;
use serde_json::Value;
use wal::PartitionName;
use wal::log::{Appender, Kind};

use crate::cluster::{options, until};

/// What nobody tells of is found within 20 s, and a name within 120 s: what is seen so soon was
/// told.
const AT_ONCE: Duration = Duration::from_secs(2);
/// From when one is cold until its daemon relies on being told.
const ASLEEP: Duration = Duration::from_millis(2500);

/// A cluster whose databases are at rest after a second.
fn quick(nodes: usize) -> Options {
    options(nodes)
        .tweak("[ship]", "copies", &usize::from(nodes > 1).to_string())
        .tweak("[[engine.sqlite]]", "idle_after", "\"1s\"")
}

/// One whose directories hold native logs.
fn of_logs(nodes: usize) -> Cluster {
    let cluster = Cluster::prepare(&quick(nodes)).expect("prepared");
    for node in &cluster.nodes {
        let path = node.place.config();
        let text = fs::read_to_string(&path).expect("it was just written");
        let text = text.replace("[[engine.sqlite]]", "[[engine.native]]");
        fs::write(&path, text.replace("*.db", "*.log")).expect("written");
    }
    cluster
}

fn log(dir: &Path, name: &str) -> Appender {
    let options = wal::log::Options {
        id: PartitionName::new(name).expect("a name").id(),
        segment_bytes: 64 << 10,
        ..wal::log::Options::default()
    };
    Appender::open(&dir.join(name), &options).expect("a log")
}

fn entry(node: &Node, name: &str) -> Option<Value> {
    let rows = node.get(&format!("/v1/partitions?name={name}")).ok()?;
    rows.as_array()?.first().cloned()
}

/// Waits until it is owned, its shadow stands where it stands, and it sleeps.
fn asleep(node: &Node, name: &str) -> Value {
    let entry = until(&format!("{name} is at rest"), || {
        entry(node, name).filter(|entry| entry["tier"] == "cold" && is_level(entry))
    });
    sleep(ASLEEP);
    entry
}

fn is_level(entry: &Value) -> bool {
    let shadows = entry["shadows"].as_array();
    shadows.is_some_and(|shadows| {
        let level = |shadow: &Value| shadow["ready"] == true && shadow["lag_lsn"] == 0;
        shadows.iter().any(level)
    })
}

/// Commits three times while it sleeps; each must be at the shadow at once.
fn each_is_shipped(cluster: &Cluster, name: &str, mut commit: impl FnMut()) {
    let owner = &cluster.nodes[0];
    for _ in 0..3 {
        let before = asleep(owner, name);
        let begun = Instant::now();
        commit();
        until("the commit is at the shadow", || {
            let now = entry(owner, name)?;
            (now["digest"] != before["digest"] && is_level(&now)).then_some(())
        });
        let took = begun.elapsed();
        assert!(took < AT_ONCE, "{took:?}");
    }
}

#[test]
fn a_record_that_is_appended_to_a_log_at_rest_is_shipped_at_once() {
    let mut cluster = of_logs(2);
    let appender = log(&cluster.nodes[0].place.live(), "a.log");
    cluster.start_all().expect("two daemons");
    each_is_shipped(&cluster, "a.log", || {
        appender.append(Kind(1), b"a record").expect("appended");
    });
    cluster.stop().expect("they end");
}

#[test]
fn a_commit_to_a_database_at_rest_is_shipped_at_once() {
    let mut cluster = Cluster::prepare(&quick(2)).expect("prepared");
    let path = cluster.nodes[0].place.live().join("a.db");
    let database = Connection::open(path).expect("opens");
    let made = database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(v);");
    made.expect("made");
    cluster.start_all().expect("two daemons");
    each_is_shipped(&cluster, "a.db", || {
        database
            .execute("INSERT INTO t VALUES (randomblob(9))", [])
            .expect("committed");
    });
    cluster.stop().expect("they end");
}

#[test]
fn a_new_log_is_found_at_once_and_one_that_goes_is_let_go() {
    let mut cluster = of_logs(1);
    cluster.start_all().expect("a daemon");
    let node = &cluster.nodes[0];
    let live = node.place.live();
    for number in 0..3 {
        sleep(Duration::from_millis(300));
        let begun = Instant::now();
        let name = format!("{number}.log");
        drop(log(&live, &name));
        until("it is served", || {
            entry(node, &name).filter(|entry| entry["role"] == "owner")
        });
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        sleep(Duration::from_millis(300));
        let begun = Instant::now();
        fs::remove_file(live.join(&name)).expect("removed");
        until("it is let go", || {
            let now = entry(node, &name);
            now.is_none_or(|now| now["role"] != "owner").then_some(())
        });
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
    cluster.stop().expect("it ends");
}

/// How often each thread of a process went to sleep so far.
fn sleeps(id: u32) -> BTreeMap<OsString, u64> {
    let threads = fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
    let count = |thread: fs::DirEntry| {
        // A thread may end while we look.
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((thread.file_name(), count.trim().parse().expect("a number")))
    };
    let threads = threads.map(|thread| thread.expect("listed"));
    threads.filter_map(count).collect()
}

#[test]
fn a_daemon_whose_logs_are_all_at_rest_sleeps() {
    const SPAN: u64 = 10;
    let mut cluster = of_logs(1);
    let live = cluster.nodes[0].place.live();
    for number in 0..20 {
        drop(log(&live, &format!("{number}.log")));
    }
    cluster.start_all().expect("a daemon");
    let node = &cluster.nodes[0];
    for number in 0..20 {
        until("all are at rest", || {
            entry(node, &format!("{number}.log")).filter(|entry| entry["tier"] == "cold")
        });
    }
    sleep(ASLEEP + Duration::from_secs(2));
    let id = node.id().expect("it runs");
    let before = sleeps(id);
    sleep(Duration::from_secs(SPAN));
    let after = sleeps(id).into_iter();
    let woken: u64 = after
        .map(|(thread, count)| count - before.get(&thread).unwrap_or(&0))
        .sum();
    // Twice what it is: about three a second.
    assert!(woken < 6 * SPAN, "{woken} wake-ups in {SPAN} s");
    cluster.stop().expect("it ends");
}
