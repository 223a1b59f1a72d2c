//! A landing without its source's word, and landings that a stop interrupted: nothing undoes them.

use wal::lsn::{Epoch, Position};
use wal::{PartitionId, Time};

use super::super::resend_at;
use super::{State, Target};
use crate::effect::{Effect, Effects, Note};
use crate::event::{Failure, LinkId, Task};

impl Target {
    /// The machine after a restart that finds `Landed` noted and the exchange of the path undone: a
    /// power cut came before the directory was synced. It was granted; the exchange is done again.
    pub fn land_again(
        partition: PartitionId,
        link: LinkId,
        epoch: Epoch,
        position: Position,
        now: Time,
    ) -> Target {
        let state = State::Landing {
            link,
            epoch,
            position,
            retry_at: Some(now),
        };
        Target {
            partition,
            state,
            epoch_seen: epoch,
        }
    }

    /// The machine after a restart that finds `Seized` noted: the coordinator is asked first
    /// whether that still holds, and [`Target::seize`] or [`Target::give_up_seized`] follows. Until
    /// then the files stay as they are: applications may have written to them before a power cut.
    pub fn seized_before(
        partition: PartitionId,
        link: LinkId,
        epoch: Epoch,
        position: Position,
    ) -> Target {
        let state = State::Seized {
            link,
            epoch,
            position,
            retry_at: None,
        };
        Target {
            partition,
            state,
            epoch_seen: epoch,
        }
    }

    /// Under which epoch the coordinator gave it to this node, as long as nothing was exchanged.
    pub fn seized(&self) -> Option<Epoch> {
        match self.state {
            State::Seized { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// Another node was given it since; nothing was exchanged yet.
    pub fn give_up_seized(&mut self, out: &mut Effects) {
        if let State::Seized { epoch, .. } = self.state {
            self.abandon(epoch, out);
        }
    }

    /// Unplanned takeover: the coordinator's compare-and-set made this node the owner. That is
    /// noted before the path is exchanged: the exchange may be undone by a power cut although the
    /// applications wrote already, and then nothing else would say that those files count.
    pub fn seize(&mut self, link: LinkId, epoch: Epoch, position: Position, out: &mut Effects) {
        self.epoch_seen = epoch;
        self.state = State::Seized {
            link,
            epoch,
            position,
            retry_at: None,
        };
        self.note_seized(out);
    }

    pub(super) fn note_seized(&mut self, out: &mut Effects) {
        let State::Seized {
            link,
            epoch,
            ref mut retry_at,
            ..
        } = self.state
        else {
            return;
        };
        *retry_at = None;
        out.push(Effect::Record {
            ticket: self.ticket(Task::Record, epoch),
            note: Note::Seized {
                epoch,
                from: link.peer,
            },
        });
    }

    pub(super) fn on_seized_noted(
        &mut self,
        now: Time,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        let State::Seized {
            link,
            epoch,
            position,
            ref mut retry_at,
        } = self.state
        else {
            return;
        };
        match result {
            Ok(()) => self.remap(link, epoch, position, out),
            // What the coordinator gave can't be given back: it is tried until it succeeds.
            Err(_) => *retry_at = Some(resend_at(now)),
        }
    }
}
