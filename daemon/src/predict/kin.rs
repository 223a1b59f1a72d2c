//! What is akin to a target: its table, its partition, its node. Where little was seen of a target
//! they speak for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::chance::{Count, shrunk};

use super::target::{Kind, Target};
use crate::observe::Subject;

/// Groups that are counted, at most; of others the node speaks.
const GROUPS_MAX: usize = 16_384;
/// Counts are halved here, so that what is akin may change.
const BINS_MAX: u64 = 1 << 20;

/// Something that targets have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Group {
    Node(Kind),
    /// All of a partition.
    Tenant(Kind, Arc<str>),
    /// Keys that begin alike, up to their last separator.
    Table(Kind, Arc<str>, Arc<str>),
}

/// How often it happens to groups of targets.
#[derive(Clone, Default, Debug)]
pub struct Kin {
    counts: BTreeMap<Group, Count>,
}

/// What a key's name begins with: `user:` of `user:7`.
fn table_of(key: &str) -> Option<&str> {
    key.rfind([':', '/', '.']).map(|at| &key[..=at])
}

/// The groups of a target, the closest first.
fn groups(target: &Target) -> Vec<Group> {
    let kind = target.kind;
    let (tenant, table) = match &target.subject {
        Subject::Node => (None, None),
        Subject::Partition(name) | Subject::Segment(name, _) => (Some(name.as_str()), None),
        Subject::Record { partition, key } => {
            let name = partition.as_ref().map(|name| name.as_str());
            (name, table_of(key))
        }
    };
    let mut groups = Vec::with_capacity(3);
    if let Some(table) = table {
        groups.push(Group::Table(
            kind,
            tenant.unwrap_or("").into(),
            table.into(),
        ));
    }
    if let Some(tenant) = tenant {
        groups.push(Group::Tenant(kind, tenant.into()));
    }
    groups.push(Group::Node(kind));
    groups
}

impl Kin {
    /// Takes in one bin; what is no number is not known.
    pub fn step<'a>(&mut self, targets: impl Iterator<Item = &'a Target>, values: &[f32]) {
        for (target, value) in targets.zip(values).filter(|(_, value)| !value.is_nan()) {
            let happened = *value > target.kind.limit();
            for group in groups(target) {
                if self.counts.len() >= GROUPS_MAX && !self.counts.contains_key(&group) {
                    continue;
                }
                let count = self.counts.entry(group).or_default();
                count.add(happened);
                if count.bins > BINS_MAX {
                    (count.times, count.bins) = (count.times / 2, count.bins / 2);
                }
            }
        }
    }

    /// How often it happens, in a bin, to what is akin to a target.
    pub fn rate(&self, target: &Target) -> f32 {
        let counts = groups(target).into_iter();
        let counts = counts.map(|group| self.counts.get(&group).copied().unwrap_or_default());
        shrunk(&counts.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::target::subject;

    fn target(text: &str) -> Target {
        Target {
            subject: subject(text).expect("an object"),
            kind: Kind::Access,
            region: None,
        }
    }

    #[test]
    fn a_key_that_was_never_seen_is_like_its_table() {
        let mut kin = Kin::default();
        let seen = [
            target("a.db#user:1"),
            target("a.db#user:2"),
            target("a.db#log:1"),
        ];
        for _ in 0..500 {
            kin.step(seen.iter(), &[5.0, 3.0, 0.0]);
            kin.step([target("a.db#log:9")].iter(), &[f32::NAN]);
        }
        let rate = |text| kin.rate(&target(text));
        assert!(rate("a.db#user:99") > 0.95, "{}", rate("a.db#user:99"));
        assert!(rate("a.db#log:99") < 0.05, "{}", rate("a.db#log:99"));
        let other = rate("a.db#odd");
        assert!((0.6..0.75).contains(&other), "as its partition: {other}");
        let strange = rate("b.db#user:1");
        assert!((0.6..0.75).contains(&strange), "as its node: {strange}");
    }

    #[test]
    fn groups_are_bounded() {
        let mut kin = Kin::default();
        for number in 0..2 * GROUPS_MAX {
            kin.step([target(&format!("#t{number}:1"))].iter(), &[1.0]);
        }
        assert!(kin.counts.len() <= GROUPS_MAX);
    }
}
