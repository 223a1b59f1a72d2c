//! Shadows that nobody seems to want: their owner is asked, never guessed about.
//!
//! A move leaves shadows behind that the new owner may not want, and a crash forgets wishes. A
//! shadow that has heard no offer for a while asks its owner whenever the link to it is up; only
//! the owner's word discards it, because a copy is dear and an owner that is still reading its
//! database is slow to offer.

use std::collections::BTreeMap;

use wal::message::Message;
use wal::{Span, Time};

use super::Shard;
use super::links::{Link, LinkKey};
use super::partition::{Partition, Role};
use crate::effect::Effects;

/// An owner offers as soon as it can; a shadow asks when it heard nothing for so long.
const ASK_AFTER: Span = Span::secs(2);

impl Partition {
    /// The owner changed or came back: an offer should follow.
    pub(super) fn await_offer(&mut self, now: Time) {
        if matches!(self.role, Role::Shadow(_)) {
            self.ask_wanted_at = Some(now + ASK_AFTER);
        }
    }

    /// A landing may have been given up: what the owner said meanwhile went unheard.
    pub(super) fn hear_again(&mut self, was_landing: bool, now: Time) {
        let Role::Shadow(shadow) = &mut self.role else {
            return;
        };
        if was_landing && shadow.target.is_following() {
            shadow.receiver.on_abandon();
            self.await_offer(now);
        }
    }

    /// Asks the owner whether this shadow is still wanted.
    pub(super) fn ask_wanted(
        &mut self,
        now: Time,
        link: Option<LinkKey>,
        links: &BTreeMap<LinkKey, Link>,
        out: &mut Effects,
    ) {
        let Some(due) = self.ask_wanted_at else {
            return;
        };
        if due > now {
            return;
        }
        let Role::Shadow(shadow) = &self.role else {
            self.ask_wanted_at = None;
            return;
        };
        self.ask_wanted_at = Some(now + ASK_AFTER);
        let up = link.filter(|link| links.get(link).is_some_and(Link::is_up));
        if let (Some(link), true) = (up, shadow.target.is_following()) {
            out.send(
                link,
                Message::Wanted {
                    partition: self.id(),
                },
            );
        }
    }

    /// A peer asks whether its shadow is wanted.
    pub(super) fn on_wanted(&mut self, link: LinkKey, out: &mut Effects) {
        if let Some(owner) = self.owner()
            && !owner.senders.contains_key(&link.peer)
        {
            out.send(
                link,
                Message::Discard {
                    partition: self.id(),
                },
            );
        }
    }
}

impl Shard {
    /// The link to the owner of a partition.
    pub(super) fn owner_link(&self, id: wal::PartitionId) -> Option<LinkKey> {
        let owner = self.partitions.get(&id)?.ownership?.owner;
        self.lane_link(id, owner)
    }
}
