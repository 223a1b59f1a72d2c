//! Live databases: attached, read, locked, fenced, put away.

use foreshadow::effect::EngineOperation;
use foreshadow::event::{Attachment, Event, Failure, Outcome, Ticket};
use wal::message::Attributes;
use wal::{PartitionId, Span};

use super::disk::{Copy, Disk};
use super::live::{Kind, Lock, Read};
use super::shell::{ENGINE, Ending, Work, gone, refused};
use super::world::{Happening, Place, World};

/// A freeze tries as often to have the write lock.
const TRY_EVERY: Span = Span::micros(200);
/// A tail looks as often.
const LOOK_EVERY: Span = Span::micros(100);

impl World {
    pub fn engine(&mut self, place: Place, ticket: Ticket, operation: EngineOperation) {
        let id = ticket.partition;
        match operation {
            EngineOperation::Thaw | EngineOperation::Detach => {
                let detach = operation == EngineOperation::Detach;
                if let Some(live) = &mut self.disk(place, id).live
                    && let Some(tail) = &mut live.tail
                {
                    tail.lock = Lock::Free;
                    if detach {
                        live.tail = None;
                    }
                }
            }
            EngineOperation::Freeze { .. } => {
                let number = ticket.number;
                let tail = self
                    .disk(place, id)
                    .live
                    .as_mut()
                    .and_then(|live| live.tail.as_mut());
                let Some(tail) = tail else {
                    return self.done(place, ticket, Err(gone()));
                };
                tail.lock = Lock::Waiting(number);
                let longest = self.disk_time(place.node);
                self.enqueue(place, ENGINE, longest, ticket, Work::Engine(operation));
            }
            _ => {
                let longest = self.disk_time(place.node);
                self.enqueue(place, ENGINE, longest, ticket, Work::Engine(operation));
            }
        }
    }

    /// Takes the write lock, if it is still wanted, and reads the rest; tries again while an
    /// application has it and `budget` lasts.
    pub fn freeze(
        &mut self,
        place: Place,
        ticket: Ticket,
        budget: Span,
        fails: bool,
    ) -> Option<Ending> {
        let Disk { live, log, .. } = self.disk(place, ticket.partition);
        let Some(live) = live else {
            return Some(Err(gone()));
        };
        let tail = live.tail.as_mut()?;
        if tail.lock != Lock::Waiting(ticket.number) {
            return None;
        }
        let busy = || Failure::Retry("the write lock was not free".to_owned());
        if fails {
            return Some(Err(busy()));
        }
        match live.freeze() {
            None if budget <= TRY_EVERY => return Some(Err(busy())),
            None => {
                let life = self.nodes[place.node].life;
                let budget = Span(budget.0 - TRY_EVERY.0);
                let work = Work::Engine(EngineOperation::Freeze { budget });
                let again = Happening::Work {
                    place,
                    life,
                    ticket,
                    work,
                };
                self.later(TRY_EVERY, again);
                return None;
            }
            Some(Err(failure)) => return Some(Err(failure)),
            Some(Ok(())) => {}
        }
        let read = live.read(log, false);
        let position = live.tail.map(|tail| tail.position)?;
        self.advanced(place, ticket.partition, read);
        Some(Ok(Outcome::Frozen(position)))
    }

    fn advanced(&mut self, place: Place, partition: PartitionId, read: Read) {
        if let Read::Advanced(position, bytes) = read {
            self.tell(
                place,
                Event::Advanced {
                    partition,
                    position,
                    bytes,
                },
            );
        }
    }

    /// The tail looks at its database.
    pub fn look(&mut self, place: Place, partition: PartitionId) {
        let too_much = self.random.chance(300);
        let Disk { live, log, .. } = self.disk(place, partition);
        let Some(live) = live else { return };
        let read = live.read(log, too_much);
        self.advanced(place, partition, read);
    }

    /// Something was committed: the tail of that node will see it.
    pub fn committed(&mut self, node: usize, partition: PartitionId) {
        let place = self.place_of(node, partition);
        let life = self.nodes[node].life;
        let delay = self.random.micros(1, LOOK_EVERY.0 / 1000);
        self.later(
            delay,
            Happening::Look {
                place,
                life,
                partition,
            },
        );
    }

    pub fn engine_now(
        &mut self,
        place: Place,
        id: PartitionId,
        operation: EngineOperation,
    ) -> Ending {
        let keeps = !self.random.chance(50);
        if let EngineOperation::Attach { .. } = operation {
            self.recover_log(place.node, id);
        }
        let disk = self.disk(place, id);
        let Some(live) = disk.live.as_mut() else {
            return Err(gone());
        };
        match operation {
            EngineOperation::Attach { epoch } => {
                let position = live.attach(&mut disk.log, epoch, disk.landed_at.take());
                let attachment = Attachment {
                    position,
                    page_size: 4096,
                    page_count: 1 + live.content.len() as u32,
                    attributes: Attributes::default(),
                    fenced: live.fenced,
                };
                self.landed_under(place.node, id, epoch);
                Ok(Outcome::Attached(attachment))
            }
            EngineOperation::Fence => {
                let tail = live.tail.as_mut().ok_or_else(gone)?;
                if tail.lock != Lock::Held {
                    return Err(refused("the write lock is not held"));
                }
                tail.lock = Lock::Free;
                live.fence();
                Ok(Outcome::Nothing)
            }
            EngineOperation::Lift => {
                live.tail.ok_or_else(gone)?;
                live.fenced = false;
                Ok(Outcome::Nothing)
            }
            EngineOperation::Retire { position, keep } => {
                let settled = live.fenced && live.tail.is_some();
                if !live.fenced && live.kind == Kind::Sqlite && live.writer.is_some() {
                    return Err(Failure::Retry("the write lock was not free".to_owned()));
                }
                live.fence();
                let content = live.content.clone();
                disk.leave();
                if settled && keep && keeps && content.digest() == position.digest {
                    disk.copy = Some(Copy::at(content, position));
                    return Ok(Outcome::Durable(position));
                }
                Ok(Outcome::Nothing)
            }
            EngineOperation::Thaw | EngineOperation::Detach | EngineOperation::Freeze { .. } => {
                unreachable!("done elsewhere")
            }
        }
    }
}
