//! The socket by raw HTTP, as curl would use it, and the probes on TCP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Node};
use serde_json::Value;

use crate::cluster::{moves_on, options, started, tenants, until};
use crate::has;

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    fn of(mut stream: impl Read + Write, request: &[u8]) -> Answer {
        // The daemon may refuse before it has read everything.
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Answer {
            status: status.unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// An RFC 9457 problem document of this status whose detail has these words.
    #[track_caller]
    fn is_problem(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:#?}");
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{self:#?}"
        );
        let problem = self.json();
        has(&problem, &["type", "title", "status", "detail"]);
        assert_eq!(problem["status"], status);
        let detail = problem["detail"].as_str().expect("words");
        assert!(detail.contains(words), "{detail}");
    }
}

fn socket(node: &Node) -> UnixStream {
    let stream = UnixStream::connect(node.place.socket()).expect("connects");
    let wait = Some(Duration::from_secs(15));
    stream.set_read_timeout(wait).expect("set");
    stream
}

pub fn request(node: &Node, method: &str, target: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n\
         {body}",
        body.len()
    );
    Answer::of(socket(node), request.as_bytes())
}

fn node(cluster: &Cluster) -> &Node {
    cluster.node("node-a").expect("there")
}

#[test]
fn what_cant_be_answered_is_a_problem_document() {
    let cluster = started(&options(1), &tenants(1, 1));
    let node = node(&cluster);
    let ask = |method: &str, target: &str, body: &str| request(node, method, target, body);
    ask("GET", "/v2/status", "").is_problem(404, "/v2/status is not a route");
    ask("GET", "/v1/partitions?name=nosuch.db", "").is_problem(404, "nosuch.db is not known");
    ask("GET", "/v1/moves/9", "").is_problem(404, "move 9 is not known");
    let wrong = ask("POST", "/v1/status", "{}");
    wrong.is_problem(405, "/v1/status answers GET, not POST");
    assert!(wrong.head.contains("\r\nallow: "), "{wrong:#?}");
    ask("PATCH", "/v1/moves", "{}").is_problem(405, "/v1/moves answers GET and POST");
    ask("POST", "/v1/moves", "{\"partition\":").is_problem(400, "body: EOF");
    ask("POST", "/v1/moves", "{\"part\":\"a.db\"}").is_problem(400, "unknown field `part`");
    ask("GET", "/v1/moves/seven", "").is_problem(400, "seven is no move id");
    ask("GET", "/v1/partitions?name=%2e%2e%2fx", "").is_problem(400, "no partition name");
    ask("GET", "/v1/events?follow=maybe", "").is_problem(400, "follow is maybe");
    let body = format!("{{\"path\":\"{}\"}}", "x".repeat(70_000));
    ask("POST", "/v1/partitions", &body).is_problem(413, "65536");
}

#[test]
fn bytes_that_are_no_request_harm_nobody() {
    let cluster = started(&options(1), &tenants(1, 1));
    let node = node(&cluster);
    for bytes in [
        &b"\x16\x03\x01\x02\x00garbage\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = Answer::of(socket(node), bytes);
        assert!(matches!(answer.status, 0 | 400), "{answer:#?}");
    }
    // Connections that say nothing do not keep others out.
    let silent: Vec<UnixStream> = (0..64).map(|_| socket(node)).collect();
    let answer = request(node, "GET", "/v1/version", "");
    assert_eq!(answer.status, 200, "{answer:#?}");
    has(&answer.json(), &["version", "target"]);
    drop(silent);
}

#[test]
fn the_routes_are_listed_and_each_get_answers_json() {
    let cluster = started(&options(1), &tenants(1, 1));
    let node = node(&cluster);
    let info = request(node, "GET", "/v1/info", "").json();
    has(
        &info,
        &[
            "node", "id", "cluster", "version", "config", "listen", "routes",
        ],
    );
    let routes = info["routes"].as_array().expect("a list");
    let gets = routes
        .iter()
        .filter_map(|route| route.as_str()?.strip_prefix("GET "));
    let plain: Vec<&str> = gets
        .filter(|path| !path.contains('{') && path.starts_with("/v1/"))
        .collect();
    assert!(plain.len() >= 6, "{routes:?}");
    for path in plain {
        let answer = request(node, "GET", &format!("{path}?follow=false"), "");
        assert_eq!(answer.status, 200, "{path}: {answer:#?}");
        assert!(
            answer.head.contains("content-type: application/json"),
            "{path}"
        );
        answer.json();
    }
}

#[test]
fn events_are_a_stream_for_browsers() {
    let cluster = started(&options(1), &tenants(1, 1));
    let mut stream = socket(node(&cluster));
    let request = b"GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).expect("asked");
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    while !text.contains("\ndata: {") {
        let count = stream.read(&mut chunk).expect("events come");
        assert!(count > 0, "the stream ended: {text}");
        text += &String::from_utf8_lossy(&chunk[..count]);
    }
    assert!(
        text.to_ascii_lowercase()
            .contains("content-type: text/event-stream"),
        "{text}"
    );
    assert!(
        text.contains("\nid: ") && text.contains("\nevent: "),
        "{text}"
    );
}

#[test]
fn metrics_have_the_documented_names() {
    let mut cluster = started(&options(2), &tenants(1, 2));
    moves_on(&mut cluster, "tenant00.db");
    let both = |cluster: &Cluster| -> String {
        let answers = cluster.nodes.iter().map(|node| {
            let answer = request(node, "GET", "/metrics", "");
            assert_eq!(answer.status, 200);
            assert!(
                answer.head.contains("content-type: text/plain"),
                "{answer:#?}"
            );
            answer.body
        });
        answers.collect()
    };
    for sample in [
        "foreshadow_build_info{",
        "foreshadow_tail_lag_seconds{",
        "foreshadow_shadow_lag_bytes{",
        "foreshadow_shadow_warm_ratio{",
        "foreshadow_delta_bytes_total{",
        "foreshadow_switchover_pause_seconds_count 1",
        "foreshadow_switchover_total{result=\"done\"} 1",
        "foreshadow_fencing_token{partition=\"tenant00.db\"} 2",
        "foreshadow_disk_full 0",
        "foreshadow_partitions{role=\"owner\"",
        "foreshadow_peer_up{peer=\"node-b\"",
    ] {
        until(&format!("a sample {sample}"), || {
            let text = both(&cluster);
            let there = text.lines().any(|line| line.starts_with(sample));
            there.then_some(())
        });
    }
}

#[test]
fn probes_answer_load_balancers_with_their_status() {
    let tenants = tenants(1, 2);
    let mut cluster = Cluster::prepare(&options(2)).expect("prepared");
    let port = foreshadow_port();
    let config = node(&cluster).place.config();
    let mut text = std::fs::read_to_string(&config).expect("a configuration");
    text += &format!("\n[serve]\nhttp = \"127.0.0.1:{port}\"\n");
    std::fs::write(&config, text).expect("written");
    cluster.create_tenants(&tenants).expect("made");
    cluster.start_all().expect("ready");
    cluster
        .wait_for_shadows(crate::cluster::LIMIT)
        .expect("a ready shadow");
    let probe = |method: &str, target: &str| {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        let line = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Answer::of(stream, line.as_bytes())
    };
    assert_eq!(probe("GET", "/healthz").status, 200);
    assert_eq!(probe("GET", "/readyz").status, 200);
    assert_eq!(probe("GET", "/primary?partition=tenant00.db").status, 200);
    assert!(
        probe("GET", "/metrics")
            .body
            .contains("foreshadow_build_info")
    );
    probe("POST", "/healthz").is_problem(405, "probes answer GET");
    probe("GET", "/v1/status").is_problem(404, "/v1/status");
    probe("GET", "/primary").is_problem(400, "which partition?");
    probe("GET", "/primary?partition=nosuch.db").is_problem(404, "nosuch.db");
    moves_on(&mut cluster, "tenant00.db");
    assert_eq!(probe("GET", "/primary?partition=tenant00.db").status, 503);
}

/// A port that nothing listens on.
fn foreshadow_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
