//! The source's half of a switchover: from serving to released, or back to serving untouched.
//!
//! Until `Fencing` an abort is invisible: the write lock is let go and the database is as it was.
//! From `Fencing` on the machine never returns to `Serving` by a timeout, only by a proven `Lift`.
//! Invariants: a grant is sent only after the fence is durable (I1); the fence is written only
//! after the target proved that it holds the frozen position (I2); an epoch that was not granted
//! when its attempt ended never will be, so `NotGranted` is a final answer (I4).

mod state;
mod undo;

use wal::lsn::{Epoch, Position};
use wal::message::{Message, Verdict};
use wal::{NodeId, PartitionId, Span, Time};

pub use state::{Outcome, Plan, State};

use super::{Settings, resend_at};
use crate::effect::{Effect, Effects, EngineOperation, Note, Request};
use crate::event::{Failure, LinkId, Task, Ticket};
use crate::mutation::{self, Mutation};

/// The source's half of a switchover of one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    partition: PartitionId,
    settings: Settings,
    state: State,
    /// The coordinator's answer is on its way; a switchover that was cancelled may have asked.
    reserves: bool,
}

impl Source {
    pub fn new(partition: PartitionId, settings: Settings) -> Source {
        Source {
            partition,
            settings,
            state: State::Serving,
            reserves: false,
        }
    }

    /// The machine after a restart. Intent and fence together mean granted; neither alone does.
    pub fn recover(
        partition: PartitionId,
        settings: Settings,
        intent: Option<(Epoch, LinkId)>,
        fenced: bool,
        now: Time,
    ) -> Source {
        let state = match intent {
            Some((epoch, link)) if fenced => State::Granting {
                link,
                epoch,
                served: false,
                retry_at: Some(now),
            },
            _ => State::Serving,
        };
        Source {
            partition,
            settings,
            state,
            reserves: false,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    /// Whether writers may be locked out right now.
    pub fn is_paused(&self) -> bool {
        matches!(
            self.state,
            State::Freezing { .. }
                | State::Shipping { .. }
                | State::Fencing { .. }
                | State::Lifting { .. }
        )
    }

    /// The peer of the switchover under way.
    pub fn target(&self) -> Option<NodeId> {
        match &self.state {
            State::Serving => None,
            State::Granting { link, .. } => Some(link.peer),
            State::Released { to, .. } => Some(*to),
            State::Reserving { plan }
            | State::Preparing { plan, .. }
            | State::Intending { plan, .. }
            | State::Converging { plan, .. }
            | State::Freezing { plan, .. }
            | State::Shipping { plan, .. }
            | State::Fencing { plan, .. }
            | State::Lifting { plan, .. } => Some(plan.link.peer),
        }
    }

    pub fn epoch(&self) -> Option<Epoch> {
        match &self.state {
            State::Serving | State::Reserving { .. } => None,
            State::Preparing { epoch, .. }
            | State::Intending { epoch, .. }
            | State::Converging { epoch, .. }
            | State::Freezing { epoch, .. }
            | State::Shipping { epoch, .. }
            | State::Fencing { epoch, .. }
            | State::Lifting { epoch, .. }
            | State::Granting { epoch, .. }
            | State::Released { epoch, .. } => Some(*epoch),
        }
    }

    /// Begins a switchover. The caller made sure that the target's shadow streams.
    pub fn start(&mut self, plan: Plan, out: &mut Effects) {
        assert!(self.is_serving(), "one switchover at a time");
        // One at a time: what piles up before a slow coordinator holds up what matters more.
        if !self.reserves {
            self.reserves = true;
            out.push(Effect::Coordinate {
                ticket: self.ticket(Task::Reserve, 0),
                request: Request::Reserve { to: plan.link.peer },
            });
        }
        self.state = State::Reserving { plan };
    }

    pub fn on_reserved(
        &mut self,
        now: Time,
        result: Result<Epoch, Failure>,
        out: &mut Effects,
    ) -> Outcome {
        self.reserves = false;
        let State::Reserving { plan } = self.state else {
            return Outcome::Going;
        };
        match result {
            Ok(epoch) => {
                self.send(
                    plan.link,
                    Message::Prepare {
                        partition: self.partition,
                        epoch,
                    },
                    out,
                );
                self.state = State::Preparing {
                    plan,
                    epoch,
                    resend_at: resend_at(now),
                };
                Outcome::Going
            }
            Err(failure) => {
                self.state = State::Serving;
                Outcome::Aborted(format!("no epoch was reserved: {}", failure.reason()))
            }
        }
    }

    pub fn on_prepared(&mut self, epoch: Epoch, out: &mut Effects) -> Outcome {
        let State::Preparing {
            plan, epoch: ours, ..
        } = self.state
        else {
            return Outcome::Going;
        };
        if epoch == ours && mutation::is(Mutation::FreezeUnnoted) {
            self.state = State::Converging { plan, epoch };
        } else if epoch == ours {
            out.push(Effect::Record {
                ticket: self.ticket(Task::Record, epoch.0),
                note: Note::Intent {
                    epoch,
                    to: plan.link.peer,
                },
            });
            self.state = State::Intending { plan, epoch };
        }
        Outcome::Going
    }

    pub fn on_recorded(&mut self, now: Time, epoch: Epoch, result: Result<(), Failure>) -> Outcome {
        if self.epoch() != Some(epoch) {
            return Outcome::Going;
        }
        match (&mut self.state, result) {
            (State::Intending { plan, epoch }, Ok(())) => {
                let (plan, epoch) = (*plan, *epoch);
                self.state = State::Converging { plan, epoch };
                Outcome::Going
            }
            (State::Intending { .. }, Err(failure)) => {
                self.state = State::Serving;
                let reason = failure.reason();
                Outcome::Aborted(format!("the intent could not be recorded: {reason}"))
            }
            (State::Granting { link, served, .. }, Ok(())) if *served => {
                let to = link.peer;
                self.state = State::Released { to, epoch };
                Outcome::Released
            }
            (State::Granting { retry_at, .. }, Err(_)) => {
                *retry_at = Some(resend_at(now));
                Outcome::Going
            }
            _ => Outcome::Going,
        }
    }

    /// Freezes when the estimated pause fits; gives up when it never did.
    pub fn converge(&mut self, now: Time, estimate: Span, out: &mut Effects) -> Outcome {
        let State::Converging { plan, epoch } = self.state else {
            return Outcome::Going;
        };
        if estimate <= self.settings.pause_max {
            out.push(Effect::Engine {
                ticket: self.ticket(Task::Freeze, epoch.0),
                operation: EngineOperation::Freeze {
                    budget: self.settings.pause_timeout,
                },
            });
            let abort_at = now + self.settings.pause_timeout;
            self.state = State::Freezing {
                plan,
                epoch,
                abort_at,
            };
            return Outcome::Going;
        }
        if now >= plan.give_up_at {
            let reason = format!(
                "the estimated pause of {:.1} ms stayed above max_pause of {:.1} ms",
                estimate.as_millis_f64(),
                self.settings.pause_max.as_millis_f64()
            );
            return self.abort(plan.link, epoch, reason, out);
        }
        Outcome::Going
    }

    pub fn on_frozen(
        &mut self,
        epoch: Epoch,
        result: Result<Position, Failure>,
        out: &mut Effects,
    ) -> Outcome {
        let State::Freezing {
            plan,
            epoch: ours,
            abort_at,
        } = self.state
        else {
            return Outcome::Going;
        };
        if epoch != ours {
            return Outcome::Going;
        }
        match result {
            Ok(position) => {
                self.state = State::Shipping {
                    plan,
                    epoch,
                    position,
                    abort_at,
                    finished: false,
                };
                Outcome::Froze(position)
            }
            Err(failure) => {
                let reason = format!("the write lock was not had: {}", failure.reason());
                self.thaw(out);
                self.abort(plan.link, epoch, reason, out)
            }
        }
    }

    /// Everything up to the frozen position was handed to the link: say so, once.
    pub fn shipped(&mut self, out: &mut Effects) {
        let partition = self.partition;
        if let State::Shipping {
            plan,
            epoch,
            position,
            finished,
            ..
        } = &mut self.state
            && !std::mem::replace(finished, true)
        {
            let (epoch, position) = (*epoch, *position);
            out.send_urgent(
                plan.link,
                Message::Finish {
                    partition,
                    epoch,
                    position,
                },
            );
        }
    }

    pub fn on_ready(&mut self, epoch: Epoch, position: Position, out: &mut Effects) -> Outcome {
        let State::Shipping {
            plan,
            epoch: ours,
            position: frozen,
            ..
        } = self.state
        else {
            return Outcome::Going;
        };
        if epoch != ours {
            return Outcome::Going;
        }
        if position != frozen && !mutation::is(Mutation::PositionUnproven) {
            let reason = format!("the target proved {position} where the source froze at {frozen}");
            self.thaw(out);
            return self.abort(plan.link, epoch, reason, out);
        }
        out.push(Effect::Engine {
            ticket: self.ticket(Task::Fence, epoch.0),
            operation: EngineOperation::Fence,
        });
        if mutation::is(Mutation::GrantBeforeFence) {
            let partition = self.partition;
            out.send_urgent(plan.link, Message::Grant { partition, epoch });
        }
        self.state = State::Fencing {
            plan,
            epoch,
            position,
        };
        Outcome::Going
    }

    pub fn on_fenced(
        &mut self,
        now: Time,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) -> Outcome {
        let State::Fencing { plan, epoch, .. } = self.state else {
            return Outcome::Going;
        };
        match result {
            Ok(()) => {
                let partition = self.partition;
                out.send_urgent(plan.link, Message::Grant { partition, epoch });
                self.state = State::Granting {
                    link: plan.link,
                    epoch,
                    served: false,
                    retry_at: Some(resend_at(now)),
                };
                Outcome::Granted
            }
            Err(_) if mutation::is(Mutation::FenceNotLifted) => {
                self.state = State::Serving;
                Outcome::Aborted("the fence could not be written".to_owned())
            }
            Err(failure) => {
                let reason = format!("the fence could not be written: {}", failure.reason());
                self.lift(plan, epoch, reason, out);
                Outcome::Going
            }
        }
    }

    /// The target serves. The partition is released once that is noted durably: a node that gave
    /// its old copy away without the note could not answer a target that asks after a crash.
    pub fn on_serving(&mut self, epoch: Epoch, out: &mut Effects) {
        let State::Granting {
            link,
            epoch: ours,
            served: false,
            ..
        } = self.state
        else {
            return;
        };
        if epoch == ours {
            self.release(link, epoch, out);
        }
    }

    fn release(&mut self, link: LinkId, epoch: Epoch, out: &mut Effects) {
        out.push(Effect::Record {
            ticket: self.ticket(Task::Record, epoch.0),
            note: Note::Released {
                epoch,
                to: link.peer,
            },
        });
        self.state = State::Granting {
            link,
            epoch,
            served: true,
            retry_at: None,
        };
    }

    /// What became of `epoch`, for a target that asks.
    pub fn verdict(&self, epoch: Epoch) -> Verdict {
        match &self.state {
            State::Granting { epoch: ours, .. } | State::Released { epoch: ours, .. }
                if *ours == epoch =>
            {
                Verdict::Granted
            }
            // An epoch in progress, or one that may still be reserved, is not decided yet.
            _ if self.epoch() == Some(epoch) => Verdict::Undecided,
            _ => Verdict::NotGranted,
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Preparing {
                plan, resend_at, ..
            } => Some((*resend_at).min(plan.give_up_at)),
            State::Converging { plan, .. } => Some(plan.give_up_at),
            State::Freezing { abort_at, .. } | State::Shipping { abort_at, .. } => Some(*abort_at),
            State::Lifting { retry_at, .. } | State::Granting { retry_at, .. } => *retry_at,
            _ => None,
        }
    }

    /// A deadline may have passed. `Converging` is decided by [`Source::converge`].
    pub fn on_time(&mut self, now: Time, out: &mut Effects) -> Outcome {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Outcome::Going;
        }
        let partition = self.partition;
        match self.state.clone() {
            State::Preparing { plan, .. } if now >= plan.give_up_at => {
                self.undo("the target did not get ready in time".to_owned(), out)
            }
            State::Preparing { plan, epoch, .. } => {
                self.send(plan.link, Message::Prepare { partition, epoch }, out);
                self.state = State::Preparing {
                    plan,
                    epoch,
                    resend_at: resend_at(now),
                };
                Outcome::Going
            }
            State::Freezing { .. } | State::Shipping { .. } => self.undo(
                "pause_timeout passed before the target was ready".to_owned(),
                out,
            ),
            State::Lifting {
                plan,
                epoch,
                reason,
                ..
            } => {
                self.lift(plan, epoch, reason, out);
                Outcome::Going
            }
            State::Granting {
                link,
                epoch,
                served: true,
                ..
            } => {
                self.release(link, epoch, out);
                Outcome::Going
            }
            State::Granting { link, epoch, .. } => {
                out.send_urgent(link, Message::Grant { partition, epoch });
                self.state = State::Granting {
                    link,
                    epoch,
                    served: false,
                    retry_at: Some(resend_at(now)),
                };
                Outcome::Going
            }
            _ => Outcome::Going,
        }
    }

    fn send(&self, link: LinkId, message: Message, out: &mut Effects) {
        out.send(link, message);
    }

    fn ticket(&self, task: Task, number: u64) -> Ticket {
        Ticket {
            partition: self.partition,
            task,
            number,
        }
    }
}
