//! Method + target + body -> [`Query`]: the HTTP interface as one table.
//!
//! Adding a route is one row; the row's words are what `GET /v1/info` lists.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wal::{PartitionName, Span};

use super::problem::{Problem, ProblemKind};
use super::query::{EventId, MOVE_TIMEOUT, MoveId, NodeName, Query};

/// Longest body read; the largest sensible one is a path and a few words.
pub const BODY_LEN_MAX: usize = 64 << 10;
/// Longest body of access events: some thousand lines.
const ACCESS_LEN_MAX: usize = 256 << 10;
/// Members of a list of what is seen, when the asker does not say, and at most.
const LIMIT: usize = 10;
const LIMIT_MAX: usize = 10_000;
/// Longest move that may be asked for: a day.
const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// One route: method, path with `{}` for a part of its own, purpose, how to read it.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub purpose: &'static str,
    read: fn(&Request<'_>) -> Result<Query, Problem>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.method, self.path, self.purpose)
    }
}

/// Every route, in the order of `GET /v1/info`.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route("GET", "/v1/version", "the program's version", |_| Ok(Query::Version)),
    route("GET", "/v1/info", "what this daemon is", |_| Ok(Query::Info)),
    route("GET", "/v1/status", "how the node is doing", |_| Ok(Query::Status)),
    route("GET", "/v1/partitions", "all partitions, or ?name=", partitions),
    route("POST", "/v1/partitions", "attach {path}", add_partition),
    route("DELETE", "/v1/partitions/{}", "let a partition alone", remove_partition),
    route("POST", "/v1/partitions/{}/shadows", "keep a shadow on {to}", add_shadow),
    route("DELETE", "/v1/partitions/{}/shadows/{}", "discard a shadow", remove_shadow),
    route("POST", "/v1/partitions/{}/sync", "bring shadows up to date", sync),
    route("POST", "/v1/partitions/{}/rollback", "move back", rollback),
    route("POST", "/v1/partitions/{}/promote", "take over, {force}", promote),
    route("POST", "/v1/partitions/{}/verify", "compare shadows", verify),
    route("GET", "/v1/peers", "the other nodes", |_| Ok(Query::Peers)),
    route("GET", "/v1/moves", "all moves", |_| Ok(Query::Moves)),
    route("POST", "/v1/moves", "move {partition, to, dry_run, timeout_ms}", start_move),
    route("GET", "/v1/moves/{}", "one move", one_move),
    route("DELETE", "/v1/moves/{}", "cancel a move", cancel_move),
    route("GET", "/v1/events", "server-sent events, ?after= ?follow=false", events),
    route("POST", "/v1/access", "count accesses, JSON lines", access),
    route("GET", "/v1/observed", "what is seen, ?limit=", observed),
    route("GET", "/v1/forecasts", "what comes, ?object= ?kind= ?within= ?limit=", forecasts::all),
    route("GET", "/v1/forecasts/{}", "why it is foretold of an object", forecasts::explain),
    route("POST", "/v1/hints", "foretell {object, kind, region, chance, until}", forecasts::hint),
    route("GET", "/v1/model", "who foretells", |_| Ok(Query::Model)),
    route("GET", "/v1/model/log", "what became of models, ?limit=", forecasts::log),
    route("POST", "/v1/model/train", "learn anew, now", |_| Ok(Query::Train)),
    route("POST", "/v1/model/rollback", "the model before", |_| Ok(Query::RollBackModel)),
    route("GET", "/metrics", "metrics for Prometheus", |_| Ok(Query::Metrics)),
];

const fn route(
    method: &'static str,
    path: &'static str,
    purpose: &'static str,
    read: fn(&Request<'_>) -> Result<Query, Problem>,
) -> Route {
    Route {
        method,
        path,
        purpose,
        read,
    }
}

/// Longest body of a request with this target.
pub fn body_len_max(target: &str) -> usize {
    match target {
        "/v1/access" => ACCESS_LEN_MAX,
        _ => BODY_LEN_MAX,
    }
}

/// What `method target` with `body` asks for.
pub fn read(method: &str, target: &str, body: &[u8]) -> Result<Query, Problem> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut known_path = false;
    for route in ROUTES {
        let Some(parts) = capture(route.path, path) else {
            continue;
        };
        known_path = true;
        if route.method == method {
            let parts = parts.into_iter().map(decode).collect::<Result<_, _>>()?;
            return (route.read)(&Request {
                parts,
                parameters: parameters(query)?,
                body,
            });
        }
    }
    if known_path {
        let methods: Vec<&str> = ROUTES
            .iter()
            .filter(|route| capture(route.path, path).is_some())
            .map(|route| route.method)
            .collect();
        let detail = format!("{path} answers {}, not {method}", methods.join(" and "));
        return Err(Problem::new(ProblemKind::WrongMethod, detail));
    }
    let detail = format!("{path} is not a route; GET /v1/info lists the routes");
    Err(Problem::new(ProblemKind::UnknownRoute, detail))
}

/// The parts of `path` that stand where `pattern` has `{}`, still encoded.
fn capture<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = Vec::new();
    let mut have = path.split('/');
    for want in pattern.split('/') {
        match have.next()? {
            "" if want == "{}" => return None,
            part if want == "{}" => parts.push(part),
            part if part == want => {}
            _ => return None,
        }
    }
    have.next().is_none().then_some(parts)
}

/// The parameters of a query string; a name given twice is refused.
pub(super) fn parameters(query: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut all = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name)?;
        if all.insert(name.clone(), decode(value)?).is_some() {
            return Err(Problem::bad_request(format!(
                "parameter {name} is given twice"
            )));
        }
    }
    Ok(all)
}

fn decode(text: &str) -> Result<String, Problem> {
    let plain = percent_decode_str(text).decode_utf8();
    let plain = plain.map_err(|_| Problem::bad_request(format!("{text} is not UTF-8")))?;
    Ok(plain.into_owned())
}

/// What a row of the table reads its query from.
struct Request<'a> {
    parts: Vec<String>,
    parameters: BTreeMap<String, String>,
    body: &'a [u8],
}

impl Request<'_> {
    fn partition(&self, index: usize) -> Result<PartitionName, Problem> {
        partition(&self.parts[index])
    }

    fn node(&self, index: usize) -> Result<NodeName, Problem> {
        node(&self.parts[index])
    }

    fn move_id(&self, index: usize) -> Result<MoveId, Problem> {
        let text = &self.parts[index];
        let id = text
            .parse()
            .map_err(|_| Problem::bad_request(format!("{text} is no move id")))?;
        Ok(MoveId(id))
    }

    /// Members of a list, `default` when it is not said.
    fn limit(&self, default: usize) -> Result<usize, Problem> {
        let limit = match self.parameters.get("limit") {
            None => Some(default),
            Some(text) => text.parse().ok().filter(|limit| *limit <= LIMIT_MAX),
        };
        let refused = || Problem::bad_request(format!("limit is a number up to {LIMIT_MAX}"));
        limit.ok_or_else(refused)
    }

    /// The body as JSON; an empty body is an empty object.
    fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body = if self.body.is_empty() {
            b"{}"
        } else {
            self.body
        };
        serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("body: {error}")))
    }
}

fn partition(text: &str) -> Result<PartitionName, Problem> {
    PartitionName::new(text).ok_or_else(|| {
        Problem::bad_request(format!(
            "{text:?} is no partition name: a path relative to the configured directory, without \
             `.` and `..`"
        ))
    })
}

fn node(text: &str) -> Result<NodeName, Problem> {
    NodeName::new(text).ok_or_else(|| Problem::bad_request(format!("{text:?} is no node name")))
}

fn partitions(request: &Request<'_>) -> Result<Query, Problem> {
    let name = request
        .parameters
        .get("name")
        .map(|name| partition(name))
        .transpose()?;
    Ok(Query::Partitions { name })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathBody {
    path: String,
}

fn add_partition(request: &Request<'_>) -> Result<Query, Problem> {
    let PathBody { path } = request.json()?;
    if path.is_empty() || path.contains('\0') {
        return Err(Problem::bad_request("path is empty or holds a NUL"));
    }
    Ok(Query::AddPartition { path })
}

fn remove_partition(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::RemovePartition {
        partition: request.partition(0)?,
    })
}

fn remove_shadow(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::RemoveShadow {
        partition: request.partition(0)?,
        node: request.node(1)?,
    })
}

fn sync(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::Sync {
        partition: request.partition(0)?,
    })
}

fn rollback(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::Rollback {
        partition: request.partition(0)?,
    })
}

fn verify(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::Verify {
        partition: request.partition(0)?,
    })
}

fn one_move(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::Move {
        id: request.move_id(0)?,
    })
}

fn cancel_move(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::CancelMove {
        id: request.move_id(0)?,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToBody {
    to: String,
}

fn add_shadow(request: &Request<'_>) -> Result<Query, Problem> {
    let ToBody { to } = request.json()?;
    Ok(Query::AddShadow {
        partition: request.partition(0)?,
        to: node(&to)?,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromoteBody {
    #[serde(default)]
    force: bool,
}

fn promote(request: &Request<'_>) -> Result<Query, Problem> {
    let PromoteBody { force } = request.json()?;
    Ok(Query::Promote {
        partition: request.partition(0)?,
        force,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveBody {
    partition: String,
    to: String,
    #[serde(default)]
    dry_run: bool,
    timeout_ms: Option<u64>,
}

fn start_move(request: &Request<'_>) -> Result<Query, Problem> {
    let body: MoveBody = request.json()?;
    let timeout = match body.timeout_ms {
        None => MOVE_TIMEOUT,
        Some(ms @ 1..=TIMEOUT_MS_MAX) => Span::millis(ms),
        Some(ms) => {
            let detail = format!("timeout_ms is {ms}; 1 to {TIMEOUT_MS_MAX} is accepted");
            return Err(Problem::bad_request(detail));
        }
    };
    let (partition, to) = (partition(&body.partition)?, node(&body.to)?);
    Ok(Query::StartMove {
        partition,
        to,
        dry_run: body.dry_run,
        timeout,
    })
}

fn events(request: &Request<'_>) -> Result<Query, Problem> {
    let follow = match request.parameters.get("follow").map(String::as_str) {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => {
            return Err(Problem::bad_request(format!(
                "follow is {other}: true or false"
            )));
        }
    };
    let after = request.parameters.get("after").map(|text| {
        let id = text.parse().map(EventId);
        id.map_err(|_| Problem::bad_request(format!("after is {text}: a number is needed")))
    });
    Ok(Query::Events {
        after: after.transpose()?,
        follow,
    })
}

fn access(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::Access {
        lines: request.body.to_vec(),
    })
}

fn observed(request: &Request<'_>) -> Result<Query, Problem> {
    Ok(Query::Observed {
        limit: request.limit(LIMIT)?,
    })
}

mod forecasts;
#[cfg(test)]
mod tests;
