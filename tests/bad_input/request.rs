//! Requests that can't be met: each says what is wrong, and changes nothing.

use crate::cluster::{options, started, tenants};
use crate::command::ask_at;
use crate::{OTHER, applications, entry, goes_on};

#[test]
fn an_unknown_partition_is_named_by_every_verb() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let lines: [&[&str]; 8] = [
        &["list", "nosuch.db"],
        &["move", "nosuch.db", "--to", "node-b"],
        &["move", "nosuch.db", "--to", "node-b", "--dry-run"],
        &["sync", "nosuch.db"],
        &["rollback", "nosuch.db"],
        &["promote", "nosuch.db"],
        &["verify", "nosuch.db"],
        &["remove", "nosuch.db"],
    ];
    for line in lines {
        ask_at(&cluster, "node-a", line)
            .exits(1)
            .complains(&["nosuch.db is not known to this node", "foreshadow list"]);
    }
    goes_on(cluster, writers);
}

#[test]
fn an_unknown_node_is_named_and_nothing_moves() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    for line in [
        &["move", OTHER, "--to", "node-x"][..],
        &["shadow", OTHER, "--to", "node-x"],
    ] {
        ask_at(&cluster, "node-a", line)
            .exits(1)
            .complains(&["node-x is not a configured peer", "foreshadow peers"]);
    }
    ask_at(&cluster, "node-a", &["move", OTHER, "--to", "node-a"])
        .exits(3)
        .complains(&["node-a is this node"]);
    ask_at(&cluster, "node-b", &["move", OTHER, "--to", "node-a"])
        .exits(3)
        .complains(&[OTHER, "owned by node-a", "ask there"]);
    goes_on(cluster, writers);
}

#[test]
fn a_path_outside_the_configured_directories_is_refused_however_it_is_written() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let place = cluster.node("node-a").expect("there").place.clone();
    crate::database::make(&place.dir.join("outside.db"), "WAL", 5);
    let around = place.live().join("../outside.db");
    let live = place.live().display().to_string();
    for path in ["/etc/passwd", around.to_str().expect("UTF-8")] {
        ask_at(&cluster, "node-a", &["add", path])
            .exits(3)
            .complains(&[path, "is not below a configured directory", &live]);
    }
    let absent = place.live().join("absent.db");
    ask_at(
        &cluster,
        "node-a",
        &["add", absent.to_str().expect("UTF-8")],
    )
    .exits(3)
    .complains(&["absent.db", "No such file"]);
    assert!(entry(&cluster, "node-a", "outside.db").is_none());
    assert!(
        !place.dir.join("outside.db-shm").exists(),
        "it was not touched"
    );
    ask_at(&cluster, "node-a", &["list", "../outside.db"])
        .exits(2)
        .complains(&["../outside.db", "no partition name"]);
    goes_on(cluster, writers);
}
