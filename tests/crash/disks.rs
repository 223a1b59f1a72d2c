//! Disks that turn read-only, fail with EIO or run full while daemons are killed on them. What a
//! full disk does to a daemon that lives on: tests/bad_input/disk.rs.

use foreshadow::cli::demo::harness::{Cluster, Pace, PendingMove, Writers, four_writers};

use crate::cluster::{LIMIT, judged, moves_on, options, tenants};
use crate::look::{both_open, wrong_rows};
use crate::volume::{Volume, can_be_made};

const TENANT: &str = "tenant00.db";
const ALL: [u32; 4] = [1, 2, 3, 4];
/// What volumes believe to have, and what there is, in MiB.
const SIZE: u32 = 128;
const HELD: u32 = 80;

/// A cluster where `part` of a node is on a volume of its own; the applications write at node-a.
fn stage(node: &str, part: &str) -> (Volume, Cluster, Writers) {
    let options = options(2).tweak("[ship]", "journal", "\"8MiB\"");
    let mut cluster = Cluster::prepare(&options).expect("prepared");
    let path = cluster.node(node).expect("there").place.dir.join(part);
    let volume = Volume::over(&path, SIZE, HELD);
    let tenants = tenants(1, 2);
    cluster.create_tenants(&tenants).expect("made");
    cluster.start_all().expect("every daemon is ready");
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    let load = four_writers(&tenants[0], Pace::Rate(40.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    go_on(&cluster, 1);
    // What the cluster itself was made of must outlive the file system's journal.
    volume.sync();
    (volume, cluster, writers)
}

/// So many more acknowledgements for each application.
fn go_on(cluster: &Cluster, times: u32) {
    for _ in 0..times {
        let went = cluster.wait_for_progress(&ALL, LIMIT);
        went.expect("the applications go on");
    }
}

/// A move while a disk fails may be done, given up or wait for the disk; nobody waits for it, and
/// nobody owns it twice.
fn a_move_is_tried(cluster: &mut Cluster) -> Option<PendingMove> {
    let pending = cluster.begin_move(TENANT, "node-b");
    go_on(cluster, 5);
    assert!(!both_open(cluster, TENANT), "open at both nodes");
    pending
        .inspect_err(|error| println!("no move with a failing disk: {error}"))
        .ok()
}

/// Kills the daemon on the volume, repairs it, and starts the daemon: all is as before.
fn repaired(
    volume: &Volume,
    mut cluster: Cluster,
    writers: Writers,
    node: &str,
    moving: Option<&PendingMove>,
) {
    cluster.kill9(node).expect("killed");
    volume.repaired();
    cluster.restart(node).expect("it starts again");
    if let Some(pending) = moving {
        let report = cluster.finish_move(pending, 2 * LIMIT).expect("it ends");
        println!("a move with a failing disk: {:?}", report.outcome);
    }
    let follow = cluster.wait_for_shadows(LIMIT);
    follow.expect("shadows follow again");
    go_on(&cluster, 1);
    assert!(!both_open(&cluster, TENANT), "open at both nodes");
    let wrong = wrong_rows(&cluster, TENANT, &ALL);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Evidence of what a volume served can't be kept outside of it.
    if cluster.owner_of(TENANT).expect("one owner") == "node-a" {
        moves_on(&mut cluster, TENANT);
        go_on(&cluster, 1);
    }
    judged(cluster, writers);
}

#[test]
fn a_target_whose_disk_turns_read_only_stops_no_application() {
    if !can_be_made("a file system that turns read-only") {
        return;
    }
    let (volume, mut cluster, writers) = stage("node-b", "");
    volume.becomes_read_only();
    go_on(&cluster, 5);
    let moving = a_move_is_tried(&mut cluster);
    assert_eq!(cluster.owner_of(TENANT).expect("one owner"), "node-a");
    repaired(&volume, cluster, writers, "node-b", moving.as_ref());
    drop(volume);
}

#[test]
fn a_source_whose_state_disk_turns_read_only_stops_no_application() {
    if !can_be_made("a file system that turns read-only") {
        return;
    }
    let (volume, mut cluster, writers) = stage("node-a", "state");
    volume.becomes_read_only();
    go_on(&cluster, 5);
    let moving = a_move_is_tried(&mut cluster);
    repaired(&volume, cluster, writers, "node-a", moving.as_ref());
    drop(volume);
}

#[test]
fn a_target_whose_disk_fails_with_eio_stops_no_application() {
    if !can_be_made("a disk that fails") {
        return;
    }
    let (volume, mut cluster, writers) = stage("node-b", "");
    volume.fails();
    go_on(&cluster, 20);
    let moving = a_move_is_tried(&mut cluster);
    go_on(&cluster, 5);
    repaired(&volume, cluster, writers, "node-b", moving.as_ref());
    drop(volume);
}

#[test]
fn a_source_whose_state_disk_fails_with_eio_stops_no_application() {
    if !can_be_made("a disk that fails") {
        return;
    }
    let (volume, mut cluster, writers) = stage("node-a", "state");
    volume.fails();
    go_on(&cluster, 20);
    let moving = a_move_is_tried(&mut cluster);
    go_on(&cluster, 5);
    repaired(&volume, cluster, writers, "node-a", moving.as_ref());
    drop(volume);
}
