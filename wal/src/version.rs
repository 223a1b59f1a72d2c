//! How complete a copy is: the last change seen from each node.
//!
//! Two vectors are ordered where one has seen all that the other has; otherwise they are
//! concurrent and neither may replace the other.

use std::cmp::Ordering;
use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::ids::NodeId;
use crate::lsn::Lsn;

/// The last change seen from each node, sorted by node. A node that was not heard of counts as
/// `Lsn(0)` and is not stored, so equal knowledge is equal bytes.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct VersionVector {
    seen: Vec<(NodeId, Lsn)>,
}

impl VersionVector {
    pub fn new() -> VersionVector {
        VersionVector::default()
    }

    /// The last change seen from `node`; `Lsn(0)` if none.
    pub fn get(&self, node: NodeId) -> Lsn {
        match self.seen.binary_search_by_key(&node, |entry| entry.0) {
            Ok(at) => self.seen[at].1,
            Err(_) => Lsn(0),
        }
    }

    /// Notes that `node`'s changes up to `lsn` were seen; never goes back.
    pub fn observe(&mut self, node: NodeId, lsn: Lsn) {
        match self.seen.binary_search_by_key(&node, |entry| entry.0) {
            Ok(at) => self.seen[at].1 = self.seen[at].1.max(lsn),
            Err(at) if lsn > Lsn(0) => self.seen.insert(at, (node, lsn)),
            Err(_) => {}
        }
    }

    /// Takes in all that `other` has seen.
    pub fn merge(&mut self, other: &VersionVector) {
        for (node, lsn) in &other.seen {
            self.observe(*node, *lsn);
        }
    }

    /// Whether everything that `other` has seen was seen here.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.seen.iter().all(|(node, lsn)| self.get(*node) >= *lsn)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Lsn)> + '_ {
        self.seen.iter().copied()
    }
}

impl PartialOrd for VersionVector {
    /// `None` for concurrent vectors.
    fn partial_cmp(&self, other: &VersionVector) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl FromIterator<(NodeId, Lsn)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (NodeId, Lsn)>>(entries: I) -> VersionVector {
        let mut vector = VersionVector::new();
        for (node, lsn) in entries {
            vector.observe(node, lsn);
        }
        vector
    }
}

impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (node, lsn)) in self.seen.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{node}:{lsn}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vectors() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((0_u32..4, 0_u64..4), 0..6).prop_map(|entries| {
            entries
                .into_iter()
                .map(|(node, lsn)| (NodeId(node), Lsn(lsn)))
                .collect()
        })
    }

    fn merged(a: &VersionVector, b: &VersionVector) -> VersionVector {
        let mut both = a.clone();
        both.merge(b);
        both
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in vectors(), b in vectors(), c in vectors(),
        ) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a);
        }

        #[test]
        fn a_merge_is_the_least_cover_of_both(a in vectors(), b in vectors(), c in vectors()) {
            let both = merged(&a, &b);
            prop_assert!(both.covers(&a) && both.covers(&b));
            if c.covers(&a) && c.covers(&b) {
                prop_assert!(c.covers(&both));
            }
        }

        #[test]
        fn the_order_is_a_partial_order(a in vectors(), b in vectors(), c in vectors()) {
            prop_assert_eq!(a == b, a.partial_cmp(&b) == Some(Ordering::Equal));
            prop_assert_eq!(a.partial_cmp(&b), b.partial_cmp(&a).map(Ordering::reverse));
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }

    #[test]
    fn two_copies_that_saw_different_nodes_are_concurrent() {
        let a: VersionVector = [(NodeId(1), Lsn(5))].into_iter().collect();
        let b: VersionVector = [(NodeId(2), Lsn(1))].into_iter().collect();
        assert_eq!(a.partial_cmp(&b), None);
        assert_eq!(merged(&a, &b).to_string(), "00000001:5,00000002:1");
    }

    #[test]
    fn seeing_nothing_of_a_node_is_not_stored() {
        let mut vector = VersionVector::new();
        vector.observe(NodeId(9), Lsn(0));
        assert_eq!(vector, VersionVector::new());
        vector.observe(NodeId(9), Lsn(3));
        vector.observe(NodeId(9), Lsn(2));
        assert_eq!(vector.get(NodeId(9)), Lsn(3));
    }
}
