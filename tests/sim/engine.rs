//! Live databases: attached, read, locked, fenced, put away.

use foreshadow::effect::EngineOperation;
use foreshadow::event::{Attachment, Event, Failure, Outcome, Ticket};
use wal::message::Attributes;
use wal::{PartitionId, Position, Span};

use super::disk::{Copy, Disk, Lock};
use super::shell::{ENGINE, Ending, Work, gone, refused};
use super::world::{Happening, Place, World};

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
                self.enqueue(
                    place,
                    ENGINE,
                    self.plan.disk,
                    ticket,
                    Work::Engine(operation),
                );
            }
            _ => self.enqueue(
                place,
                ENGINE,
                self.plan.disk,
                ticket,
                Work::Engine(operation),
            ),
        }
    }

    /// Takes the write lock, if it is still wanted, and reads the rest.
    pub fn freeze(&mut self, place: Place, ticket: Ticket, fails: bool) -> Option<Ending> {
        let disk = self.disk(place, ticket.partition);
        let Disk { live, log, .. } = disk;
        let Some(live) = live else {
            return Some(Err(gone()));
        };
        let tail = live.tail.as_mut()?;
        if tail.lock != Lock::Waiting(ticket.number) {
            return None;
        }
        if fails {
            return Some(Err(Failure::Retry(
                "the write lock was not free".to_owned(),
            )));
        }
        tail.lock = Lock::Held;
        let advanced = live.read(log);
        let position = live.tail.map(|tail| tail.position)?;
        self.advanced(place, ticket.partition, advanced);
        Some(Ok(Outcome::Frozen(position)))
    }

    fn advanced(&mut self, place: Place, partition: PartitionId, to: Option<(Position, u64)>) {
        if let Some((position, bytes)) = to {
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
        let Disk { live, log, .. } = self.disk(place, partition);
        let advanced = live.as_mut().and_then(|live| live.read(log));
        self.advanced(place, partition, advanced);
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
        let disk = self.disk(place, id);
        let Disk {
            live: slot,
            log,
            landed_at,
            copy,
        } = disk;
        let Some(live) = slot.as_mut() else {
            return Err(gone());
        };
        match operation {
            EngineOperation::Attach { epoch } => {
                let position = live.attach(log, epoch, landed_at.take());
                Ok(Outcome::Attached(Attachment {
                    position,
                    page_size: 4096,
                    page_count: 1 + live.content.len() as u32,
                    attributes: Attributes::default(),
                    fenced: live.fenced,
                }))
            }
            EngineOperation::Fence => {
                let tail = live.tail.as_mut().ok_or_else(gone)?;
                if tail.lock != Lock::Held {
                    return Err(refused("the write lock is not held"));
                }
                tail.lock = Lock::Free;
                live.fenced = true;
                Ok(Outcome::Nothing)
            }
            EngineOperation::Lift => {
                live.tail.ok_or_else(gone)?;
                live.fenced = false;
                Ok(Outcome::Nothing)
            }
            EngineOperation::Retire { position, keep } => {
                let fenced = live.fenced && live.tail.is_some();
                let content = live.content.clone();
                *slot = None;
                if fenced && keep && keeps && content.digest() == position.digest {
                    *copy = Some(Copy::at(content, position));
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
