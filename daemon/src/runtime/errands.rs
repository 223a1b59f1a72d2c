//! What a shard asks of the coordinator, in the coordinator's words, and its answers in ours.

use wal::{NodeId, PartitionName};

use super::mail::{Mail, Mailbox};
use crate::control::coordinator::{Act, Conflict, Holder, OwnerRecord, Request as Asked};
use crate::control::desk::{Answer, Desk};
use crate::effect::Request;
use crate::event::{Event, Failure, Outcome, Ownership, Task, Ticket};
use io::failpoint::{self, Step};

/// Runs one request; its answer is posted to `mailbox`.
pub fn run(
    desk: &Desk,
    node: NodeId,
    mailbox: &Mailbox,
    ticket: Ticket,
    name: PartitionName,
    request: Request,
) {
    if matches!(request, Request::Pass { .. }) {
        failpoint::reach(Step::RouteAsked);
    }
    let (act, mailbox) = (act(node, request), mailbox.clone());
    desk.submit(Asked { name, act }, move |answer: Answer| {
        let result = match answer {
            Ok(answer) => outcome(node, ticket.task, answer),
            Err(failure) => Err(Failure::Retry(failure.to_string())),
        };
        mailbox.post(Mail::Event(Event::Done { ticket, result }));
    });
}

/// What `node` asks for, as the coordinator puts it.
pub fn act(node: NodeId, request: Request) -> Act {
    match request {
        Request::Claim => Act::Claim { node },
        Request::Reserve { .. } => Act::Reserve { node },
        Request::Pass {
            from,
            expected,
            to,
            epoch,
        } => Act::Pass {
            expected: Holder {
                node: from,
                epoch: expected,
            },
            to: Holder { node: to, epoch },
        },
        Request::Seize { from, epoch } => Act::Seize {
            expected: Holder { node: from, epoch },
            node,
        },
    }
}

/// What the coordinator's answer means to the shard that asked.
pub fn outcome(
    node: NodeId,
    task: Task,
    answer: Result<OwnerRecord, Conflict>,
) -> Result<Outcome, Failure> {
    match answer {
        Ok(record) if task == Task::Reserve => Ok(Outcome::Reserved(record.reserved)),
        Ok(record) => Ok(Outcome::Owned(ownership(&record, node))),
        Err(conflict) if task == Task::Reserve => Err(Failure::Refused(conflict.to_string())),
        Err(Conflict::Owner(record) | Conflict::Epoch { record, .. }) => {
            Ok(Outcome::Conflict(ownership(&record, node)))
        }
        Err(conflict) => Err(Failure::Refused(conflict.to_string())),
    }
}

/// The coordinator's record as the brain sees it.
pub fn ownership(record: &OwnerRecord, node: NodeId) -> Ownership {
    Ownership {
        owner: record.owner,
        epoch: record.epoch,
        previous: record.previous,
        formerly: record.formers.contains(&node) || record.previous == Some(node),
        reserved: record.reserved,
    }
}
