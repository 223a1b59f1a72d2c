//! `foreshadow wal dump` on the files of daemons that worked.

use std::fs;
use std::path::{Path, PathBuf};

use foreshadow::cli::demo::harness::{Cluster, Pace, four_writers};
use serde_json::Value;

use crate::cluster::{LIMIT, options, started, tenants};
use crate::command::foreshadow;

/// The files that two daemons leave after a moment of load.
fn worked() -> (Cluster, PathBuf, PathBuf) {
    let tenants = tenants(1, 2);
    let mut cluster = started(&options(2), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(40.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    for _ in 0..5 {
        let progress = cluster.wait_for_progress(&[1, 2, 3, 4], LIMIT);
        progress.expect("they write");
    }
    writers.stop().expect("every writer ends");
    assert_eq!(cluster.settle(LIMIT), Vec::<String>::new());
    cluster.stop().expect("every daemon ends");
    let state = |node: &str| cluster.node(node).expect("there").place.state();
    let log = only_file(&only_file(&state("node-a").join("deltas")));
    let journal = only_file(&state("node-b").join("journal-0"));
    (cluster, log, journal)
}

fn only_file(dir: &Path) -> PathBuf {
    let mut entries = fs::read_dir(dir).expect("a directory");
    let first = entries.next().expect("an entry").expect("readable");
    first.path()
}

fn found(path: &Path, code: i32) -> Vec<Value> {
    let path = path.to_str().expect("UTF-8");
    let said = foreshadow(&["--json", "wal", "dump", path]).exits(code);
    said.json().as_array().expect("a list").clone()
}

/// The frames among what was found must be deltas that follow one another.
fn chain(found: &[Value]) -> usize {
    let frames: Vec<&Value> = found.iter().filter(|one| one["what"] == "frame").collect();
    for frame in &frames {
        assert_eq!(frame["kind"], "delta", "{frame:#}");
        assert!(
            frame["detail"]
                .as_str()
                .expect("words")
                .contains("pages, digest")
        );
    }
    for pair in frames.windows(2) {
        assert_eq!(pair[0]["to"], pair[1]["from"], "{:#}", pair[1]);
    }
    frames.len()
}

#[test]
fn a_delta_log_is_a_chain_of_deltas_and_a_torn_tail_is_no_damage() {
    let (_cluster, log, _) = worked();
    let all = found(&log, 0);
    let count = chain(&all);
    assert!(count >= 3, "{count} deltas");
    let text = foreshadow(&["wal", "dump", log.to_str().expect("UTF-8")]).exits(0);
    assert!(text.out.starts_with("OFFSET  KIND"), "{}", text.out);
    let copy = log.with_extension("copy");
    let last = all
        .iter()
        .rfind(|one| one["what"] == "frame")
        .expect("a frame");
    let offset = last["offset"].as_u64().expect("a number");
    let mut bytes = fs::read(&log).expect("read");
    bytes.truncate(offset as usize + 90);
    fs::write(&copy, &bytes).expect("written");
    let torn = found(&copy, 0);
    assert_eq!(torn.last().expect("something")["what"], "torn");
    assert_eq!(chain(&torn), count - 1);
    bytes[80] ^= 1;
    fs::write(&copy, &bytes).expect("written");
    let damaged = found(&copy, 1);
    assert_eq!(damaged[0]["what"], "torn");
    assert_eq!(
        chain(&damaged),
        count - 2,
        "reading goes on behind the damage"
    );
}

#[test]
fn a_journal_is_read_group_by_group_as_recovery_would() {
    let (_cluster, _, journal) = worked();
    let all = found(&journal, 0);
    assert!(chain(&all) >= 3);
    assert_eq!(all[0]["what"], "group", "{:#}", all[0]);
    let groups: Vec<&Value> = all.iter().filter(|one| one["what"] == "group").collect();
    for pair in groups.windows(2) {
        let next = pair[0]["sequence"].as_u64().map(|sequence| sequence + 1);
        assert_eq!(next, pair[1]["sequence"].as_u64());
    }
    assert!(
        all.iter().all(|one| one["what"] != "torn"),
        "a healthy journal is not torn"
    );
    let text = foreshadow(&["wal", "dump", journal.to_str().expect("UTF-8")]).exits(0);
    assert!(text.out.contains("group"), "{}", text.out);
}
