//! Every answer, and its JSON: what HTTP sends, what the command line reads back.
//!
//! Numbers above 2^53 (ids, digests) travel as hexadecimal text, because JSON readers lose them.
//! Invariant: every list is ordered by name or id, so two equal answers are equal bytes.

use serde::{Deserialize, Serialize};

use super::forecasts::{ExplainReply, ForecastsReply};
pub use super::merge::merge;
use super::models::{LogReply, ModelReply};
use super::observed::{CountReply, ObservedReply};
use super::query::{EventId, MoveId};

/// Every answer.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    Version(VersionReply),
    Info(InfoReply),
    Status(Box<StatusReply>),
    Partitions(Vec<PartitionReply>),
    Peers(Vec<PeerReply>),
    Moves(Vec<MoveReply>),
    Move(MoveReply),
    /// A move was accepted and goes on by itself.
    Accepted(AcceptedReply),
    /// What a move would do.
    Plan(PlanReply),
    Verified(VerifiedReply),
    Events(Vec<EventReply>),
    /// What became of access events.
    Counted(CountReply),
    Observed(Box<ObservedReply>),
    Forecasts(Box<ForecastsReply>),
    Explain(Box<ExplainReply>),
    Model(Box<ModelReply>),
    ModelLog(LogReply),
    /// The command was carried out.
    Done(DoneReply),
}

impl Reply {
    pub fn accepted(id: MoveId) -> Reply {
        Reply::Accepted(AcceptedReply { id })
    }

    pub fn done(detail: impl Into<String>) -> Reply {
        Reply::Done(DoneReply {
            detail: detail.into(),
        })
    }

    /// The HTTP status of this answer: 202 for what goes on by itself (RFC 9110 15.3.3).
    pub fn status(&self) -> u16 {
        if matches!(self, Reply::Accepted(_) | Reply::Counted(_)) {
            202
        } else {
            200
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionReply {
    pub version: String,
    pub target: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InfoReply {
    pub node: String,
    pub id: String,
    pub cluster: String,
    pub version: String,
    pub config: String,
    pub listen: String,
    pub routes: Vec<String>,
}

/// How a node is doing. Shards each answer for their own part; [`super::merge::merge`] adds up.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReply {
    pub node: String,
    pub cluster: String,
    pub version: String,
    pub ready: bool,
    pub uptime_seconds: f64,
    pub shards: u16,
    pub partitions: u64,
    pub owned: u64,
    pub shadowed: u64,
    pub lag_bytes_max: u64,
    pub links: Vec<LinkReply>,
    /// What the kernel offers, said once at start.
    pub kernel: serde_json::Map<String, serde_json::Value>,
    pub refused: Vec<RefusedReply>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LinkReply {
    pub peer: String,
    pub state: PeerState,
    pub rtt_us: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RefusedReply {
    pub name: String,
    pub reason: String,
}

/// What this node is to a partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its applications write here.
    Owner,
    /// A copy is kept here.
    Shadow,
    /// Known, but neither.
    #[default]
    Remote,
    /// It can't be attached; the reason is told.
    Refused,
}

/// How far a shadow is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShadowState {
    #[default]
    None,
    /// Pages are being copied; it has no position yet.
    Filling,
    /// Deltas arrive as they are made.
    Streaming,
    /// It was away too long: pages that differ are being copied.
    Resyncing,
    /// Its node can't be reached.
    Away,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PartitionReply {
    pub name: String,
    /// 16 hexadecimal digits.
    pub id: String,
    pub role: Role,
    pub owner: Option<String>,
    pub epoch: u64,
    pub lsn: u64,
    /// 16 hexadecimal digits.
    pub digest: String,
    pub page_size: u32,
    pub pages: u64,
    pub bytes: u64,
    /// `sqlite` or `native`; empty where there is no file of it.
    #[serde(default)]
    pub engine: String,
    /// `hot`, `warm`, `cold`, or empty where the database is not attached.
    pub tier: String,
    pub path: String,
    pub shadows: Vec<ShadowReply>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ShadowReply {
    pub node: String,
    pub state: ShadowState,
    pub lsn: u64,
    pub lag_lsn: u64,
    pub lag_bytes: u64,
    /// A move to this node could begin now.
    pub ready: bool,
    /// Why it is not what it should be, in its node's own words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    Up,
    #[default]
    Down,
    /// It speaks, but not to us: another cluster or version.
    Refused,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerReply {
    pub name: String,
    /// 8 hexadecimal digits.
    pub id: String,
    pub state: PeerState,
    pub address: String,
    pub rtt_us: Option<u64>,
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// How the links that are up carry what they carry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<PathReply>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// What was measured and chosen for the links to a peer; several answers where its lanes differ.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PathReply {
    /// What bulk pages travel with: `zstd 1`, `zstd -5` or `none`.
    pub codec: String,
    /// `untried`, `direct`, `copied` or `refused`.
    pub zero_copy: String,
    /// Of the fastest lane; unknown until enough was sent.
    pub rate_bytes_per_second: Option<u64>,
}

impl PeerReply {
    /// Takes in what another lane says.
    pub fn join_path(&mut self, other: PathReply) {
        let Some(path) = &mut self.path else {
            self.path = Some(other);
            return;
        };
        path.rate_bytes_per_second = path.rate_bytes_per_second.max(other.rate_bytes_per_second);
        for (ours, theirs) in [
            (&mut path.codec, other.codec),
            (&mut path.zero_copy, other.zero_copy),
        ] {
            for word in theirs.split(", ") {
                if !ours.split(", ").any(|known| known == word) {
                    *ours = format!("{ours}, {word}");
                }
            }
        }
    }
}

/// Where a move is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveState {
    #[default]
    Preparing,
    Copying,
    Freezing,
    Shipping,
    Fencing,
    Granting,
    Done,
    /// The source serves as before; the reason is told.
    Aborted,
}

impl MoveState {
    /// The move is over, one way or the other.
    pub fn is_final(self) -> bool {
        matches!(self, MoveState::Done | MoveState::Aborted)
    }

    /// The word used in JSON and on terminals.
    pub fn word(self) -> &'static str {
        match self {
            MoveState::Preparing => "preparing",
            MoveState::Copying => "copying",
            MoveState::Freezing => "freezing",
            MoveState::Shipping => "shipping",
            MoveState::Fencing => "fencing",
            MoveState::Granting => "granting",
            MoveState::Done => "done",
            MoveState::Aborted => "aborted",
        }
    }
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct MoveReply {
    pub id: MoveId,
    pub partition: String,
    pub from: String,
    pub to: String,
    pub state: MoveState,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    pub estimate_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub write_pause_ms: Option<f64>,
    pub epoch: u64,
    /// `epoch/lsn:digest`, empty until the move has one.
    pub position: String,
    /// Pages still to be copied before the freeze, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pages_left: Option<u64>,
    pub steps: Vec<StepReply>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StepReply {
    pub name: String,
    /// Milliseconds since the move was asked for.
    pub at_ms: f64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AcceptedReply {
    pub id: MoveId,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PlanReply {
    pub partition: String,
    pub from: String,
    pub to: String,
    /// The pause that writers would see.
    pub estimate_ms: Option<f64>,
    pub max_pause_ms: f64,
    pub lag_bytes: u64,
    /// The move would begin now.
    pub possible: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifiedReply {
    pub partition: String,
    pub position: String,
    /// Every shadow that could be compared is equal.
    pub equal: bool,
    pub shadows: Vec<VerifiedShadow>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifiedShadow {
    pub node: String,
    pub equal: bool,
    pub pages: u64,
    pub detail: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EventReply {
    pub id: EventId,
    /// UTC milliseconds since 1970.
    pub at_ms: u64,
    pub kind: String,
    pub partition: Option<String>,
    pub text: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DoneReply {
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_partition_is_stable() {
        let reply = Reply::Partitions(vec![PartitionReply {
            name: "t.db".into(),
            id: "00000000000000ff".into(),
            role: Role::Owner,
            owner: Some("node-a".into()),
            epoch: 1,
            lsn: 9,
            digest: "0000000000000001".into(),
            page_size: 4096,
            pages: 2,
            bytes: 8192,
            engine: "sqlite".into(),
            tier: "hot".into(),
            path: "/srv/t.db".into(),
            shadows: vec![ShadowReply {
                node: "node-b".into(),
                state: ShadowState::Streaming,
                lsn: 8,
                lag_lsn: 1,
                lag_bytes: 60,
                ready: true,
                reason: None,
            }],
            reason: None,
        }]);
        assert_eq!(
            serde_json::to_value(&reply).expect("json"),
            serde_json::json!([{
                "name": "t.db", "id": "00000000000000ff", "role": "owner", "owner": "node-a",
                "epoch": 1, "lsn": 9, "digest": "0000000000000001", "page_size": 4096,
                "pages": 2, "bytes": 8192, "engine": "sqlite", "tier": "hot", "path": "/srv/t.db",
                "shadows": [{"node": "node-b", "state": "streaming", "lsn": 8, "lag_lsn": 1,
                             "lag_bytes": 60, "ready": true}]
            }])
        );
    }
}
