//! The owner's shell: log, comparison, copying, as runtime/compare.rs executes them.

use foreshadow::effect::{Effect, Effects};
use foreshadow::event::{Cargo, Failure, Outcome};
use foreshadow::ship::sender::{Origin, Sender};
use wal::message::{Attributes, Message};

use super::world::{Job, LATE, OwnerWork, Parcel, World, is_ship, lsn, name, position, refused};

impl World {
    /// Calls the sender, then ends the batch as `Partition::flush_owner` does.
    pub fn owner_does(&mut self, call: impl FnOnce(&mut Sender, &mut Effects)) {
        let mut out = Effects::default();
        call(&mut self.sender, &mut out);
        let name = name();
        self.sender.pump(self.origin(&name), &mut out);
        self.take_owner_effects(out);
    }

    fn origin<'a>(&self, name: &'a wal::PartitionName) -> Origin<'a> {
        Origin {
            name,
            position: position(self.content),
            page_size: 4096,
            attributes: Attributes::default(),
            window: 1 << 20,
            urgent: false,
        }
    }

    fn offer(&mut self) {
        self.used.offers += 1;
        let name = name();
        let origin = self.origin(&name);
        self.owner_does(|sender, out| sender.offer(origin, out));
    }

    fn take_owner_effects(&mut self, out: Effects) {
        for effect in out.0 {
            let (ticket, work) = match effect {
                Effect::Send { message, .. } => {
                    if self.up {
                        self.to_peer.push_back(Parcel::Message(message));
                    }
                    continue;
                }
                Effect::Ship {
                    ticket,
                    from,
                    digest,
                    ..
                } => (ticket, OwnerWork::Ship { from, digest }),
                Effect::Compare { ticket, .. } => (ticket, OwnerWork::Compare),
                Effect::Copy { ticket, last, .. } => (ticket, OwnerWork::Copy { last }),
                other => unreachable!("a sender does not do {other:?}"),
            };
            self.owner_jobs.push_back(Job { ticket, work });
        }
    }

    /// A job takes place and is answered.
    pub fn owner_runs(&mut self, done: bool, pages_left: u64) {
        let job = self.owner_jobs.pop_front().expect("offered with a job");
        let number = job.ticket.number;
        if !done {
            self.used.failures += 1;
            let failure = if is_ship(job.ticket.task) {
                Failure::Retry("later".to_owned())
            } else {
                refused()
            };
            return self.owner_hears(&job, number, Err(failure));
        }
        let content = self.content;
        let result = match job.work {
            OwnerWork::Ship { from, digest } => self.ship(from.0, digest),
            OwnerWork::Compare => Ok(Outcome::Copied { pages_left }),
            OwnerWork::Copy { last: false } => {
                self.hand_over(Cargo::Pages);
                Ok(Outcome::Copied { pages_left: 0 })
            }
            OwnerWork::Copy { last: true } => {
                let at = position(content);
                self.hand_over(Cargo::LastPages { at });
                Ok(Outcome::CopiedAll(at))
            }
        };
        self.owner_hears(&job, number, result);
    }

    fn owner_hears(&mut self, job: &Job<OwnerWork>, number: u64, result: Result<Outcome, Failure>) {
        let work = job.work.clone();
        self.owner_does(|sender, out| match work {
            OwnerWork::Ship { .. } => sender.on_shipped(LATE, number, result, out),
            OwnerWork::Compare => sender.on_compared(LATE, number, result, out),
            OwnerWork::Copy { .. } => sender.on_copied(LATE, number, result, out),
        });
    }

    fn ship(&mut self, from: u64, digest: Option<wal::Digest>) -> Result<Outcome, Failure> {
        let from = u8::try_from(from).expect("few changes");
        let reaches = (self.log_from..=self.content).contains(&from);
        let gone = Err(Failure::Gone("not in the log".to_owned()));
        let lsn_from = position(from).lsn;
        if let Some(digest) = digest {
            let known = reaches && position(from).digest == digest;
            return if known {
                Ok(Outcome::Shipped {
                    to: lsn_from,
                    bytes: 0,
                })
            } else {
                gone
            };
        }
        if !reaches {
            return gone;
        }
        let to = position((from + 1).min(self.content));
        if to.lsn > lsn_from {
            self.hand_over(Cargo::Delta {
                from: position(from),
                to,
            });
        }
        Ok(Outcome::Shipped {
            to: to.lsn,
            bytes: 100,
        })
    }

    fn hand_over(&mut self, cargo: Cargo) {
        if self.up {
            self.to_peer.push_back(Parcel::Frame(cargo));
        }
    }

    /// As `Partition::on_owner_message`.
    pub fn owner_delivers(&mut self) {
        let message = self.to_owner.pop_front().expect("offered with a message");
        if let Message::Ack { durable, .. } = &message
            && lsn(*durable) > self.content
        {
            self.broken = Some("I3: nothing is acknowledged that the owner never had");
        }
        self.owner_does(|sender, out| match message {
            Message::Stand { standing, .. } => sender.on_stand(LATE, standing, out),
            Message::Decline { reason, .. } => sender.on_decline(LATE, reason),
            Message::Hashes {
                first,
                hashes,
                last,
                ..
            } => sender.on_hashes(first, hashes, last, out),
            Message::Ack { durable, .. } => sender.on_ack(LATE, durable),
            Message::Lost { reason, .. } => sender.on_lost(LATE, reason, out),
            other => unreachable!("a receiver does not say {other:?}"),
        });
    }

    pub fn link_breaks(&mut self) {
        self.up = false;
        self.to_peer.clear();
        self.to_owner.clear();
        self.receiver.on_link_down(super::world::LINK);
        self.owner_does(|sender, _| sender.on_link_down());
    }

    /// As `Shard::refresh_senders` after `LinkUp`.
    pub fn link_comes_up(&mut self) {
        self.up = true;
        if self.sender.is_waiting() {
            self.offer();
        }
    }

    /// As `Partition::on_time`.
    pub fn timer(&mut self) {
        if self.up {
            self.offer();
        } else {
            self.owner_does(|sender, _| sender.on_link_down());
        }
    }
}
