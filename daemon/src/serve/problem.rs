//! Every refusal: what is wrong, as an RFC 9457 problem document with its HTTP status.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wal::PartitionName;

use super::query::{MoveId, NodeName};

/// Media type of a problem document (RFC 9457 section 3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What is wrong with a question, or with the world it asks about.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "Document", into = "Document")]
#[error("{}: {detail}", kind.title())]
pub struct Problem {
    pub kind: ProblemKind,
    /// This occurrence: the thing, where, why, and what to do.
    pub detail: String,
}

/// The kinds of refusal; each has one status, one title and one type in every reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProblemKind {
    BadRequest,
    Forbidden,
    UnknownRoute,
    UnknownPartition,
    UnknownMove,
    UnknownNode,
    UnknownObject,
    WrongMethod,
    /// Another move or command holds the partition.
    Busy,
    /// It can't be done as things stand; nothing was changed.
    Precondition,
    TooLarge,
    /// Ask again later.
    Throttled,
    Internal,
    NotReady,
}

use ProblemKind::*;

/// Kind, HTTP status, last part of the type, title.
const KINDS: &[(ProblemKind, u16, &str, &str)] = &[
    (BadRequest, 400, "bad-request", "The request is malformed"),
    (Forbidden, 403, "forbidden", "Not allowed for this user"),
    (UnknownRoute, 404, "unknown-route", "No such route"),
    (
        UnknownPartition,
        404,
        "unknown-partition",
        "No such partition",
    ),
    (UnknownMove, 404, "unknown-move", "No such move"),
    (UnknownNode, 404, "unknown-node", "No such node"),
    (UnknownObject, 404, "unknown-object", "No such object"),
    (
        WrongMethod,
        405,
        "wrong-method",
        "The route has no such method",
    ),
    (Busy, 409, "busy", "The partition is busy"),
    (
        Precondition,
        412,
        "precondition",
        "A precondition does not hold",
    ),
    (TooLarge, 413, "too-large", "The request is too large"),
    (Throttled, 429, "throttled", "Too many requests"),
    (Internal, 500, "internal", "The daemon failed"),
    (NotReady, 503, "not-ready", "Not ready"),
];

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Problem {
        Problem {
            kind,
            detail: detail.into(),
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(BadRequest, detail)
    }

    pub fn busy(detail: impl Into<String>) -> Problem {
        Problem::new(Busy, detail)
    }

    pub fn precondition(detail: impl Into<String>) -> Problem {
        Problem::new(Precondition, detail)
    }

    pub fn not_ready(detail: impl Into<String>) -> Problem {
        Problem::new(NotReady, detail)
    }

    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(Internal, detail)
    }

    pub fn unknown_partition(name: &PartitionName) -> Problem {
        let detail = format!("{name} is not known to this node; `foreshadow list` shows what is");
        Problem::new(UnknownPartition, detail)
    }

    pub fn unknown_move(id: MoveId) -> Problem {
        let detail = format!("move {id} is not known to this node; it may have been forgotten");
        Problem::new(UnknownMove, detail)
    }

    pub fn unknown_node(name: &NodeName) -> Problem {
        let detail = format!("{name} is not a configured peer; `foreshadow peers` shows who is");
        Problem::new(UnknownNode, detail)
    }

    /// An object of which nothing is foretold; `nearest` is one with a name like it.
    pub fn unknown_object(name: &str, nearest: Option<&str>) -> Problem {
        let near = nearest.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        let detail = format!("nothing is foretold of {name} here{near}");
        Problem::new(UnknownObject, detail)
    }

    /// The HTTP status of this problem.
    pub fn status(&self) -> u16 {
        self.kind.row().1
    }
}

impl ProblemKind {
    pub fn title(self) -> &'static str {
        self.row().3
    }

    /// The thing asked for does not exist here; another shard may know it.
    pub fn is_unknown(self) -> bool {
        self.row().1 == 404
    }

    fn row(self) -> &'static (ProblemKind, u16, &'static str, &'static str) {
        KINDS
            .iter()
            .find(|row| row.0 == self)
            .expect("every kind has a row")
    }
}

/// RFC 9457 section 3.1: the members of a problem document.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    title: Cow<'static, str>,
    status: u16,
    detail: String,
}

const TYPE_PREFIX: &str = "urn:foreshadow:problem:";

impl From<Problem> for Document {
    fn from(problem: Problem) -> Document {
        let (_, status, name, title) = *problem.kind.row();
        let kind = Cow::Owned(format!("{TYPE_PREFIX}{name}"));
        Document {
            kind,
            title: Cow::Borrowed(title),
            status,
            detail: problem.detail,
        }
    }
}

impl From<Document> for Problem {
    /// A type from a later version is read as an internal problem, its words kept.
    fn from(document: Document) -> Problem {
        let name = document.kind.strip_prefix(TYPE_PREFIX).unwrap_or_default();
        let kind = KINDS
            .iter()
            .find(|row| row.2 == name)
            .map_or(Internal, |row| row.0);
        Problem::new(kind, document.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_an_rfc_9457_document() {
        let name = PartitionName::new("x.db").expect("valid");
        let json = serde_json::to_string(&Problem::unknown_partition(&name)).expect("json");
        assert_eq!(
            json,
            r#"{"type":"urn:foreshadow:problem:unknown-partition","title":"No such partition","#
                .to_owned()
                + r#""status":404,"detail":"x.db is not known to this node; "#
                + r#"`foreshadow list` shows what is"}"#
        );
    }

    #[test]
    fn every_kind_survives_the_wire() {
        for (kind, ..) in KINDS {
            let problem = Problem::new(*kind, "why");
            let json = serde_json::to_string(&problem).expect("json");
            assert_eq!(
                serde_json::from_str::<Problem>(&json).expect("problem"),
                problem
            );
        }
    }

    #[test]
    fn a_kind_from_a_later_version_keeps_its_words() {
        let json = r#"{"type":"urn:foreshadow:problem:moonphase",
            "title":"t","status":418,"detail":"why"}"#;
        let problem: Problem = serde_json::from_str(json).expect("problem");
        assert_eq!(problem, Problem::internal("why"));
    }
}
