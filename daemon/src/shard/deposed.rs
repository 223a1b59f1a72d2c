//! News of owners: what the coordinator says, and what a node does that was deposed.

use wal::{PartitionId, PartitionName, Time};

use super::partition::Role;
use super::{Shard, publish};
use crate::effect::{Effects, EngineOperation, NoticeKind};
use crate::event::{Ownership, Task};
use crate::mutation::{self, Mutation};

impl Shard {
    pub(super) fn on_owned(
        &mut self,
        now: Time,
        name: PartitionName,
        ownership: Ownership,
        out: &mut Effects,
    ) {
        let (id, node) = (name.id(), self.settings.node);
        let partition = self.known(name);
        partition.unsure = false;
        let newer = partition
            .ownership
            .is_none_or(|held| held.epoch <= ownership.epoch);
        if !newer {
            partition.tell_landing(node, ownership, out);
            return;
        }
        partition.ownership = Some(ownership);
        partition.await_offer(now);
        if ownership.owner == node {
            partition.take_over_if_given(now, out);
            self.check_deposed(id, out);
            return;
        }
        partition.give_up_landing(now, ownership.epoch, out);
        let deposed = partition
            .owner()
            .is_some_and(|owner| owner.position.epoch < ownership.epoch);
        if deposed {
            self.on_superseded(id, ownership, out);
        }
    }

    /// News that came while the database was being attached counts as soon as it is.
    pub(super) fn check_deposed(&mut self, id: PartitionId, out: &mut Effects) {
        if let Some(ownership) = self.partitions.get(&id).and_then(|entry| entry.ownership) {
            self.on_superseded(id, ownership, out);
        }
    }

    /// Another node took the partition over under a newer epoch: stop serving, whoever writes here.
    pub(super) fn on_superseded(
        &mut self,
        id: PartitionId,
        ownership: Ownership,
        out: &mut Effects,
    ) {
        let node = self.settings.node;
        let Some((partition, _)) = self.entry(id) else {
            return;
        };
        partition.ownership = Some(ownership);
        let Role::Owner(owner) = &partition.role else {
            return;
        };
        // Granted and taken over at once: it landed under the older epoch.
        let outdated = ownership.owner == node && owner.position.epoch < ownership.epoch;
        if outdated && owner.source.is_serving() {
            partition.engine(Task::Attach, 0, EngineOperation::Detach, out);
            partition.claim(out);
            return;
        }
        // A grant of ours is what made that epoch: the grant protocol settles it.
        let ours = ownership.owner == node || owner.source.epoch() == Some(ownership.epoch);
        let deaf = mutation::is(Mutation::DeposedServes);
        if ours || deaf || ownership.epoch <= owner.position.epoch {
            return;
        }
        let position = owner.position;
        let reason = format!(
            "taken over by {} under epoch {}",
            ownership.owner, ownership.epoch
        );
        publish(out, id, NoticeKind::Released, reason);
        partition.retire(ownership.owner, position, false, out);
    }
}
