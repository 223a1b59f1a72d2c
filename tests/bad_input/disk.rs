//! Disks that are full, on either side: told, survived, and made good when there is room again.

use foreshadow::cli::demo::harness::{Cluster, Outcome, Writers};

use crate::cluster::{LIMIT, moves_on, options, tenants, until};
use crate::command::ask_at;
use crate::mount::Mount;
use crate::{ALL, OTHER, applications, goes_on, is_root, log, served};

/// A cluster where `part` of a node has a small file system of its own.
fn stage(node: &str, part: &str, mebibytes: u32) -> (Mount, Cluster, Writers) {
    let options = options(2).tweak("[ship]", "journal", "\"8MiB\"");
    let mut cluster = Cluster::prepare(&options).expect("prepared");
    let path = cluster.node(node).expect("there").place.dir.join(part);
    let mount = Mount::over(&path, mebibytes);
    cluster.create_tenants(&tenants(2, 2)).expect("made");
    cluster.start_all().expect("every daemon is ready");
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    let writers = applications(&cluster);
    cluster.wait_for_progress(&ALL, LIMIT).expect("they write");
    (mount, cluster, writers)
}

/// Waits until node-a says why its shadow of a partition does not follow; returns the words.
fn told(cluster: &Cluster, partition: &str) -> String {
    let words = until(&format!("why {partition} has no shadow is told"), || {
        let said = ask_at(cluster, "node-a", &["list", partition]).out;
        said.contains("No space left").then_some(said)
    });
    assert!(
        words.contains(&format!("{partition} at node-b: ")),
        "{words}"
    );
    words
}

#[test]
fn a_full_state_disk_at_the_source_stops_no_application_and_loses_nothing() {
    if !is_root("mounting a small file system") {
        return;
    }
    let (mount, mut cluster, writers) = stage("node-a", "state", 48);
    mount.fill();
    for _ in 0..20 {
        cluster.wait_for_progress(&ALL, LIMIT).expect("they go on");
    }
    // Without room for its log a database may be compared all the time: then the daemon tries for
    // half a minute, as long as LIMIT is.
    let report = cluster.move_partition(OTHER, "node-b", 2 * LIMIT);
    let report = report.expect("the move ends");
    if let Outcome::Aborted(reason) = &report.outcome {
        println!("with a full state disk: {reason}");
        assert!(!reason.contains("18446744073709"), "{reason}");
    } else {
        assert!(report.is_done(), "{report:?}");
    }
    assert!(log(&cluster, "node-a").contains("/deltas/"));
    assert!(log(&cluster, "node-a").contains("No space left"));
    ask_at(&cluster, "node-a", &["status"]).exits(0);
    cluster.wait_for_progress(&ALL, LIMIT).expect("they go on");
    mount.clear();
    cluster
        .wait_for_shadows(LIMIT)
        .expect("shadows follow again");
    moves_on(&mut cluster, "tenant01.db");
    goes_on(cluster, writers);
}

#[test]
fn a_full_disk_at_the_target_costs_only_its_shadows_until_there_is_room() {
    if !is_root("mounting a small file system") {
        return;
    }
    let (mount, cluster, writers) = stage("node-b", "", 96);
    mount.fill();
    for _ in 0..40 {
        cluster.wait_for_progress(&ALL, LIMIT).expect("they go on");
    }
    let words = told(&cluster, OTHER);
    assert!(words.contains("/node-b/"), "the file is named: {words}");
    ask_at(&cluster, "node-b", &["status"]).exits(0);
    mount.clear();
    served(&cluster, "node-a", OTHER);
    goes_on(cluster, writers);
    drop(mount);
}

#[test]
fn a_shadow_that_does_not_fit_is_told_to_the_owner_and_the_others_go_on() {
    if !is_root("mounting a small file system") {
        return;
    }
    let options = options(2).tweak("[ship]", "journal", "\"8MiB\"");
    let mut cluster = Cluster::prepare(&options).expect("prepared");
    let path = cluster.node("node-b").expect("there").place.dir.clone();
    let mount = Mount::over(&path, 40);
    cluster.create_tenants(&tenants(1, 2)).expect("made");
    cluster.start_all().expect("every daemon is ready");
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    let writers = applications(&cluster);
    let place = cluster.node("node-a").expect("there").place.clone();
    let staged = place.dir.join("staged.db");
    crate::database::make(&staged, "WAL", 250_000);
    let bytes = std::fs::metadata(&staged).expect("there").len();
    assert!(bytes > 45 << 20, "{bytes} bytes");
    std::fs::rename(&staged, place.live().join("huge.db")).expect("renamed");
    told(&cluster, "huge.db");
    let report = ask_at(
        &cluster,
        "node-a",
        &[
            "move",
            "huge.db",
            "--to",
            "node-b",
            "--wait",
            "--timeout",
            "3s",
        ],
    );
    println!("{}{}", report.out, report.err);
    let report = report.exits(4);
    assert!(report.out.contains("No space left"), "{report:?}");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they go on");
    ask_at(&cluster, "node-a", &["remove", "huge.db"]).exits(0);
    let rows = crate::database::rows(&place.live().join("huge.db"));
    assert_eq!(rows, 250_000, "it is whole where it was");
    served(&cluster, "node-a", OTHER);
    goes_on(cluster, writers);
    drop(mount);
}
