//! A verb as the HTTP request that it stands for.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::args::{ForecastArgs, HintArgs, ModelVerb, MoveArguments, Verb};

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
            Verb::Forecast(arguments) => forecast(arguments),
            Verb::Explain { object } => get(format!("/v1/forecasts/{}", encode(object))),
            Verb::Hint(arguments) => hint(arguments),
            Verb::Model { verb } => return model(verb),
            Verb::Verify { partition } => post(partition_path(partition, "/verify"), json!({})),
            Verb::Version => get("/v1/version"),
            Verb::Run(_) | Verb::CheckConfig(_) | Verb::Init(_) | Verb::Wal { .. } => return None,
            #[cfg(feature = "demo")]
            Verb::Demo(_) => return None,
        };
        Some(ask)
    }

    /// Who foretells.
    pub fn about_model() -> Ask {
        get("/v1/model")
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

fn forecast(arguments: &ForecastArgs) -> Ask {
    let mut target = format!("/v1/forecasts?limit={}", arguments.limit);
    if let Some(object) = &arguments.object {
        target += &format!("&object={}", encode(object));
    }
    if let Some(kind) = arguments.kind {
        target += &format!("&kind={}", kind.name());
    }
    if let Some(seconds) = arguments.horizon {
        target += &format!("&within={seconds}s");
    }
    get(target)
}

fn hint(arguments: &HintArgs) -> Ask {
    let body = json!({
        "object": arguments.object,
        "kind": arguments.kind.name(),
        "region": arguments.region,
        "chance": arguments.chance,
        "until": arguments.until,
    });
    post("/v1/hints", body)
}

fn model(verb: &ModelVerb) -> Option<Ask> {
    match verb {
        ModelVerb::Eval(_) => None,
        ModelVerb::Show => Some(Ask::about_model()),
        ModelVerb::Log { limit } => Some(get(format!("/v1/model/log?limit={limit}"))),
        ModelVerb::Train { .. } => Some(post("/v1/model/train", json!({}))),
        ModelVerb::Rollback => Some(post("/v1/model/rollback", json!({}))),
    }
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
    use crate::predict::target::{Kind, Target, subject};
    use crate::serve::query::{Chance, NodeName, Query, Until};

    /// Command line => what a daemon understands; `_` stands for a space within a word, and a line
    /// that begins with spaces continues the one before.
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
forecast => Forecasts { object: None, kind: None, within: None, limit: 50 }
forecast node --kind overload --horizon 2h --limit 3 =>
    Forecasts { object: Some(Node), kind: Some(Overload), within: Some(7200), limit: 3 }
explain eu/a_b.db => Explain { object: Partition(PartitionName("eu/a b.db")) }
explain #user:7 => Explain { object: Record { partition: None, key: "user:7" } }
model show => Model
model log => ModelLog { limit: 50 }
model log --limit 3 => ModelLog { limit: 3 }
model train --wait => Train
model rollback => RollBackModel
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
        for case in CASES.trim().replace("\n    ", " ").lines() {
            let (line, query) = case.split_once(" => ").expect("a case");
            assert_eq!(format!("{:?}", understood(line)), query, "{line}");
        }
    }

    #[test]
    fn a_hint_takes_everything_along() {
        let hint = |kind, region: Option<&str>, chance, until| Query::Hint {
            target: Target {
                subject: subject("eu/a b.db#x&y").expect("an object"),
                kind,
                region: region.map(Into::into),
            },
            chance: Chance::new(chance).expect("a chance"),
            until,
        };
        let plain = "hint eu/a_b.db#x&y --chance 0.9 --until 2h";
        let expected = hint(Kind::Access, None, 0.9, Until::After(7_200));
        assert_eq!(understood(plain), expected);
        let full = "hint eu/a_b.db#x&y --chance 1 --until 1700000000 --kind backup --region e_u";
        let expected = hint(Kind::Backup, Some("e u"), 1.0, Until::At(1_700_000_000));
        assert_eq!(understood(full), expected);
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
