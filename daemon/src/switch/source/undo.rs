//! How an attempt ends without a grant: by abort before the fence, by a proven lift after it began.

use wal::lsn::Epoch;
use wal::message::Message;
use wal::{NodeId, Time};

use super::super::resend_at;
use super::{Outcome, Plan, Source, State};
use crate::effect::{Effect, Effects, EngineOperation};
use crate::event::{Failure, LinkId, Task};
use crate::mutation::{self, Mutation};

impl Source {
    pub fn on_lifted(
        &mut self,
        now: Time,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) -> Outcome {
        let State::Lifting {
            plan,
            epoch,
            reason,
            ..
        } = self.state.clone()
        else {
            return Outcome::Going;
        };
        match result {
            Ok(()) => {
                self.thaw(out);
                self.abort(plan.link, epoch, reason, out)
            }
            Err(_) => {
                let retry_at = Some(resend_at(now));
                self.state = State::Lifting {
                    plan,
                    epoch,
                    reason,
                    retry_at,
                };
                Outcome::Going
            }
        }
    }

    /// The target can't go on.
    pub fn on_unable(&mut self, epoch: Epoch, reason: &str, out: &mut Effects) -> Outcome {
        if self.epoch() != Some(epoch) {
            return Outcome::Going;
        }
        self.undo(format!("the target gave up: {reason}"), out)
    }

    /// Stops a switchover that has not reached its fence; afterwards nothing can be stopped.
    pub fn cancel(&mut self, reason: &str, out: &mut Effects) -> Result<Outcome, &'static str> {
        match self.state {
            State::Serving => Err("no switchover is under way"),
            State::Fencing { .. } | State::Lifting { .. } => Err("the fence is being written"),
            State::Granting { .. } | State::Released { .. } => Err("it was already granted"),
            _ => Ok(self.undo(reason.to_owned(), out)),
        }
    }

    /// The link to the target is gone. Before the fence that ends the attempt; after it nothing
    /// changes: the grant is said again once the link is back.
    pub fn on_link_down(&mut self, peer: NodeId, out: &mut Effects) -> Outcome {
        if self.target() != Some(peer) {
            return Outcome::Going;
        }
        self.undo("the link to the target broke".to_owned(), out)
    }

    /// Ends the attempt if the fence was not begun.
    pub(super) fn undo(&mut self, reason: String, out: &mut Effects) -> Outcome {
        match self.state.clone() {
            State::Reserving { .. } => {
                self.state = State::Serving;
                Outcome::Aborted(reason)
            }
            State::Preparing { plan, epoch, .. }
            | State::Intending { plan, epoch }
            | State::Converging { plan, epoch } => self.abort(plan.link, epoch, reason, out),
            State::Freezing { plan, epoch, .. } | State::Shipping { plan, epoch, .. } => {
                if !mutation::is(Mutation::AbortKeepsLock) {
                    self.thaw(out);
                }
                self.abort(plan.link, epoch, reason, out)
            }
            _ => Outcome::Going,
        }
    }

    pub(super) fn abort(
        &mut self,
        link: LinkId,
        epoch: Epoch,
        reason: String,
        out: &mut Effects,
    ) -> Outcome {
        self.send(
            link,
            Message::Abort {
                partition: self.partition,
                epoch,
            },
            out,
        );
        self.state = State::Serving;
        Outcome::Aborted(reason)
    }

    pub(super) fn lift(&mut self, plan: Plan, epoch: Epoch, reason: String, out: &mut Effects) {
        out.push(Effect::Engine {
            ticket: self.ticket(Task::Lift, epoch.0),
            operation: EngineOperation::Lift,
        });
        self.state = State::Lifting {
            plan,
            epoch,
            reason,
            retry_at: None,
        };
    }

    pub(super) fn thaw(&self, out: &mut Effects) {
        let number = self.epoch().map_or(0, |epoch| epoch.0);
        out.push(Effect::Engine {
            ticket: self.ticket(Task::Freeze, number),
            operation: EngineOperation::Thaw,
        });
    }
}
