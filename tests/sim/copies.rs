//! Shadows: made, filled, followed, landed.

use std::rc::Rc;

use foreshadow::effect::{Class, ShadowOperation};
use foreshadow::event::{Cargo, Failure, LinkId, Outcome, Ticket};
use wal::message::Message;
use wal::{Epoch, PartitionId, Position};

use super::disk::{Copy, Landing, State};
use super::live::Live;
use super::network::{Parcel, Payload};
use super::shell::{Ending, JOURNAL, Work, gone, refused};
use super::world::{Place, World};

impl World {
    pub fn shadow_now(
        &mut self,
        place: Place,
        ticket: Ticket,
        operation: ShadowOperation,
        frame: Option<(Rc<Payload>, Cargo)>,
    ) -> Option<Ending> {
        let id = ticket.partition;
        if let ShadowOperation::Accept { .. } = operation {
            return match self.apply(place, id, frame) {
                Ok(position) => {
                    let longest = self.disk_time(place.node);
                    self.enqueue(place, JOURNAL, longest, ticket, Work::Journal(position));
                    None
                }
                Err(failure) => Some(Err(failure)),
            };
        }
        let disk = self.disk(place, id);
        if let ShadowOperation::Create { .. } = operation {
            disk.copy = Some(Copy::empty());
            return Some(Ok(Outcome::Nothing));
        }
        if let ShadowOperation::Discard = operation {
            disk.copy = None;
            return Some(Ok(Outcome::Nothing));
        }
        let Some(copy) = &mut disk.copy else {
            return Some(Err(gone()));
        };
        Some(match operation {
            ShadowOperation::Fill { .. } => fill(copy, frame),
            ShadowOperation::Restart => {
                *copy = Copy {
                    content: std::mem::take(&mut copy.content),
                    ..Copy::empty()
                };
                Ok(Outcome::Nothing)
            }
            ShadowOperation::PrepareLanding { epoch } => prepare(copy, epoch),
            ShadowOperation::SyncLanding => match (copy.state, copy.landing) {
                (State::At(position), Some(_)) => {
                    copy.synced(position);
                    Ok(Outcome::Durable(position))
                }
                _ => Err(refused("it is not landing")),
            },
            ShadowOperation::Remap { epoch, position } => {
                let result = self.remap(place, id, epoch, position);
                if result.is_ok() {
                    self.landed_under(place.node, id, epoch);
                }
                return Some(result);
            }
            ShadowOperation::Abandon => {
                copy.abandon();
                let stands = copy.position().map(Outcome::Durable);
                Ok(stands.unwrap_or(Outcome::Nothing))
            }
            ShadowOperation::Create { .. }
            | ShadowOperation::Discard
            | ShadowOperation::Accept { .. } => unreachable!("done above"),
        })
    }

    /// As io's shadow applies a delta.
    fn apply(
        &mut self,
        place: Place,
        id: PartitionId,
        frame: Option<(Rc<Payload>, Cargo)>,
    ) -> Result<Position, Failure> {
        let copy = self.disk(place, id).copy.as_mut().ok_or_else(gone)?;
        let Some((payload, Cargo::Delta { from, to })) = frame else {
            return Err(refused("it is no delta"));
        };
        let State::At(position) = copy.state else {
            return Err(refused("it has no position"));
        };
        if (to.epoch, to.lsn) <= (position.epoch, position.lsn) {
            return Ok(position);
        }
        if (from.lsn, from.digest) != (position.lsn, position.digest) {
            return Err(refused("it starts elsewhere"));
        }
        let Payload::Writes(writes) = &*payload else {
            return Err(refused("it is no delta"));
        };
        writes.iter().for_each(|write| copy.content.push(*write));
        if copy.content.digest() != to.digest {
            copy.state = State::Filling;
            return Err(Failure::Corrupt("the digest is another".to_owned()));
        }
        copy.state = State::At(to);
        let len = copy.content.len();
        copy.unsynced.push_back((to, len));
        Ok(to)
    }

    /// The exchange leaves what was there in its old generation; the directory is synced later.
    fn remap(&mut self, place: Place, id: PartitionId, epoch: Epoch, position: Position) -> Ending {
        let (kind, generation) = (self.kind_of(id), self.new_generation());
        let synced_at = self.now + self.random.micros(1, 1 + self.disk_time(place.node));
        let disk = self.disk(place, id);
        let copy = disk.copy.as_ref().ok_or_else(gone)?;
        match copy.state {
            State::At(at) if at.digest == position.digest => {
                let mut live = Live::new(kind, generation, copy.content.clone());
                live.epoch = epoch;
                live.landed = Some(Landing {
                    epoch,
                    settled: false,
                    ..copy.landing.unwrap_or(Landing {
                        epoch,
                        base: at,
                        base_len: copy.content.len(),
                        settled: false,
                    })
                });
                live.path_durable_at = synced_at;
                disk.landed_at = Some(Position {
                    lsn: position.lsn,
                    ..at
                });
                disk.copy = None;
                disk.leave();
                disk.live = Some(live);
                Ok(Outcome::Nothing)
            }
            State::At(_) => Err(Failure::Corrupt("another digest was granted".to_owned())),
            State::Filling => Err(refused("it has no position")),
        }
    }

    /// A copy that had a position gives it up: pages will be written into it.
    pub fn send_hashes(&mut self, place: Place, link: LinkId, partition: PartitionId) {
        if let Some(copy) = &mut self.disk(place, partition).copy {
            *copy = Copy {
                content: std::mem::take(&mut copy.content),
                ..Copy::empty()
            };
            let message = Message::Hashes {
                partition,
                first: 1,
                hashes: Vec::new(),
                last: true,
            };
            self.send(place, link, Class::Bulk, Parcel::Message(message));
        }
    }
}

fn prepare(copy: &mut Copy, epoch: Epoch) -> Ending {
    match (copy.state, copy.landing) {
        (State::At(position), None) => {
            copy.synced(position);
            copy.landing = Some(Landing {
                epoch,
                base: position,
                base_len: copy.content.len(),
                settled: true,
            });
            Ok(Outcome::Nothing)
        }
        (State::At(_), Some(landing)) if landing.epoch == epoch => Ok(Outcome::Nothing),
        _ => Err(refused("it can't land")),
    }
}

fn fill(copy: &mut Copy, frame: Option<(Rc<Payload>, Cargo)>) -> Ending {
    if copy.state != State::Filling {
        return Err(refused("it is not being filled"));
    }
    match frame.as_ref().map(|(payload, cargo)| (&**payload, cargo)) {
        Some((Payload::Pages, _)) => Ok(Outcome::Nothing),
        Some((Payload::Whole(content), Cargo::LastPages { at })) => {
            *copy = Copy::at(content.clone(), *at);
            Ok(Outcome::Durable(*at))
        }
        _ => Err(refused("these are no pages")),
    }
}
