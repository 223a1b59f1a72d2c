//! Partitions that are live elsewhere, and the conversation about all of them.

use wal::PartitionName;
use wal::Time;
use wal::lsn::Epoch;
use wal::message::{Message, Standing, Verdict};

use super::links::LinkKey;
use super::partition::{Partition, Role, Shadow};
use super::{Settings, Shard, publish};
use crate::effect::{Effect, Effects, Note, NoticeKind};
use crate::event::{Failure, Outcome, Ownership, Task, Ticket};
use crate::ship::receiver::Receiver;
use crate::ship::sender::Sender;
use crate::switch::target::{self, Target};

impl Shard {
    pub(super) fn on_message(
        &mut self,
        now: Time,
        link: LinkKey,
        message: Message,
        out: &mut Effects,
    ) {
        self.heard(now, link);
        match message {
            Message::Hello(_) | Message::Refuse { .. } => {}
            Message::Ping { nonce } => out.send(link, Message::Pong { nonce }),
            Message::Pong { nonce } => self.on_pong(now, link, nonce),
            Message::Offer { name, .. } if PartitionName::new(&name).is_none() => {
                out.push(Effect::Hangup {
                    link,
                    reason: "an unusable name was offered".into(),
                });
            }
            Message::Offer {
                ref name,
                partition,
                ..
            } => {
                if let Some(valid) =
                    PartitionName::new(name).filter(|valid| valid.id() == partition)
                {
                    self.known(valid).on_offer(link, message, out);
                }
            }
            message => {
                let id = message.partition();
                match self.entry(id) {
                    Some((partition, settings)) => {
                        partition.on_message(now, link, message, settings, out);
                    }
                    None => answer_unknown(link, &message, out),
                }
                self.refresh_after(id, out);
            }
        }
    }

    /// A landing or an abort changes who has to be offered what.
    fn refresh_after(&mut self, id: wal::PartitionId, out: &mut Effects) {
        let fresh = self
            .partitions
            .get(&id)
            .and_then(Partition::owner)
            .is_some_and(|owner| owner.senders.is_empty());
        if fresh {
            self.refresh_senders(id, out);
        }
    }
}

/// A question about a partition that this node has never heard of.
fn answer_unknown(link: LinkKey, message: &Message, out: &mut Effects) {
    match *message {
        Message::Prepare { partition, epoch } => {
            let reason = "this node holds no shadow of it".to_owned();
            out.send(
                link,
                Message::Unable {
                    partition,
                    epoch,
                    reason,
                },
            );
        }
        // This node may still be reading its journal: no answer is better than a wrong one.
        Message::Ask { partition, epoch } => {
            out.send(
                link,
                Message::Tell {
                    partition,
                    epoch,
                    verdict: Verdict::Undecided,
                },
            );
        }
        _ => {}
    }
}

fn say_busy(partition: wal::PartitionId, link: LinkKey, out: &mut Effects) {
    let standing = Standing::Busy;
    out.send(
        link,
        Message::Stand {
            partition,
            standing,
        },
    );
}

/// What a peer says about its copy; false when the message is about something else.
fn hear_copy(sender: &mut Sender, now: Time, message: &Message, out: &mut Effects) -> bool {
    match message {
        Message::Stand { standing, .. } => sender.on_stand(now, *standing, out),
        Message::Decline { reason, .. } => sender.on_decline(now, reason.clone()),
        Message::Hashes {
            first,
            hashes,
            last,
            ..
        } => sender.on_hashes(*first, hashes.clone(), *last, out),
        Message::Ack { durable, .. } => sender.on_ack(now, *durable),
        Message::Lost { reason, .. } => sender.on_lost(now, reason.clone(), out),
        _ => return false,
    }
    true
}

impl Partition {
    fn on_offer(&mut self, link: LinkKey, message: Message, out: &mut Effects) {
        let Message::Offer {
            partition,
            at,
            page_size,
            attributes,
            ..
        } = message
        else {
            return;
        };
        // An owner of before may offer once more while it puts its copy away.
        let stale = self.ownership.is_some_and(|known| known.epoch > at.epoch);
        if stale {
            let reason = format!("epoch {} is over", at.epoch);
            out.send(link, Message::Decline { partition, reason });
            return;
        }
        self.ask_wanted_at = None;
        let ours = self.owns_since(at.epoch);
        match &mut self.role {
            Role::Remote if !ours => {
                let mut receiver = Receiver::new(partition, Epoch(0));
                receiver.on_offer(link, at, page_size, attributes, out);
                let target = Target::new(partition, at.epoch);
                self.role = Role::Shadow(Box::new(Shadow { receiver, target }));
            }
            Role::Shadow(shadow) if shadow.target.is_following() => {
                shadow
                    .receiver
                    .on_offer(link, at, page_size, attributes, out);
            }
            // Granted, and about to become the new owner's shadow.
            Role::Owner(owner) if !owner.source.is_serving() => say_busy(partition, link, out),
            Role::Shadow(_) | Role::Retiring { .. } | Role::Claiming => {
                say_busy(partition, link, out);
            }
            // A shadow would take the path of a database that is here, writers and all.
            Role::Refused { reason, retry_at } => match retry_at {
                Some(_) => say_busy(partition, link, out),
                None => {
                    let reason = format!("a database of that name is here already: {reason}");
                    out.send(link, Message::Decline { partition, reason });
                }
            },
            _ => {
                let reason = format!("this node serves {} itself", self.name);
                out.send(link, Message::Decline { partition, reason });
            }
        }
        self.learn_from_offer(link, at.epoch);
    }

    /// Whoever offers it owns it, as far as this shadow knows.
    fn learn_from_offer(&mut self, link: LinkKey, epoch: Epoch) {
        let known = self.ownership.is_some_and(|held| held.epoch >= epoch);
        if known || !matches!(self.role, Role::Shadow(_)) {
            return;
        }
        self.ownership = Some(Ownership {
            owner: link.peer,
            epoch,
            previous: self.ownership.map(|held| held.owner),
            formerly: self.ownership.is_some_and(|held| held.formerly),
            reserved: epoch,
        });
    }

    /// Whether this node's own journal says that it serves under `epoch` or later.
    fn owns_since(&self, epoch: Epoch) -> bool {
        matches!(self.note, Some(Note::Landed { epoch: landed, .. }) if landed >= epoch)
    }

    fn on_message(
        &mut self,
        now: Time,
        link: LinkKey,
        message: Message,
        settings: &Settings,
        out: &mut Effects,
    ) {
        if let Message::Wanted { .. } = message {
            self.on_wanted(link, out);
            return;
        }
        if let Message::Ask { partition, epoch } = message {
            let verdict = self.verdict(epoch);
            out.send_urgent(
                link,
                Message::Tell {
                    partition,
                    epoch,
                    verdict,
                },
            );
            return;
        }
        match self.role {
            Role::Owner(_) => self.on_owner_message(now, link, message, out),
            Role::Shadow(_) => self.on_shadow_message(now, link, message, settings, out),
            _ => self.on_other_message(link, &message, out),
        }
    }

    /// Neither owner nor shadow at this moment.
    fn on_other_message(&self, link: LinkKey, message: &Message, out: &mut Effects) {
        match (message, self.note) {
            // A grant said again while the landed database is being attached.
            (
                Message::Grant { partition, epoch },
                Some(Note::Landed {
                    epoch: landed,
                    position,
                }),
            ) if *epoch == landed => {
                let (partition, epoch) = (*partition, *epoch);
                out.send(
                    link,
                    Message::Serving {
                        partition,
                        epoch,
                        lsn: position.lsn,
                    },
                );
            }
            (Message::Prepare { .. }, _) => answer_unknown(link, message, out),
            _ => {}
        }
    }

    /// What became of an epoch that this node may have granted.
    fn verdict(&self, epoch: Epoch) -> Verdict {
        match (&self.role, self.note) {
            (Role::Owner(owner), _) => owner.source.verdict(epoch),
            (_, Some(Note::Released { epoch: granted, .. })) if granted == epoch => {
                Verdict::Granted
            }
            (Role::Claiming | Role::Attaching { .. } | Role::Remote, _) => Verdict::Undecided,
            // The target told the coordinator of its landing before it forgot about it in a crash.
            (
                _,
                Some(Note::Intent {
                    epoch: intended,
                    to,
                }),
            ) if intended == epoch
                && self
                    .ownership
                    .is_some_and(|held| held.owner == to && held.epoch == epoch) =>
            {
                Verdict::Granted
            }
            // An intent that this node has not yet compared with the fence may be a grant.
            (
                _,
                Some(Note::Intent {
                    epoch: intended, ..
                }),
            ) if intended == epoch => Verdict::Undecided,
            _ => Verdict::NotGranted,
        }
    }

    fn on_owner_message(&mut self, now: Time, link: LinkKey, message: Message, out: &mut Effects) {
        let Some(owner) = self.owner_mut() else {
            return;
        };
        if let Some(sender) = owner.senders.get_mut(&link.peer)
            && hear_copy(sender, now, &message, out)
        {
            return;
        }
        let outcome = match message {
            Message::Prepared { epoch, .. } => {
                if let Some(sender) = owner.senders.get_mut(&link.peer) {
                    sender.measure_anew(now);
                }
                owner.source.on_prepared(epoch, out)
            }
            Message::Unable { epoch, reason, .. } => owner.source.on_unable(epoch, &reason, out),
            Message::Ready {
                epoch, position, ..
            } => owner.source.on_ready(epoch, position, out),
            Message::Serving { epoch, .. } => {
                owner.source.on_serving(epoch, out);
                return;
            }
            Message::Prepare { partition, epoch } => {
                let reason = "this node is the owner".to_owned();
                out.send(
                    link,
                    Message::Unable {
                        partition,
                        epoch,
                        reason,
                    },
                );
                return;
            }
            // A grant said again: the landing was finished before.
            Message::Grant { partition, epoch } if owner.position.epoch == epoch => {
                let lsn = owner.attachment.position.lsn;
                out.send(
                    link,
                    Message::Serving {
                        partition,
                        epoch,
                        lsn,
                    },
                );
                return;
            }
            _ => return,
        };
        self.after_switch(outcome, out);
    }

    fn on_shadow_message(
        &mut self,
        now: Time,
        link: LinkKey,
        message: Message,
        settings: &Settings,
        out: &mut Effects,
    ) {
        let Role::Shadow(shadow) = &mut self.role else {
            return;
        };
        let landing = !shadow.target.is_following();
        let outcome = match message {
            Message::AskHashes { .. } if shadow.target.is_following() && !self.unsure => {
                shadow.receiver.on_ask_hashes(link, out);
                target::Outcome::Going
            }
            // A copy that is landing, or may have to, is not compared; the owner offers again.
            Message::AskHashes { partition } => {
                say_busy(partition, link, out);
                target::Outcome::Going
            }
            // Not while it is to be taken over: its owner's word would leave nothing to serve.
            Message::Discard { .. } if self.seizing.is_some() || self.unsure => {
                target::Outcome::Going
            }
            Message::Discard { .. } if shadow.target.is_following() => {
                shadow.receiver.discard(out);
                self.ask_wanted_at = None;
                self.role = Role::Remote;
                return;
            }
            Message::Prepare { epoch, .. } => {
                // Its source may not have heard that it was taken over from.
                let over = self.ownership.is_some_and(|known| known.epoch >= epoch);
                let able = shadow.receiver.applied().is_some() && !over;
                shadow.target.on_prepare(link, epoch, able, out);
                target::Outcome::Going
            }
            Message::Finish {
                epoch, position, ..
            } => match shadow.receiver.applied() {
                Some(applied) => {
                    shadow.target.on_finish(now, epoch, position, applied, out);
                    target::Outcome::Going
                }
                None => shadow.target.on_copy_lost(epoch, link, out),
            },
            // Nor what it was prepared for: it is asked again, if it is not taken over.
            Message::Abort { .. }
            | Message::Tell {
                verdict: Verdict::NotGranted,
                ..
            } if self.seizing.is_some() => target::Outcome::Going,
            Message::Abort { epoch, .. } => shadow.target.on_abort(epoch, out),
            Message::Grant { epoch, .. } => {
                shadow.target.on_grant(epoch, out);
                target::Outcome::Going
            }
            Message::Tell { epoch, verdict, .. } => shadow.target.on_told(epoch, verdict, out),
            // Released before we heard it: the source asks for the word that it missed.
            _ => target::Outcome::Going,
        };
        self.after_landing(outcome, settings, out);
        self.hear_again(landing, now);
    }

    pub(super) fn on_shadow_done(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Outcome, Failure>,
        settings: &Settings,
        out: &mut Effects,
    ) {
        let Role::Shadow(shadow) = &mut self.role else {
            return;
        };
        let landing = !shadow.target.is_following();
        let (epoch, plain) = (Epoch(ticket.number), result.clone().map(|_| ()));
        let mut outcome = target::Outcome::Going;
        match ticket.task {
            Task::Create => shadow.receiver.on_created(ticket.number, result, out),
            Task::Accept => outcome = self.on_accepted(ticket.number, result, out),
            Task::Abandon => shadow.receiver.on_abandoned(result),
            Task::Fill => shadow.receiver.on_filled(ticket.number, result, out),
            Task::Restore => shadow.receiver.on_restarted(ticket.number, result, out),
            Task::Record => shadow.target.on_noted(now, epoch, plain, out),
            Task::PrepareLanding => shadow.target.on_landing_prepared(now, epoch, plain, out),
            Task::SyncLanding => {
                let synced = result.and_then(|outcome| match outcome {
                    Outcome::Durable(position) => Ok(position),
                    other => Err(Failure::Refused(format!("{other:?}"))),
                });
                shadow.target.on_synced(now, epoch, synced, out);
            }
            Task::Remap => {
                if let Err(failure) = &plain {
                    let text = format!("{}: {}", self.name, failure.reason());
                    publish(out, ticket.partition, NoticeKind::MoveStep, text);
                }
                outcome = shadow.target.on_remapped(now, epoch, plain, out);
            }
            _ => {}
        }
        self.after_landing(outcome, settings, out);
        self.hear_again(landing, now);
    }
}
