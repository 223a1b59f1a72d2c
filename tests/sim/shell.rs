//! The executor of effects: each takes its time, may fail, and is answered once.

use std::rc::Rc;

use foreshadow::effect::{Effect, EngineOperation, Note, Request, ShadowOperation};
use foreshadow::event::{Cargo, Event, Failure, LinkId, Outcome, Ticket};
use wal::{PartitionId, Position};

use super::disk::Disk;
use super::network::{Parcel, Payload};
use super::world::{Happening, Place, World};

#[derive(Debug)]
pub enum Work {
    Engine(EngineOperation),
    Shadow(ShadowOperation, Option<Rc<Payload>>, Option<Cargo>),
    Journal(Position),
    Copy(LinkId, bool),
    Record(Note),
    Coordinate(Request),
    Answer(Result<Outcome, Failure>),
}

/// Longest time to take a frame in, in microseconds.
const FRAME_TIME: u64 = 1_000;

/// How an effect ends.
pub type Ending = Result<Outcome, Failure>;

/// Queues of one partition that keep their order.
pub const ENGINE: u8 = 0;
const SHADOW: u8 = 1;
pub const JOURNAL: u8 = 2;
const NOTES: u8 = 3;
const COORDINATOR: u8 = 4;

pub fn gone() -> Failure {
    Failure::Gone("it is not there".to_owned())
}

pub fn refused(reason: &str) -> Failure {
    Failure::Refused(reason.to_owned())
}

impl World {
    pub fn disk(&mut self, place: Place, id: PartitionId) -> &mut Disk {
        self.touched.insert(id);
        self.nodes[place.node].disks.entry(id).or_default()
    }

    pub fn done(&mut self, place: Place, ticket: Ticket, result: Ending) {
        self.tell(place, Event::Done { ticket, result });
    }

    /// Does `work` after what is in the same queue, in up to `longest` microseconds.
    pub fn enqueue(&mut self, place: Place, queue: u8, longest: u64, ticket: Ticket, work: Work) {
        let delay = self.random.micros(1, longest.max(1));
        let node = &mut self.nodes[place.node];
        let free = node
            .busy
            .entry((ticket.partition, queue))
            .or_insert(self.now);
        // One write of the journal takes all that wait; the other queues do one after the other.
        let at = match queue {
            JOURNAL => (*free).max(self.now + delay),
            _ => (*free).max(self.now) + delay,
        };
        *free = at;
        let life = node.life;
        self.at(
            at,
            Happening::Work {
                place,
                life,
                ticket,
                work,
            },
        );
    }

    pub fn execute(&mut self, place: Place, effect: Effect) {
        self.say(|| format!("{} -> {effect:?}", self.nodes[place.node].name));
        self.aim(place.node, &effect);
        let disk = self.disk_time(place.node);
        match effect {
            Effect::Engine { ticket, operation } => self.engine(place, ticket, operation),
            Effect::Shadow { ticket, operation } => {
                let frame = match &operation {
                    ShadowOperation::Fill { frame } | ShadowOperation::Accept { frame } => {
                        self.held_frame(*frame)
                    }
                    _ => None,
                };
                // What a frame brings is written to memory that the kernel keeps.
                let longest = match frame {
                    Some(_) => FRAME_TIME.min(disk / 10),
                    None => disk,
                };
                let (payload, cargo) = frame.unzip();
                let work = Work::Shadow(operation, payload, cargo);
                self.enqueue(place, SHADOW, longest, ticket, work);
            }
            Effect::Dial { link } => self.dial(place, link),
            Effect::Hangup { link, .. } => self.hang_up(place, link),
            Effect::Send {
                link,
                class,
                message,
            } => {
                self.send(place, link, class, Parcel::Message(message));
            }
            Effect::Ship {
                ticket,
                link,
                class,
                from,
                digest,
                ..
            } => {
                let result = self.ship(place, ticket.partition, link, class, from, digest);
                self.done(place, ticket, result);
            }
            Effect::Copy { ticket, link, last } => {
                self.enqueue(place, ENGINE, disk, ticket, Work::Copy(link, last));
            }
            Effect::Compare { ticket, .. } => {
                let answer = Ok(Outcome::Copied { pages_left: 1 });
                self.enqueue(place, ENGINE, disk, ticket, Work::Answer(answer));
            }
            Effect::SendHashes { link, partition } => self.send_hashes(place, link, partition),
            Effect::Record { ticket, note } => {
                self.enqueue(place, NOTES, disk, ticket, Work::Record(note));
            }
            Effect::Coordinate { ticket, request } => {
                let longest = self.plan.disk + self.plan.latency + self.plan.keeper;
                self.enqueue(
                    place,
                    COORDINATOR,
                    longest,
                    ticket,
                    Work::Coordinate(request),
                );
            }
            Effect::Route { .. } | Effect::Reply { .. } | Effect::Publish { .. } => {}
        }
    }

    /// The moment something is done; the answer follows.
    pub fn work(&mut self, place: Place, ticket: Ticket, work: Work) {
        self.say(|| format!("{} does {ticket:?}: {work:?}", self.nodes[place.node].name));
        let fails = self.fails(place.node, &work);
        // Said in the turn in which the frames are handed to the link, or the tail begins: no
        // answer of the peer and nothing that the tail reads is faster.
        let at_once = matches!(
            work,
            Work::Copy(..) | Work::Engine(EngineOperation::Attach { .. })
        );
        let result = match work {
            Work::Answer(result) => Some(result),
            Work::Journal(_) if fails => Some(Err(Failure::Retry("it failed".to_owned()))),
            Work::Journal(position) => {
                if let Some(copy) = &mut self.disk(place, ticket.partition).copy {
                    copy.synced(position);
                }
                Some(Ok(Outcome::Durable(position)))
            }
            Work::Coordinate(request) => return self.coordinate(place, ticket, request, fails),
            Work::Engine(EngineOperation::Freeze { budget }) => {
                self.freeze(place, ticket, budget, fails)
            }
            _ if fails => Some(Err(Failure::Retry("it failed".to_owned()))),
            Work::Engine(operation) => Some(self.engine_now(place, ticket.partition, operation)),
            Work::Shadow(operation, payload, cargo) => {
                self.shadow_now(place, ticket, operation, payload.zip(cargo))
            }
            Work::Copy(link, last) => Some(self.copy_now(place, ticket.partition, link, last)),
            Work::Record(note) => {
                let (node, id) = (&mut self.nodes[place.node], ticket.partition);
                match note {
                    Note::Shadow { node: peer, .. } => node.wishes.insert((id, peer), note),
                    _ => node.notes.insert(id, note),
                };
                Some(Ok(Outcome::Nothing))
            }
        };
        if let Some(result) = result {
            if at_once {
                return self.done(place, ticket, result);
            }
            let delay = self.random.micros(1, 1 + self.disk_time(place.node) / 4);
            let life = self.nodes[place.node].life;
            let event = Event::Done { ticket, result };
            self.later(delay, Happening::Event { place, life, event });
        }
    }

    /// Whether this step fails: by chance, or because the disk is full.
    fn fails(&mut self, node: usize, work: &Work) -> bool {
        // What could not be discarded is litter until the next start, and no shadow any more.
        let discards = matches!(work, Work::Shadow(ShadowOperation::Discard, ..));
        let writes = matches!(
            work,
            Work::Engine(EngineOperation::Fence | EngineOperation::Lift)
                | Work::Shadow(..)
                | Work::Journal(_)
                | Work::Record(_)
        );
        let by_chance = self.random.chance(self.plan.work_fails) && self.faulty();
        !discards && (by_chance || writes && self.is_full(node))
    }

    pub fn coordinate(&mut self, place: Place, ticket: Ticket, request: Request, fails: bool) {
        let name = self.names[&ticket.partition].clone();
        let node = self.nodes[place.node].id;
        let mut result = Err(Failure::Retry("the coordinator does not answer".to_owned()));
        if !fails && self.now >= self.keeper.down_until {
            let before = self.keeper.epoch(name.id());
            let answer = self.keeper.ask(node, &name, ticket.task, request);
            let seized = matches!(request, Request::Seize { .. });
            if seized && let Ok(Outcome::Owned(ownership)) = &answer {
                self.taken_over(name.id(), ownership.epoch);
            }
            if !(self.random.chance(self.plan.answers_lost) && self.faulty()) {
                result = answer;
            }
            if self.keeper.epoch(name.id()) != before {
                self.spread(name.id());
            }
        }
        let delay = self
            .random
            .micros(1, 1 + self.plan.latency + self.plan.keeper / 4);
        let life = self.nodes[place.node].life;
        let event = Event::Done { ticket, result };
        self.later(delay, Happening::Event { place, life, event });
    }
}
