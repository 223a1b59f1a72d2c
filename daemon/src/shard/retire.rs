//! A partition was handed over: its old copy becomes a shadow of the new owner.

use wal::lsn::Position;
use wal::{NodeId, Span, Time};

use super::partition::{Partition, Role, Shadow};
use super::publish;
use crate::effect::{Effects, EngineOperation, Note, NoticeKind};
use crate::event::{Failure, Outcome, Ownership, Remains, Task, Ticket};
use crate::mutation::{self, Mutation};
use crate::ship::receiver::Receiver;
use crate::switch::target::Target;

/// Wait before an old copy that could not be put away is looked at again.
const RETIRE_AGAIN_AFTER: Span = Span::secs(1);

impl Partition {
    pub(super) fn on_released(&mut self, out: &mut Effects) {
        let Role::Owner(owner) = &self.role else {
            return;
        };
        let (Some(to), Some(epoch)) = (owner.source.target(), owner.source.epoch()) else {
            return;
        };
        let position = owner.position;
        let previous = self.ownership.map(|ownership| ownership.owner);
        self.ownership = Some(Ownership {
            owner: to,
            epoch,
            previous,
            formerly: true,
            reserved: epoch,
        });
        self.note = Some(Note::Released { epoch, to });
        let text = format!("{} at {position} to {to} under epoch {epoch}", self.name);
        publish(out, self.id(), NoticeKind::Released, text);
        self.retire(to, position, true, out);
    }

    pub(super) fn retire(&mut self, to: NodeId, position: Position, keep: bool, out: &mut Effects) {
        self.engine(
            Task::Retire,
            position.lsn.0,
            EngineOperation::Retire { position, keep },
            out,
        );
        self.role = Role::Retiring {
            to,
            position,
            retry_at: None,
        };
    }

    /// The old copy could not be put away; again.
    pub(super) fn retire_again(&mut self, now: Time, out: &mut Effects) {
        if let Role::Retiring {
            to,
            position,
            retry_at: Some(retry_at),
        } = self.role
            && retry_at <= now
        {
            self.retire(to, position, false, out);
        }
    }

    /// The old copy is a shadow now, or gone.
    pub(super) fn on_retired(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        let Role::Retiring { position, .. } = self.role else {
            return;
        };
        if ticket.task != Task::Retire {
            return;
        }
        let id = self.id();
        let epoch = self
            .ownership
            .map_or(position.epoch, |ownership| ownership.epoch);
        let receiver = match result {
            Ok(Outcome::Durable(position)) => Receiver::recover(id, Remains::At(position)),
            Ok(Outcome::Copied { .. }) => Receiver::recover(id, Remains::Partial),
            Ok(_) => Receiver::new(id, epoch),
            Err(failure) => {
                // Its writers may not be stopped yet: it is tried until they are.
                let reason = failure.reason();
                let text = format!("{}: the old copy stands yet: {reason}", self.name);
                publish(out, id, NoticeKind::ShadowLost, text);
                if let Role::Retiring { retry_at, .. } = &mut self.role {
                    *retry_at = Some(now + RETIRE_AGAIN_AFTER);
                }
                return;
            }
        };
        let target = Target::new(id, epoch);
        self.role = Role::Shadow(Box::new(Shadow { receiver, target }));
        // A word of the new owner that came before went unheard.
        if !mutation::is(Mutation::DiscardUnheard) {
            self.await_offer(now);
        }
    }
}
