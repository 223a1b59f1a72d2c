//! Partitions that are ours: found, claimed, attached, shadowed, handed over.

use std::collections::BTreeMap;

use wal::lsn::{Epoch, Position};
use wal::message::Message;
use wal::{NodeId, PartitionId, PartitionName, Span, Time};

use super::links::{Link, LinkKey};
use super::partition::{Partition, Role, Shadow};
use super::{Shard, publish};
use crate::decide::placement;
use crate::effect::{Effect, Effects, EngineOperation, Note, NoticeKind};
use crate::event::{Failure, Outcome, Remains, Task, Ticket};
use crate::ship::receiver::Receiver;
use crate::ship::sender::Sender;
use crate::switch::source;
use crate::switch::target::Target;

/// Wait before a refused database is looked at again.
pub(super) const LOOK_AGAIN_AFTER: Span = Span::secs(5);
/// Wait before the coordinator is told again.
pub(super) const TELL_AGAIN_AFTER: Span = Span::secs(1);

impl Shard {
    pub(super) fn on_found(&mut self, name: PartitionName, out: &mut Effects) {
        let partition = self.known(name);
        let free = matches!(partition.role, Role::Remote | Role::Refused { .. });
        if free {
            partition.claim(out);
        }
    }

    pub(super) fn on_vanished(&mut self, id: PartitionId, reason: &str, out: &mut Effects) {
        let Some((partition, _)) = self.entry(id) else {
            return;
        };
        if matches!(
            partition.role,
            Role::Shadow(_) | Role::Retiring { .. } | Role::Remote
        ) {
            return;
        }
        // A switchover is settled with the database as it is, wherever its path leads.
        if partition
            .owner()
            .is_some_and(|owner| !owner.source.is_serving())
        {
            return;
        }
        partition.engine(Task::Attach, 0, EngineOperation::Detach, out);
        publish(
            out,
            id,
            NoticeKind::Refused,
            format!("{}: {reason}", partition.name),
        );
        partition.role = Role::Remote;
    }

    pub(super) fn on_rejected(&mut self, name: PartitionName, reason: String, out: &mut Effects) {
        let partition = self.known(name);
        if matches!(
            partition.role,
            Role::Remote | Role::Claiming | Role::Refused { .. }
        ) {
            partition.refuse(None, reason, out);
        }
    }

    pub(super) fn on_broken(&mut self, id: PartitionId, reason: String, out: &mut Effects) {
        let Some((partition, _)) = self.entry(id) else {
            return;
        };
        let Role::Owner(owner) = &partition.role else {
            return;
        };
        if !owner.source.is_serving() {
            return;
        }
        partition.engine(Task::Attach, 0, EngineOperation::Detach, out);
        publish(
            out,
            id,
            NoticeKind::Refused,
            format!("{}: {reason}", partition.name),
        );
        partition.claim(out);
    }

    pub(super) fn on_recovered(&mut self, now: Time, name: PartitionName, remains: Remains) {
        let id = name.id();
        // Knowing it takes the notes in that came before its name: they say what a landing means.
        let note = self.known(name.clone()).note;
        let target = self.landing_of(now, id, remains, note);
        let receiver = Receiver::recover(id, remains);
        let partition = self.known(name);
        let shadow = Shadow { receiver, target };
        partition.role = Role::Shadow(Box::new(shadow));
        partition.unsure = true;
        partition.await_offer(now);
        if let Some(Note::Seized { epoch, from }) = note {
            partition.ask_whether_seized(now, from, epoch);
        }
    }

    /// What the stop interrupted: a copy that was to land, or only to follow.
    fn landing_of(
        &self,
        now: Time,
        id: PartitionId,
        remains: Remains,
        note: Option<Note>,
    ) -> Target {
        // Whom it came from may not be known any more: a source says its grant again and is
        // answered.
        let nobody = LinkKey {
            peer: self.settings.node,
            lane: 0,
        };
        match (remains, note) {
            (Remains::Landing { epoch, position }, Some(Note::Prepared { from, .. })) => {
                match self.lane_link(id, from) {
                    Some(link) => Target::recover(id, link, epoch, position, now),
                    None => Target::new(id, epoch),
                }
            }
            (Remains::Landing { epoch, position }, Some(Note::Landed { epoch: landed, .. }))
                if landed == epoch =>
            {
                Target::land_again(id, nobody, epoch, position, now)
            }
            (
                Remains::At(position) | Remains::Landing { position, .. },
                Some(Note::Seized { epoch, from }),
            ) if position.epoch < epoch => {
                let link = self.lane_link(id, from).unwrap_or(nobody);
                let position = Position { epoch, ..position };
                Target::seized_before(id, link, epoch, position)
            }
            _ => Target::new(id, Epoch(0)),
        }
    }

    pub(super) fn on_noted(&mut self, id: PartitionId, note: Note) {
        match self.partitions.get_mut(&id) {
            Some(partition) => partition.take_note(note),
            // Its name comes with the database or shadow that is found.
            None => self.early_notes.entry(id).or_default().push(note),
        }
    }

    pub(super) fn on_advanced(
        &mut self,
        id: PartitionId,
        position: Position,
        bytes: u64,
        _out: &mut Effects,
    ) {
        let Some((partition, _)) = self.entry(id) else {
            return;
        };
        let Some(owner) = partition.owner_mut() else {
            return;
        };
        assert!(
            position.lsn > owner.position.lsn && position.epoch == owner.position.epoch,
            "the tail only goes forward within its epoch"
        );
        let changes = position.lsn.0 - owner.position.lsn.0;
        owner.bytes_per_change = (owner.bytes_per_change * 7 + bytes / changes) / 8;
        owner.position = position;
    }

    /// The coordinator answered a claim or a pass.
    pub(super) fn on_coordinated(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        let node = self.settings.node;
        let Some((partition, _)) = self.entry(ticket.partition) else {
            return;
        };
        match (ticket.task, result) {
            (Task::Claim, Ok(Outcome::Owned(ownership))) => {
                let newest = partition.learn(ownership);
                partition.on_claimed(node, newest, out);
            }
            (Task::Claim, Err(failure)) if partition.role == Role::Claiming => {
                let reason = format!("the coordinator was not reached: {}", failure.reason());
                partition.refuse(Some(now + LOOK_AGAIN_AFTER), reason, out);
            }
            (Task::Pass, Ok(Outcome::Owned(ownership))) => {
                partition.learn(ownership);
                partition.passing = None;
            }
            (Task::Pass, Ok(Outcome::Conflict(ownership)))
                if partition
                    .passing
                    .is_some_and(|ours| ours.may_follow(ownership)) =>
            {
                // An earlier switchover was not told yet: try from what is recorded now.
                if let Some(passing) = &mut partition.passing {
                    passing.from = ownership.owner;
                    passing.expected = ownership.epoch;
                    passing.retry_at = Some(now + TELL_AGAIN_AFTER);
                }
            }
            (Task::Pass, Ok(Outcome::Conflict(ownership))) => {
                partition.passing = None;
                let newest = partition.learn(ownership);
                self.on_superseded(ticket.partition, newest, out);
            }
            (Task::Seize, result) => {
                partition.on_seized(now, node, result, out);
                self.check_deposed(ticket.partition, out);
            }
            (Task::Pass, _) => {
                if let Some(passing) = &mut partition.passing {
                    passing.retry_at = Some(now + TELL_AGAIN_AFTER);
                }
            }
            _ => {}
        }
    }

    /// Offers the partition to every peer that should keep a shadow and has none offered.
    pub(super) fn refresh_senders(&mut self, id: PartitionId, out: &mut Effects) {
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        let Some(owner) = partition.owner() else {
            return;
        };
        let mut wanted = placement::shadows(
            id,
            self.settings.peers.keys().copied(),
            usize::from(self.settings.ship.copies),
            &partition.wishes,
        );
        let reverse = partition.ownership.and_then(|ownership| ownership.previous);
        if self.settings.switch.keep_reverse {
            wanted.extend(reverse.filter(|node| self.settings.peers.contains_key(node)));
        }
        wanted.extend(owner.source.target());
        let links: BTreeMap<NodeId, LinkKey> = wanted
            .iter()
            .filter_map(|peer| self.lane_link(id, *peer).map(|link| (*peer, link)))
            .collect();
        let up = |link: &LinkKey| self.links.get(link).is_some_and(Link::is_up);
        let live: Vec<LinkKey> = links.values().copied().filter(up).collect();
        let window = self.settings.ship.window;
        self.dirty.insert(id);
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.keep_senders(&links, out);
        partition.offer_to(&live, window, out);
    }

    pub(super) fn tend_partition(&mut self, now: Time, id: PartitionId, out: &mut Effects) {
        let window = self.settings.ship.window;
        let owner_link = self.owner_link(id);
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.ask_wanted(now, owner_link, &self.links, out);
        partition.on_time(now, window, &self.links, out);
    }
}

impl Partition {
    pub(super) fn take_note(&mut self, note: Note) {
        match note {
            Note::Shadow { node, wanted } => self.wishes.set(node, wanted),
            _ => self.note = Some(note),
        }
    }

    pub(super) fn engine(
        &self,
        task: Task,
        number: u64,
        operation: EngineOperation,
        out: &mut Effects,
    ) {
        let ticket = Ticket {
            partition: self.id(),
            task,
            number,
        };
        out.push(Effect::Engine { ticket, operation });
    }

    pub(super) fn on_owner_done(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Outcome, Failure>,
        out: &mut Effects,
    ) {
        let Some(owner) = self.owner_mut() else {
            return;
        };
        let (epoch, plain) = (Epoch(ticket.number), result.clone().map(|_| ()));
        let outcome = match ticket.task {
            Task::Reserve => {
                let reserved = result.and_then(|outcome| match outcome {
                    Outcome::Reserved(epoch) => Ok(epoch),
                    other => Err(Failure::Refused(format!("{other:?}"))),
                });
                owner.source.on_reserved(now, reserved, out)
            }
            Task::Record => owner.source.on_recorded(now, epoch, plain),
            Task::Freeze => {
                let frozen = result.and_then(|outcome| match outcome {
                    Outcome::Frozen(position) => Ok(position),
                    other => Err(Failure::Refused(format!("{other:?}"))),
                });
                owner.source.on_frozen(epoch, frozen, out)
            }
            Task::Fence => owner.source.on_fenced(now, plain, out),
            Task::Lift => owner.source.on_lifted(now, plain, out),
            Task::Ship(peer) => {
                if let Some(sender) = owner.senders.get_mut(&peer) {
                    sender.on_shipped(now, ticket.number, result, out);
                }
                source::Outcome::Going
            }
            Task::Copy(peer) => {
                if let Some(sender) = owner.senders.get_mut(&peer) {
                    sender.on_copied(now, ticket.number, result, out);
                }
                source::Outcome::Going
            }
            Task::Compare(peer) => {
                if let Some(sender) = owner.senders.get_mut(&peer) {
                    sender.on_compared(now, ticket.number, result, out);
                }
                source::Outcome::Going
            }
            _ => source::Outcome::Going,
        };
        if let source::State::Converging { plan, epoch } = *owner.source.state() {
            let to = plan.link.peer;
            self.note = Some(Note::Intent { epoch, to });
        }
        self.after_switch(outcome, out);
    }

    /// Acts on what the switch machine said.
    pub(super) fn after_switch(&mut self, outcome: source::Outcome, out: &mut Effects) {
        let id = self.id();
        match outcome {
            source::Outcome::Froze(position) => {
                if let Some(owner) = self.owner_mut() {
                    owner.position = position;
                }
            }
            source::Outcome::Aborted(reason) => {
                if let Some(owner) = self.owner_mut() {
                    owner.last_abort = Some(reason);
                }
            }
            source::Outcome::Granted => {
                publish(
                    out,
                    id,
                    NoticeKind::MoveStep,
                    format!("{}: granted", self.name),
                );
            }
            source::Outcome::Released => self.on_released(out),
            source::Outcome::Going => {}
        }
    }

    pub(super) fn on_owner_link_down(&mut self, link: LinkKey, out: &mut Effects) {
        let Some(owner) = self.owner_mut() else {
            return;
        };
        for sender in owner
            .senders
            .values_mut()
            .filter(|sender| sender.link() == link)
        {
            sender.on_link_down();
        }
        let outcome = owner.source.on_link_down(link.peer, out);
        self.after_switch(outcome, out);
    }

    pub(super) fn flush_owner(&mut self, window: u64, out: &mut Effects) {
        let name = self.name.clone();
        let Some(owner) = self.owner_mut() else {
            return;
        };
        let origin = Partition::origin(&name, owner, window);
        for (peer, sender) in &mut owner.senders {
            sender.pump(origin.of(*peer), out);
        }
        // The frozen position is finished once the link has all of it.
        if let source::State::Shipping { plan, position, .. } = owner.source.state().clone()
            && let Some(sender) = owner.senders.get(&plan.link.peer)
            && sender.is_streaming()
            && sender.sent() >= position.lsn
        {
            owner.source.shipped(out);
        }
    }

    /// Makes the senders be exactly those for `links`.
    fn keep_senders(&mut self, links: &BTreeMap<NodeId, LinkKey>, out: &mut Effects) {
        let id = self.id();
        let Some(owner) = self.owner_mut() else {
            return;
        };
        owner.senders.retain(|peer, sender| {
            let keep = links.contains_key(peer);
            if !keep {
                out.send(sender.link(), Message::Discard { partition: id });
            }
            keep
        });
        for (peer, link) in links {
            owner
                .senders
                .entry(*peer)
                .or_insert_with(|| Sender::new(id, *link));
        }
    }

    fn offer_to(&mut self, live: &[LinkKey], window: u64, out: &mut Effects) {
        let name = self.name.clone();
        let Some(owner) = self.owner_mut() else {
            return;
        };
        let origin = Partition::origin(&name, owner, window);
        for sender in owner.senders.values_mut() {
            if sender.is_waiting() && live.contains(&sender.link()) {
                sender.offer(origin.of(sender.peer()), out);
            }
        }
    }

    pub(super) fn on_time(
        &mut self,
        now: Time,
        window: u64,
        links: &BTreeMap<LinkKey, Link>,
        out: &mut Effects,
    ) {
        if let Some(passing) = &mut self.passing
            && passing.retry_at.is_some_and(|retry_at| retry_at <= now)
        {
            passing.retry_at = None;
            let passing = *passing;
            self.tell_pass(passing, out);
        }
        self.seize_again(now, out);
        match &mut self.role {
            Role::Refused {
                retry_at: Some(retry_at),
                ..
            } if *retry_at <= now => self.claim(out),
            Role::Retiring { .. } => self.retire_again(now, out),
            Role::Shadow(shadow) => shadow.target.on_time(now, out),
            Role::Owner(owner) => {
                let origin = Partition::origin(&self.name, owner, window);
                for sender in owner.senders.values_mut() {
                    let due = sender.deadline().is_some_and(|deadline| deadline <= now);
                    if due && links.get(&sender.link()).is_some_and(Link::is_up) {
                        sender.offer(origin.of(sender.peer()), out);
                    } else if due {
                        sender.on_link_down();
                    }
                }
                let outcome = owner.source.on_time(now, out);
                self.after_switch(outcome, out);
            }
            _ => {}
        }
    }
}
