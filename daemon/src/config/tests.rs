//! What a configuration file means, and the exact words for what is wrong with it.

use std::path::{Path, PathBuf};

use wal::Span;

use super::*;
use crate::cli::init::STARTER;

const FILE: &str = "/etc/foreshadow/foreshadow.toml";

fn environment(name: &str) -> Option<String> {
    (name == "NODE").then(|| "node-a".to_owned())
}

/// Parses `text`, in which `DIR` stands for a directory that exists.
pub(super) fn parse_in(dir: &Path, text: &str) -> Result<Config, Errors> {
    let text = text.replace("DIR", dir.to_str().expect("UTF-8"));
    Config::parse(Path::new(FILE), &text, &environment)
}

/// A file that is right, before and after which more can be written.
pub(super) const RIGHT: &str = "[node]\nname = \"node-a\"\n[[engine.sqlite]]\ndir = \"DIR\"\n";

/// The words for what is wrong with `text`.
fn wrong(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("b")).expect("makes");
    std::fs::write(dir.path().join("file"), "").expect("writes");
    let errors = parse_in(dir.path(), text).expect_err("wrong").to_string();
    errors.replace(dir.path().to_str().expect("UTF-8"), "DIR") + "\n"
}

pub(super) fn wrong_after_right(text: &str) -> String {
    wrong(&format!("{RIGHT}{text}"))
}

#[test]
fn a_file_with_what_must_be_set_has_defaults_for_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = parse_in(dir.path(), RIGHT).expect("right");
    assert_eq!(config.node.name.as_str(), "node-a");
    assert_eq!(
        config.node.listen,
        "127.0.0.1:7401".parse::<SocketAddr>().expect("an address")
    );
    assert_eq!(
        config.engines,
        [EngineConfig::of(Engine::Sqlite, dir.path().to_owned())]
    );
    assert_eq!(config.engines[0].generations, dir.path().join(".gen"));
    assert_eq!(config.ship, ShipConfig::default());
    assert_eq!(config.switch, SwitchConfig::default());
    assert_eq!(config.routing.dir, None);
    assert!(config.node.shards >= 1 && config.node.shards <= 4);
}

#[test]
fn everything_can_be_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = parse_in(
        dir.path(),
        "[node]\nname = \"${NODE}\"\ncluster = \"demo\"\nstate_dir = \"DIR/state\"\n\
         socket = \"DIR/s\"\nlisten = \"10.0.0.1:7401\"\nshards = 2\ninsecure = true\n\
         [[peer]]\nname = \"node-b\"\naddress = \"db.example:7402\"\n\
         [[engine.sqlite]]\ndir = \"DIR\"\npattern = \"t*.sqlite\"\nrecursive = true\n\
         watch = false\ngenerations = \"DIR/g\"\nmax_wal = \"1GiB\"\nsweep_hot = \"200us\"\n\
         sweep_warm = \"2ms\"\nsweep_cold = \"10ms\"\nidle_after = \"1min\"\n\
         lease_guard = true\nlease = \"500ms\"\n\
         [ship]\ncopies = 2\nmax_bytes_per_sec = \"100MB/s\"\ndelta_log = \"1MiB\"\n\
         journal = \"2MiB\"\nwindow = \"1MiB\"\nreconnect_min = \"1s\"\nreconnect_max = \"1s\"\n\
         [switch]\nmax_pause = \"10ms\"\npause_timeout = \"20ms\"\n\
         keep_reverse_shadow = false\nstale_reads = \"0\"\n\
         [coordinator]\nkind = \"embedded\"\ndir = \"DIR/c\"\n[routing]\ndir = \"DIR/$$r\"\n\
         [serve]\ngroup = \"\"\nhttp = \"127.0.0.1:7480\"\n[log]\nlevel = \"foreshadow=debug\"\n",
    )
    .expect("right");
    assert_eq!(config.peers[0].address.as_str(), "db.example:7402");
    assert_eq!(
        (config.node.name.as_str(), config.node.shards),
        ("node-a", 2)
    );
    let engine = &config.engines[0];
    assert_eq!((engine.recursive, engine.watch), (true, false));
    assert_eq!(
        (engine.sweep_hot, engine.idle_after),
        (Span::micros(200), Span::secs(60))
    );
    assert_eq!(
        (engine.lease_guard, engine.lease),
        (true, Span::millis(500))
    );
    assert_eq!(config.ship.rate_max.limit(), Some(100_000_000));
    assert_eq!(config.switch.stale_reads, Span::ZERO);
    assert_eq!(config.routing.dir, Some(dir.path().join("$r")));
    assert_eq!(config.serve.group, None);
    assert_eq!(
        config.name_of(config.peers[0].id),
        Some(&config.peers[0].name)
    );
    assert_eq!(
        config.warnings().len(),
        1,
        "db.example is not on this machine"
    );
}

/// The starter file without the `#` in front of its keys.
fn uncommented() -> String {
    let line = |line: &str| {
        let key = line.strip_prefix("# ").filter(|rest| {
            let word = rest.split(' ').next().unwrap_or_default();
            rest.starts_with(&format!("{word} = ")) || rest.starts_with("[[")
        });
        format!("{}\n", key.unwrap_or(line))
    };
    STARTER.lines().map(line).collect()
}

#[test]
fn the_starter_file_shows_the_defaults() {
    let dir = tempfile::tempdir().expect("a directory");
    for live in ["tenants", "logs"] {
        std::fs::create_dir(dir.path().join(live)).expect("a directory");
    }
    let place = |text: &str| {
        let text = text.replace("/srv/tenants/live", "DIR/tenants");
        text.replace("/srv/logs/live", "DIR/logs")
    };
    let as_is = parse_in(dir.path(), &place(STARTER)).expect("right as it is");
    let shown = parse_in(dir.path(), &place(&uncommented())).expect("right when uncommented");
    let routing = RoutingConfig {
        dir: Some(PathBuf::from("/srv/routes")),
    };
    assert_eq!(
        shown.routing, routing,
        "the one default that can't be written is none"
    );
    assert_eq!(shown.peers.len(), 1);
    let http = shown.serve.http;
    assert!(http.is_some());
    let serve = ServeConfig {
        http,
        ..as_is.serve.clone()
    };
    let mut engines = as_is.engines.clone();
    engines.push(EngineConfig::of(Engine::Native, dir.path().join("logs")));
    let peers = shown.peers.clone();
    let observe = ObserveConfig {
        socket: Some("/run/foreshadow/access.sock".into()),
        follow: shown.observe.follow.clone(),
        ..as_is.observe.clone()
    };
    assert_eq!(observe.follow.len(), 2);
    assert_eq!(
        shown,
        Config {
            peers,
            engines,
            routing,
            serve,
            observe,
            ..as_is
        }
    );
}

#[test]
fn the_starter_file_shows_every_key() {
    for section in [
        "node",
        "ship",
        "switch",
        "coordinator",
        "routing",
        "serve",
        "observe",
        "model",
        "model.healthy",
        "log",
    ] {
        assert_shows(section, &wrong(&format!("[{section}]\nzzz = 1\n")));
    }
    for section in ["peer", "engine.sqlite", "engine.native", "observe.follow"] {
        assert_shows(section, &wrong(&format!("[[{section}]]\nzzz = 1\n")));
    }
}

fn assert_shows(section: &str, words: &str) {
    let (_, keys) = words
        .trim()
        .split_once(" knows ")
        .expect("the keys of the section");
    let text = uncommented();
    let header = [format!("[{section}]\n"), format!("[[{section}]]\n")];
    let starts = header.iter().flat_map(|header| text.match_indices(header));
    let bodies = starts.map(|(start, _)| {
        let body = &text[start + 1..];
        &body[..body.find("\n[").unwrap_or(body.len())]
    });
    let body: String = bodies.collect();
    for key in keys.split(", ") {
        let shown = body.contains(&format!("\n{key} = "));
        let deeper = [
            format!("[[{section}.{key}]]\n"),
            format!("\n[{section}.{key}]\n"),
        ];
        let sections = deeper.iter().any(|header| text.contains(header));
        assert!(shown || sections, "{section}.{key} is not shown");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_one() {
    assert_eq!(
        wrong_after_right("pattrn = \"*.db\"\n"),
        "/etc/foreshadow/foreshadow.toml:5:1: pattrn: unknown key in [engine.sqlite]\n \
         5 | pattrn = \"*.db\"\n   | ^^^^^^\n  \
         help: did you mean pattern? [engine.sqlite] knows dir, pattern, recursive, watch, \
         generations, max_wal, sweep_hot, sweep_warm, sweep_cold, idle_after, lease_guard, lease\n"
    );
    let near = wrong_after_right("lease_gard = true\n");
    assert!(near.contains("did you mean lease_guard?"), "{near}");
    let short = wrong_after_right("lease = \"100ms\"\n");
    assert!(short.contains("engine.sqlite.lease: 100ms is out of bounds"));
    assert!(short.contains("write 200ms to 5min"), "{short}");
    assert_eq!(
        wrong_after_right("[swich]\nmax_pause = \"1ms\"\n"),
        "/etc/foreshadow/foreshadow.toml:5:2: swich: unknown key in the file\n \
         5 | [swich]\n   |  ^^^^^\n  \
         help: did you mean switch? the file knows node, peer, engine, ship, switch, coordinator, \
         routing, serve, observe, model, log\n"
    );
}

#[test]
fn values_are_refused_with_what_to_write_instead() {
    for (text, words) in [
        (
            "[switch]\nmax_pause = \"50\"\n",
            "6:13: switch.max_pause: \"50\" has no unit\n 6 | max_pause = \"50\"\n   \
             |             ^^^^\n  \
             help: write a number and ns, us, ms, s, min, h or d, as in \"50ms\"\n",
        ),
        (
            "[switch]\nmax_pause = 50\n",
            "6:13: switch.max_pause: invalid type: integer `50`, expected a string\n \
             6 | max_pause = 50\n   |             ^^\n  \
             help: durations, sizes, paths and addresses are text: put it in quotes, with its \
             unit\n",
        ),
        (
            "[ship]\nwindow = \"1KiB\"\n",
            "6:10: ship.window: 1KiB is out of bounds\n 6 | window = \"1KiB\"\n   \
             |          ^^^^^^\n  help: write 64KiB to 1GiB\n",
        ),
        (
            "[ship]\nreconnect_min = \"10s\"\n",
            "6:17: ship.reconnect_min: is above reconnect_max\n 6 | reconnect_min = \"10s\"\n   \
             |                 ^^^^^\n  \
             help: the wait grows from reconnect_min to reconnect_max: exchange them\n",
        ),
        (
            "[routing]\ndir = \"routes\"\n",
            "6:7: routing.dir: \"routes\" is not an absolute path\n 6 | dir = \"routes\"\n   \
             |       ^^^^^^^^\n  help: write the whole path, beginning with / and without ..\n",
        ),
        (
            "[log]\nlevel = \"${LEVEL}\"\n",
            "6:9: log.level: the environment has no LEVEL\n 6 | level = \"${LEVEL}\"\n   \
             |         ^^^^^^^^^^\n  \
             help: set it before the daemon starts (Environment= in the unit), or write the value \
             here\n",
        ),
        (
            "[coordinator]\nkind = \"zookeeper\"\n",
            "6:8: coordinator.kind: \"zookeeper\" is not known\n 6 | kind = \"zookeeper\"\n   \
             |        ^^^^^^^^^^^\n  help: write kind = \"embedded\"\n",
        ),
    ] {
        let expected = format!("{FILE}:{words}");
        let found = wrong_after_right(text);
        assert!(found.starts_with(&expected), "{found}is not\n{expected}");
    }
}

#[test]
fn links_that_leave_the_machine_must_be_allowed() {
    assert_eq!(
        wrong(
            "[node]\nname = \"a\"\nlisten = \"10.0.0.1:7401\"\n[[engine.sqlite]]\ndir = \"DIR\"\n"
        ),
        format!(
            "{FILE}:3:10: node.listen: is not a loopback address, and links are not encrypted \
             yet\n 3 | listen = \"10.0.0.1:7401\"\n   |          ^^^^^^^^^^^^^^^\n  help: write \
             insecure = true in [node] if the network is trusted, or use 127.0.0.1\n"
        )
    );
}

/// The first line of every error.
fn heads(errors: &str) -> Vec<&str> {
    let heads = errors.lines().filter_map(|line| line.strip_prefix(FILE));
    heads.map(|line| line.trim_start_matches(':')).collect()
}

#[test]
fn peers_have_names_of_their_own() {
    let peers = |names: &[&str]| -> String {
        let peer = |name: &&str| format!("[[peer]]\nname = \"{name}\"\naddress = \"[::1]:1\"\n");
        names.iter().map(peer).collect()
    };
    let twice = wrong_after_right(&peers(&["node-b", "node-b"]));
    assert_eq!(heads(&twice), ["9:8: peer.name: node-b is listed twice"]);
    let itself = wrong_after_right(&peers(&["node-a"]));
    assert_eq!(
        heads(&itself),
        ["6:8: peer.name: node-a is this node itself"]
    );
    let nameless = wrong_after_right("[[peer]]\nname = \"node-b\"\n");
    assert_eq!(heads(&nameless), ["5:1: peer: has no name or no address"]);
}

#[test]
fn names_with_the_same_id_are_refused() {
    // Found by search: ids are 32-bit hashes, so two names can share one.
    let (one, two) = names_with_one_id();
    let text = format!(
        "[node]\nname = \"{one}\"\n[[engine.sqlite]]\ndir = \"DIR\"\n\
         [[peer]]\nname = \"{two}\"\naddress = \"[::1]:1\"\n"
    );
    let id = wal::NodeId::of(&one);
    let expected = format!("6:8: peer.name: {two} and {one} have the same id {id}");
    assert_eq!(heads(&wrong(&text)), [expected]);
}

fn names_with_one_id() -> (String, String) {
    let mut names = std::collections::HashMap::new();
    for index in 0u32.. {
        let name = format!("n{index}");
        if let Some(other) = names.insert(wal::NodeId::of(&name), name.clone()) {
            return (other, name);
        }
    }
    unreachable!("32-bit hashes collide long before")
}

#[test]
fn directories_exist_and_do_not_overlap() {
    let missing = wrong("[node]\nname = \"a\"\n[[engine.sqlite]]\ndir = \"DIR/none\"\n");
    assert_eq!(
        heads(&missing),
        ["4:7: engine.sqlite.dir: DIR/none is not a directory"]
    );
    let nested = wrong_after_right("[[engine.sqlite]]\ndir = \"DIR/b\"\n");
    assert_eq!(
        heads(&nested),
        ["5:1: engine.sqlite.dir: DIR/b and DIR overlap"]
    );
    let inside =
        "[node]\nname = \"a\"\n[[engine.sqlite]]\ndir = \"DIR/b\"\ngenerations = \"DIR\"\n";
    assert_eq!(
        heads(&wrong(inside)),
        ["5:15: engine.sqlite.generations: DIR holds dir itself"]
    );
    let elsewhere = wrong_after_right("generations = \"/proc/gen\"\n");
    let expected = "5:15: engine.sqlite.generations: /proc/gen is not on the filesystem of DIR";
    assert_eq!(heads(&elsewhere), [expected]);
    let file = wrong_after_right("[coordinator]\ndir = \"DIR/file/c\"\n");
    assert_eq!(
        heads(&file),
        ["6:7: coordinator.dir: DIR/file is a file, not a directory"]
    );
}

#[test]
fn one_run_tells_everything_that_is_wrong() {
    let words = wrong("[node]\nname = \"a b\"\nshards = 1000\n[switch]\nstale_reads = \"soon\"\n");
    assert_eq!(
        heads(&words),
        [
            "2:8: node.name: \"a b\" is no name",
            "3:10: node.shards: 1000 is too many",
            " engine: is missing: there is nothing to look after",
            "5:15: switch.stale_reads: \"soon\" does not begin with a number",
        ]
    );
}

#[test]
fn broken_toml_and_missing_files_are_told_with_their_place() {
    assert_eq!(heads(&wrong("[node]\nname = \"a\n")).len(), 1);
    let missing = Config::load(Path::new("/nonexistent.toml"))
        .expect_err("missing")
        .to_string();
    assert_eq!(
        missing,
        "/nonexistent.toml: can't be read: No such file or directory (os error 2)\n  \
         help: name the file with --config, or write one with `foreshadow init`"
    );
}

#[test]
fn a_reload_takes_what_it_can_and_names_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = parse_in(dir.path(), RIGHT).expect("right");
    let new = format!(
        "{RIGHT}[[peer]]\nname = \"node-b\"\naddress = \"[::1]:1\"\n\
         [ship]\nmax_bytes_per_sec = \"1MiB\"\ncopies = 2\n[log]\nlevel = \"debug\"\n\
         [switch]\nmax_pause = \"1ms\"\n"
    );
    let new = parse_in(dir.path(), &new).expect("right");
    assert_eq!(
        old.restart_needed(&new),
        ["ship (except max_bytes_per_sec)", "switch"]
    );
    let in_force = old.reloaded(&new);
    assert_eq!((&in_force.peers, &in_force.log), (&new.peers, &new.log));
    assert_eq!(
        (in_force.ship.rate_max, in_force.ship.copies),
        (Rate(1 << 20), 1)
    );
    assert_eq!(in_force.switch, old.switch);
}
