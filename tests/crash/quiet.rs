//! Daemons killed while nothing moves: the applications notice nothing, the copies catch up.

use foreshadow::cli::demo::harness::{Cluster, Pace, four_writers};

use crate::cluster::{LIMIT, judged, moves_on, options, started, tenants, until};

const ALL: [u32; 4] = [1, 2, 3, 4];

fn owner_position(cluster: &Cluster, partition: &str) -> (u64, u64) {
    let views = cluster.views();
    let mut views = views[partition].iter();
    let owner = views.find(|view| view.role == "owner").expect("an owner");
    (owner.epoch, owner.lsn)
}

#[test]
fn an_owner_that_is_killed_at_rest_serves_again_where_it_stood() {
    let tenants = tenants(1, 2);
    let mut cluster = started(&options(2), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(50.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they write");
    let before = owner_position(&cluster, "tenant00.db");
    cluster.kill9("node-a").expect("killed");
    cluster
        .wait_for_progress(&ALL, LIMIT)
        .expect("applications need no daemon to write");
    cluster.restart("node-a").expect("it starts again");
    let owner = cluster.wait_for_one_owner("tenant00.db", LIMIT);
    assert_eq!(owner.expect("one owner"), "node-a");
    cluster
        .wait_for_shadows(LIMIT)
        .expect("the shadow follows again");
    let after = owner_position(&cluster, "tenant00.db");
    assert_eq!(before.0, after.0, "a restart is no change of owner");
    assert!(after.1 > before.1, "{before:?} then {after:?}");
    moves_on(&mut cluster, "tenant00.db");
    judged(cluster, writers);
}

#[test]
fn a_shadow_whose_daemon_was_away_goes_on_from_its_position_without_a_new_copy() {
    let tenants = tenants(1, 2);
    let mut cluster = started(&options(2), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(50.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they write");
    cluster.kill9("node-b").expect("killed");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they go on");
    let sent = cluster.node_mut("node-a").expect("there").bytes_out();
    cluster.restart("node-b").expect("it starts again");
    cluster
        .wait_for_shadows(LIMIT)
        .expect("the shadow follows again");
    let sent = cluster.node_mut("node-a").expect("there").bytes_out() - sent;
    let size = std::fs::metadata(cluster.routes().join("tenant00.db"))
        .expect("there")
        .len();
    assert!(
        sent < size / 4,
        "{sent} bytes were sent to a shadow of {size} bytes that had missed a moment"
    );
    judged(cluster, writers);
}

#[test]
fn all_daemons_killed_at_once_find_their_owners_and_shadows_again() {
    let tenants = tenants(3, 3);
    let mut cluster = started(&options(3), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(50.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they write");
    let owners = |cluster: &Cluster| -> Vec<String> {
        let owner = |tenant: &foreshadow::cli::demo::harness::Tenant| {
            cluster
                .wait_for_one_owner(&tenant.name, LIMIT)
                .expect("one owner")
        };
        cluster.tenants.iter().map(owner).collect()
    };
    let before = owners(&cluster);
    for node in ["node-a", "node-b", "node-c"] {
        cluster.kill9(node).expect("killed");
    }
    cluster.start_all().expect("they start again");
    assert_eq!(owners(&cluster), before);
    cluster
        .wait_for_shadows(LIMIT)
        .expect("shadows follow again");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they go on");
    let report = until("a move is done", || {
        let report = cluster.move_partition("tenant00.db", "node-c", LIMIT);
        report.ok().filter(|report| report.is_done())
    });
    assert_eq!(report.to, "node-c");
    judged(cluster, writers);
}
