//! Which peers keep a shadow of a partition.
//!
//! Rendezvous hashing: each peer draws a number from (partition, peer) and the highest numbers win.
//! Every node computes the same answer without asking, and a peer that comes or goes moves only
//! its own share.

use std::collections::{BTreeMap, BTreeSet};

use wal::{NodeId, PartitionId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What people asked for, beside what is kept by default.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Wishes(BTreeMap<NodeId, bool>);

impl Wishes {
    /// A shadow at `node` is wanted, or must not be.
    pub fn set(&mut self, node: NodeId, wanted: bool) {
        self.0.insert(node, wanted);
    }
}

/// The peers that should keep a shadow: the default choice, changed by what people asked for.
pub fn shadows(
    partition: PartitionId,
    peers: impl Iterator<Item = NodeId>,
    copies: usize,
    wishes: &Wishes,
) -> BTreeSet<NodeId> {
    let mut drawn: Vec<(u64, NodeId)> = peers
        .filter(|peer| wishes.0.get(peer) != Some(&false))
        .map(|peer| {
            (
                xxh3_64_with_seed(&partition.0.to_le_bytes(), u64::from(peer.0)),
                peer,
            )
        })
        .collect();
    drawn.sort_unstable_by(|one, two| two.cmp(one));
    let mut chosen: BTreeSet<NodeId> = drawn.iter().take(copies).map(|(_, peer)| *peer).collect();
    let asked = drawn
        .iter()
        .map(|(_, peer)| *peer)
        .filter(|peer| wishes.0.contains_key(peer));
    chosen.extend(asked);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> impl Iterator<Item = NodeId> {
        (1..=5).map(NodeId)
    }

    #[test]
    fn a_peer_that_leaves_moves_only_its_own_share() {
        for id in 0..100 {
            let all = shadows(PartitionId(id), peers(), 1, &Wishes::default());
            let fewer = shadows(
                PartitionId(id),
                peers().filter(|n| n.0 != 3),
                1,
                &Wishes::default(),
            );
            assert!(all == fewer || all.contains(&NodeId(3)));
        }
    }

    #[test]
    fn wishes_add_and_take_away() {
        let mut wishes = Wishes::default();
        wishes.set(NodeId(1), true);
        wishes.set(NodeId(2), false);
        for id in 0..100 {
            let chosen = shadows(PartitionId(id), peers(), 2, &wishes);
            assert!(chosen.contains(&NodeId(1)) && !chosen.contains(&NodeId(2)));
        }
    }
}
