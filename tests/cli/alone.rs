//! Verbs that need no daemon, and what a verb says when there is none.

use std::fs;
use std::process::Command;

use crate::command::{ask_socket, foreshadow, run};
use crate::has;

const VERBS: [&str; 23] = [
    "run",
    "status",
    "list",
    "add",
    "remove",
    "shadow",
    "sync",
    "move",
    "cancel",
    "rollback",
    "promote",
    "peers",
    "events",
    "observed",
    "forecast",
    "explain",
    "hint",
    "model",
    "verify",
    "check-config",
    "init",
    "wal",
    "version",
];

#[test]
fn every_verb_shows_an_example_of_itself() {
    let all = foreshadow(&["--help"]).exits(0);
    assert!(
        all.out.contains("Exit codes: 0 ok, 1 error, 2 usage"),
        "{all:#?}"
    );
    for verb in VERBS {
        assert!(
            all.out.contains(&format!("\n  {verb} ")),
            "{verb} is not listed"
        );
        let help = foreshadow(&[verb, "--help"]).exits(0);
        let (_, examples) = help.out.split_once("Examples:\n").unwrap_or_default();
        assert!(
            examples.contains(&format!("foreshadow {verb}")),
            "{help:#?}"
        );
    }
}

#[test]
fn a_line_that_cant_be_understood_exits_with_2_and_says_what_is_missing() {
    for (line, words) in [
        (&[][..], "Usage: foreshadow"),
        (&["mvoe"], "move"),
        (&["move", "a.db"], "--to <NODE>"),
        (&["move", "a.db", "--to", "b", "--timeout", "30"], "30s"),
        (&["cancel", "seven"], "seven"),
        (&["list", "--nonsense"], "--nonsense"),
        (
            &["forecast", "--kind", "luck"],
            "access, migration, overload, backup",
        ),
        (&["forecast", "--horizon", "1"], "has no unit"),
        (&["explain"], "<OBJECT>"),
        (&["hint", "a.db", "--chance", "0.9"], "--until <TIME>"),
        (
            &["hint", "a.db", "--chance", "NaN", "--until", "1h"],
            "0 to 1",
        ),
        (
            &["hint", "a.db", "--chance", "1.1", "--until", "1h"],
            "0 to 1",
        ),
        (&["model", "log", "--limit", "few"], "--limit"),
        (&["model", "learn"], "learn"),
    ] {
        foreshadow(line).exits(2).complains(&[words]);
    }
}

#[test]
fn without_a_daemon_a_verb_names_the_socket_and_what_to_check() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("absent.sock");
    for line in [
        &["status"][..],
        &["--json", "list"],
        &["move", "a.db", "--to", "b"],
        &["forecast"],
        &["model", "train", "--wait"],
    ] {
        ask_socket(&socket, line).exits(1).complains(&[
            "absent.sock",
            "No such file",
            "systemctl status foreshadow",
        ]);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_foreshadow"));
    let said = run(command.arg("status").env("FORESHADOW_SOCKET", &socket));
    said.exits(1).complains(&["absent.sock"]);
}

#[test]
fn the_version_is_told_with_and_without_a_daemon() {
    let said = ask_socket("/nonexistent/socket".as_ref(), &["version"]).exits(0);
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        said.out.starts_with(&format!("foreshadow {version} (")),
        "{said:#?}"
    );
    let json = foreshadow(&["--json", "version"]).exits(0).json();
    has(&json, &["version", "target"]);
    assert_eq!(json["version"], version);
}

#[test]
fn init_writes_a_file_that_check_config_accepts_and_overwrites_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("etc/foreshadow.toml");
    let file = path.to_str().expect("UTF-8");
    let said = foreshadow(&["init", "--config", file]).exits(0);
    assert!(
        said.out.contains(file) && said.out.contains("check-config"),
        "{said:#?}"
    );
    let text = fs::read_to_string(&path).expect("written");
    foreshadow(&["init", "--config", file])
        .exits(3)
        .complains(&[file, "is left as it is"]);
    assert_eq!(fs::read_to_string(&path).expect("there"), text);
    let live = dir.path().to_str().expect("UTF-8");
    fs::write(&path, text.replace("/srv/tenants/live", live)).expect("edited");
    let said = foreshadow(&["check-config", "--config", file]).exits(0);
    assert!(
        said.out.contains("is right") && said.out.contains(live),
        "{said:#?}"
    );
    let json = foreshadow(&["--json", "check-config", "--config", file]).exits(0);
    assert_eq!(json.json()["ok"], true);
    foreshadow(&["init", "--config", "/proc/no/such/place.toml"])
        .exits(1)
        .complains(&["/proc/no/such/place.toml", "can't be written"]);
}

#[test]
fn a_dump_of_what_is_not_there_names_it() {
    foreshadow(&["wal", "dump", "/nonexistent/0.deltas"])
        .exits(1)
        .complains(&["/nonexistent/0.deltas", "No such file"]);
}
