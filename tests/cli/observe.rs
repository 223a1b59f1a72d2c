//! What a real daemon sees: accesses from every source, what applications write, moves, memory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Node};
use rusqlite::Connection;
use serde_json::Value;

use crate::cluster::{LIMIT, moves_on, options, tenants, until};
use crate::command::ask;
use crate::has;
use crate::http::request;

/// A cluster with `extra` in the configuration of every node; `DIR` is the node's directory.
fn with(nodes: usize, extra: &str) -> Cluster {
    let mut cluster = Cluster::prepare(&options(nodes)).expect("prepared");
    for node in &cluster.nodes {
        let path = node.place.config();
        let dir = node.place.dir.display().to_string();
        let text = fs::read_to_string(&path).expect("it was just written");
        fs::write(&path, text + &extra.replace("DIR", &dir)).expect("written");
    }
    cluster
        .create_tenants(&tenants(1, nodes))
        .expect("a database");
    cluster.start_all().expect("ready");
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    cluster
}

fn observed(node: &Node) -> Value {
    node.get("/v1/observed?limit=100").expect("an answer")
}

/// What came from the source whose name ends so: accepted, malformed, passed over.
fn tally(node: &Node, source: &str) -> (u64, u64, u64) {
    let reply = observed(node);
    let sources = reply["sources"].as_array().expect("a list");
    let named = |one: &&Value| {
        one["source"]
            .as_str()
            .is_some_and(|name| name.ends_with(source))
    };
    let one = sources.iter().find(named).expect("the source");
    let count = |name: &str| one[name].as_u64().expect("a number");
    (count("accepted"), count("malformed"), count("passed_over"))
}

#[track_caller]
fn comes_to(node: &Node, source: &str, expected: (u64, u64, u64)) {
    let mut seen = (0, 0, 0);
    let what = format!("{source}: {expected:?}");
    until(&what, || {
        seen = tally(node, source);
        (seen == expected).then_some(())
    });
}

/// The entry of a key.
fn key(node: &Node, key: &str) -> Option<Value> {
    let reply = observed(node);
    let keys = reply["keys"].as_array()?;
    keys.iter().find(|one| one["key"] == key).cloned()
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.expect("opens")
        .write_all(text.as_bytes())
        .expect("written");
}

#[test]
fn accesses_by_http_are_counted_and_malformed_lines_stop_nothing() {
    let cluster = with(1, "");
    let node = &cluster.nodes[0];
    let body = "{\"key\":\"a\",\"partition\":\"tenant00.db\",\"region\":\"eu\",\"bytes\":7}\n\
                not json\n\n{\"key\":\"\"}\n{\"key\":\"a\",\"region\":\"us\",\"time\":12}\n";
    let answer = request(node, "POST", "/v1/access", body);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(
        answer.json(),
        serde_json::json!({"accepted": 2, "malformed": 2})
    );
    assert_eq!(tally(node, "http"), (2, 2, 0));
    let large = "{\"key\":\"b\"}\n".repeat(21_000);
    let answer = request(node, "POST", "/v1/access", &large);
    assert_eq!(answer.json()["accepted"], 21_000, "{answer:?}");
    let larger = large.repeat(2);
    assert_eq!(request(node, "POST", "/v1/access", &larger).status, 413);
    let reply = observed(node);
    has(
        &reply,
        &[
            "begin",
            "seconds",
            "bytes",
            "node",
            "partitions",
            "history",
            "last",
        ],
    );
    assert_eq!(
        reply["keys"][0]["key"], "b",
        "the most asked for come first"
    );
    assert_eq!(reply["keys"][0]["count"], 21_000);
    let keys = reply["keys"].as_array().expect("a list");
    let whole = keys
        .iter()
        .find(|one| one["partition"] == "tenant00.db" && one["key"].is_null());
    assert_eq!(whole.expect("the partition as a whole")["bytes"], 7);
    let metrics = request(node, "GET", "/metrics", "").body;
    for line in [
        "foreshadow_access_events_total{source=\"http\"} 21002",
        "foreshadow_access_malformed_total{source=\"http\"} 2",
        "foreshadow_observe_bytes ",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let log = fs::read_to_string(node.place.log()).expect("a log");
    let told = log
        .lines()
        .filter(|line| line.contains("malformed access events"));
    assert_eq!(told.count(), 1, "an example, once a minute:\n{log}");
    let said = ask(node, &["observed", "--limit", "1"]).exits(0);
    assert!(
        said.out.contains("ACCESSES") && said.out.contains("http"),
        "{said:?}"
    );
    let said = ask(node, &["observed", "--json"]).exits(0);
    assert_eq!(said.json()["keys"][0]["key"], "b");
    assert_eq!(request(node, "GET", "/v1/observed?limit=x", "").status, 400);
}

#[test]
fn accesses_by_datagram_are_counted() {
    let cluster = with(1, "[observe]\nsocket = \"DIR/access.sock\"\n");
    let node = &cluster.nodes[0];
    let socket = UnixDatagram::unbound().expect("a socket");
    socket
        .connect(node.place.dir.join("access.sock"))
        .expect("connects");
    for number in 0..1000 {
        let lines = format!("{{\"key\":\"k{}\"}}\n{{\"key\":\"all\"}}", number % 10);
        socket.send(lines.as_bytes()).expect("sent");
    }
    socket.send(b"\xff\xfe").expect("sent");
    socket.send(b"").expect("sent");
    comes_to(node, "access.sock", (2000, 1, 0));
    assert_eq!(key(node, "all").expect("seen")["count"], 1000);
    assert_eq!(key(node, "k3").expect("seen")["count"], 100);
}

#[test]
fn a_followed_file_is_read_through_rotations() {
    let cluster = with(1, "[[observe.follow]]\npath = \"DIR/access.log\"\n");
    let node = &cluster.nodes[0];
    let path = node.place.dir.join("access.log");
    append(&path, "{\"key\":\"a\"}\n{\"key\":");
    comes_to(node, "access.log", (1, 0, 0));
    append(&path, "\"b\"}\nbad\n");
    comes_to(node, "access.log", (2, 1, 0));
    fs::rename(&path, path.with_extension("old")).expect("rotated");
    append(&path.with_extension("old"), "{\"key\":\"c\"}\n");
    append(&path, "{\"key\":\"d\"}\n");
    comes_to(node, "access.log", (4, 1, 0));
    fs::write(&path, "").expect("cut");
    sleep(Duration::from_millis(200));
    append(&path, "{\"key\":\"e\"}\n");
    comes_to(node, "access.log", (5, 1, 0));
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(key(node, name).expect(name)["count"], 1);
    }
}

#[test]
fn what_an_application_writes_is_seen_as_changes() {
    let cluster = with(1, "[observe]\nbin = \"1s\"\nload_every = \"1s\"\n");
    let node = &cluster.nodes[0];
    let database = Connection::open(node.place.live().join("tenant00.db")).expect("opens");
    database
        .execute_batch("create table if not exists seen(x)")
        .expect("made");
    let seen = until("a bin in which it changes", || {
        database
            .execute("insert into seen values (1)", [])
            .expect("written");
        let reply = observed(node);
        let first = reply["partitions"].as_array()?.first()?.clone();
        (first["partition"] == "tenant00.db").then_some(first)
    });
    has(
        &seen,
        &["commits", "pages", "bytes", "update_size", "segments"],
    );
    for name in ["commits", "pages", "bytes", "segments"] {
        assert!(seen[name].as_u64() > Some(0), "{name}: {seen}");
    }
    let last = until("a bin is over", || {
        let last = observed(node)["last"].clone();
        (last["samples"].as_u64() > Some(0)).then_some(last)
    });
    assert_eq!(
        (&last["seconds"], &last["missed"]),
        (&1.into(), &0.into()),
        "{last}"
    );
    let load = observed(node)["node"].clone();
    has(&load, &["cpu", "memory"]);
}

#[test]
fn a_move_and_a_backup_are_remembered() {
    let mut cluster = with(2, "");
    moves_on(&mut cluster, "tenant00.db");
    let backup = "{\"key\":\"b\",\"partition\":\"tenant00.db\",\"task\":\"backup\"}";
    request(&cluster.nodes[0], "POST", "/v1/access", backup);
    let happened = |node: &Node| {
        let reply = observed(node);
        let list = reply["history"].as_array().expect("a list").clone();
        list.iter()
            .map(|one| one["what"].clone())
            .collect::<Vec<_>>()
    };
    until("both ends know of the move", || {
        let mut source = happened(&cluster.nodes[0]);
        source.sort_by_key(Value::to_string);
        (source == ["backup", "left"] && happened(&cluster.nodes[1]) == ["came"]).then_some(())
    });
}

#[test]
fn keys_without_end_stay_within_the_bound() {
    const BOUND: u64 = 8 << 20;
    let extra = "[observe]\nmax_bytes = \"8MiB\"\nsocket = \"DIR/access.sock\"\n";
    let cluster = with(1, extra);
    let node = &cluster.nodes[0];
    let before = resident(node);
    let socket = UnixDatagram::unbound().expect("a socket");
    socket
        .connect(node.place.dir.join("access.sock"))
        .expect("connects");
    for batch in 0..4000_u32 {
        let line = |number| format!("{{\"key\":\"key-{batch}-{number}-{}\"}}\n", "x".repeat(40));
        let mut lines: String = (0..100).map(line).collect();
        lines += "{\"key\":\"hot\"}";
        socket.send(lines.as_bytes()).expect("sent");
    }
    comes_to(node, "access.sock", (404_000, 0, 0));
    let reply = observed(node);
    let (bytes, grown) = (reply["bytes"].as_u64(), resident(node) - before);
    assert!(bytes > Some(0) && bytes <= Some(BOUND), "{bytes:?}");
    // What is in use besides does not grow: buffers, and what the allocator keeps.
    assert!(
        grown <= BOUND + (4 << 20),
        "{grown} bytes more, {bytes:?} of them accounted for"
    );
    let hot = &reply["keys"][0];
    assert_eq!(
        (&hot["key"], &hot["count"], &hot["error"]),
        (&"hot".into(), &4000.into(), &0.into())
    );
}

/// Bytes of memory that the daemon really has.
fn resident(node: &Node) -> u64 {
    let pid = node.id().expect("it runs");
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).expect("readable");
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .expect("pages")
        .parse()
        .expect("a number");
    pages * 4096
}

/// A real HAProxy that answers by itself and logs each request twice.
struct Haproxy {
    child: Child,
    port: u16,
}

impl Haproxy {
    /// It logs to a socket as syslog, and to its output, which is a file.
    fn start(dir: &Path) -> Option<Haproxy> {
        let places = [
            "/usr/sbin/haproxy",
            "/usr/local/sbin/haproxy",
            "/usr/bin/haproxy",
        ];
        let binary = places
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())?;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let text = format!(
            "global\n log {dir}/haproxy.sock local0\n log stdout format raw local0\n\
             defaults\n mode http\n log global\n option httplog\n timeout client 5s\n \
             timeout connect 5s\n timeout server 5s\n\
             frontend front\n bind 127.0.0.1:{port}\n \
             capture request header X-Region len 16\n \
             http-request return status 200 content-type text/plain string hello\n",
            dir = dir.display()
        );
        let config = dir.join("haproxy.cfg");
        fs::write(&config, text).expect("written");
        let output = File::create(dir.join("haproxy.log")).expect("a file");
        let child = Command::new(binary)
            .args(["-db", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("it starts");
        let haproxy = Haproxy { child, port };
        until("HAProxy listens", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(haproxy)
    }

    fn get(&self, target: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: h\r\nX-Region: eu{{1}}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_haproxy_is_read_from_its_socket_and_its_file() {
    let rules = "format = \"haproxy\"\nkey = \"query:id\"\nregion = \"captured:1\"\n\
                 partition = \"path:2\"\npartition_suffix = \".db\"\n";
    let extra = format!(
        "[[observe.follow]]\nsocket = \"DIR/haproxy.sock\"\n{rules}\
         [[observe.follow]]\npath = \"DIR/haproxy.log\"\n{rules}"
    );
    let cluster = with(1, &extra);
    let node = &cluster.nodes[0];
    let Some(haproxy) = Haproxy::start(&node.place.dir) else {
        eprintln!("skipped: there is no haproxy; ./tests/run installs it");
        return;
    };
    for _ in 0..20 {
        haproxy.get("/tenants/tenant00/items?x=1&id=a%20b");
    }
    haproxy.get("/tenants/tenant00/items");
    // Both tell of all; a connection without a request is no access, and HAProxy's own words are
    // none either.
    let both = || {
        let came = |source| {
            let (accepted, _, passed_over) = tally(node, source);
            (accepted, passed_over) == (20, 1)
        };
        (came("haproxy.sock") && came("haproxy.log")).then_some(())
    };
    until("both sources tell of 20 requests", both);
    let seen = key(node, "a b").expect("seen");
    assert_eq!(seen["count"], 40);
    assert_eq!(seen["partition"], "tenant00.db");
    assert_eq!(seen["regions"], serde_json::json!({"eu{1}": 40}));
}
