//! The lease guard with real daemons and unmodified applications: whoever is cut off from a living
//! sidecar stops writing, by the clock and without anybody's help.
//!
//! | module | what it is about |
//! |---|---|
//! | [`application`] | `sqlite3` with the extension loaded |
//! | [`alone`] | one node: its daemon is killed, stopped, restarted, ended |
//! | [`owners`] | moves and takeovers |

mod alone;
mod application;
#[path = "../cluster.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod cluster;
#[path = "../command.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod command;
mod owners;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Tenant};
use lease::Lease;

use application::{Answer, Application};
use cluster::{options, started, until};

const NAME: &str = "tenant00.db";
/// Short enough to wait for, and long beside what a busy machine does to a thread.
const LEASE: &str = "\"1s\"";
/// For what must happen before a lease ends.
const LONG: &str = "\"20s\"";
/// How late a row may be acknowledged after the end of its lease: the time from the last write to
/// the log until its commit returned, and until this process heard of it.
const TOLERANCE: u64 = 150_000_000;
const SECOND: u64 = 1_000_000_000;

/// Two nodes whose databases are guarded; `tenant00.db` is node-a's.
fn guarded(length: &str) -> Cluster {
    guarded_of(length, 1.0)
}

fn guarded_of(length: &str, megabytes: f64) -> Cluster {
    let options = options(2)
        .tweak("[[engine.sqlite]]", "lease_guard", "true")
        .tweak("[[engine.sqlite]]", "lease", length);
    started(&options, &[Tenant::new(0, "node-a", megabytes)])
}

fn live(cluster: &Cluster, node: &str) -> PathBuf {
    let node = cluster.node(node).expect("a node");
    node.place.live().join(NAME)
}

/// Where SQLite ends up.
fn real(cluster: &Cluster, node: &str) -> PathBuf {
    live(cluster, node).canonicalize().expect("a database")
}

fn lease_of(cluster: &Cluster, node: &str) -> Lease {
    let path = lease::path_of(&real(cluster, node));
    until("the lease is there", || Lease::open(&path).ok())
}

/// Waits until a node's database is granted.
fn granted(cluster: &Cluster, node: &str) -> Lease {
    until("it is granted", || {
        let path = lease::path_of(&live(cluster, node).canonicalize().ok()?);
        Lease::open(&path)
            .ok()
            .filter(|lease| lease.check().is_ok())
    })
}

/// An application at a node's live path, with a table of its own.
fn application(cluster: &Cluster, node: &str) -> Application {
    granted(cluster, node);
    let mut application = Application::guarded(&live(cluster, node));
    let table = "create table if not exists g(w int, n int, unique(w, n));";
    application.run(table).must();
    application
}

fn insert(application: &mut Application, writer: u32, number: u64) -> Answer {
    application.run(&format!("insert into g values({writer}, {number});"))
}

/// Writes from a thread until `stop` is dropped; gives everything that was answered.
fn writes(
    mut application: Application,
    writer: u32,
    stop: flume::Receiver<()>,
) -> thread::JoinHandle<(Application, Vec<Answer>)> {
    thread::spawn(move || {
        let mut answers = Vec::new();
        while stop.try_recv() != Err(flume::TryRecvError::Disconnected) {
            let number = answers.len() as u64;
            let answer = insert(&mut application, writer, number);
            if answer.result.is_err() {
                thread::sleep(Duration::from_millis(1));
            }
            answers.push(answer);
        }
        (application, answers)
    })
}

fn acknowledged(answers: &[Answer]) -> usize {
    answers
        .iter()
        .filter(|answer| answer.result.is_ok())
        .count()
}

/// Nothing was acknowledged after the deadline, and every refusal was SQLite's for a database that
/// may not be written. Says how late the last row was.
fn stops_at(answers: &[Answer], deadline: u64) {
    let last = answers.iter().filter(|answer| answer.result.is_ok());
    let last = last.map(|answer| answer.answered).max().expect("rows");
    let late = last.saturating_sub(deadline);
    let early = deadline.saturating_sub(last);
    let (rows, all) = (acknowledged(answers), answers.len());
    println!(
        "{rows} rows of {all} tries; the last one {} us before and {} us after the deadline",
        early / 1000,
        late / 1000
    );
    assert!(late < TOLERANCE, "a row {late} ns after the deadline");
    assert!(early < SECOND, "refused {early} ns before the deadline");
    let refused = answers.iter().filter(|answer| answer.sent > deadline);
    let mut count = 0;
    for answer in refused {
        answer.is_refused();
        count += 1;
    }
    assert!(count > 10, "it went on trying");
}

fn sleep_until(time: u64) {
    thread::sleep(Duration::from_nanos(time.saturating_sub(lease::now())));
}
