//! Guarded databases that change their owner: by a move, or because the owner is gone.

use std::thread;
use std::time::Duration;

use foreshadow::cli::demo::harness::Cluster;
use lease::Refusal;
use rustix::fs::{FlockOperation, flock};

use crate::application::{Answer, Application};
use crate::cluster::{LIMIT, moves_on, until};
use crate::command::ask_at;
use crate::{
    LEASE, LONG, NAME, SECOND, acknowledged, application, granted, guarded, insert, live, real,
    sleep_until, stops_at, writes,
};

fn promoted(cluster: &Cluster) {
    let said = until("the shadow is promoted", || {
        let said = ask_at(cluster, "node-b", &["promote", NAME, "--force"]);
        (said.code == 0).then_some(said)
    });
    assert!(said.out.contains("taking tenant00.db over"), "{said:#?}");
}

#[test]
fn moves_lose_nothing_and_the_target_grants_by_its_own_daemon() {
    let mut cluster = guarded(LONG);
    let mut stale = application(&cluster, "node-a");
    let route = cluster.routes().join(NAME);
    let (stop, stopped) = flume::bounded::<()>(0);
    let mut writer = application(&cluster, "node-a");
    let writing = thread::spawn(move || {
        let (mut rows, mut refused) = (0, 0);
        writer.open(&route);
        while stopped.try_recv() != Err(flume::TryRecvError::Disconnected) {
            match insert(&mut writer, 0, rows).code() {
                None => rows += 1,
                // READONLY, CANTOPEN, NOTADB: open the route again.
                Some(8 | 14 | 26) => {
                    refused += 1;
                    writer.open(&route);
                }
                Some(code) => panic!("code {code}"),
            }
        }
        (rows, refused)
    });
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(400));
        let owner = cluster.owner_of(NAME).expect("one owner");
        moves_on(&mut cluster, NAME);
        let to = if owner == "node-a" {
            "node-b"
        } else {
            "node-a"
        };
        granted(&cluster, to);
        if to == "node-b" {
            assert!(
                insert(&mut stale, 1, 0).result.is_err(),
                "the source is fenced"
            );
            stale.open(&live(&cluster, "node-b"));
            insert(&mut stale, 1, 0).must();
            stale.run("delete from g where w = 1;").must();
            stale.open(&live(&cluster, "node-a"));
        } else {
            stale.open(&live(&cluster, "node-a"));
        }
    }
    drop(stop);
    let (rows, refused) = writing.join().expect("it ends");
    println!("{rows} rows, {refused} times refused in 4 moves");
    let mut reader = Application::guarded(&cluster.routes().join(NAME));
    assert_eq!(
        reader.number("select count(*) from g where w = 0;"),
        rows as i64
    );
    assert_eq!(reader.run("pragma integrity_check;").must(), "ok");
}

#[test]
fn whoever_hands_over_or_is_deposed_takes_its_grant_back() {
    let mut cluster = guarded(LONG);
    let before = granted(&cluster, "node-a");
    moves_on(&mut cluster, NAME);
    assert!(
        matches!(before.check(), Err(Refusal::NotGranted(_))),
        "{:?}",
        before.check()
    );
    let serving = granted(&cluster, "node-b");
    let said = until("the shadow is promoted", || {
        let said = ask_at(&cluster, "node-a", &["promote", NAME, "--force"]);
        (said.code == 0).then_some(said)
    });
    assert!(said.out.contains("taking tenant00.db over"), "{said:#?}");
    until("node-b was deposed, and refuses", || {
        matches!(serving.check(), Err(Refusal::NotGranted(_))).then_some(())
    });
    granted(&cluster, "node-a");
}

#[test]
fn a_grant_whose_file_is_gone_is_void_all_the_same() {
    let mut cluster = guarded(LONG);
    let mapped = granted(&cluster, "node-a");
    std::fs::remove_file(lease::path_of(&real(&cluster, "node-a"))).expect("removed");
    assert!(mapped.check().is_ok(), "whoever has it mapped goes on");
    moves_on(&mut cluster, NAME);
    assert!(
        matches!(mapped.check(), Err(Refusal::Void(_))),
        "{:?}",
        mapped.check()
    );
    granted(&cluster, "node-b");
}

#[test]
fn after_a_takeover_no_row_is_acknowledged_at_the_old_owner() {
    let mut cluster = guarded(LEASE);
    let lease = granted(&cluster, "node-a");
    let old = application(&cluster, "node-a");
    let (stop, stopped) = flume::bounded::<()>(0);
    let writing = writes(old, 0, stopped);
    thread::sleep(Duration::from_millis(500));
    cluster.node_mut("node-a").expect("there").kill_at_once();
    let deadline = lease.deadline();
    sleep_until(deadline);
    promoted(&cluster);
    let mut new = application(&cluster, "node-b");
    insert(&mut new, 1, 0).must();
    let taken_over = lease::now();
    assert!(taken_over > deadline);
    thread::sleep(Duration::from_millis(500));
    cluster.restart("node-a").expect("it starts again");
    assert_eq!(
        cluster.wait_for_one_owner(NAME, LIMIT).expect("one owner"),
        "node-b"
    );
    insert(&mut new, 1, 1).must();
    drop(stop);
    let (_, answers) = writing.join().expect("it ends");
    let while_dead: Vec<Answer> = answers
        .iter()
        .filter(|answer| answer.sent < taken_over)
        .cloned()
        .collect();
    stops_at(&while_dead, deadline);
    let later = answers.iter().filter(|answer| answer.sent > taken_over);
    assert_eq!(
        later.filter(|answer| answer.result.is_ok()).count(),
        0,
        "two owners"
    );
    let kept = new.number("select count(*) from g where w = 0;");
    println!(
        "{} rows acknowledged at node-a, {kept} of them shipped",
        acknowledged(&answers)
    );
}

#[test]
fn a_stopped_owner_that_was_superseded_takes_no_row_when_it_goes_on() {
    let mut cluster = guarded(LEASE);
    let lease = granted(&cluster, "node-a");
    let mut old = application(&cluster, "node-a");
    insert(&mut old, 0, 0).must();
    thread::sleep(Duration::from_millis(300));
    cluster.node_mut("node-a").expect("there").suspend(true);
    let deadline = lease.deadline();
    sleep_until(deadline);
    promoted(&cluster);
    let mut new = application(&cluster, "node-b");
    insert(&mut new, 1, 0).must();
    let (stop, stopped) = flume::bounded::<()>(0);
    let writing = writes(old, 2, stopped);
    thread::sleep(Duration::from_millis(50));
    // News of the new owner come later than everything else: two leases long.
    let records = cluster.root().join("coordinator/lock");
    let records = std::fs::File::open(records).expect("the coordinator's lock");
    flock(&records, FlockOperation::LockExclusive).expect("locked");
    cluster.node_mut("node-a").expect("there").suspend(false);
    sleep_until(lease::now() + 2 * SECOND);
    assert!(lease.deadline() > deadline, "it renews its lease again");
    flock(&records, FlockOperation::Unlock).expect("unlocked");
    sleep_until(lease::now() + SECOND);
    drop(stop);
    let (_, answers) = writing.join().expect("it ends");
    assert_eq!(
        acknowledged(&answers),
        0,
        "two owners, of {} tries",
        answers.len()
    );
    assert!(answers.len() > 100);
    println!(
        "{} tries while and after it was stopped, none taken",
        answers.len()
    );
    insert(&mut new, 1, 1).must();
    assert_eq!(new.number("select count(*) from g where w = 2;"), 0);
}
