//! How a landing ends without a grant: by the source's word, or by what this node can't do.

use wal::lsn::Epoch;
use wal::message::{Message, Verdict};

use super::{Outcome, State, Target};
use crate::effect::{Effect, Effects, Note, ShadowOperation};
use crate::event::{LinkId, Task};
use crate::mutation::{self, Mutation};

impl Target {
    /// The source froze, but this copy lost its position meanwhile.
    pub fn on_copy_lost(&mut self, epoch: Epoch, link: LinkId, out: &mut Effects) -> Outcome {
        match self.state {
            State::Prepared { epoch: ours, .. } if ours == epoch => {
                self.unable(link, epoch, "the copy is being compared again", out);
                Outcome::Abandoned
            }
            _ => Outcome::Going,
        }
    }

    /// Under which epoch this copy may come to land, as long as that can be given up.
    pub fn awaited(&self) -> Option<Epoch> {
        match self.state {
            State::Noting { epoch, .. }
            | State::Preparing { epoch, .. }
            | State::Prepared { epoch, .. }
            | State::Draining { epoch, .. }
            | State::Syncing { epoch, .. }
            | State::Ready { epoch, .. }
            | State::Asking { epoch, .. } => Some(epoch),
            State::Following
            | State::Seized { .. }
            | State::Landing { .. }
            | State::Serving { .. } => None,
        }
    }

    pub fn on_abort(&mut self, epoch: Epoch, out: &mut Effects) -> Outcome {
        if self.awaited() == Some(epoch) {
            self.abandon(epoch, out);
            return Outcome::Abandoned;
        }
        Outcome::Going
    }

    /// The copy failed before it was proven: a landing on it can't be promised any more.
    pub fn on_copy_broken(&mut self, reason: &str, out: &mut Effects) -> Outcome {
        match self.state {
            State::Prepared { link, epoch, .. }
            | State::Draining { link, epoch, .. }
            | State::Syncing { link, epoch, .. } => {
                self.unable(link, epoch, reason, out);
                Outcome::Abandoned
            }
            _ => Outcome::Going,
        }
    }

    pub fn on_told(&mut self, epoch: Epoch, verdict: Verdict, out: &mut Effects) -> Outcome {
        match verdict {
            Verdict::Granted => {
                self.on_grant(epoch, out);
                Outcome::Going
            }
            Verdict::Undecided if mutation::is(Mutation::UndecidedIsGranted) => {
                self.on_grant(epoch, out);
                Outcome::Going
            }
            Verdict::NotGranted => self.on_abort(epoch, out),
            Verdict::Undecided => Outcome::Going,
        }
    }

    pub(super) fn unable(&mut self, link: LinkId, epoch: Epoch, reason: &str, out: &mut Effects) {
        let (partition, reason) = (self.partition, reason.to_owned());
        out.send_urgent(
            link,
            Message::Unable {
                partition,
                epoch,
                reason,
            },
        );
        self.abandon(epoch, out);
    }

    pub(super) fn abandon(&mut self, epoch: Epoch, out: &mut Effects) {
        out.push(Effect::Record {
            ticket: self.ticket(Task::Record, epoch),
            note: Note::Abandoned { epoch },
        });
        out.push(Effect::Shadow {
            ticket: self.ticket(Task::Abandon, epoch),
            operation: ShadowOperation::Abandon,
        });
        self.state = State::Following;
    }
}
