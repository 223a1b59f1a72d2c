//! Every route by equality, and the words for what is no request.

use super::*;
use crate::serve::query::Until;

/// Method, target, body (may be absent) => the query, as it prints itself; a line that begins
/// with spaces continues the one before.
const CASES: &str = r#"
GET /v1/version => Version
GET /v1/info => Info
GET /v1/status => Status
GET /v1/partitions => Partitions { name: None }
GET /v1/partitions?name=a.db => Partitions { name: Some(PartitionName("a.db")) }
GET /v1/partitions?name=s%2Fa.db => Partitions { name: Some(PartitionName("s/a.db")) }
POST /v1/partitions {"path":"/x/a b"} => AddPartition { path: "/x/a b" }
DELETE /v1/partitions/a.db => RemovePartition { partition: PartitionName("a.db") }
DELETE /v1/partitions/s%2Fa.db => RemovePartition { partition: PartitionName("s/a.db") }
POST /v1/partitions/a/shadows {"to":"b"} =>
    AddShadow { partition: PartitionName("a"), to: NodeName("b") }
DELETE /v1/partitions/a/shadows/b =>
    RemoveShadow { partition: PartitionName("a"), node: NodeName("b") }
POST /v1/partitions/a.db/sync => Sync { partition: PartitionName("a.db") }
POST /v1/partitions/a.db/rollback => Rollback { partition: PartitionName("a.db") }
POST /v1/partitions/a/promote => Promote { partition: PartitionName("a"), force: false }
POST /v1/partitions/a/promote {"force":true} =>
    Promote { partition: PartitionName("a"), force: true }
POST /v1/partitions/a.db/verify => Verify { partition: PartitionName("a.db") }
GET /v1/peers => Peers
GET /v1/moves => Moves
GET /v1/moves/7 => Move { id: MoveId(7) }
DELETE /v1/moves/7 => CancelMove { id: MoveId(7) }
GET /v1/events => Events { after: None, follow: true }
GET /v1/events?after=9&follow=false => Events { after: Some(EventId(9)), follow: false }
POST /v1/access a => Access { lines: [97] }
GET /v1/observed => Observed { limit: 10 }
GET /v1/observed?limit=3 => Observed { limit: 3 }
GET /v1/forecasts => Forecasts { object: None, kind: None, within: None, limit: 50 }
GET /v1/forecasts?object=node&kind=overload&within=2h&limit=3 =>
    Forecasts { object: Some(Node), kind: Some(Overload), within: Some(7200), limit: 3 }
GET /v1/forecasts/s%2Fa.db => Explain { object: Partition(PartitionName("s/a.db")) }
GET /v1/forecasts/%23k => Explain { object: Record { partition: None, key: "k" } }
POST /v1/hints {"object":"a","chance":0.9,"until":"2h"} =>
    Hint { target: Target { subject: Partition(PartitionName("a")), kind: Access, region: None },
    chance: Chance(0.9), until: After(7200) }
POST /v1/hints {"object":"node","kind":"overload","region":"eu","chance":1,"until":1700000000.5} =>
    Hint { target: Target { subject: Node, kind: Overload, region: Some("eu") },
    chance: Chance(1.0), until: At(1700000000) }
GET /v1/model => Model
GET /v1/model/log => ModelLog { limit: 50 }
GET /v1/model/log?limit=7 => ModelLog { limit: 7 }
POST /v1/model/train => Train
POST /v1/model/rollback => RollBackModel
GET /metrics => Metrics
"#;

#[test]
fn every_route_reads_as_its_query() {
    let cases = CASES.trim().replace("\n    ", " ");
    let mut tried = Vec::new();
    for line in cases.lines() {
        let (request, query) = line.split_once(" => ").expect("a case");
        let mut words = request.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (method, target, body) = (next(), next(), next());
        let read = read(method, target, body.as_bytes()).expect(line);
        assert_eq!(format!("{read:?}"), query, "{line}");
        tried.push((method, target.split('?').next().expect("a path")));
    }
    for route in ROUTES.iter().filter(|route| route.path != "/v1/moves") {
        let fits = |(method, path): &(&str, &str)| {
            route.method == *method && capture(route.path, path).is_some()
        };
        assert!(tried.iter().any(fits), "{route:?} has no case here");
    }
}

#[test]
fn a_move_has_a_timeout_whether_or_not_it_is_given() {
    let start = |dry_run, timeout| Query::StartMove {
        partition: PartitionName::new("a.db").expect("valid"),
        to: NodeName::new("node-b").expect("valid"),
        dry_run,
        timeout,
    };
    let plain = r#"{"partition":"a.db","to":"node-b"}"#;
    let read = |body: &str| read("POST", "/v1/moves", body.as_bytes());
    assert_eq!(read(plain), Ok(start(false, MOVE_TIMEOUT)));
    let full = r#"{"partition":"a.db","to":"node-b","dry_run":true,"timeout_ms":5}"#;
    assert_eq!(read(full), Ok(start(true, Span::millis(5))));
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let cases = [
        (
            "GET",
            "/nope",
            "",
            "No such route: /nope is not a route; GET /v1/info lists the routes",
        ),
        (
            "PUT",
            "/v1/moves",
            "",
            "The route has no such method: /v1/moves answers GET and POST, not PUT",
        ),
        (
            "GET",
            "/v1/moves/x",
            "",
            "The request is malformed: x is no move id",
        ),
        (
            "DELETE",
            "/v1/partitions/..",
            "",
            "The request is malformed: \"..\" is no partition name: a path relative to the \
             configured directory, without `.` and `..`",
        ),
        (
            "DELETE",
            "/v1/partitions/%ff",
            "",
            "The request is malformed: %ff is not UTF-8",
        ),
        (
            "GET",
            "/v1/partitions?name=a&name=b",
            "",
            "The request is malformed: parameter name is given twice",
        ),
        (
            "GET",
            "/v1/events?follow=maybe",
            "",
            "The request is malformed: follow is maybe: true or false",
        ),
        (
            "POST",
            "/v1/moves",
            r#"{"partition":"a","to":"b","timeout_ms":0}"#,
            "The request is malformed: timeout_ms is 0; 1 to 86400000 is accepted",
        ),
        (
            "POST",
            "/v1/moves",
            r#"{"partition":"a","tu":"b"}"#,
            "The request is malformed: body: unknown field `tu`, expected one of \
             `partition`, `to`, `dry_run`, `timeout_ms` at line 1 column 21",
        ),
    ];
    for (method, target, body, text) in cases {
        let problem = read(method, target, body.as_bytes()).expect_err(target);
        assert_eq!(problem.to_string(), text);
    }
}

#[test]
fn a_hint_ends_at_a_time_or_after_one() {
    let until = |until: &str| {
        let body = format!(r#"{{"object":"a","chance":0.5,"until":{until}}}"#);
        match read("POST", "/v1/hints", body.as_bytes()) {
            Ok(Query::Hint { until, .. }) => Ok(until),
            Ok(other) => panic!("{other:?}"),
            Err(problem) => Err(problem.detail),
        }
    };
    for (text, expected) in [
        ("1700000000", Until::At(1_700_000_000)),
        (r#""1700000000""#, Until::At(1_700_000_000)),
        (r#""2023-11-14T22:13:20Z""#, Until::At(1_700_000_000)),
        (r#""2023-11-14T23:13:20+01:00""#, Until::At(1_700_000_000)),
        (r#""90min""#, Until::After(5_400)),
    ] {
        assert_eq!(until(text), Ok(expected), "{text}");
    }
    for wrong in [r#""soon""#, r#""""#, r#""0s""#, r#""400d""#, r#""10ms""#] {
        let why = until(wrong).expect_err(wrong);
        assert!(why.contains("or how long from now, as in 2h"), "{why}");
    }
}

#[test]
fn what_is_no_hint_is_refused_with_what_is_one() {
    for (body, words) in [
        (
            r#"{"object":"a","chance":1.5,"until":"1h"}"#,
            "chance is 1.5: 0 to 1 is accepted",
        ),
        (
            r#"{"object":"a","chance":-0.5,"until":"1h"}"#,
            "chance is -0.5",
        ),
        (
            r#"{"object":"a","chance":NaN,"until":"1h"}"#,
            "body: expected value",
        ),
        (
            r#"{"object":"a","chance":null,"until":"1h"}"#,
            "body: invalid type: null",
        ),
        (
            r#"{"object":"a","chance":1e999,"until":"1h"}"#,
            "body: number out of range",
        ),
        (
            r#"{"object":"/a","chance":1,"until":"1h"}"#,
            "\"/a\" is no object: write node",
        ),
        (r#"{"object":"","chance":1,"until":"1h"}"#, "is no object"),
        (
            r#"{"object":"a","kind":"x","chance":1,"until":"1h"}"#,
            "one of access, migration",
        ),
        (
            r#"{"object":"a","region":"","chance":1,"until":"1h"}"#,
            "region is empty",
        ),
        (r#"{"object":"a","chance":1}"#, "missing field `until`"),
        (
            r#"{"object":"a","chance":1,"until":"1h","x":1}"#,
            "unknown field `x`",
        ),
        ("", "missing field `object`"),
    ] {
        let problem = read("POST", "/v1/hints", body.as_bytes()).expect_err(body);
        assert_eq!(problem.status(), 400, "{body}");
        assert!(problem.detail.contains(words), "{body}: {}", problem.detail);
    }
}

#[test]
fn what_is_asked_about_forecasts_is_bounded() {
    let long = format!("/v1/forecasts/%23{}", "x".repeat(800));
    for (target, words) in [
        ("/v1/forecasts?limit=10001", "limit is a number up to 10000"),
        ("/v1/forecasts?limit=-1", "limit is a number"),
        ("/v1/forecasts?within=1", "within: \"1\" has no unit"),
        ("/v1/forecasts?within=0s", "within is 0s: write 1s to 366d"),
        ("/v1/forecasts?within=99999d", "write 1s to 366d"),
        (
            "/v1/forecasts?kind=",
            "kind is : one of access, migration, overload, backup",
        ),
        ("/v1/forecasts?object=", "is no object"),
        ("/v1/model/log?limit=x", "limit is a number"),
        (&long, "is no object"),
    ] {
        let problem = read("GET", target, b"").expect_err(target);
        assert_eq!(problem.status(), 400, "{target}");
        assert!(problem.detail.contains(words), "{}", problem.detail);
        assert!(problem.detail.len() < 500, "{}", problem.detail);
    }
}

#[test]
fn an_empty_part_is_no_name() {
    assert!(read("POST", "/v1/partitions//sync", b"").is_err());
}
