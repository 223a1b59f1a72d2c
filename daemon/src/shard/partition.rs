//! A partition as this shard sees it: one role at a time.
//!
//! ```text
//! Remote -> Claiming -> Attaching -> Owner -> Retiring -> Shadow
//!    \-> Shadow -> Landed -> Attaching -> Owner
//! ```

use std::collections::BTreeMap;

use wal::lsn::{Epoch, Lsn, Position};
use wal::{NodeId, PartitionId, PartitionName, Time};

use super::Settings;
use super::links::LinkKey;
use crate::decide::placement::Wishes;
use crate::effect::{Effects, Note};
use crate::event::{Attachment, Cargo, Failure, FrameKey, Outcome, Ownership, Ticket};
use crate::ship::receiver::Receiver;
use crate::ship::sender::{Origin, Sender};
use crate::switch::source::Source;
use crate::switch::target::Target;

/// The live database is here and its writers are ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    pub attachment: Attachment,
    pub position: Position,
    /// Mean size of a change on the wire, for estimates.
    pub bytes_per_change: u64,
    pub senders: BTreeMap<NodeId, Sender>,
    pub source: Source,
    /// Why the last switchover was undone, until its move takes note.
    pub last_abort: Option<String>,
}

/// A copy of a database that is live elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shadow {
    pub receiver: Receiver,
    pub target: Target,
}

/// What this node is to a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Known by name only.
    Remote,
    /// A database was found; the coordinator is asked whether it is ours.
    Claiming,
    Attaching {
        epoch: Epoch,
    },
    Owner(Box<Owner>),
    Shadow(Box<Shadow>),
    /// Handed over: the old copy is becoming a shadow of the new owner.
    Retiring {
        to: NodeId,
        position: Position,
        /// When to try again; `None` while it is under way.
        retry_at: Option<Time>,
    },
    Refused {
        reason: String,
        retry_at: Option<Time>,
    },
}

/// A partition as this shard sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    pub name: PartitionName,
    pub role: Role,
    pub ownership: Option<Ownership>,
    /// The newest line of the switch journal.
    pub note: Option<Note>,
    pub wishes: Wishes,
    /// A landing whose pass the coordinator has not confirmed.
    pub passing: Option<Passing>,
    /// A takeover that the coordinator has not answered yet.
    pub seizing: Option<Seizing>,
    /// A shadow that was found at the start, until the coordinator says who owns it: it may be this
    /// node, by a takeover whose answer it did not live to hear.
    pub unsure: bool,
    /// When a shadow asks its owner whether it is wanted; `None` once an offer came.
    pub ask_wanted_at: Option<Time>,
}

/// The coordinator is asked to make this node the owner, until it says yes or no: an answer that is
/// lost says neither, and the copy is kept as it is meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seizing {
    pub from: NodeId,
    pub expected: Epoch,
    /// `None` while an answer is awaited.
    pub retry_at: Option<Time>,
}

/// The coordinator has to learn that the switchover happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passing {
    pub from: NodeId,
    pub expected: Epoch,
    pub to: NodeId,
    pub epoch: Epoch,
    /// `None` while an answer is awaited.
    pub retry_at: Option<Time>,
}

impl Passing {
    /// Whether the record may still come to name this landing: it names the owner that is expected,
    /// or one of before. Anything newer has superseded it.
    pub(super) fn may_follow(&self, record: Ownership) -> bool {
        let expected = record.owner == self.from && record.epoch == self.expected;
        record.epoch < self.epoch && (expected || record.epoch < self.expected)
    }
}

impl Partition {
    pub fn new(name: PartitionName) -> Partition {
        Partition {
            name,
            role: Role::Remote,
            ownership: None,
            note: None,
            wishes: Wishes::default(),
            passing: None,
            seizing: None,
            unsure: false,
            ask_wanted_at: None,
        }
    }

    pub fn id(&self) -> PartitionId {
        self.name.id()
    }

    pub fn owner(&self) -> Option<&Owner> {
        match &self.role {
            Role::Owner(owner) => Some(owner),
            _ => None,
        }
    }

    pub(super) fn owner_mut(&mut self) -> Option<&mut Owner> {
        match &mut self.role {
            Role::Owner(owner) => Some(owner),
            _ => None,
        }
    }

    pub(super) fn on_frame(
        &mut self,
        link: LinkKey,
        frame: FrameKey,
        cargo: Cargo,
        out: &mut Effects,
    ) {
        if let Role::Shadow(shadow) = &mut self.role {
            shadow.receiver.on_frame(link, frame, cargo, out);
            if let Some(applied) = shadow.receiver.applied() {
                shadow.target.on_applied(applied, out);
            }
        }
    }

    pub(super) fn on_done(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Outcome, Failure>,
        settings: &Settings,
        out: &mut Effects,
    ) {
        match self.role {
            Role::Owner(_) => self.on_owner_done(now, ticket, result, out),
            Role::Shadow(_) => self.on_shadow_done(now, ticket, result, settings, out),
            Role::Attaching { epoch } => {
                self.on_attached(now, epoch, ticket, result, settings, out);
            }
            Role::Retiring { .. } => self.on_retired(now, ticket, result, out),
            Role::Remote | Role::Claiming | Role::Refused { .. } => {}
        }
    }

    pub(super) fn on_link_down(&mut self, link: LinkKey, out: &mut Effects) {
        match &mut self.role {
            Role::Owner(_) => self.on_owner_link_down(link, out),
            Role::Shadow(shadow) => shadow.receiver.on_link_down(link),
            _ => {}
        }
    }

    pub(super) fn flush(&mut self, window: u64, out: &mut Effects) {
        match &mut self.role {
            Role::Owner(_) => self.flush_owner(window, out),
            Role::Shadow(shadow) => shadow.receiver.flush(out),
            _ => {}
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let role = match &self.role {
            Role::Owner(owner) => {
                let senders = owner.senders.values().filter_map(Sender::deadline);
                senders.chain(owner.source.deadline()).min()
            }
            Role::Shadow(shadow) => shadow.target.deadline(),
            Role::Refused { retry_at, .. } | Role::Retiring { retry_at, .. } => *retry_at,
            _ => None,
        };
        let passing = self.passing.and_then(|passing| passing.retry_at);
        let seizing = self.seizing.and_then(|seizing| seizing.retry_at);
        role.into_iter()
            .chain(passing)
            .chain(seizing)
            .chain(self.ask_wanted_at)
            .min()
    }

    /// What a sender has to know.
    pub(super) fn origin(name: &PartitionName, owner: &Owner, window: u64) -> OriginParts {
        let urgent = owner
            .source
            .is_paused()
            .then(|| owner.source.target())
            .flatten();
        OriginParts {
            name: name.clone(),
            owner: owner.attachment,
            at: owner.position,
            window,
            urgent,
        }
    }
}

/// An [`Origin`] that does not borrow the senders' owner.
pub(super) struct OriginParts {
    name: PartitionName,
    owner: Attachment,
    at: Position,
    window: u64,
    urgent: Option<NodeId>,
}

impl OriginParts {
    pub(super) fn of(&self, peer: NodeId) -> Origin<'_> {
        Origin {
            name: &self.name,
            position: self.at,
            page_size: self.owner.page_size,
            attributes: self.owner.attributes,
            window: self.window,
            urgent: self.urgent == Some(peer),
        }
    }
}

impl Owner {
    pub(super) fn new(attachment: Attachment, source: Source) -> Owner {
        Owner {
            attachment,
            position: attachment.position,
            bytes_per_change: 256,
            senders: BTreeMap::new(),
            source,
            last_abort: None,
        }
    }

    /// Bytes that `peer` has not acknowledged, those not yet shipped estimated by their mean size.
    pub fn bytes_left(&self, peer: NodeId) -> u64 {
        let Some(sender) = self.senders.get(&peer) else {
            return 0;
        };
        let sent = sender.sent().max(Lsn(0));
        let unsent = self.position.lsn.0.saturating_sub(sent.0);
        sender.bytes_in_flight() + unsent.saturating_mul(self.bytes_per_change)
    }
}
