//! Configurations that can't work: refused before anything is touched, with place and remedy.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{options, started, tenants};
use crate::command::{Said, foreshadow};
use crate::{applications, goes_on};

/// A directory with databases and a configuration of these lines after `[node]`.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("live")).expect("makes");
        Site { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, node: &str, rest: &str) -> String {
        let (state, socket) = (self.path("state"), self.path("s"));
        let (live, coordinator) = (self.path("live"), self.path("c"));
        let text = format!(
            "[node]\nname = \"node-a\"\nstate_dir = {state:?}\nsocket = {socket:?}\n{node}\
             [[engine.sqlite]]\ndir = {live:?}\n\
             [coordinator]\ndir = {coordinator:?}\n{rest}"
        );
        let path = self.path("foreshadow.toml");
        fs::write(&path, text).expect("writes");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// The daemon and `check-config` must refuse it alike, before anything is made.
    fn refused(&self, path: &str, words: &[&str]) {
        for verb in ["run", "check-config"] {
            foreshadow(&[verb, "--config", path])
                .exits(2)
                .complains(&["foreshadow.toml"])
                .complains(words);
            assert!(
                !self.path("state").exists(),
                "{verb} made the state directory"
            );
        }
    }
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_the_nearest_key() {
    let site = Site::new();
    let path = site.write("listn = \"127.0.0.1:7401\"\n", "");
    let place = format!("{path}:5:1");
    site.refused(
        &path,
        &[&place, "listn: unknown key", "did you mean listen?"],
    );
    let path = site.write("", "[swich]\nmax_pause = \"1ms\"\n");
    site.refused(&path, &["did you mean switch?"]);
}

#[test]
fn a_value_that_cant_be_is_refused_with_what_to_write_instead() {
    let site = Site::new();
    let path = site.write("", "[switch]\nmax_pause = \"50\"\n");
    site.refused(&path, &["switch.max_pause", "has no unit", "50ms"]);
    let path = site.write("listen = \"0.0.0.0:7401\"\n", "");
    site.refused(&path, &["node.listen", "insecure"]);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let site = Site::new();
    fs::remove_dir(site.path("live")).expect("removes");
    let path = site.write("", "");
    let live = site.path("live").display().to_string();
    site.refused(&path, &["engine.sqlite.dir", &live]);
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_named() {
    let site = Site::new();
    let absent = site.path("absent.toml");
    for verb in ["run", "check-config"] {
        foreshadow(&[verb, "--config", absent.to_str().expect("UTF-8")])
            .exits(2)
            .complains(&["absent.toml", "can't be read", "foreshadow init"]);
    }
    let path = site.path("foreshadow.toml");
    fs::write(&path, "[node\nname = ").expect("writes");
    site.refused(path.to_str().expect("UTF-8"), &[":1:"]);
}

/// Starts a second daemon with `config`, which must end by itself.
fn second(config: &Path) -> Said {
    foreshadow(&["run", "--config", config.to_str().expect("UTF-8")])
}

#[test]
fn a_second_daemon_on_one_state_directory_is_told_who_has_it() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let place = cluster.node("node-a").expect("there").place.clone();
    let lock = fs::read_to_string(place.state().join("lock")).expect("a lock");
    let said = second(&place.config()).exits(1);
    let state = place.state().display().to_string();
    for word in [&*state, "in use by process", lock.trim(), "node.state_dir"] {
        assert!(
            format!("{}{}", said.out, said.err).contains(word),
            "{said:#?}"
        );
    }
    goes_on(cluster, writers);
}

#[test]
fn a_second_daemon_on_one_socket_or_port_is_refused_and_the_first_goes_on() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let place = cluster.node("node-a").expect("there").place.clone();
    let text = fs::read_to_string(place.config()).expect("a configuration");
    let elsewhere = text.replace("/state\"", "/state2\"");
    let path = place.dir.join("second.toml");
    fs::write(&path, &elsewhere).expect("writes");
    let said = second(&path).exits(1);
    let words = format!("{}{}", said.out, said.err);
    assert!(words.contains("another daemon answers on"), "{words}");
    assert!(words.contains("fs.sock"), "{words}");
    fs::write(&path, elsewhere.replace("/fs.sock\"", "/fs2.sock\"")).expect("writes");
    let said = second(&path).exits(1);
    let words = format!("{}{}", said.out, said.err);
    let port = place.port.to_string();
    assert!(words.contains(&port) && words.contains("in use"), "{words}");
    goes_on(cluster, writers);
}
