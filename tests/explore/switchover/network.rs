//! What a delivered message does, as `Partition::on_message` hands it on.

use foreshadow::switch::source::{self, State};
use foreshadow::switch::target;
use wal::lsn::Epoch;
use wal::message::{Message, Verdict};

use super::source_node::LATE;
use super::variants::Variant;
use super::world::{Limits, PARTITION, Packet, SourceRole, TO_SOURCE, TargetRole, World, position};

impl World {
    pub fn deliver(&mut self, limits: &Limits, packet: Packet) {
        if packet.goes_to_target() {
            self.deliver_to_target(limits, packet);
        } else {
            self.deliver_to_source(limits, packet);
        }
    }

    fn deliver_to_source(&mut self, limits: &Limits, packet: Packet) {
        if let Packet::Ask(epoch) = packet {
            let message = Message::Tell {
                partition: PARTITION,
                epoch: Epoch(u64::from(epoch)),
                verdict: self.verdict(epoch),
            };
            self.send(&message);
            return;
        }
        let SourceRole::Owner(machine) = &self.source.role else {
            return;
        };
        let ours = machine.epoch();
        let frozen = match machine.state() {
            State::Shipping { position, .. } => Some(*position),
            _ => None,
        };
        let told = |epoch: u8| match (limits.variant, ours) {
            (Variant::EpochIgnored, Some(ours)) => ours,
            _ => Epoch(u64::from(epoch)),
        };
        if let (Variant::Naive, Some(_), Packet::Ready(epoch, _)) = (limits.variant, frozen, packet)
        {
            // The ownership request goes out while only the lock is held.
            self.network.insert(Packet::Grant(epoch));
            return;
        }
        self.source_does(limits, |machine, out| match packet {
            Packet::Prepared(epoch) => machine.on_prepared(told(epoch), out),
            Packet::Unable(epoch) => machine.on_unable(told(epoch), "unable", out),
            Packet::Ready(epoch, lsn) => machine.on_ready(told(epoch), position(lsn), out),
            Packet::Serving(epoch) => {
                machine.on_serving(told(epoch), out);
                source::Outcome::Going
            }
            _ => source::Outcome::Going,
        });
    }

    fn deliver_to_target(&mut self, limits: &Limits, packet: Packet) {
        if let TargetRole::Owner(ours) = self.target.role {
            match packet {
                Packet::Grant(epoch) if epoch == ours => {
                    self.network.insert(Packet::Serving(epoch));
                }
                Packet::Prepare(epoch) => {
                    self.network.insert(Packet::Unable(epoch));
                }
                _ => {}
            }
            return;
        }
        let Some(machine) = self.target.machine() else {
            return;
        };
        let ours = epoch_in_progress(machine.state());
        let told = |epoch: u8| match (limits.variant, ours) {
            (Variant::EpochIgnored, Some(ours)) => ours,
            _ => Epoch(u64::from(epoch)),
        };
        let expected = self.target.expected;
        let unchecked = limits.variant == Variant::Unchecked;
        self.target_does(|machine, out| match packet {
            Packet::Prepare(epoch) => {
                machine.on_prepare(TO_SOURCE, Epoch(u64::from(epoch)), expected.is_some(), out);
                target::Outcome::Going
            }
            Packet::Finish(epoch, lsn) => match expected {
                Some(applied) => {
                    let applied = position(if unchecked { lsn } else { applied });
                    machine.on_finish(LATE, told(epoch), position(lsn), applied, out);
                    target::Outcome::Going
                }
                None => machine.on_copy_lost(told(epoch), TO_SOURCE, out),
            },
            Packet::Abort(epoch) => machine.on_abort(told(epoch), out),
            Packet::Grant(epoch) => {
                machine.on_grant(told(epoch), out);
                target::Outcome::Going
            }
            Packet::TellGranted(epoch) => machine.on_told(told(epoch), Verdict::Granted, out),
            Packet::TellNotGranted(epoch) => machine.on_told(told(epoch), Verdict::NotGranted, out),
            _ => target::Outcome::Going,
        });
    }
}

/// The epoch that a target is busy with.
fn epoch_in_progress(state: &target::State) -> Option<Epoch> {
    match state {
        target::State::Following => None,
        target::State::Noting { epoch, .. }
        | target::State::Preparing { epoch, .. }
        | target::State::Prepared { epoch, .. }
        | target::State::Draining { epoch, .. }
        | target::State::Syncing { epoch, .. }
        | target::State::Ready { epoch, .. }
        | target::State::Asking { epoch, .. }
        | target::State::Landing { epoch, .. }
        | target::State::Seized { epoch, .. }
        | target::State::Serving { epoch, .. } => Some(*epoch),
    }
}
