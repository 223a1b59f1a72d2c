//! Everything that a user, a disk or a stranger can get wrong: the error names the thing, the
//! daemon goes on with everything else, and nothing is lost.
//!
//! | module | what is wrong |
//! |---|---|
//! | [`config`] | the configuration, the state directory, the port |
//! | [`database`] | files in the configured directories |
//! | [`write_ahead`] | the WAL beside a database |
//! | [`request`] | what operators ask for |
//! | [`peer`], [`fake`] | what arrives over the network |
//! | [`disk`], [`mount`] | disks that are full |
//! | [`user`] | permissions, and running without any privilege |
//!
//! In most tests `tenant00.db` is the other database: it must go on streaming, and still moves.
//! Tests that need root say so when they are skipped.

#[path = "../cluster.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod cluster;
#[path = "../command.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod command;
mod config;
mod database;
mod disk;
mod fake;
mod mount;
mod peer;
mod request;
mod user;
mod write_ahead;

use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Pace, Writers, four_writers};
use serde_json::Value;

use cluster::{LIMIT, judged, moves_on, until};

/// The database that nothing is wrong with.
const OTHER: &str = "tenant00.db";
const ALL: [u32; 4] = [1, 2, 3, 4];

/// Ordinary applications at work on [`OTHER`].
fn applications(cluster: &Cluster) -> Writers {
    let load = four_writers(&cluster.tenants[0], Pace::Rate(30.0));
    cluster.start_writers(&load).expect("writers start")
}

/// [`OTHER`] still streams and moves, every daemon lives, and no row is missing.
fn goes_on(mut cluster: Cluster, writers: Writers) {
    moves_on(&mut cluster, OTHER);
    cluster
        .wait_for_progress(&ALL, LIMIT)
        .expect("its applications go on");
    for node in &mut cluster.nodes {
        let name = node.place.name.clone();
        assert!(node.is_running(), "{name} died");
        let log = std::fs::read_to_string(node.place.log()).expect("a log");
        assert!(!log.contains("panicked"), "{name} panicked:\n{log}");
    }
    judged(cluster, writers);
}

/// What a node says of one partition.
fn entry(cluster: &Cluster, node: &str, partition: &str) -> Option<Value> {
    let target = format!("/v1/partitions?name={partition}");
    let rows = cluster.node(node).expect("there").get(&target).ok()?;
    rows.as_array()?.first().cloned()
}

/// Waits until a node refuses a partition; returns the reason.
fn refusal(cluster: &Cluster, node: &str, partition: &str) -> String {
    until(&format!("{partition} is refused"), || {
        let entry = entry(cluster, node, partition)?;
        (entry["role"] == "refused").then(|| text(&entry["reason"]))
    })
}

/// Waits until a node serves a partition and its shadow stands where it stands.
fn served(cluster: &Cluster, node: &str, partition: &str) -> Value {
    until(&format!("{partition} is served with a shadow"), || {
        let entry = entry(cluster, node, partition)?;
        let shadows = entry["shadows"].as_array()?;
        let level = shadows.iter().any(|shadow| {
            shadow["ready"] == true && shadow["state"] == "streaming" && shadow["lag_lsn"] == 0
        });
        (entry["role"] == "owner" && level).then_some(entry)
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Lines of a node's log so far.
fn log(cluster: &Cluster, node: &str) -> String {
    let path = cluster.node(node).expect("there").place.log();
    std::fs::read_to_string(path).expect("a log")
}

/// Waits until a node's log says something.
fn logs(cluster: &Cluster, node: &str, words: &str) {
    until(&format!("{node} logs {words:?}"), || {
        log(cluster, node).contains(words).then_some(())
    });
}

/// Whether this test may do what only root may.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}

/// A moment for what must not happen.
const MOMENT: Duration = Duration::from_secs(1);
