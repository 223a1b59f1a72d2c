//! A verb as the HTTP request that it stands for.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::args::{MoveArguments, Verb};

/// Everything but RFC 3986's unreserved characters is encoded in a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub target: String,
    /// JSON, or empty.
    pub body: String,
}

impl Ask {
    /// The request behind `verb`; none for verbs that need no daemon.
    pub fn of(verb: &Verb) -> Option<Ask> {
        let ask = match verb {
            Verb::Status => get("/v1/status"),
            Verb::List { partition: None } => get("/v1/partitions"),
            Verb::List {
                partition: Some(name),
            } => get(format!("/v1/partitions?name={}", encode(name))),
            Verb::Add { path } => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                post("/v1/partitions", json!({ "path": path.to_string_lossy() }))
            }
            Verb::Remove { partition } => delete(partition_path(partition, "")),
            Verb::Shadow {
                partition,
                to,
                remove: false,
            } => post(partition_path(partition, "/shadows"), json!({ "to": to })),
            Verb::Shadow {
                partition,
                to,
                remove: true,
            } => delete(partition_path(
                partition,
                &format!("/shadows/{}", encode(to)),
            )),
            Verb::Sync { partition } => post(partition_path(partition, "/sync"), json!({})),
            Verb::Move(arguments) => start_move(arguments),
            Verb::Cancel { id } => delete(format!("/v1/moves/{id}")),
            Verb::Rollback { partition, .. } => {
                post(partition_path(partition, "/rollback"), json!({}))
            }
            Verb::Promote { partition, force } => post(
                partition_path(partition, "/promote"),
                json!({ "force": force }),
            ),
            Verb::Peers => get("/v1/peers"),
            Verb::Events { follow: false } => get("/v1/events?follow=false"),
            Verb::Events { follow: true } => get("/v1/events?after=0"),
            Verb::Observed { limit } => get(format!("/v1/observed?limit={limit}")),
            Verb::Verify { partition } => post(partition_path(partition, "/verify"), json!({})),
            Verb::Version => get("/v1/version"),
            Verb::Run(_)
            | Verb::CheckConfig(_)
            | Verb::Init(_)
            | Verb::Wal { .. }
            | Verb::Model { .. } => return None,
            #[cfg(feature = "demo")]
            Verb::Demo(_) => return None,
        };
        Some(ask)
    }

    /// Where a move is.
    pub fn about_move(id: u64) -> Ask {
        get(format!("/v1/moves/{id}"))
    }
}

fn get(target: impl Into<String>) -> Ask {
    Ask {
        method: "GET",
        target: target.into(),
        body: String::new(),
    }
}

fn delete(target: String) -> Ask {
    Ask {
        method: "DELETE",
        target,
        body: String::new(),
    }
}

fn post(target: impl Into<String>, body: serde_json::Value) -> Ask {
    Ask {
        method: "POST",
        target: target.into(),
        body: body.to_string(),
    }
}

fn start_move(arguments: &MoveArguments) -> Ask {
    let body = json!({
        "partition": arguments.partition,
        "to": arguments.to,
        "dry_run": arguments.dry_run,
        "timeout_ms": arguments.timeout,
    });
    post("/v1/moves", body)
}

fn partition_path(partition: &str, rest: &str) -> String {
    format!("/v1/partitions/{}{rest}", encode(partition))
}

fn encode(part: &str) -> String {
    utf8_percent_encode(part, PART).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use wal::{PartitionName, Span};

    use super::super::args::Arguments;
    use super::*;
    use crate::serve::query::{NodeName, Query};

    /// Command line => what a daemon understands; `_` stands for a space within a word.
    const CASES: &str = r#"
status => Status
list => Partitions { name: None }
list eu/a_b.db => Partitions { name: Some(PartitionName("eu/a b.db")) }
add /x/a_b.db => AddPartition { path: "/x/a b.db" }
remove eu/a_b.db => RemovePartition { partition: PartitionName("eu/a b.db") }
shadow eu/a_b.db --to b => AddShadow { partition: PartitionName("eu/a b.db"), to: NodeName("b") }
shadow a --to b --remove => RemoveShadow { partition: PartitionName("a"), node: NodeName("b") }
sync eu/a_b.db => Sync { partition: PartitionName("eu/a b.db") }
cancel 7 => CancelMove { id: MoveId(7) }
rollback eu/a_b.db --wait => Rollback { partition: PartitionName("eu/a b.db") }
promote a.db => Promote { partition: PartitionName("a.db"), force: false }
promote a.db --force => Promote { partition: PartitionName("a.db"), force: true }
peers => Peers
events => Events { after: None, follow: false }
events --follow => Events { after: Some(EventId(0)), follow: true }
observed => Observed { limit: 10 }
observed --limit 3 => Observed { limit: 3 }
verify eu/a_b.db => Verify { partition: PartitionName("eu/a b.db") }
version => Version
"#;

    fn understood(line: &str) -> Query {
        let words = line.split(' ').map(|word| word.replace('_', " "));
        let line = ["foreshadow".to_owned()].into_iter().chain(words);
        let arguments = Arguments::try_parse_from(line).expect("parses");
        let ask = Ask::of(&arguments.verb).expect("asks the daemon");
        crate::serve::http::read(ask.method, &ask.target, ask.body.as_bytes()).expect("a query")
    }

    #[test]
    fn every_verb_means_its_query() {
        for case in CASES.trim().lines() {
            let (line, query) = case.split_once(" => ").expect("a case");
            assert_eq!(format!("{:?}", understood(line)), query, "{line}");
        }
    }

    #[test]
    fn a_move_takes_its_limit_along() {
        let start = |dry_run, timeout| Query::StartMove {
            partition: PartitionName::new("eu/a b.db").expect("valid"),
            to: NodeName::new("node-b").expect("valid"),
            dry_run,
            timeout,
        };
        let plain = "move eu/a_b.db --to node-b";
        assert_eq!(understood(plain), start(false, Span::secs(30)));
        let full = "move eu/a_b.db --to node-b --dry-run --timeout 1s";
        assert_eq!(understood(full), start(true, Span::secs(1)));
    }
}
