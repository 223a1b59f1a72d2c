//! Every route by equality, and the words for what is no request.

use super::*;

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
fn an_empty_part_is_no_name() {
    assert!(read("POST", "/v1/partitions//sync", b"").is_err());
}
