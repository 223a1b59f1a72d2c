//! The coordinator: its memory outlives everything, its answers may be late or lost.
//!
//! The decision is the daemon's own; how a request is put is as runtime/errands.rs puts it.

use foreshadow::control::coordinator::{self as product};
use foreshadow::control::coordinator::{Act, Conflict, Holder, OwnerRecord, Request, Revision};
use foreshadow::effect;
use foreshadow::event::{Failure, Outcome, Ticket};
use foreshadow::runtime::errands;
use wal::{Epoch, NodeId};

use super::variants::Variant;
use super::world::database;

/// The record of the one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Keeper {
    pub record: Option<OwnerRecord>,
    /// Epochs went backwards, or one epoch had two owners.
    pub went_back: bool,
}

/// A request under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Errand {
    pub ticket: Ticket,
    pub act: Act,
}

impl Errand {
    pub fn new(node: NodeId, ticket: Ticket, request: effect::Request) -> Errand {
        let act = errands::act(node, request);
        Errand { ticket, act }
    }
}

impl Keeper {
    /// Carries one request out.
    pub fn ask(
        &mut self,
        node: NodeId,
        errand: &Errand,
        variant: Variant,
    ) -> Result<Outcome, Failure> {
        if variant == Variant::NobodyCompares {
            self.believe(&errand.act);
        }
        let mut answer = self.one(&errand.act);
        if let (Ok(record), Variant::OwnersForget) = (&mut answer, variant) {
            record.formers.clear();
        }
        errands::outcome(node, errand.ticket.task, answer)
    }

    /// A coordinator that compares nothing.
    fn believe(&mut self, act: &Act) {
        let told = match *act {
            Act::Pass { to, .. } => Some(to),
            Act::Seize { expected, node } => Some(Holder {
                node,
                epoch: Epoch(expected.epoch.0 + 1),
            }),
            _ => None,
        };
        if let (Some(to), Some(held)) = (told, &self.record) {
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
