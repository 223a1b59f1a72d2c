//! One node with guarded applications: its daemon is killed, stopped, restarted, ended, or was
//! never told to guard.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use lease::Lease;
use rustix::process::{Pid, Signal, kill_process};

use crate::application::Application;
use crate::cluster::{options, started, tenants, until};
use crate::{
    LEASE, LONG, SECOND, acknowledged, application, granted, guarded, guarded_of, insert, lease_of,
    live, real, sleep_until, stops_at, writes,
};

#[test]
fn a_killed_daemon_stops_its_writers_at_the_deadline_and_readers_go_on() {
    let mut cluster = guarded(LEASE);
    let lease = granted(&cluster, "node-a");
    let (stop, stopped) = flume::bounded::<()>(0);
    let applications = (0..2).map(|writer| (writer, application(&cluster, "node-a")));
    let writers: Vec<_> = applications
        .map(|(writer, application)| writes(application, writer, stopped.clone()))
        .collect();
    thread::sleep(Duration::from_secs(3));
    assert!(lease.check().is_ok(), "three leases long it was renewed");
    cluster.node_mut("node-a").expect("there").kill_at_once();
    let deadline = lease.deadline();
    sleep_until(deadline + SECOND);
    drop(stop);
    let mut rows = 0;
    for writer in writers {
        let (mut application, answers) = writer.join().expect("it ends");
        stops_at(&answers, deadline);
        rows += acknowledged(&answers);
        application.run("begin immediate;").is_refused();
        let said = application.run("select foreshadow_lease();").must();
        assert!(
            said.contains("the sidecar is dead or stands still"),
            "{said}"
        );
        let told = application.number("select count(*) from g;");
        assert!(
            told >= answers
                .iter()
                .filter(|answer| answer.result.is_ok())
                .count() as i64
        );
    }
    let mut fresh = Application::guarded(&live(&cluster, "node-a"));
    assert_eq!(fresh.number("select count(*) from g;"), rows as i64);
    insert(&mut fresh, 9, 9).is_refused();
}

#[test]
fn a_stopped_daemon_refuses_writers_and_takes_them_again_when_it_goes_on() {
    let mut cluster = guarded(LEASE);
    let lease = granted(&cluster, "node-a");
    let mut writer = application(&cluster, "node-a");
    let (before, _) = lease.incarnations();
    cluster.node_mut("node-a").expect("there").suspend(true);
    let deadline = lease.deadline();
    insert(&mut writer, 0, 0).must();
    sleep_until(deadline);
    for _ in 0..100 {
        insert(&mut writer, 0, 1).is_refused();
    }
    assert_eq!(writer.number("select count(*) from g;"), 1);
    cluster.node_mut("node-a").expect("there").suspend(false);
    until("it is taken again", || {
        insert(&mut writer, 0, 1).result.ok()
    });
    let (granted, node) = lease.incarnations();
    assert!(granted == node && node != before, "asked and granted anew");
}

/// Sees the grant end and come again while the daemon starts: until when it was whole, from when on
/// it was void, and until when none was given.
fn watch(lease: &Lease, old: u64, daemon: Pid) -> (u64, u64, u64) {
    let (mut whole, mut void, mut ungranted) = (0, None, 0);
    let look = || {
        let at = lease::now();
        let (granted, node) = lease.incarnations();
        (at, node, granted == node && node != 0)
    };
    loop {
        let (mut at, node, mut is_granted) = look();
        if node == old {
            whole = at;
        } else if void.is_none() {
            void = Some(lease::now());
            // However fast it is: writers try while it has not granted anything.
            kill_process(daemon, Signal::STOP).expect("it runs");
            thread::sleep(Duration::from_millis(200));
            (at, _, is_granted) = look();
            kill_process(daemon, Signal::CONT).expect("it is there");
        }
        if let Some(void) = void.filter(|_| is_granted) {
            // It was granted at some time since the look before.
            return (whole, void, ungranted);
        }
        ungranted = at;
        thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn a_restarted_daemon_grants_nothing_until_it_serves_again() {
    // So large that it takes a while to attach.
    let mut cluster = guarded_of(LONG, 40.0);
    let lease = granted(&cluster, "node-a");
    let mut writer = application(&cluster, "node-a");
    insert(&mut writer, 0, 0).must();
    let (stop, stopped) = flume::bounded::<()>(0);
    let (old, _) = lease.incarnations();
    cluster.node_mut("node-a").expect("there").kill_at_once();
    let writing = writes(writer, 1, stopped);
    let node = cluster.node_mut("node-a").expect("there");
    node.start().expect("it starts again");
    let daemon = Pid::from_raw(node.id().expect("it runs") as i32).expect("a process");
    let watching = thread::spawn(move || watch(&lease, old, daemon));
    let node = cluster.node_mut("node-a").expect("there");
    let ready = node.wait_ready(Duration::from_secs(20));
    ready.expect("it serves again");
    let (whole, void, ungranted) = watching.join().expect("granted again");
    thread::sleep(Duration::from_millis(300));
    drop(stop);
    let (_, answers) = writing.join().expect("it ends");
    let between = answers
        .iter()
        .filter(|answer| answer.sent > void && answer.answered < ungranted);
    let mut refused = 0;
    for answer in between {
        answer.is_refused();
        refused += 1;
    }
    println!(
        "{refused} writes refused within {} ms",
        (ungranted - void) / 1_000_000
    );
    assert!(refused > 0, "between the start and the grant");
    let mut before = answers.iter().filter(|answer| answer.answered < whole);
    assert!(
        before.all(|answer| answer.result.is_ok()),
        "it was not long over"
    );
    assert!(
        answers.last().is_some_and(|answer| answer.result.is_ok()),
        "{:?}",
        answers.last()
    );
}

#[test]
fn a_daemon_that_is_ended_in_good_order_refuses_at_once() {
    let mut cluster = guarded(LONG);
    let mut writer = application(&cluster, "node-a");
    insert(&mut writer, 0, 0).must();
    let node = cluster.node_mut("node-a").expect("there");
    node.stop().expect("it ends");
    insert(&mut writer, 0, 1).is_refused();
    assert_eq!(writer.number("select count(*) from g;"), 1);
    cluster.restart("node-a").expect("it starts again");
    until("it is taken again", || {
        insert(&mut writer, 0, 1).result.ok()
    });
}

#[test]
fn a_long_transaction_does_not_commit_after_the_deadline() {
    let mut cluster = guarded(LEASE);
    let lease = granted(&cluster, "node-a");
    let mut writer = application(&cluster, "node-a");
    writer.run("begin immediate;").must();
    insert(&mut writer, 0, 0).must();
    cluster.node_mut("node-a").expect("there").kill_at_once();
    sleep_until(lease.deadline());
    insert(&mut writer, 0, 1).must();
    writer.run("commit;").is_refused();
    assert_eq!(writer.number("select count(*) from g;"), 0);
    cluster.restart("node-a").expect("it starts again");
    until("it is taken again", || {
        insert(&mut writer, 0, 1).result.ok()
    });
    assert_eq!(writer.run("pragma integrity_check;").must(), "ok");
    assert_eq!(writer.number("select count(*) from g;"), 1);
}

#[test]
fn a_damaged_lease_refuses_and_the_next_start_mends_it() {
    let mut cluster = guarded(LONG);
    drop(application(&cluster, "node-a"));
    let path = lease::path_of(&real(&cluster, "node-a"));
    let page = fs::read(&path).expect("a page");
    let mut newer = page.clone();
    newer[8] = 2;
    for (bytes, why) in [
        (&page[..1000], "is damaged"),
        (&b"SQLite format 3"[..], "is damaged"),
        (&newer, "is of version 2"),
    ] {
        // Another file: the daemon's mapping and that of other applications stay whole.
        fs::remove_file(&path).expect("removed");
        fs::write(&path, bytes).expect("written");
        let mut writer = Application::guarded(&live(&cluster, "node-a"));
        insert(&mut writer, 0, 0).is_refused();
        let said = writer.run("select foreshadow_lease();").must();
        assert!(
            said.contains(why) && said.contains("tenant00.db-lease"),
            "{said}"
        );
    }
    cluster.kill9("node-a").expect("killed");
    cluster.restart("node-a").expect("it starts again");
    let mut writer = application(&cluster, "node-a");
    insert(&mut writer, 0, 0).must();
}

#[test]
fn unguarded_databases_get_no_file_and_no_thread_and_what_was_left_goes() {
    let mut cluster = started(&options(2), &tenants(1, 2));
    let dir = cluster.root().to_owned();
    assert_eq!(leases_below(&dir), Vec::<String>::new());
    let id = cluster
        .node("node-a")
        .expect("there")
        .id()
        .expect("it runs");
    let threads = fs::read_dir(format!("/proc/{id}/task")).expect("threads");
    for thread in threads.flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        assert_ne!(name.trim(), "lease");
    }
    let mut writer = Application::guarded(&live(&cluster, "node-a"));
    writer.run("create table g(w int, n int);").must();
    let said = writer.run("select foreshadow_lease();").must();
    assert!(said.starts_with("not guarded: there is no lease"), "{said}");
    drop(writer);
    // As if it had been guarded before.
    let left = lease::path_of(&real(&cluster, "node-a"));
    fs::write(&left, b"FSLEASED of another time").expect("written");
    cluster.kill9("node-a").expect("killed");
    cluster.restart("node-a").expect("it starts again");
    until("what was left is gone", || (!left.exists()).then_some(()));
}

fn leases_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(leases_below(&path));
        } else if name.ends_with("lease") {
            found.push(name);
        }
    }
    found
}

#[test]
fn a_lease_is_never_taken_for_a_database() {
    let options = options(2)
        .tweak("[[engine.sqlite]]", "lease_guard", "true")
        .tweak("[[engine.sqlite]]", "pattern", "\"*\"");
    let cluster = started(&options, &tenants(1, 2));
    let lease = lease_of(&cluster, "node-a");
    // Hints of it are looked at ten times a second.
    thread::sleep(Duration::from_millis(500));
    let listed = cluster
        .node("node-a")
        .expect("there")
        .get("/v1/partitions")
        .expect("a list");
    assert!(!listed.to_string().contains("-lease"), "{listed:#}");
    assert!(lease.check().is_ok());
}
