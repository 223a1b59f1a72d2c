//! move, cancel, rollback and promote: what they do, what they refuse, how they exit.

use foreshadow::cli::demo::harness::Cluster;
use serde_json::Value;

use crate::cluster::{LIMIT, moves_on, options, started, tenants, until};
use crate::command::ask_at;
use crate::{first, has};

const NAME: &str = "tenant00.db";
const MOVE: [&str; 4] = ["move", NAME, "--to", "node-b"];
const ENDED: &[&str] = &[
    "id",
    "partition",
    "from",
    "to",
    "state",
    "estimate_ms",
    "epoch",
    "position",
    "steps",
];

fn cluster() -> Cluster {
    started(&options(2), &tenants(1, 2))
}

fn entry(cluster: &Cluster) -> Value {
    let rows = ask_at(cluster, "node-a", &["--json", "list", NAME])
        .exits(0)
        .json();
    let mut entry = first(&rows).clone();
    // How often a database is looked at, and the delay of its shadow, change by themselves.
    let object = entry.as_object_mut().expect("an object");
    object.remove("tier");
    entry
}

fn moves(cluster: &Cluster) -> Value {
    let node = cluster.node("node-a").expect("there");
    node.get("/v1/moves").expect("a list")
}

/// A move that was begun and not waited for; its number.
fn begun(cluster: &Cluster, line: &[&str]) -> String {
    let line = [&["--json"], line].concat();
    let accepted = ask_at(cluster, "node-a", &line).exits(0).json();
    accepted["id"].as_u64().expect("a number").to_string()
}

#[test]
fn a_dry_run_tells_the_pause_and_changes_nothing() {
    let cluster = cluster();
    let before = entry(&cluster);
    let plan = ask_at(
        &cluster,
        "node-a",
        &[&["--json"], &MOVE[..], &["--dry-run"]].concat(),
    );
    let plan = plan.exits(0).json();
    let fields = [
        "partition",
        "from",
        "to",
        "estimate_ms",
        "max_pause_ms",
        "lag_bytes",
    ];
    has(&plan, &fields);
    assert_eq!(plan["possible"], true, "{plan:#}");
    let said = ask_at(&cluster, "node-a", &[&MOVE[..], &["--dry-run"]].concat()).exits(0);
    assert!(said.out.contains("possible"), "{said:#?}");
    assert_eq!(entry(&cluster), before);
    assert_eq!(moves(&cluster), Value::Array(Vec::new()));
}

#[test]
fn a_dry_run_that_could_not_begin_exits_with_3() {
    let mut cluster = cluster();
    cluster.kill9("node-b").expect("killed");
    let line = [&MOVE[..], &["--dry-run"]].concat();
    let said = until("the shadow is away", || {
        let said = ask_at(&cluster, "node-a", &line);
        (said.code != 0).then_some(said)
    });
    let said = said.exits(3);
    assert!(said.out.contains("not possible now"), "{said:#?}");
}

#[test]
fn a_move_that_is_waited_for_prints_its_steps_and_its_pause() {
    let cluster = cluster();
    let said = ask_at(&cluster, "node-a", &[&MOVE[..], &["--wait"]].concat()).exits(0);
    let (steps, end) = said
        .out
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", &said.out));
    assert!(
        end.contains("node-a -> node-b: done; writers paused for"),
        "{said:#?}"
    );
    assert!(steps.contains(" ms  "), "{said:#?}");
    let ended = moves(&cluster);
    let ended = first(&ended);
    has(ended, ENDED);
    has(ended, &["write_pause_ms"]);
    assert_eq!(
        (&ended["state"], &ended["epoch"]),
        (&"done".into(), &2.into())
    );
    has(first(&ended["steps"]), &["name", "at_ms"]);
}

#[test]
fn a_rollback_goes_back_to_where_it_came_from_and_only_there() {
    let cluster = cluster();
    ask_at(&cluster, "node-a", &["rollback", NAME])
        .exits(3)
        .complains(&[NAME, "was not moved here"]);
    ask_at(&cluster, "node-a", &[&MOVE[..], &["--wait"]].concat()).exits(0);
    ask_at(&cluster, "node-a", &["rollback", NAME])
        .exits(3)
        .complains(&["owned by node-b", "ask there"]);
    let line = ["--json", "rollback", NAME, "--wait"];
    let ended = ask_at(&cluster, "node-b", &line).exits(0).json();
    has(&ended, ENDED);
    assert_eq!(
        (&ended["state"], &ended["to"]),
        (&"done".into(), &"node-a".into())
    );
    assert_eq!(cluster.owner_of(NAME).expect("one owner"), "node-a");
}

#[test]
fn a_move_that_cant_end_in_time_is_taken_back_and_exits_with_4() {
    let mut cluster = cluster();
    cluster.kill9("node-b").expect("killed");
    let wait = ["--wait", "--timeout", "700ms"];
    let said = ask_at(&cluster, "node-a", &[&MOVE[..], &wait].concat()).exits(4);
    assert!(
        said.out.contains("given up, node-a serves as before"),
        "{said:#?}"
    );
    let line = [&["--json"], &MOVE[..], &wait].concat();
    let ended = ask_at(&cluster, "node-a", &line).exits(4).json();
    assert_eq!(ended["state"], "aborted");
    assert!(
        ended["reason"].as_str().is_some_and(|why| !why.is_empty()),
        "{ended:#}"
    );
    cluster.restart("node-b").expect("it starts again");
    cluster.wait_for_shadows(LIMIT).expect("its shadow follows");
    moves_on(&mut cluster, NAME);
}

#[test]
fn a_move_is_cancelled_once_and_only_while_it_goes_on() {
    let mut cluster = cluster();
    ask_at(&cluster, "node-a", &["cancel", "77"])
        .exits(1)
        .complains(&["move 77 is not known"]);
    cluster.kill9("node-b").expect("killed");
    let id = until("a move waits for its target", || {
        let id = begun(&cluster, &MOVE);
        let state = moves(&cluster);
        let list = state.as_array().expect("a list");
        let last = list.last().expect("the move");
        (last["state"] == "copying").then_some(id)
    });
    ask_at(&cluster, "node-a", &MOVE)
        .exits(1)
        .complains(&[NAME, &format!("is being moved by move {id}")]);
    let said = ask_at(&cluster, "node-a", &["cancel", &id]).exits(0);
    assert!(
        said.out.contains(&format!("move {id} was cancelled")),
        "{said:#?}"
    );
    let ended = moves(&cluster);
    let ended = ended.as_array().expect("a list").last().expect("the move");
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&"aborted".into(), &"it was cancelled".into())
    );
    ask_at(&cluster, "node-a", &["cancel", &id])
        .exits(3)
        .complains(&[&format!("move {id} is aborted")]);
    assert_eq!(cluster.owner_of(NAME).expect("one owner"), "node-a");
}

#[test]
fn promote_refuses_while_the_owner_lives_and_takes_over_when_it_is_gone() {
    let mut cluster = cluster();
    ask_at(&cluster, "node-a", &["promote", NAME])
        .exits(3)
        .complains(&[NAME, "is not a shadow here"]);
    ask_at(&cluster, "node-b", &["promote", NAME])
        .exits(3)
        .complains(&["node-a is reachable", "foreshadow move", "--force"]);
    cluster.kill9("node-a").expect("killed");
    let said = until("node-b finds that node-a is gone", || {
        let said = ask_at(&cluster, "node-b", &["promote", NAME]);
        (said.code == 0).then_some(said)
    });
    assert!(said.out.contains("taking tenant00.db over at"), "{said:#?}");
    until("node-b serves it", || {
        let rows = ask_at(&cluster, "node-b", &["--json", "list", NAME])
            .exits(0)
            .json();
        (first(&rows)["role"] == "owner").then_some(())
    });
    cluster.restart("node-a").expect("it starts again");
    let owner = cluster.wait_for_one_owner(NAME, LIMIT).expect("one owner");
    assert_eq!(owner, "node-b", "the old owner must ask before it serves");
}
