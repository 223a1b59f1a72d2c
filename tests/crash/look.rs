//! What is on disk, read by other means than the daemon's: which live files take writes, and
//! whether every acknowledged row is in the database or log that applications are led to.

mod native;
mod sqlite;

use std::fs;
use std::path::Path;
use std::time::Instant;

use foreshadow::cli::demo::harness::{Cluster, Engine};

use crate::cluster::LIMIT;

/// Bytes of a record of an ack journal.
const ACK_LEN: u64 = 40;

/// Whether a live path takes writes, as what lies there says. Nothing there is not open.
fn is_open(engine: Engine, live: &Path) -> bool {
    match engine {
        Engine::Sqlite => sqlite::is_open(live),
        Engine::Native => native::is_open(live),
    }
}

/// The nodes where a tenant is open, when they are two. A fence is not undone once it was granted,
/// so of a node that is open before and after another one is seen open, both were at once.
pub fn both_open(cluster: &Cluster, tenant: &str) -> bool {
    let engine = engine_of(cluster, tenant);
    let takes = |index: usize| is_open(engine, &cluster.nodes[index].place.live().join(tenant));
    takes(0) && takes(1) && takes(0)
}

/// What the ledger behind a route says about one writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    rows: u64,
    distinct: u64,
    up_to: u64,
    newest: u64,
}

/// What a look at a ledger came to.
enum Looked {
    /// Of each writer, and lines about what is not whole.
    Told(Vec<Told>, Vec<String>),
    Corrupt(String),
    /// As applications do: what a fence or a tombstone gives is met by opening again.
    Refused(String),
}

/// Compares a tenant's ledger with the ack journals of its writers, and asks its engine whether all
/// of it is whole. What is wrong is returned, a line each.
pub fn wrong_rows(cluster: &Cluster, tenant: &str, writers: &[u32]) -> Vec<String> {
    let route = cluster.routes().join(tenant);
    let deadline = Instant::now() + LIMIT;
    loop {
        let before: Vec<u64> = writers.iter().map(|one| acked(cluster, *one)).collect();
        let looked = match engine_of(cluster, tenant) {
            Engine::Sqlite => sqlite::read(&route, writers, &before),
            Engine::Native => native::read(&route, writers, &before),
        };
        match looked {
            Looked::Told(told, mut wrong) => {
                for ((writer, told), acked_before) in writers.iter().zip(told).zip(before) {
                    let after = acked(cluster, *writer);
                    if told.up_to != acked_before {
                        let lost = acked_before.abs_diff(told.up_to);
                        wrong.push(format!("{tenant}: writer {writer} lost {lost}: {told:?}"));
                    }
                    if told.rows != told.distinct || told.newest > after + 1 {
                        let phantom = format!("{told:?} of {after}");
                        wrong.push(format!("{tenant}: writer {writer}, phantom: {phantom}"));
                    }
                }
                return wrong;
            }
            Looked::Corrupt(error) => return vec![format!("{tenant}: corrupt: {error}")],
            Looked::Refused(error) => assert!(Instant::now() < deadline, "{tenant}: {error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn engine_of(cluster: &Cluster, tenant: &str) -> Engine {
    cluster.tenant(tenant).expect("it is there").engine
}

/// How many transactions a writer was told had been committed.
fn acked(cluster: &Cluster, writer: u32) -> u64 {
    let journal = cluster.acks().join(format!("{writer}.ack"));
    fs::metadata(journal).map_or(0, |meta| meta.len() / ACK_LEN)
}

#[test]
fn a_row_that_is_missing_and_one_that_nobody_wrote_are_found() {
    use crate::cluster::{options, started, tenants};
    use foreshadow::cli::demo::harness::{Pace, four_writers};
    use rusqlite::Connection;

    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(50.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    let all = [1, 2, 3, 4];
    for _ in 0..3 {
        cluster.wait_for_progress(&all, LIMIT).expect("they write");
    }
    let name = &tenants[0].name;
    assert_eq!(wrong_rows(&cluster, name, &all), Vec::<String>::new());
    let route = cluster.routes().join(name);
    let change = |sql: &str| {
        let connection = Connection::open(&route).expect("opens");
        connection.busy_timeout(LIMIT).expect("set");
        assert_eq!(connection.execute(sql, []).expect("done"), 1, "{sql}");
    };
    change("DELETE FROM ledger WHERE writer = 2 AND seq = 1");
    change(
        "INSERT INTO ledger(writer, seq, generation, account, amount) VALUES(3, 99999, 0, 1, 0)",
    );
    let wrong = wrong_rows(&cluster, name, &all);
    let told = |words: &str| wrong.iter().any(|line| line.contains(words));
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert!(
        told("writer 2 lost 1") && told("writer 3, phantom"),
        "{wrong:#?}"
    );
    writers.stop().expect("every writer ends");
}
