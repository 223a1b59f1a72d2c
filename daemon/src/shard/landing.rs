//! A shadow becomes the live database: by its owner's grant, or without its word by takeover.

use wal::lsn::Epoch;
use wal::{NodeId, Position, Span, Time};

use super::links::LinkKey;
use super::owner::TELL_AGAIN_AFTER;
use super::partition::{Partition, Role, Seizing};
use super::{Settings, publish};
use crate::effect::{Effect, Effects, EngineOperation, Note, NoticeKind, Request};
use crate::event::{Failure, Outcome, Ownership, Task, Ticket};
use crate::switch::target;

/// Wait for changes that are being applied when a takeover is asked for.
const SETTLES_IN: Span = Span::millis(5);

impl Partition {
    /// Asks the coordinator to make this node the owner; false while there is no copy to serve.
    pub(super) fn seize(&mut self, now: Time, held: Ownership, out: &mut Effects) -> bool {
        let Role::Shadow(shadow) = &mut self.role else {
            return false;
        };
        if !shadow.receiver.hold() {
            return false;
        }
        self.seizing = Some(Seizing {
            from: held.owner,
            expected: held.epoch,
            retry_at: Some(now),
        });
        self.seize_again(now, out);
        true
    }

    /// A takeover was noted before a restart: whether it still holds is asked, and the copy is kept
    /// as it is until then.
    pub(super) fn ask_whether_seized(&mut self, now: Time, from: NodeId, epoch: Epoch) {
        let Role::Shadow(shadow) = &mut self.role else {
            return;
        };
        if shadow.target.seized().is_some() && shadow.receiver.hold() {
            self.seizing = Some(Seizing {
                from,
                expected: epoch,
                retry_at: Some(now),
            });
        }
    }

    fn tell_seize(&self, seizing: Seizing, out: &mut Effects) {
        let Seizing { from, expected, .. } = seizing;
        let ticket = Ticket {
            partition: self.id(),
            task: Task::Seize,
            number: expected.0,
        };
        let epoch = expected;
        let request = Request::Seize { from, epoch };
        out.push(Effect::Coordinate { ticket, request });
    }

    /// The coordinator's answer. One that is lost may hide a yes: it is asked again.
    pub(super) fn on_seized(
        &mut self,
        now: Time,
        node: NodeId,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        let Some(seizing) = &mut self.seizing else {
            return;
        };
        let text = match result {
            Err(Failure::Retry(_)) => {
                seizing.retry_at = Some(now + TELL_AGAIN_AFTER);
                return;
            }
            Ok(Outcome::Owned(ownership) | Outcome::Conflict(ownership)) => {
                if self.learn(ownership).owner == node {
                    self.seizing = None;
                    self.take_over_if_given(now, out);
                    return self.let_go_unless_taken(out);
                }
                format!("node {} owns it", ownership.owner)
            }
            Ok(other) => format!("{other:?}"),
            Err(failure) => failure.reason().to_owned(),
        };
        self.leave_it(now, &text, out);
    }

    /// It was asked for, or is on its way to serving: nobody may change the copy.
    pub(super) fn is_being_taken_over(&self) -> bool {
        let target = match &self.role {
            Role::Shadow(shadow) => &shadow.target,
            _ => return self.seizing.is_some(),
        };
        self.seizing.is_some() || target.seized().is_some() || target.is_landing()
    }

    /// This node owns it, and what is here is not what it owns: the copy is not kept for that.
    fn let_go_unless_taken(&mut self, out: &mut Effects) {
        if let Role::Shadow(shadow) = &mut self.role
            && self.seizing.is_none()
            && shadow.target.seized().is_none()
            && !shadow.target.is_landing()
        {
            shadow.receiver.let_go(out);
        }
    }

    /// It is not taken over: the copy follows its owner again.
    fn leave_it(&mut self, now: Time, why: &str, out: &mut Effects) {
        self.seizing = None;
        if let Role::Shadow(shadow) = &mut self.role {
            let seized = shadow.target.seized().is_some();
            shadow.target.give_up_seized(out);
            shadow.receiver.let_go(out);
            // What its owner said meanwhile went unheard.
            self.await_offer(now);
            self.hear_again(seized, now);
        }
        let text = format!("{}: not taken over: {why}", self.name);
        publish(out, self.id(), NoticeKind::Refused, text);
    }

    pub(super) fn seize_again(&mut self, now: Time, out: &mut Effects) {
        let due = |seizing: &Seizing| seizing.retry_at.is_some_and(|retry_at| retry_at <= now);
        let Some(mut seizing) = self.seizing.filter(due) else {
            return;
        };
        if let Role::Shadow(shadow) = &self.role {
            // Granted meanwhile.
            if shadow.target.is_landing() {
                self.seizing = None;
                return;
            }
            // What was on its way in when the takeover was asked for did not arrive.
            if shadow.receiver.applied().is_none() {
                return self.leave_it(now, "a change failed at this copy", out);
            }
            if !shadow.receiver.is_settled() {
                seizing.retry_at = Some(now + SETTLES_IN);
                self.seizing = Some(seizing);
                return;
            }
        }
        seizing.retry_at = None;
        self.seizing = Some(seizing);
        self.tell_seize(seizing, out);
    }

    /// The coordinator says that this node owns it, and a shadow is what is here: a takeover whose
    /// answer was lost, or came before a crash. A copy of that epoch or later is none of those: it
    /// was handed over by this node, and the coordinator has not heard of that yet.
    pub(super) fn take_over_if_given(&mut self, now: Time, out: &mut Effects) {
        let Some(ownership) = self.ownership else {
            return;
        };
        let ours_since = match self.note {
            Some(Note::Released { epoch, .. } | Note::Landed { epoch, .. }) => epoch,
            _ => Epoch(0),
        };
        let Role::Shadow(shadow) = &mut self.role else {
            return;
        };
        let older = |applied: Position| applied.epoch < ownership.epoch;
        if shadow.receiver.applied().is_some_and(older)
            && ours_since < ownership.epoch
            && !shadow.target.is_landing()
            && shadow.receiver.hold()
        {
            if shadow.receiver.is_settled() {
                self.seizing = None;
                return self.take_over(ownership, out);
            }
            self.seizing = Some(Seizing {
                from: ownership.previous.unwrap_or(ownership.owner),
                expected: ownership.epoch,
                retry_at: Some(now + SETTLES_IN),
            });
        }
    }

    /// The coordinator gave the partition to this node without its owner's word.
    fn take_over(&mut self, ownership: Ownership, out: &mut Effects) {
        let Role::Shadow(shadow) = &mut self.role else {
            return;
        };
        let Some(applied) = shadow.receiver.applied() else {
            return;
        };
        let from = ownership.previous.unwrap_or(ownership.owner);
        let link = LinkKey {
            peer: from,
            lane: 0,
        };
        let position = Position {
            epoch: ownership.epoch,
            ..applied
        };
        shadow.target.seize(link, ownership.epoch, position, out);
    }

    /// The coordinator still names an owner of before: a landing that began before this node knew
    /// whom the record names was not told.
    pub(super) fn tell_landing(&mut self, node: NodeId, told: Ownership, out: &mut Effects) {
        let ours = match &self.role {
            Role::Owner(owner) => owner.position.epoch,
            Role::Attaching { epoch } => *epoch,
            _ => return,
        };
        if told.epoch < ours && self.passing.is_none() {
            self.pass(told, node, ours, out);
        }
    }

    /// The coordinator gave a newer epoch than the one that this shadow is to land under to another
    /// node: that landing can't count any more, and its source may never be able to say so.
    pub(super) fn give_up_landing(&mut self, now: Time, newest: Epoch, out: &mut Effects) {
        let Role::Shadow(shadow) = &mut self.role else {
            return;
        };
        if let Some(epoch) = shadow.target.awaited().filter(|epoch| *epoch < newest) {
            shadow.target.on_abort(epoch, out);
            self.hear_again(true, now);
        } else if shadow.target.seized().is_some_and(|epoch| epoch < newest) {
            self.leave_it(now, "another node was given it since", out);
        }
    }

    /// A delta is durable at this shadow, or failed. What a landing made durable in the database
    /// itself needs its journal no more: the failure of that says nothing.
    pub(super) fn on_accepted(
        &mut self,
        number: u64,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) -> target::Outcome {
        let Role::Shadow(shadow) = &mut self.role else {
            return target::Outcome::Going;
        };
        let result = match (result, shadow.target.proven()) {
            (Err(_), Some(position)) => Ok(Outcome::Durable(position)),
            (result, _) => result,
        };
        let mut outcome = target::Outcome::Going;
        if let Err(failure) = &result {
            outcome = shadow.target.on_copy_broken(failure.reason(), out);
        }
        shadow.receiver.on_accepted(number, result, out);
        outcome
    }

    pub(super) fn after_landing(
        &mut self,
        outcome: target::Outcome,
        settings: &Settings,
        out: &mut Effects,
    ) {
        let target::Outcome::Landed(epoch, position) = outcome else {
            return;
        };
        self.note = Some(Note::Landed { epoch, position });
        // Granted and taken over at once: it is served under the newer epoch.
        let ours = self.ownership.filter(|held| held.owner == settings.node);
        let epoch = ours.map_or(epoch, |ours| ours.epoch.max(epoch));
        let others = |held: &Ownership| held.owner != settings.node;
        // Another node was given it since: as soon as this copy is attached it is put away.
        let is_over = self
            .ownership
            .filter(others)
            .is_some_and(|held| held.epoch > epoch);
        if !is_over {
            self.own(settings.node, epoch, out);
        }
        self.engine(
            Task::Attach,
            epoch.0,
            EngineOperation::Attach { epoch },
            out,
        );
        self.role = Role::Attaching { epoch };
        publish(
            out,
            self.id(),
            NoticeKind::Served,
            format!("{} at {position}", self.name),
        );
    }

    /// This node serves it under `epoch`; the coordinator has to know, unless it does.
    fn own(&mut self, node: NodeId, epoch: Epoch, out: &mut Effects) {
        let held = self.ownership.filter(|held| held.owner != node);
        // After a takeover the coordinator's record already names this node and whom it took over.
        let known = self.ownership.and_then(|ownership| ownership.previous);
        self.ownership = Some(Ownership {
            owner: node,
            epoch,
            previous: held.map(|held| held.owner).or(known),
            formerly: self.ownership.is_some_and(|ownership| ownership.formerly),
            reserved: epoch,
        });
        out.push(Effect::Route {
            partition: self.id(),
        });
        if let Some(held) = held {
            self.pass(held, node, epoch, out);
        }
    }
}
