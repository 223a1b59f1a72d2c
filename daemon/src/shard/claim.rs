//! A database was found: is it ours, and what became of its last switchover?

use wal::lsn::{Epoch, Position};
use wal::{NodeId, Time};

use super::links::LinkKey;
use super::owner::LOOK_AGAIN_AFTER;
use super::partition::{Owner, Partition, Passing, Role};
use super::{Settings, publish};
use crate::effect::{Effect, Effects, EngineOperation, Note, NoticeKind, Request};
use crate::event::{Attachment, Failure, Outcome, Ownership, Task, Ticket};
use crate::switch::source::Source;

impl Partition {
    pub(super) fn claim(&mut self, out: &mut Effects) {
        let ticket = Ticket {
            partition: self.id(),
            task: Task::Claim,
            number: 0,
        };
        out.push(Effect::Coordinate {
            ticket,
            request: Request::Claim,
        });
        self.role = Role::Claiming;
    }

    pub(super) fn refuse(&mut self, retry_at: Option<Time>, reason: String, out: &mut Effects) {
        publish(
            out,
            self.id(),
            NoticeKind::Refused,
            format!("{}: {reason}", self.name),
        );
        self.role = Role::Refused { reason, retry_at };
    }

    pub(super) fn on_claimed(&mut self, node: NodeId, ownership: Ownership, out: &mut Effects) {
        if self.role != Role::Claiming {
            return;
        }
        // The coordinator has not heard of it, but our own journal knows: it was handed over.
        if let Some(Note::Released { epoch, to }) = self.note
            && epoch > ownership.epoch
        {
            self.retire(to, Position::default(), true, out);
            return;
        }
        let landed = match self.note {
            Some(Note::Landed { epoch, .. }) => Some(epoch),
            _ => None,
        };
        if ownership.owner == node || landed.is_some_and(|epoch| epoch > ownership.epoch) {
            let epoch = landed.unwrap_or(ownership.epoch).max(ownership.epoch);
            if ownership.owner != node {
                self.pass(ownership, node, epoch, out);
            }
            self.engine(
                Task::Attach,
                epoch.0,
                EngineOperation::Attach { epoch },
                out,
            );
            self.role = Role::Attaching { epoch };
            return;
        }
        let handed_over = match self.note {
            Some(Note::Intent { epoch, .. } | Note::Released { epoch, .. }) => {
                epoch <= ownership.epoch
            }
            _ => false,
        };
        if handed_over {
            self.retire(ownership.owner, Position::default(), true, out);
            return;
        }
        // Taken over while this node was away, once or more: its applications must not write on.
        let superseded = landed.is_some_and(|epoch| epoch < ownership.epoch);
        if superseded || ownership.formerly {
            self.retire(ownership.owner, Position::default(), false, out);
            return;
        }
        let reason = format!(
            "node {} owns it under epoch {}; the database here is left alone",
            ownership.owner, ownership.epoch
        );
        self.refuse(None, reason, out);
    }

    /// Takes in what the coordinator answered, unless news came first that are newer.
    pub(super) fn learn(&mut self, answered: Ownership) -> Ownership {
        self.unsure = false;
        let newer = self.ownership.filter(|held| held.epoch > answered.epoch);
        *self.ownership.insert(newer.unwrap_or(answered))
    }

    /// Tells the coordinator that the switchover from `held` happened.
    pub(super) fn pass(&mut self, held: Ownership, to: NodeId, epoch: Epoch, out: &mut Effects) {
        let (from, expected) = (held.owner, held.epoch);
        let passing = Passing {
            from,
            expected,
            to,
            epoch,
            retry_at: None,
        };
        self.passing = Some(passing);
        self.tell_pass(passing, out);
    }

    pub(super) fn tell_pass(&self, passing: Passing, out: &mut Effects) {
        let Passing {
            from,
            expected,
            to,
            epoch,
            ..
        } = passing;
        let ticket = Ticket {
            partition: self.id(),
            task: Task::Pass,
            number: epoch.0,
        };
        let request = Request::Pass {
            from,
            expected,
            to,
            epoch,
        };
        out.push(Effect::Coordinate { ticket, request });
    }

    pub(super) fn on_attached(
        &mut self,
        now: Time,
        epoch: Epoch,
        ticket: Ticket,
        result: Result<Outcome, Failure>,
        settings: &Settings,
        out: &mut Effects,
    ) {
        if ticket.task != Task::Attach || ticket.number != epoch.0 {
            return;
        }
        match result {
            Ok(Outcome::Attached(attachment)) => self.become_owner(now, attachment, settings, out),
            Ok(_) => {}
            Err(Failure::Retry(reason)) => {
                self.refuse(Some(now + LOOK_AGAIN_AFTER), reason, out);
            }
            Err(failure) => self.refuse(None, failure.reason().to_owned(), out),
        }
    }

    fn become_owner(
        &mut self,
        now: Time,
        attachment: Attachment,
        settings: &Settings,
        out: &mut Effects,
    ) {
        let (id, epoch) = (self.id(), attachment.position.epoch);
        let intent = match self.note {
            Some(Note::Intent {
                epoch: intended,
                to,
            }) if intended > epoch => {
                let lanes = settings
                    .peers
                    .get(&to)
                    .map_or(1, |peer| u64::from(peer.lanes));
                Some((
                    intended,
                    LinkKey {
                        peer: to,
                        lane: (id.0 % lanes) as u16,
                    },
                ))
            }
            _ => None,
        };
        if attachment.fenced && intent.is_none() {
            let reason = "it is fenced and no switchover of this node explains it; \
                          `foreshadow list` at the other nodes tells where it went";
            self.engine(Task::Attach, 0, EngineOperation::Detach, out);
            self.refuse(None, reason.to_owned(), out);
            return;
        }
        let source = Source::recover(id, settings.switch, intent, attachment.fenced, now);
        self.role = Role::Owner(Box::new(Owner::new(attachment, source)));
        let text = format!("{} at {}", self.name, attachment.position);
        publish(out, id, NoticeKind::Attached, text);
    }
}
