//! Every question and command that a daemon answers, one enum.
//!
//! A variant is what was asked, already checked: names are well-formed, numbers are in range. What
//! the partition's machine thinks of it is the reply's business.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use wal::{NodeId, PartitionName, Span};

use crate::observe::Subject;
use crate::predict::target::{Kind, Target};

/// Longest node or cluster name, in bytes: it must fit into a log line and a metric label.
pub const NODE_NAME_LEN_MAX: usize = 64;

/// How long a move may take when the asker does not say.
pub const MOVE_TIMEOUT: Span = Span::secs(30);

/// Every question and command.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Query {
    /// The program's version.
    Version,
    /// What this daemon is: node, version, routes.
    Info,
    /// How the node is doing, in one answer.
    Status,
    /// All partitions that this node knows, or the one named.
    Partitions { name: Option<PartitionName> },
    /// The other nodes and the links to them.
    Peers,
    /// Moves, the newest last.
    Moves,
    /// One move.
    Move { id: MoveId },
    /// Move a partition to another node; `dry_run` only says what would happen.
    StartMove {
        partition: PartitionName,
        to: NodeName,
        dry_run: bool,
        timeout: Span,
    },
    /// Give a move up, as long as that is possible.
    CancelMove { id: MoveId },
    /// Attach a database below a configured directory that discovery did not find.
    AddPartition { path: String },
    /// Let a partition alone: detach, and forget its shadows.
    RemovePartition { partition: PartitionName },
    /// Keep a shadow on `to`.
    AddShadow {
        partition: PartitionName,
        to: NodeName,
    },
    /// Stop keeping a shadow on `node` and discard it.
    RemoveShadow {
        partition: PartitionName,
        node: NodeName,
    },
    /// Bring every shadow of a partition up to its source now.
    Sync { partition: PartitionName },
    /// Move a partition back to where it came from.
    Rollback { partition: PartitionName },
    /// Unplanned takeover by this node; `force` accepts the loss of writes that never arrived.
    Promote {
        partition: PartitionName,
        force: bool,
    },
    /// Compare every shadow with its source: position, and digest over all pages.
    Verify { partition: PartitionName },
    /// What happened after an event; `follow` stays for what will happen.
    Events {
        after: Option<EventId>,
        follow: bool,
    },
    /// The metrics, as Prometheus reads them.
    Metrics,
    /// Count these accesses: JSON lines.
    Access { lines: Vec<u8> },
    /// What is seen on this node, with so many members of each list.
    Observed { limit: usize },
    /// What is foretold: of an object or all, of a kind or all, the likeliest within so many
    /// seconds first.
    Forecasts {
        object: Option<Subject>,
        kind: Option<Kind>,
        within: Option<u32>,
        limit: usize,
    },
    /// Why the forecasts of an object are what they are.
    Explain { object: Subject },
    /// Somebody outside knows better, for a while.
    Hint {
        target: Target,
        chance: Chance,
        until: Until,
    },
    /// Which model speaks, which would like to, and when is learned again.
    Model,
    /// What became of models, the newest last.
    ModelLog { limit: usize },
    /// Learn anew, now.
    Train,
    /// Let the model before this one speak again.
    RollBackModel,
}

/// Who can answer a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope<'a> {
    /// The control thread itself.
    Control,
    /// Every shard; the answers are merged (see [`crate::serve::reply::merge`]).
    Node,
    /// The observe thread.
    Observer,
    /// The shard of this partition.
    Partition(&'a PartitionName),
}

impl Query {
    /// Who can answer.
    pub fn scope(&self) -> Scope<'_> {
        match self {
            Query::Version | Query::Info | Query::Events { .. } | Query::Metrics => Scope::Control,
            Query::Access { .. }
            | Query::Observed { .. }
            | Query::Forecasts { .. }
            | Query::Explain { .. }
            | Query::Hint { .. }
            | Query::Model
            | Query::ModelLog { .. }
            | Query::Train
            | Query::RollBackModel => Scope::Observer,
            Query::Status
            | Query::Peers
            | Query::Moves
            | Query::Move { .. }
            | Query::CancelMove { .. }
            | Query::AddPartition { .. }
            | Query::Partitions { name: None } => Scope::Node,
            Query::Partitions {
                name: Some(partition),
            }
            | Query::StartMove { partition, .. }
            | Query::RemovePartition { partition }
            | Query::AddShadow { partition, .. }
            | Query::RemoveShadow { partition, .. }
            | Query::Sync { partition }
            | Query::Rollback { partition }
            | Query::Promote { partition, .. }
            | Query::Verify { partition } => Scope::Partition(partition),
        }
    }
}

/// How likely something is: 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Chance(f32);

/// It is a number.
impl Eq for Chance {}

impl Hash for Chance {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl Chance {
    /// `None` of what is not within 0 to 1.
    pub fn new(chance: f64) -> Option<Chance> {
        // There is one nothing: -0 + 0 is 0.
        (0.0..=1.0)
            .contains(&chance)
            .then_some(Chance(chance as f32 + 0.0))
    }

    pub fn get(self) -> f32 {
        self.0
    }
}

/// Until when something holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Until {
    /// Seconds since 1970.
    At(i64),
    /// So many seconds from when it is heard.
    After(u32),
}

impl Until {
    /// Seconds since 1970.
    pub fn at(self, now: i64) -> i64 {
        match self {
            Until::At(at) => at,
            Until::After(seconds) => now.saturating_add(i64::from(seconds)),
        }
    }
}

/// A node's configured name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// Accepts letters, digits, `-`, `_` and `.`; `None` otherwise.
    pub fn new(name: &str) -> Option<NodeName> {
        let sized = !name.is_empty() && name.len() <= NODE_NAME_LEN_MAX;
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        (sized && plain).then(|| NodeName(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn id(&self) -> NodeId {
        NodeId::of(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;

    fn try_from(name: String) -> Result<NodeName, String> {
        NodeName::new(&name).ok_or_else(|| format!("{name:?} is not a node name"))
    }
}

/// Names a move on the node where it was asked for.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MoveId(pub u64);

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Numbers the events of a node since its start.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_fits_a_log_line_and_a_label() {
        assert!(NodeName::new("node-a.eu_1").is_some());
        for bad in [
            "",
            "a b",
            "a/b",
            "a\"b",
            "é",
            &"x".repeat(NODE_NAME_LEN_MAX + 1),
        ] {
            assert!(NodeName::new(bad).is_none(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn a_chance_is_a_number_from_0_to_1() {
        for wrong in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Chance::new(wrong), None, "{wrong}");
        }
        let nothing = Chance::new(-0.0).expect("nothing");
        assert_eq!(nothing.get().to_bits(), 0, "there is one nothing");
        assert_eq!(Chance::new(1.0).map(Chance::get), Some(1.0));
    }

    #[test]
    fn what_holds_for_a_while_ends() {
        assert_eq!((Until::At(7).at(100), Until::After(7).at(100)), (7, 107));
    }

    #[test]
    fn a_question_about_one_partition_goes_to_its_shard() {
        let partition = PartitionName::new("a.db").expect("valid");
        let query = Query::Sync {
            partition: partition.clone(),
        };
        assert_eq!(query.scope(), Scope::Partition(&partition));
        assert_eq!(Query::Status.scope(), Scope::Node);
        assert_eq!(Query::Metrics.scope(), Scope::Control);
    }
}
