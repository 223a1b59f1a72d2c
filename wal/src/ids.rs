//! Names and numbers of nodes, partitions and shards.
//!
//! Numbers are hashes of names, so every node derives the same number without asking anyone; the
//! name always travels beside the number where two could collide (registration, handshake).

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Longest partition name accepted, in bytes: a path relative to the configured directory.
pub const PARTITION_NAME_LEN_MAX: usize = 1024;

/// A storage host with one sidecar: hash of the node's configured name.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug,
)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The number that every node derives from `name`.
    pub fn of(name: &str) -> NodeId {
        NodeId(xxh3_64(name.as_bytes()) as u32)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The unit that moves: hash of the partition's name.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug,
)]
pub struct PartitionId(pub u64);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Path of a database relative to its configured directory; the same on every node.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionName(String);

impl PartitionName {
    /// Accepts a relative path that stays below its directory; `None` otherwise.
    pub fn new(path: &str) -> Option<PartitionName> {
        let whole = !path.is_empty() && path.len() <= PARTITION_NAME_LEN_MAX;
        let below = path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
        (whole && below && !path.contains('\0')).then(|| PartitionName(path.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn id(&self) -> PartitionId {
        PartitionId(xxh3_64(self.0.as_bytes()))
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One core's share of the partitions: `partition.0 % shards`.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug,
)]
pub struct ShardIndex(pub u16);

impl ShardIndex {
    /// The shard that owns `partition` on a node with `shards` shards.
    pub fn of(partition: PartitionId, shards: u16) -> ShardIndex {
        assert!(shards > 0, "a node has at least one shard");
        ShardIndex((partition.0 % u64::from(shards)) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_name_stays_below_its_directory() {
        assert!(PartitionName::new("a/tenant.db").is_some());
        for bad in [
            "",
            "/etc/passwd",
            "../x.db",
            "a/../../x.db",
            "a//b",
            "./x",
            "nul\0.db",
        ] {
            assert!(PartitionName::new(bad).is_none(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn every_partition_has_a_shard() {
        let id = PartitionName::new("tenant.db").expect("valid").id();
        assert!(ShardIndex::of(id, 3).0 < 3);
        assert_eq!(ShardIndex::of(id, 1), ShardIndex(0));
    }
}
