//! Permissions: a daemon that is nobody in particular, and what it may not touch.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use foreshadow::cli::demo::harness::{Cluster, Load, Options, Pace, Program, Writers};
use tempfile::TempDir;

use crate::cluster::{LIMIT, moves_on, options, tenants};
use crate::command::run;
use crate::{goes_on, is_root, refusal};

/// The user `nobody` of every Linux.
const NOBODY: u32 = 65534;

/// A program that is the daemon without privileges: as [`NOBODY`] when a test runs as root, and
/// with 8 MiB of memory that can be locked, as systemd and login shells give.
struct Humble {
    dir: TempDir,
}

impl Humble {
    fn new() -> Humble {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().join("foreshadow");
        fs::copy(env!("CARGO_BIN_EXE_foreshadow"), &real).expect("copied");
        let script = format!(
            "#!/bin/sh\nulimit -l 8192\nif [ \"$(id -u)\" = 0 ]; then\n\
             exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$0\" \"$@\"\nfi\n\
             exec {} \"$@\"\n",
            real.display()
        );
        let humble = Humble { dir };
        fs::write(humble.program(), script).expect("written");
        for path in [humble.program(), humble.dir.path().to_owned()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
        }
        humble
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("humble")
    }

    fn options(&self) -> Options {
        Options {
            binary: self.program(),
            ..options(2)
        }
    }
}

/// Gives a tree to [`NOBODY`], if that is who the daemons are.
fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let owner = format!("{NOBODY}:{NOBODY}");
        run(Command::new("chown").args(["-R", &owner]).arg(path)).exits(0);
    }
}

/// A running cluster of daemons without privileges.
fn started(humble: &Humble) -> Cluster {
    let mut cluster = Cluster::prepare(&humble.options()).expect("prepared");
    give_away(cluster.root());
    cluster.create_tenants(&tenants(1, 2)).expect("made");
    cluster.start_all().expect("every daemon is ready");
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    cluster
}

/// Applications on the bundled SQLite: the machine's python3 may lie where only root looks.
fn applications(cluster: &Cluster) -> Writers {
    let mut load = Load::new(&[Program::Bundled; 2]);
    for index in 0..crate::ALL.len() {
        load.add(index, &cluster.tenants[0], Pace::Rate(30.0));
    }
    cluster.start_writers(&load).expect("writers start")
}

/// Numbers of a process that is a daemon of this cluster.
fn status_of(cluster: &Cluster, field: &str) -> String {
    let lock = cluster
        .node("node-a")
        .expect("there")
        .place
        .state()
        .join("lock");
    let pid = fs::read_to_string(lock).expect("a lock");
    let status = fs::read_to_string(format!("/proc/{}/{field}", pid.trim()));
    status.expect("a process")
}

#[test]
fn two_nodes_without_privileges_and_8_mib_of_memlock_move_a_database() {
    let humble = Humble::new();
    let mut cluster = started(&humble);
    let limits = status_of(&cluster, "limits");
    let locked = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"));
    let words: Vec<&str> = locked.expect("a line").split_whitespace().collect();
    assert_eq!(words[3], "8388608", "{limits}");
    let uid = status_of(&cluster, "status");
    assert!(!uid.contains("\nUid:\t0\t"), "{uid}");
    assert!(uid.contains("\nCapEff:\t0000000000000000"), "{uid}");
    let writers = applications(&cluster);
    moves_on(&mut cluster, crate::OTHER);
    goes_on(cluster, writers);
}

#[test]
fn a_database_that_the_daemon_may_not_open_is_refused_by_name_and_left_alone() {
    if !is_root("giving files to another user") {
        return;
    }
    let humble = Humble::new();
    let cluster = started(&humble);
    let writers = applications(&cluster);
    let place = cluster.node("node-a").expect("there").place.clone();
    let staged = place.dir.join("staged.db");
    crate::database::make(&staged, "WAL", 10);
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).expect("set");
    fs::rename(&staged, place.live().join("theirs.db")).expect("renamed");
    let reason = refusal(&cluster, "node-a", "theirs.db");
    assert!(
        reason.contains("theirs.db") && reason.contains("ermission denied"),
        "{reason}"
    );
    assert!(!place.live().join("theirs.db-shm").exists());
    goes_on(cluster, writers);
}

#[test]
fn a_directory_that_the_daemon_may_not_use_is_named_at_start() {
    if !is_root("taking directories away from another user") {
        return;
    }
    let humble = Humble::new();
    let cluster = Cluster::prepare(&humble.options()).expect("prepared");
    give_away(cluster.root());
    let place = cluster.node("node-a").expect("there").place.clone();
    let config = place.config();
    for dir in [place.state(), place.generations()] {
        chown(&dir, Some(0), Some(0)).expect("taken away");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("set");
        let mut command = Command::new(humble.program());
        let said = run(command.args(["run", "--config"]).arg(&config)).exits(1);
        let words = format!("{}{}", said.out, said.err);
        let named = words.contains(dir.to_str().expect("UTF-8"));
        assert!(named && words.contains("ermission denied"), "{said:#?}");
        chown(&dir, Some(NOBODY), Some(NOBODY)).expect("given back");
    }
}
