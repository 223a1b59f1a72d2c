//! What a shard asks of the coordinator, in the coordinator's words, and its answers in ours.

use wal::{NodeId, PartitionName};

use super::mail::{Mail, Mailbox};
use crate::control::coordinator::{Act, Conflict, Holder, OwnerRecord, Request as Asked};
use crate::control::desk::{Answer, Desk};
use crate::effect::Request;
use crate::event::{Event, Failure, Outcome, Ownership, Ticket};

/// Runs one request; its answer is posted to `mailbox`.
pub fn run(
    desk: &Desk,
    node: NodeId,
    mailbox: &Mailbox,
    ticket: Ticket,
    name: PartitionName,
    request: Request,
) {
    let reply = answer_to(mailbox.clone(), ticket);
    match request {
        Request::Claim => desk.submit(
            Asked {
                name,
                act: Act::Claim { node },
            },
            move |answer| {
                reply(owned(answer, node));
            },
        ),
        Request::Reserve { .. } => {
            desk.submit(
                Asked {
                    name,
                    act: Act::Reserve { node },
                },
                move |answer| {
                    reply(settled(answer).map(|record| Outcome::Reserved(record.reserved)));
                },
            );
        }
        Request::Pass {
            from,
            expected,
            to,
            epoch,
        } => {
            let expected = Holder {
                node: from,
                epoch: expected,
            };
            let act = Act::Pass {
                expected,
                to: Holder { node: to, epoch },
            };
            desk.submit(Asked { name, act }, move |answer| {
                reply(owned(answer, node))
            });
        }
        Request::Seize { from, epoch } => {
            let expected = Holder { node: from, epoch };
            let act = Act::Seize { expected, node };
            desk.submit(Asked { name, act }, move |answer| {
                reply(owned(answer, node))
            });
        }
    }
}

/// The coordinator's record as the brain sees it.
pub fn ownership(record: &OwnerRecord, node: NodeId) -> Ownership {
    Ownership {
        owner: record.owner,
        epoch: record.epoch,
        previous: record.previous,
        formerly: record.formers.contains(&node),
        reserved: record.reserved,
    }
}

fn answer_to(
    mailbox: Mailbox,
    ticket: Ticket,
) -> impl FnOnce(Result<Outcome, Failure>) + Send + 'static {
    move |result| mailbox.post(Mail::Event(Event::Done { ticket, result }))
}

fn owned(answer: Answer, node: NodeId) -> Result<Outcome, Failure> {
    match answer {
        Err(failure) => Err(Failure::Retry(failure.to_string())),
        Ok(Ok(record)) => Ok(Outcome::Owned(ownership(&record, node))),
        Ok(Err(Conflict::Owner(record) | Conflict::Epoch { record, .. })) => {
            Ok(Outcome::Conflict(ownership(&record, node)))
        }
        Ok(Err(conflict)) => Err(Failure::Refused(conflict.to_string())),
    }
}

fn settled(answer: Answer) -> Result<OwnerRecord, Failure> {
    match answer {
        Err(failure) => Err(Failure::Retry(failure.to_string())),
        Ok(Ok(record)) => Ok(record),
        Ok(Err(conflict)) => Err(Failure::Refused(conflict.to_string())),
    }
}
