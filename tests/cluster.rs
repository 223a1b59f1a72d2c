//! A small cluster of real daemons for the suites that break things: started with its shadows
//! warm, and judged at the end.
//!
//! Waiting is always for something that can be named, with a limit; nothing here is tried twice.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, MoveReport, Options, Tenant, Verdict, Writers};

/// Longest wait for anything that takes a second on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A cluster of so many nodes, in a directory of its own.
pub fn options(nodes: usize) -> Options {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("fs-{}-{number}", std::process::id());
    Options {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_foreshadow")),
        root: Some(std::env::temp_dir().join(name)),
        nodes,
        ..Options::default()
    }
}

/// Databases of about a megabyte, the first two on node-a, the others in turn.
pub fn tenants(count: u32, nodes: usize) -> Vec<Tenant> {
    let home = |number: u32| match number {
        0 | 1 => 0,
        other => other as usize % nodes,
    };
    let names: Vec<String> = ('a'..='z').map(|letter| format!("node-{letter}")).collect();
    (0..count)
        .map(|number| Tenant::new(number, &names[home(number)], 1.0))
        .collect()
}

/// Starts everything and waits until every tenant has a ready shadow.
pub fn started(options: &Options, tenants: &[Tenant]) -> Cluster {
    let mut cluster = Cluster::prepare(options).expect("prepared");
    cluster.create_tenants(tenants).expect("databases are made");
    cluster.start_all().expect("every daemon is ready");
    cluster
        .wait_for_shadows(LIMIT)
        .expect("every tenant has a ready shadow");
    cluster
}

/// Asks `look` until it finds something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {LIMIT:?} in vain: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Moves a partition to the other of two nodes; anything but success is a failure of the test.
pub fn moves_on(cluster: &mut Cluster, partition: &str) -> MoveReport {
    let owner = cluster.owner_of(partition).expect("one owner");
    let to = if owner == "node-a" {
        "node-b"
    } else {
        "node-a"
    };
    let report = cluster
        .move_partition(partition, to, LIMIT)
        .expect("the move ends");
    assert!(
        report.is_done(),
        "{partition} to {to}: {:?}",
        report.outcome
    );
    report
}

/// Stops the writers and the daemons and compares every acknowledged row with what is on disk.
pub fn judged(mut cluster: Cluster, writers: Writers) -> Verdict {
    writers.stop().expect("every writer ends");
    cluster.settle(LIMIT);
    cluster.stop().expect("every daemon ends");
    let verdict = cluster.verify().expect("judged");
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert!(verdict.acked > 0, "the writers wrote nothing");
    verdict
}
