//! Deltas and pages on their way to a peer.

use std::rc::Rc;

use foreshadow::effect::Class;
use foreshadow::event::{Cargo, LinkId, Outcome};
use wal::{Digest, Lsn, PartitionId};

use super::disk::{Delta, Disk};
use super::network::{Parcel, Payload};
use super::shell::{Ending, gone};
use super::world::{Place, World};

/// Deltas handed to a link at once.
const DELTAS_PER_SHIP: u64 = 8;

impl World {
    pub fn ship(
        &mut self,
        place: Place,
        id: PartitionId,
        link: LinkId,
        class: Class,
        from: Lsn,
        digest: Option<Digest>,
    ) -> Ending {
        let limit = self.random.between(1, DELTAS_PER_SHIP) as usize;
        let Disk { live, log, .. } = self.disk(place, id);
        let tail = live.as_ref().and_then(|live| live.tail).ok_or_else(gone)?;
        if let Some(digest) = digest {
            let own = (tail.position.lsn == from).then_some(tail.position);
            let known = own.or_else(|| log.position_at(from));
            let same = known.is_some_and(|known| known.digest == digest);
            return same
                .then_some(Outcome::Shipped { to: from, bytes: 0 })
                .ok_or_else(gone);
        }
        let place_after = log.place_after(from).ok_or_else(gone)?;
        let deltas: Vec<Delta> = log
            .deltas
            .iter()
            .skip(place_after)
            .take(limit)
            .cloned()
            .collect();
        let (mut to, mut bytes) = (from, 0);
        for delta in deltas {
            let cargo = Cargo::Delta {
                from: delta.from,
                to: delta.to,
            };
            let len = 40 + 10 * delta.writes.len() as u64;
            let payload = Rc::new(Payload::Writes(delta.writes));
            if !self.send(place, link, class, Parcel::Frame(id, cargo, payload)) {
                break;
            }
            (to, bytes) = (delta.to.lsn, bytes + len);
        }
        Ok(Outcome::Shipped { to, bytes })
    }

    pub fn copy_now(&mut self, place: Place, id: PartitionId, link: LinkId, last: bool) -> Ending {
        let left = self.random.below(3);
        let live = self.disk(place, id).live.as_ref().ok_or_else(gone)?;
        let tail = live.tail.ok_or_else(gone)?;
        let (cargo, payload) = if last {
            let content = live.content.prefix(tail.consumed);
            (
                Cargo::LastPages { at: tail.position },
                Payload::Whole(content),
            )
        } else {
            (Cargo::Pages, Payload::Pages)
        };
        let class = Class::Bulk;
        if !self.send(
            place,
            link,
            class,
            Parcel::Frame(id, cargo, Rc::new(payload)),
        ) {
            return Err(gone());
        }
        Ok(match last {
            true => Outcome::CopiedAll(tail.position),
            false => Outcome::Copied { pages_left: left },
        })
    }
}
