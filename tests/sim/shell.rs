//! The executor of effects: each takes its time, may fail, and is answered once.

use std::collections::BTreeMap;
use std::rc::Rc;

use foreshadow::effect::{Effect, EngineOperation, Note, Request, ShadowOperation};
use foreshadow::event::{Attachment, Cargo, Event, Failure, LinkId, Outcome, Remains, Ticket};
use wal::message::{Attributes, Message};
use wal::{Digest, Lsn, PartitionId, PartitionName, Position, Span};

use super::disk::{Copy, Delta, Disk, Live, Lock, State};
use super::network::{Parcel, Payload};
use super::random::Random;
use super::world::{Happening, Node, Place, World};

/// What a helper thread, the disk or the coordinator does in its own time.
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

/// Queues of one partition that keep their order.
const ENGINE: u8 = 0;
const SHADOW: u8 = 1;
const JOURNAL: u8 = 2;
const NOTES: u8 = 3;
const COORDINATOR: u8 = 4;
/// A tail looks as often.
const LOOK_EVERY: Span = Span::micros(100);
/// Deltas handed to a link at once.
const DELTAS_PER_SHIP: u64 = 8;

type Result_ = Result<Outcome, Failure>;

fn gone() -> Failure {
    Failure::Gone("it is not there".to_owned())
}

fn refused(reason: &str) -> Failure {
    Failure::Refused(reason.to_owned())
}

/// What a daemon finds at its start, as runtime/recover.rs tells it.
pub fn found(
    node: &mut Node,
    names: &BTreeMap<PartitionId, PartitionName>,
) -> Vec<(PartitionId, Event)> {
    let mut events = Vec::new();
    for (id, disk) in &mut node.disks {
        let note = node.notes.get(id).copied();
        let landed = disk
            .live
            .as_ref()
            .and_then(|live| Some((live.landed?, live.content.digest())));
        if let (
            Some((epoch, digest)),
            Some(Note::Prepared {
                epoch: prepared, ..
            }),
        ) = (landed, note)
            && epoch == prepared
        {
            // The path was exchanged: it was granted, whatever the journal had time to say.
            let position = Position {
                epoch,
                lsn: Lsn(1),
                digest,
            };
            node.notes.insert(*id, Note::Landed { epoch, position });
        }
        if let Some(copy) = &mut disk.copy {
            let about = match node.notes.get(id) {
                Some(Note::Prepared { epoch, .. } | Note::Landed { epoch, .. }) => Some(*epoch),
                _ => None,
            };
            if copy.landing.is_some() && copy.landing != about {
                copy.landing = None;
            }
        }
    }
    for (partition, note) in &node.notes {
        events.push((
            *partition,
            Event::Noted {
                partition: *partition,
                note: *note,
            },
        ));
    }
    for ((partition, _), note) in &node.wishes {
        events.push((
            *partition,
            Event::Noted {
                partition: *partition,
                note: *note,
            },
        ));
    }
    for (id, disk) in &node.disks {
        let name = names[id].clone();
        if let Some(copy) = &disk.copy {
            let remains: Remains = copy.remains();
            events.push((*id, Event::Recovered { name, remains }));
        }
    }
    for (id, disk) in &node.disks {
        if disk.live.is_some() {
            events.push((
                *id,
                Event::Found {
                    name: names[id].clone(),
                },
            ));
        }
    }
    events
}

/// Locks and what was not durable die with the daemon.
pub fn daemon_died(disk: &mut Disk, random: &mut Random) {
    if let Some(live) = &mut disk.live {
        live.tail = None;
    }
    disk.landed_at = None;
    if random.chance(300) {
        let newest = random.below(4) as usize;
        disk.log.drop_newest(newest);
    }
    if let Some(copy) = &mut disk.copy {
        copy.crash(random.below(4) as usize);
    }
}

impl World {
    pub fn disk(&mut self, place: Place, id: PartitionId) -> &mut Disk {
        self.nodes[place.node].disks.entry(id).or_default()
    }

    pub fn done(&mut self, place: Place, ticket: Ticket, result: Result_) {
        self.tell(place, Event::Done { ticket, result });
    }

    /// Does `work` after what is in the same queue, in up to `longest` microseconds.
    fn enqueue(&mut self, place: Place, queue: u8, longest: u64, ticket: Ticket, work: Work) {
        let delay = self.random.micros(1, longest.max(1));
        let node = &mut self.nodes[place.node];
        let free = node
            .busy
            .entry((ticket.partition, queue))
            .or_insert(self.now);
        let at = (*free).max(self.now) + delay;
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
        let disk = self.plan.disk;
        match effect {
            Effect::Engine { ticket, operation } => self.engine(place, ticket, operation),
            Effect::Shadow { ticket, operation } => {
                let frame = match &operation {
                    ShadowOperation::Fill { frame } | ShadowOperation::Accept { frame } => {
                        self.held_frame(*frame)
                    }
                    _ => None,
                };
                let longest = if frame.is_some() { disk / 10 } else { disk };
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
                let longest = disk + self.plan.latency;
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

    fn engine(&mut self, place: Place, ticket: Ticket, operation: EngineOperation) {
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

    /// The moment something is done; the answer follows.
    pub fn work(&mut self, place: Place, ticket: Ticket, work: Work) {
        self.say(|| format!("{} does {ticket:?}: {work:?}", self.nodes[place.node].name));
        // What could not be discarded is litter until the next start, and no shadow any more.
        let discards = matches!(work, Work::Shadow(ShadowOperation::Discard, ..));
        let fails = self.random.chance(self.plan.work_fails) && self.faulty() && !discards;
        // Said in the turn in which the frames are handed to the link: no answer of the peer is
        // faster.
        let at_once = matches!(work, Work::Copy(..));
        let result = match work {
            Work::Answer(result) => Some(result),
            Work::Journal(position) => {
                if let Some(copy) = &mut self.disk(place, ticket.partition).copy {
                    copy.synced(position);
                }
                Some(Ok(Outcome::Durable(position)))
            }
            Work::Coordinate(request) => return self.coordinate(place, ticket, request, fails),
            Work::Engine(EngineOperation::Freeze { .. }) => self.freeze(place, ticket, fails),
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
            let delay = self.random.micros(1, 1 + self.plan.disk / 4);
            let life = self.nodes[place.node].life;
            let event = Event::Done { ticket, result };
            self.later(delay, Happening::Event { place, life, event });
        }
    }

    fn coordinate(&mut self, place: Place, ticket: Ticket, request: Request, fails: bool) {
        let name = self.names[&ticket.partition].clone();
        let node = self.nodes[place.node].id;
        let mut result = Err(Failure::Retry("the coordinator does not answer".to_owned()));
        if !fails {
            let before = self.keeper.epoch(name.id());
            let answer = self.keeper.ask(node, &name, ticket.task, request);
            if !(self.random.chance(self.plan.answers_lost) && self.faulty()) {
                result = answer;
            }
            if self.keeper.epoch(name.id()) != before {
                self.spread(name.id());
            }
        }
        let delay = self.random.micros(1, 1 + self.plan.latency);
        let life = self.nodes[place.node].life;
        let event = Event::Done { ticket, result };
        self.later(delay, Happening::Event { place, life, event });
    }

    /// Takes the write lock, if it is still wanted, and reads the rest.
    fn freeze(&mut self, place: Place, ticket: Ticket, fails: bool) -> Option<Result_> {
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

    fn engine_now(&mut self, place: Place, id: PartitionId, operation: EngineOperation) -> Result_ {
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

    fn shadow_now(
        &mut self,
        place: Place,
        ticket: Ticket,
        operation: ShadowOperation,
        frame: Option<(Rc<Payload>, Cargo)>,
    ) -> Option<Result_> {
        let id = ticket.partition;
        if let ShadowOperation::Accept { .. } = operation {
            return match self.apply(place, id, frame) {
                Ok(position) => {
                    let longest = self.plan.disk;
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
            ShadowOperation::PrepareLanding { epoch } => match copy.state {
                State::At(_) if copy.landing.is_none_or(|landing| landing == epoch) => {
                    copy.landing = Some(epoch);
                    Ok(Outcome::Nothing)
                }
                _ => Err(refused("it can't land")),
            },
            ShadowOperation::SyncLanding => match (copy.state, copy.landing) {
                (State::At(position), Some(_)) => {
                    copy.synced(position);
                    Ok(Outcome::Durable(position))
                }
                _ => Err(refused("it is not landing")),
            },
            ShadowOperation::Remap { epoch, position } => match copy.state {
                State::At(at) if at.digest == position.digest => {
                    let mut live = Live::new(copy.content.clone());
                    live.landed = Some(epoch);
                    disk.landed_at = Some(Position {
                        lsn: position.lsn,
                        ..at
                    });
                    disk.copy = None;
                    if disk.live.is_some() {
                        // The exchange leaves what was there in its old generation.
                        disk.live = None;
                    }
                    disk.live = Some(live);
                    Ok(Outcome::Nothing)
                }
                State::At(_) => Err(Failure::Corrupt("another digest was granted".to_owned())),
                State::Filling => Err(refused("it has no position")),
            },
            ShadowOperation::Abandon => {
                copy.landing = None;
                Ok(Outcome::Nothing)
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

    fn ship(
        &mut self,
        place: Place,
        id: PartitionId,
        link: LinkId,
        class: foreshadow::effect::Class,
        from: Lsn,
        digest: Option<Digest>,
    ) -> Result_ {
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

    fn copy_now(&mut self, place: Place, id: PartitionId, link: LinkId, last: bool) -> Result_ {
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
        let class = foreshadow::effect::Class::Bulk;
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

    /// A copy that had a position gives it up: pages will be written into it.
    fn send_hashes(&mut self, place: Place, link: LinkId, partition: PartitionId) {
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
            self.send(
                place,
                link,
                foreshadow::effect::Class::Bulk,
                Parcel::Message(message),
            );
        }
    }
}

fn fill(copy: &mut Copy, frame: Option<(Rc<Payload>, Cargo)>) -> Result_ {
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
