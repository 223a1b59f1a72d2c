//! Every verb about a node and its partitions.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use foreshadow::cli::demo::harness::Cluster;
use serde_json::Value;

use crate::cluster::{moves_on, options, started, tenants, until};
use crate::command::{Said, ask_at};
use crate::{first, has};

const PARTITION: &[&str] = &[
    "name",
    "id",
    "role",
    "owner",
    "epoch",
    "lsn",
    "digest",
    "page_size",
    "pages",
    "bytes",
    "tier",
    "path",
    "shadows",
];

fn cluster() -> Cluster {
    started(&options(2), &tenants(2, 2))
}

/// The answer of node-a as JSON.
fn json(cluster: &Cluster, line: &[&str]) -> Value {
    let line = [&["--json"], line].concat();
    ask_at(cluster, "node-a", &line).exits(0).json()
}

fn words(cluster: &Cluster, line: &[&str]) -> Said {
    ask_at(cluster, "node-a", line).exits(0)
}

#[test]
fn status_tells_people_and_programs_how_the_node_is() {
    let cluster = cluster();
    let status = json(&cluster, &["status"]);
    has(
        &status,
        &[
            "node",
            "cluster",
            "version",
            "ready",
            "uptime_seconds",
            "shards",
            "partitions",
            "owned",
            "shadowed",
            "lag_bytes_max",
            "links",
            "kernel",
            "refused",
        ],
    );
    assert_eq!(status["node"], "node-a");
    assert_eq!(
        (&status["ready"], &status["owned"]),
        (&Value::from(true), &Value::from(2))
    );
    has(first(&status["links"]), &["peer", "state", "rtt_us"]);
    let said = words(&cluster, &["status"]);
    assert!(said.out.contains("node-a of cluster demo"), "{said:#?}");
    assert!(said.out.contains("link to node-b: up"), "{said:#?}");
}

#[test]
fn list_shows_all_partitions_or_one_from_either_side() {
    let cluster = cluster();
    let all = json(&cluster, &["list"]);
    assert_eq!(all.as_array().expect("a list").len(), 2);
    has(first(&all), PARTITION);
    let shadow = ["node", "state", "lsn", "lag_lsn", "lag_bytes", "ready"];
    has(first(&first(&all)["shadows"]), &shadow);
    let one = json(&cluster, &["list", "tenant01.db"]);
    assert_eq!(first(&one)["name"], "tenant01.db");
    let said = words(&cluster, &["list"]);
    assert!(said.out.starts_with("NAME "), "{said:#?}");
    assert!(said.out.contains("node-b (level)"), "{said:#?}");
    let other = ask_at(&cluster, "node-b", &["--json", "list"])
        .exits(0)
        .json();
    let mine = first(&other);
    assert_eq!(
        (&mine["role"], &mine["owner"]),
        (&"shadow".into(), &"node-a".into())
    );
    assert_eq!(mine["digest"], first(&all)["digest"]);
}

#[test]
fn peers_shows_the_links_and_a_peer_that_is_gone() {
    let mut cluster = cluster();
    let peers = json(&cluster, &["peers"]);
    let fields = [
        "name",
        "id",
        "state",
        "address",
        "rtt_us",
        "bytes_out",
        "bytes_in",
    ];
    has(first(&peers), &fields);
    assert_eq!(first(&peers)["state"], "up");
    let path = &first(&peers)["path"];
    assert_eq!(path["codec"], "zstd 1", "nothing is known yet: {path}");
    let tried = path["zero_copy"].as_str().expect("a word");
    assert!(["untried", "copied"].contains(&tried), "{path}");
    has(path, &["rate_bytes_per_second"]);
    let said = words(&cluster, &["peers"]);
    for head in ["RATE", "CODEC", "ZERO-COPY"] {
        assert!(said.out.contains(head), "{said:#?}");
    }
    assert!(said.out.contains("zstd 1"), "{said:#?}");
    assert!(first(&peers)["bytes_out"].as_u64() > Some(0));
    cluster.kill9("node-b").expect("killed");
    until("the peer is down", || {
        let peers = json(&cluster, &["peers"]);
        let down = first(&peers)["state"] == "down" && first(&peers)["reason"].is_string();
        down.then_some(())
    });
    let said = words(&cluster, &["peers"]);
    assert!(said.out.contains("down"), "{said:#?}");
}

#[test]
fn a_shadow_is_discarded_and_kept_again_on_demand() {
    // Without automatic copies every shadow is somebody's wish.
    let options = options(2).tweak("[ship]", "copies", "0");
    let mut cluster = Cluster::prepare(&options).expect("prepared");
    cluster.create_tenants(&tenants(1, 2)).expect("made");
    cluster.start_all().expect("ready");
    until("it is attached", || {
        let all = json(&cluster, &["list"]);
        let role = all.as_array()?.first()?["role"].clone();
        (role == "owner").then_some(())
    });
    let shadow = ["shadow", "tenant00.db", "--to", "node-b"];
    let done = json(&cluster, &shadow);
    assert!(
        done["detail"]
            .as_str()
            .expect("words")
            .contains("is kept on node-b")
    );
    cluster
        .wait_for_shadows(crate::cluster::LIMIT)
        .expect("it streams");
    let said = words(&cluster, &[&shadow[..], &["--remove"]].concat());
    assert!(said.out.contains("no longer kept on node-b"), "{said:#?}");
    until("node-b holds no copy", || {
        let rows = ask_at(&cluster, "node-b", &["--json", "list"])
            .exits(0)
            .json();
        let rows = rows.as_array().expect("a list").clone();
        rows.iter().all(|row| row["role"] != "shadow").then_some(())
    });
    words(&cluster, &shadow);
    cluster
        .wait_for_shadows(crate::cluster::LIMIT)
        .expect("it streams again");
}

#[test]
fn sync_and_verify_say_where_every_shadow_stands() {
    let mut cluster = cluster();
    let said = until("all shadows stand where their source stands", || {
        let said = ask_at(&cluster, "node-a", &["sync", "tenant00.db"]);
        (said.code == 0).then_some(said)
    });
    assert!(said.out.contains("every shadow stands at"), "{said:#?}");
    let verified = json(&cluster, &["verify", "tenant00.db"]);
    has(&verified, &["partition", "position", "equal", "shadows"]);
    assert_eq!(verified["equal"], true);
    has(
        first(&verified["shadows"]),
        &["node", "equal", "pages", "detail"],
    );
    let said = words(&cluster, &["verify", "tenant00.db"]);
    assert!(said.out.contains("node-b: equal"), "{said:#?}");
    moves_on(&mut cluster, "tenant00.db");
    ask_at(&cluster, "node-a", &["verify", "tenant00.db"])
        .exits(3)
        .complains(&["owned by node-b", "ask there"]);
}

#[test]
fn a_database_with_an_odd_name_is_added_and_let_alone_again() {
    let cluster = cluster();
    let live = cluster.node("node-a").expect("there").place.live();
    let path = live.join("odd name.sqlite");
    std::fs::copy(live.join("tenant01.db"), &path).expect("copied");
    let said = words(&cluster, &["add", path.to_str().expect("UTF-8")]);
    assert!(
        said.out.contains("odd name.sqlite is being attached"),
        "{said:#?}"
    );
    until("it has a shadow", || {
        let said = ask_at(&cluster, "node-a", &["--json", "list", "odd name.sqlite"]);
        let rows = said.exits(0).json();
        let shadow = first(&rows)["shadows"].as_array()?.first()?.clone();
        (shadow["ready"] == true).then_some(())
    });
    let said = words(&cluster, &["remove", "odd name.sqlite"]);
    assert!(said.out.contains("is left alone"), "{said:#?}");
    let rows = json(&cluster, &["list", "odd name.sqlite"]);
    assert_eq!(first(&rows)["role"], "refused");
    let said = words(&cluster, &["list", "odd name.sqlite"]);
    assert!(
        said.out.contains("`foreshadow add` attaches it again"),
        "{said:#?}"
    );
    assert!(path.exists(), "the database itself stays");
}

#[test]
fn events_are_listed_and_followed_as_they_happen() {
    let mut cluster = cluster();
    let events = json(&cluster, &["events"]);
    has(
        first(&events),
        &["id", "at_ms", "kind", "partition", "text"],
    );
    let said = words(&cluster, &["events"]);
    assert!(said.out.contains("attached tenant00.db"), "{said:#?}");
    let socket = cluster.node("node-a").expect("there").place.socket();
    let mut follower = Command::new(env!("CARGO_BIN_EXE_foreshadow"))
        .arg("--socket")
        .arg(socket)
        .args(["--json", "events", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    moves_on(&mut cluster, "tenant00.db");
    let done = lines.map_while(Result::ok).find_map(|line| {
        let event: Value = serde_json::from_str(&line).expect("one JSON object a line");
        (event["kind"] == "move_done").then_some(event)
    });
    let done = done.expect("the end of the move");
    assert_eq!(done["partition"], "tenant00.db");
    assert!(
        done["text"]
            .as_str()
            .expect("words")
            .contains("write_pause_ms=")
    );
    follower.kill().expect("killed");
    follower.wait().expect("gone");
}
