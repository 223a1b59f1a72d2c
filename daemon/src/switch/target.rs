//! The target's half of a switchover: from following to serving, or back to following.
//!
//! A target that said `Ready` leaves that state only by the source's word: a grant, an abort, or an
//! answer to its question. It never decides by a timeout, because the source may have granted
//! (I1). `Ready` is said only when everything up to the frozen position is durable in the database
//! itself and its digest equals the source's (I2, I3).

mod abandon;
mod state;
mod takeover;

use wal::lsn::{Epoch, Position};
use wal::message::Message;
use wal::{PartitionId, Time};

pub use state::{Outcome, State};

use super::resend_at;
use crate::effect::{Effect, Effects, Note, ShadowOperation};
use crate::event::{Failure, LinkId, Task, Ticket};
use crate::mutation::{self, Mutation};

/// The target's half of a switchover of one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    partition: PartitionId,
    state: State,
    /// The newest epoch heard of; older ones are refused (I4).
    epoch_seen: Epoch,
}

impl Target {
    pub fn new(partition: PartitionId, epoch_seen: Epoch) -> Target {
        Target {
            partition,
            state: State::Following,
            epoch_seen,
        }
    }

    /// The machine after a restart with a prepared landing on disk.
    pub fn recover(
        partition: PartitionId,
        link: LinkId,
        epoch: Epoch,
        position: Position,
        now: Time,
    ) -> Target {
        let state = State::Asking {
            link,
            epoch,
            position,
            ask_at: now,
        };
        Target {
            partition,
            state,
            epoch_seen: epoch,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn is_following(&self) -> bool {
        self.state == State::Following
    }

    /// Where the copy is proven to stand, durable in the database itself.
    pub fn proven(&self) -> Option<Position> {
        match self.state {
            State::Ready { position, .. } | State::Landing { position, .. } => Some(position),
            _ => None,
        }
    }

    /// Granted or taken over, and being exchanged: nothing undoes it any more.
    pub fn is_landing(&self) -> bool {
        matches!(self.state, State::Landing { .. } | State::Serving { .. })
    }

    pub fn on_prepare(&mut self, link: LinkId, epoch: Epoch, able: bool, out: &mut Effects) {
        let partition = self.partition;
        match &self.state {
            State::Prepared { epoch: ours, .. } if *ours == epoch => {
                out.send(link, Message::Prepared { partition, epoch });
            }
            State::Following if able && epoch > self.epoch_seen => {
                self.epoch_seen = epoch;
                out.push(Effect::Record {
                    ticket: self.ticket(Task::Record, epoch),
                    note: Note::Prepared {
                        epoch,
                        from: link.peer,
                    },
                });
                self.state = State::Noting { link, epoch };
            }
            State::Noting { epoch: ours, .. } | State::Preparing { epoch: ours, .. }
                if *ours == epoch => {}
            State::Following if !able => {
                let reason = "this node holds no streaming shadow of it".to_owned();
                out.send(
                    link,
                    Message::Unable {
                        partition,
                        epoch,
                        reason,
                    },
                );
            }
            _ => {
                let reason = "another switchover is not settled here".to_owned();
                out.send(
                    link,
                    Message::Unable {
                        partition,
                        epoch,
                        reason,
                    },
                );
            }
        }
    }

    pub fn on_noted(
        &mut self,
        now: Time,
        epoch: Epoch,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        let link = match self.state {
            State::Noting { link, epoch: ours } if ours == epoch => link,
            State::Seized { epoch: ours, .. } if ours == epoch => {
                return self.on_seized_noted(now, result, out);
            }
            _ => return,
        };
        match result {
            Ok(()) => {
                out.push(Effect::Shadow {
                    ticket: self.ticket(Task::PrepareLanding, epoch),
                    operation: ShadowOperation::PrepareLanding { epoch },
                });
                self.state = State::Preparing { link, epoch };
            }
            Err(failure) => self.unable(link, epoch, failure.reason(), out),
        }
    }

    pub fn on_landing_prepared(
        &mut self,
        now: Time,
        epoch: Epoch,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        let State::Preparing { link, epoch: ours } = self.state else {
            return;
        };
        if epoch != ours {
            return;
        }
        match result {
            Ok(()) => {
                out.send(
                    link,
                    Message::Prepared {
                        partition: self.partition,
                        epoch,
                    },
                );
                self.state = State::Prepared {
                    link,
                    epoch,
                    ask_at: resend_at(now),
                };
            }
            Err(failure) => self.unable(link, epoch, failure.reason(), out),
        }
    }

    /// The source froze at `position`. `applied` is where this copy stands now.
    pub fn on_finish(
        &mut self,
        now: Time,
        epoch: Epoch,
        position: Position,
        applied: Position,
        out: &mut Effects,
    ) {
        match self.state {
            State::Prepared {
                link, epoch: ours, ..
            } if ours == epoch => {
                let ask_at = resend_at(now);
                self.state = State::Draining {
                    link,
                    epoch,
                    position,
                    ask_at,
                };
                self.on_applied(applied, out);
            }
            State::Ready {
                link,
                epoch: ours,
                position: proven,
                ..
            } if ours == epoch => {
                let partition = self.partition;
                out.send_urgent(
                    link,
                    Message::Ready {
                        partition,
                        epoch,
                        position: proven,
                    },
                );
            }
            _ => {}
        }
    }

    /// The shadow stands at `applied`; syncs once that is the frozen position.
    pub fn on_applied(&mut self, applied: Position, out: &mut Effects) {
        let State::Draining {
            link,
            epoch,
            position,
            ..
        } = self.state
        else {
            return;
        };
        // Wherever it stands is where it lands.
        let position = match mutation::is(Mutation::PositionUnproven) {
            true => applied,
            false => position,
        };
        if applied.lsn < position.lsn {
            return;
        }
        if applied.lsn > position.lsn || applied.digest != position.digest {
            let reason = format!("this copy stands at {applied}, the source froze at {position}");
            self.unable(link, epoch, &reason, out);
            return;
        }
        self.state = State::Syncing {
            link,
            epoch,
            position,
        };
        if mutation::is(Mutation::ReadyUnsynced) {
            let now = Time(0);
            return self.on_synced(now, epoch, Ok(position), out);
        }
        out.push(Effect::Shadow {
            ticket: self.ticket(Task::SyncLanding, epoch),
            operation: ShadowOperation::SyncLanding,
        });
    }

    /// The copy is durable where `result` says: only the frozen position itself is proof.
    pub fn on_synced(
        &mut self,
        now: Time,
        epoch: Epoch,
        result: Result<Position, Failure>,
        out: &mut Effects,
    ) {
        let State::Syncing {
            link,
            epoch: ours,
            position,
        } = self.state
        else {
            return;
        };
        if epoch != ours {
            return;
        }
        match result {
            // What was applied may have failed after it was taken in.
            Ok(held) if held.lsn != position.lsn || held.digest != position.digest => {
                let reason = format!("the copy is durable at {held}, not at {position}");
                self.unable(link, epoch, &reason, out);
            }
            Ok(_) => {
                let partition = self.partition;
                out.send_urgent(
                    link,
                    Message::Ready {
                        partition,
                        epoch,
                        position,
                    },
                );
                self.state = State::Ready {
                    link,
                    epoch,
                    position,
                    ask_at: resend_at(now),
                };
            }
            Err(failure) => self.unable(link, epoch, failure.reason(), out),
        }
    }

    pub fn on_grant(&mut self, epoch: Epoch, out: &mut Effects) {
        let partition = self.partition;
        match self.state {
            State::Ready {
                link,
                epoch: ours,
                position,
                ..
            }
            | State::Asking {
                link,
                epoch: ours,
                position,
                ..
            } if ours == epoch => {
                self.remap(link, epoch, position, out);
            }
            State::Serving {
                link,
                epoch: ours,
                position,
            } if ours == epoch => {
                out.send(
                    link,
                    Message::Serving {
                        partition,
                        epoch,
                        lsn: position.lsn,
                    },
                );
            }
            _ => {}
        }
    }

    pub fn on_remapped(
        &mut self,
        now: Time,
        epoch: Epoch,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) -> Outcome {
        let State::Landing {
            link,
            epoch: ours,
            position,
            ..
        } = self.state
        else {
            return Outcome::Going;
        };
        if epoch != ours {
            return Outcome::Going;
        }
        if result.is_err() {
            // The grant can't be given back: the exchange is tried until it succeeds.
            let retry_at = Some(resend_at(now));
            self.state = State::Landing {
                link,
                epoch,
                position,
                retry_at,
            };
            return Outcome::Going;
        }
        out.send_urgent(
            link,
            Message::Serving {
                partition: self.partition,
                epoch,
                lsn: position.lsn,
            },
        );
        out.push(Effect::Record {
            ticket: self.ticket(Task::Record, epoch),
            note: Note::Landed { epoch, position },
        });
        self.state = State::Serving {
            link,
            epoch,
            position,
        };
        Outcome::Landed(epoch, position)
    }

    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Prepared { ask_at, .. }
            | State::Draining { ask_at, .. }
            | State::Ready { ask_at, .. }
            | State::Asking { ask_at, .. } => Some(*ask_at),
            State::Seized { retry_at, .. } | State::Landing { retry_at, .. } => *retry_at,
            _ => None,
        }
    }

    /// A deadline may have passed: asks again, exchanges again; decides nothing.
    pub fn on_time(&mut self, now: Time, out: &mut Effects) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let partition = self.partition;
        match &mut self.state {
            State::Prepared {
                link,
                epoch,
                ask_at,
            }
            | State::Draining {
                link,
                epoch,
                ask_at,
                ..
            }
            | State::Ready {
                link,
                epoch,
                ask_at,
                ..
            }
            | State::Asking {
                link,
                epoch,
                ask_at,
                ..
            } => {
                *ask_at = resend_at(now);
                out.send(
                    *link,
                    Message::Ask {
                        partition,
                        epoch: *epoch,
                    },
                );
            }
            State::Landing {
                link,
                epoch,
                position,
                ..
            } => {
                let (link, epoch, position) = (*link, *epoch, *position);
                self.remap(link, epoch, position, out);
            }
            State::Seized { .. } => self.note_seized(out),
            _ => {}
        }
    }

    fn remap(&mut self, link: LinkId, epoch: Epoch, position: Position, out: &mut Effects) {
        out.push(Effect::Shadow {
            ticket: self.ticket(Task::Remap, epoch),
            operation: ShadowOperation::Remap { epoch, position },
        });
        self.state = State::Landing {
            link,
            epoch,
            position,
            retry_at: None,
        };
    }

    fn ticket(&self, task: Task, epoch: Epoch) -> Ticket {
        Ticket {
            partition: self.partition,
            task,
            number: epoch.0,
        }
    }
}
