//! Who may use the socket: its mode, and the kernel's word on who connected.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use foreshadow::cli::demo::harness::Cluster;

use crate::cluster::{options, started, tenants};
use crate::command::{Said, run};

/// A user and a group that every Linux has and nobody is a member of.
const NOBODY: &str = "65534";

/// The program where another user can run it.
struct Elsewhere {
    _dir: tempfile::TempDir,
    program: PathBuf,
}

impl Elsewhere {
    fn new() -> Elsewhere {
        let dir = tempfile::tempdir().expect("a directory");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open).expect("set");
        let program = dir.path().join("foreshadow");
        fs::copy(env!("CARGO_BIN_EXE_foreshadow"), &program).expect("copied");
        Elsewhere { _dir: dir, program }
    }

    /// Asks for the status as another user, whose group is `group`.
    fn ask(&self, socket: &Path, group: &str) -> Said {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", group, "--clear-groups"]);
        run(command
            .arg(&self.program)
            .arg("--socket")
            .arg(socket)
            .arg("status"))
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: asking as another user needs root");
    }
    root
}

#[test]
fn another_user_is_kept_out_by_the_mode_and_by_the_daemon_itself() {
    if !is_root() {
        return;
    }
    let cluster = started(&options(1), &tenants(1, 1));
    let socket = cluster.node("node-a").expect("there").place.socket();
    let program = Elsewhere::new();
    let mode = fs::metadata(&socket).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    program
        .ask(&socket, NOBODY)
        .exits(1)
        .complains(&["Permission denied", "fs.sock"]);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("set");
    program
        .ask(&socket, NOBODY)
        .exits(1)
        .complains(&["Not allowed for this user", "serve.group"]);
    let log = cluster.node("node-a").expect("there").place.log();
    let log = fs::read_to_string(log).expect("a log");
    assert!(
        log.contains("a connection to the socket was refused"),
        "{log}"
    );
}

#[test]
fn a_member_of_the_configured_group_may_ask() {
    if !is_root() {
        return;
    }
    let mut cluster =
        Cluster::prepare(&options(1).tweak("[serve]", "group", "\"daemon\"")).expect("prepared");
    cluster.create_tenants(&tenants(1, 1)).expect("made");
    cluster.start_all().expect("ready");
    let socket = cluster.node("node-a").expect("there").place.socket();
    let program = Elsewhere::new();
    let said = program.ask(&socket, "daemon").exits(0);
    assert!(said.out.contains("node-a of cluster demo"), "{said:#?}");
    program.ask(&socket, NOBODY).exits(1);
}
