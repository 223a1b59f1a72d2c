//! Who remembers the owners: one record per partition, changed by compare-and-set.
//!
//! | request | effect |
//! |---|---|
//! | claim | owner = asker and epoch = 1, if the partition has no record yet |
//! | reserve | the next epoch, given to its owner alone, whether or not it is ever used |
//! | pass | owner and epoch change together if both are still what the asker expects |
//! | seize | the asker owns it under the next epoch, if the owner is still whom it expects |
//!
//! Invariants: epochs only grow (I4); an epoch is reserved once; a pass succeeds once. The owner of
//! a partition is a matter of record, never of time: no lease is trusted here.

use std::os::fd::BorrowedFd;

use wal::{Epoch, NodeId, PartitionId, PartitionName};

use crate::mutation::{self, Mutation};

/// The memory of a cluster.
///
/// Calls block on storage or the network; the coordinator thread makes them.
pub trait Coordinator: Send {
    /// Carries requests out in order, durably, and answers each. One group costs one sync.
    fn submit(&mut self, requests: &[Request])
    -> Result<Vec<Result<OwnerRecord, Conflict>>, Error>;

    /// The record of one partition.
    fn owner(&mut self, partition: PartitionId) -> Result<Option<OwnerRecord>, Error>;

    /// Every record, by partition.
    fn list(&mut self) -> Result<Vec<OwnerRecord>, Error>;

    /// The records that changed after `revision`, oldest first; cheap when none did.
    fn changes(&mut self, after: Revision) -> Result<Vec<OwnerRecord>, Error>;

    /// Readable from when a record changed, by whomever, until [`Coordinator::changes`] is called;
    /// nothing where it can't be told: then it is asked often. What is told may be lost, so it is
    /// asked now and then in any case.
    fn news(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// [`Act::Claim`]; the record may name another owner.
    fn claim(&mut self, name: &PartitionName, node: NodeId) -> Result<OwnerRecord, Error> {
        match self.one(Request {
            name: name.clone(),
            act: Act::Claim { node },
        })? {
            Ok(record) => Ok(record),
            Err(conflict) => Err(Error::Refused(conflict)),
        }
    }

    /// [`Act::Reserve`]; the epoch is `reserved` of the record.
    fn reserve(&mut self, name: &PartitionName, node: NodeId) -> Result<Epoch, Error> {
        match self.one(Request {
            name: name.clone(),
            act: Act::Reserve { node },
        })? {
            Ok(record) => Ok(record.reserved),
            Err(conflict) => Err(Error::Refused(conflict)),
        }
    }

    /// [`Act::Pass`]
    fn pass(
        &mut self,
        name: &PartitionName,
        expected: Holder,
        to: Holder,
    ) -> Result<Result<OwnerRecord, Conflict>, Error> {
        self.one(Request {
            name: name.clone(),
            act: Act::Pass { expected, to },
        })
    }

    /// One request.
    fn one(&mut self, request: Request) -> Result<Result<OwnerRecord, Conflict>, Error> {
        let mut answers = self.submit(std::slice::from_ref(&request))?;
        Ok(answers.pop().expect("one answer to one request"))
    }
}

/// What is known of a partition's owner.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OwnerRecord {
    pub partition: PartitionId,
    pub name: PartitionName,
    pub owner: NodeId,
    pub epoch: Epoch,
    /// Who owned it before: where a rollback goes.
    pub previous: Option<NodeId>,
    /// Who else owned it before, each once: a database that is found there is an old one.
    pub formers: Vec<NodeId>,
    /// The highest epoch ever given out; at least `epoch`.
    pub reserved: Epoch,
    /// When it changed last, in the order of all changes.
    pub revision: Revision,
}

/// Counts the changes of all records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

/// A node under an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    pub node: NodeId,
    pub epoch: Epoch,
}

/// A request about one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    pub name: PartitionName,
    pub act: Act,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    /// Own it under epoch 1 if nobody ever did; answered with the record in any case.
    Claim { node: NodeId },
    /// Give out the next epoch, for a switchover that `node`, its owner, prepares.
    Reserve { node: NodeId },
    /// `expected` hands over to `to`, whose epoch was reserved. Asking again is harmless.
    Pass { expected: Holder, to: Holder },
    /// `node` takes over from `expected` without its word. The epoch is given out in the same act:
    /// it is newer than all that the former owner reserved, and that one reserves no more.
    Seize { expected: Holder, node: NodeId },
}

/// The record is not what the asker expected; nothing was changed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Conflict {
    #[error("{0} was never claimed")]
    Unknown(PartitionName),
    #[error("{} is owned by node {} under epoch {}", .0.name, .0.owner, .0.epoch)]
    Owner(OwnerRecord),
    #[error(
        "epoch {asked} of {} was not reserved: the highest is {}",
        .record.name, .record.reserved
    )]
    Epoch { asked: Epoch, record: OwnerRecord },
    /// Two names, one id: 64-bit hashes do collide, if not often.
    #[error("{asked} and {} have the same id", .record.name)]
    Name {
        asked: PartitionName,
        record: OwnerRecord,
    },
}

/// What can go wrong at the coordinator itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// {what}: the record is not what the caller relied on
    #[error("{0}")]
    Refused(Conflict),
    /// Storage failed; nothing is promised to be durable.
    #[error("coordinator: {operation} {}: {source}", path.display())]
    Storage {
        operation: &'static str,
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// The records can't be believed.
    #[error("coordinator: {} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        path: std::path::PathBuf,
        offset: u64,
        reason: String,
    },
}

impl OwnerRecord {
    /// The record once `to` has it.
    fn passed(&self, to: Holder, revision: Revision) -> OwnerRecord {
        OwnerRecord {
            owner: to.node,
            epoch: to.epoch,
            // Whoever takes over from itself, for want of an answer, had it from somebody else.
            previous: match self.owner == to.node {
                true => self.previous,
                false => Some(self.owner),
            },
            formers: self.formers_after(to.node),
            reserved: self.reserved.max(to.epoch),
            revision,
            ..self.clone()
        }
    }

    /// The former owners once `next` owns it.
    fn formers_after(&self, next: NodeId) -> Vec<NodeId> {
        let all = self.formers.iter().copied();
        let others = all.filter(|one| *one != self.owner && *one != next);
        let last = (self.owner != next).then_some(self.owner);
        others.chain(last).collect()
    }

    pub fn holder(&self) -> Holder {
        Holder {
            node: self.owner,
            epoch: self.epoch,
        }
    }
}

/// What `request` does to `record`: the new record, or none if nothing changes.
///
/// Pure, so that every implementor decides alike.
pub fn decide(
    record: Option<&OwnerRecord>,
    request: &Request,
    next: Revision,
) -> Result<Option<OwnerRecord>, Conflict> {
    let name = &request.name;
    let Some(record) = record else {
        return match request.act {
            Act::Claim { node } => Ok(Some(OwnerRecord {
                partition: name.id(),
                name: name.clone(),
                owner: node,
                epoch: Epoch(1),
                previous: None,
                formers: Vec::new(),
                reserved: Epoch(1),
                revision: next,
            })),
            Act::Reserve { .. } | Act::Pass { .. } | Act::Seize { .. } => {
                Err(Conflict::Unknown(name.clone()))
            }
        };
    };
    if record.name != *name {
        return Err(Conflict::Name {
            asked: name.clone(),
            record: record.clone(),
        });
    }
    match request.act {
        Act::Claim { .. } => Ok(None),
        Act::Reserve { node }
            if record.owner != node && !mutation::is(Mutation::SecondMoveTooEarly) =>
        {
            Err(Conflict::Owner(record.clone()))
        }
        Act::Reserve { .. } => {
            let reserved = Epoch(record.reserved.0 + 1);
            Ok(Some(OwnerRecord {
                reserved,
                revision: next,
                ..record.clone()
            }))
        }
        Act::Pass { to, .. } if record.holder() == to => Ok(None),
        Act::Pass { expected, .. }
            if record.holder() != expected && !mutation::is(Mutation::PassFromStale) =>
        {
            Err(Conflict::Owner(record.clone()))
        }
        Act::Pass { to, .. }
            if (to.epoch <= record.epoch || to.epoch > record.reserved)
                && !mutation::is(Mutation::PassFromStale) =>
        {
            Err(Conflict::Epoch {
                asked: to.epoch,
                record: record.clone(),
            })
        }
        Act::Pass { to, .. } => Ok(Some(record.passed(to, next))),
        Act::Seize { expected, .. } if record.holder() != expected => {
            Err(Conflict::Owner(record.clone()))
        }
        Act::Seize { node, .. } => {
            let epoch = Epoch(record.reserved.0 + 1);
            Ok(Some(record.passed(Holder { node, epoch }, next)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn request(act: Act) -> Request {
        Request {
            name: PartitionName::new("t.db").expect("valid"),
            act,
        }
    }

    fn owned_by_a(reserved: u64) -> OwnerRecord {
        let claimed = decide(None, &request(Act::Claim { node: A }), Revision(1));
        let record = claimed.expect("no conflict").expect("a new record");
        OwnerRecord {
            reserved: Epoch(reserved),
            ..record
        }
    }

    fn pass(from: u64, to: u64) -> Request {
        let expected = Holder {
            node: A,
            epoch: Epoch(from),
        };
        request(Act::Pass {
            expected,
            to: Holder {
                node: B,
                epoch: Epoch(to),
            },
        })
    }

    #[test]
    fn only_the_first_claim_counts() {
        let record = owned_by_a(1);
        assert_eq!(
            decide(Some(&record), &request(Act::Claim { node: B }), Revision(2)),
            Ok(None)
        );
    }

    #[test]
    fn a_pass_needs_the_expected_owner_and_a_reserved_epoch() {
        let record = owned_by_a(2);
        let passed = decide(Some(&record), &pass(1, 2), Revision(9))
            .expect("passes")
            .expect("new");
        assert_eq!(
            (passed.owner, passed.epoch, passed.previous),
            (B, Epoch(2), Some(A))
        );
        assert_eq!(passed.revision, Revision(9));
        let unreserved = decide(Some(&record), &pass(1, 3), Revision(9));
        assert!(matches!(unreserved, Err(Conflict::Epoch { .. })));
        let backwards = decide(Some(&record), &pass(1, 1), Revision(9));
        assert!(matches!(backwards, Err(Conflict::Epoch { .. })));
        let again = decide(Some(&passed), &pass(1, 2), Revision(10));
        assert_eq!(again, Ok(None), "asking again is harmless");
        let late = decide(
            Some(&OwnerRecord {
                reserved: Epoch(3),
                ..passed
            }),
            &pass(1, 3),
            Revision(10),
        );
        assert!(
            matches!(late, Err(Conflict::Owner(_))),
            "a second pass from epoch 1 must lose"
        );
    }

    #[test]
    fn a_pass_to_oneself_keeps_where_it_came_from() {
        let record = decide(Some(&owned_by_a(3)), &pass(1, 2), Revision(2));
        let record = record.expect("passes").expect("new");
        let again = Act::Pass {
            expected: record.holder(),
            to: Holder {
                node: B,
                epoch: Epoch(3),
            },
        };
        let again = decide(Some(&record), &request(again), Revision(3));
        let again = again.expect("passes").expect("new");
        assert_eq!((again.epoch, again.previous), (Epoch(3), Some(A)));
    }

    #[test]
    fn a_takeover_outdates_what_the_former_owner_reserved() {
        let record = owned_by_a(7);
        let seize = request(Act::Seize {
            expected: record.holder(),
            node: B,
        });
        let seized = decide(Some(&record), &seize, Revision(2));
        let seized = seized.expect("seizes").expect("new");
        assert_eq!((seized.owner, seized.epoch), (B, Epoch(8)));
        for late in [pass(1, 7), request(Act::Reserve { node: A }), seize] {
            let answer = decide(Some(&seized), &late, Revision(3));
            assert_eq!(answer, Err(Conflict::Owner(seized.clone())), "{late:?}");
        }
    }

    #[test]
    fn former_owners_are_remembered_each_once() {
        let mut record = owned_by_a(4);
        for (from, to, epoch) in [(A, B, 2), (B, A, 3), (A, NodeId(3), 4)] {
            let expected = Holder {
                node: from,
                epoch: record.epoch,
            };
            let to = Holder {
                node: to,
                epoch: Epoch(epoch),
            };
            let passed = decide(
                Some(&record),
                &request(Act::Pass { expected, to }),
                Revision(epoch),
            );
            record = passed.expect("passes").expect("new");
        }
        assert_eq!(record.formers, [B, A], "the last one last");
    }

    #[test]
    fn an_epoch_is_given_out_once() {
        let one = decide(
            Some(&owned_by_a(1)),
            &request(Act::Reserve { node: A }),
            Revision(2),
        );
        let one = one.expect("reserves").expect("new");
        let two = decide(Some(&one), &request(Act::Reserve { node: A }), Revision(3));
        let two = two.expect("reserves").expect("new");
        assert_eq!((one.reserved, two.reserved), (Epoch(2), Epoch(3)));
        assert_eq!(two.epoch, Epoch(1), "reserving changes no owner");
    }
}
