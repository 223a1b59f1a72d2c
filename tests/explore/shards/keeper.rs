//! The coordinator: its memory outlives everything, its answers may be late or lost.
//!
//! The decision is the daemon's own; how a request is put is as runtime/errands.rs puts it.

use foreshadow::control::coordinator::{self as product};
use foreshadow::control::coordinator::{Act, Conflict, Holder, OwnerRecord, Request, Revision};
use foreshadow::effect;
use foreshadow::event::{Failure, Outcome, Task, Ticket};
use foreshadow::runtime::errands::ownership;
use wal::NodeId;

use super::variants::Variant;
use super::world::database;

/// The record of the one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Keeper {
    pub record: Option<OwnerRecord>,
    /// Epochs went backwards, or one epoch had two owners.
    pub went_back: bool,
}

/// A request under way: what is asked now, and what once that is answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Errand {
    pub ticket: Ticket,
    pub act: Act,
    /// A takeover reserves an epoch of its own, then passes from the owner it expects.
    pub then_from: Option<Holder>,
}

impl Errand {
    pub fn new(node: NodeId, ticket: Ticket, request: effect::Request) -> Errand {
        let (act, then_from) = match request {
            effect::Request::Claim => (Act::Claim { node }, None),
            effect::Request::Reserve { .. } => (Act::Reserve { node }, None),
            effect::Request::Pass {
                from,
                expected,
                to,
                epoch,
            } => {
                let expected = Holder {
                    node: from,
                    epoch: expected,
                };
                let to = Holder { node: to, epoch };
                (Act::Pass { expected, to }, None)
            }
            effect::Request::Seize { from, epoch } => {
                (Act::Reserve { node }, Some(Holder { node: from, epoch }))
            }
        };
        Errand {
            ticket,
            act,
            then_from,
        }
    }
}

impl Keeper {
    /// Carries one request out: the answer, or what is to be asked next.
    pub fn ask(
        &mut self,
        node: NodeId,
        errand: &Errand,
        variant: Variant,
    ) -> Result<Errand, Result<Outcome, Failure>> {
        if variant == Variant::NobodyCompares {
            self.believe(&errand.act);
        }
        let record = match (self.one(&errand.act), errand.then_from) {
            (Ok(record), Some(expected)) => {
                let epoch = record.reserved;
                let act = Act::Pass {
                    expected,
                    to: Holder { node, epoch },
                };
                return Ok(Errand {
                    act,
                    then_from: None,
                    ..errand.clone()
                });
            }
            (Ok(record), None) => record,
            (Err(Conflict::Owner(record) | Conflict::Epoch { record, .. }), None) => {
                return Err(Ok(Outcome::Conflict(ownership(&record))));
            }
            (Err(conflict), _) => return Err(Err(Failure::Refused(conflict.to_string()))),
        };
        Err(Ok(match errand.ticket.task {
            Task::Reserve => Outcome::Reserved(record.reserved),
            _ => Outcome::Owned(ownership(&record)),
        }))
    }

    /// A coordinator that compares nothing.
    fn believe(&mut self, act: &Act) {
        if let (Act::Pass { to, .. }, Some(held)) = (act, &self.record) {
            let record = OwnerRecord {
                owner: to.node,
                epoch: to.epoch,
                previous: Some(held.owner),
                revision: Revision(held.revision.0 + 1),
                ..held.clone()
            };
            self.went_back |= goes_back(held, &record);
            self.record = Some(record);
        }
    }

    fn one(&mut self, act: &Act) -> Result<OwnerRecord, Conflict> {
        let request = Request {
            name: database(),
            act: *act,
        };
        let held = self.record.as_ref();
        let next = Revision(held.map_or(0, |record| record.revision.0) + 1);
        if let Some(record) = product::decide(held, &request, next)? {
            self.went_back |= held.is_some_and(|held| goes_back(held, &record));
            self.record = Some(record);
        }
        Ok(self.record.clone().expect("decided above"))
    }
}

/// I4: an owner changes only with a newer epoch, and what was reserved stays so.
fn goes_back(held: &OwnerRecord, record: &OwnerRecord) -> bool {
    let same = held.holder() == record.holder();
    !same && record.epoch <= held.epoch || record.reserved < held.reserved
}
