//! The shell of one shard: wait, step, run effects.
//!
//! Everything here happens on the shard's thread. What would block is offloaded to a pool, and its
//! result comes back as mail. The brain decides, this executes, in the order in which the effects
//! were pushed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use io::failpoint::{self, Step};
use io::reactor::{ShardContext, now};
use io::ring::{Descriptor, Ring, Token};
use wal::frame::{Flags, Frame, FrameKind};
use wal::message::Message;
use wal::{PartitionId, PartitionName, Position, Time};

use super::bells::{BELLS, Bells};
use super::codecs::Codecs;
use super::copies::Copies;
use super::grants::Grants;
use super::later::Later;
use super::links::{Incoming, LISTENER, Links};
use super::listen::Door;
use super::lives::Lives;
use super::mail::{Answer, Mail, Mailbox};
use super::meters::Meters;
use super::notices::Noticeboard;
use super::observe::changes::Gathered;
use super::pools::Pools;
use super::positions::Positions;
use super::setup::Setup;
use crate::effect::{Class, Effect, Effects, Notice};
use crate::event::{Asked, Cargo, Event, Failure, FrameKey, LinkId, Outcome, Ticket};
use crate::serve::problem::Problem;
use crate::serve::reply::Reply;
use crate::shard::Shard;

/// Marks completions of the journal's bell.
const JOURNAL: u64 = LISTENER - 1;
/// Marks completions of the alerts of databases at rest.
const ALERTS: u64 = LISTENER - 2;
/// poll(2): there is data to read.
const POLLIN: i16 = 1;
/// Events taken from the inbox before effects are flushed.
const MAIL_PER_TURN: usize = 256;

/// The shell of one shard.
pub struct Host {
    pub setup: Arc<Setup>,
    pub brain: Shard,
    pub lives: Lives,
    pub copies: Copies,
    pub links: Links,
    pub mailbox: Mailbox,
    pub pools: Pools,
    pub board: Noticeboard,
    pub positions: Positions,
    pub meters: Meters,
    pub codecs: Codecs,
    pub grants: Grants,
    pub bells: Bells,
    pub later: Later,
    pub gathered: Gathered,
    /// When the turn before this one began.
    pub last_turn: Time,
    pub now: Time,
    queue: VecDeque<Event>,
    asked: BTreeMap<Asked, Answer>,
    next_asked: u64,
    /// The data frame that the brain is deciding about.
    held: Option<(FrameKey, Frame)>,
    next_frame: u64,
    /// Readable when the journal made deltas durable.
    journal_wake: Descriptor,
    journal_watched: bool,
    /// Readable when somebody touched a database at rest.
    alert: Option<Descriptor>,
    alert_watched: bool,
    stopping: bool,
}

/// Runs a shard until it is told to stop.
pub async fn run(
    mut context: ShardContext,
    inbox: flume::Receiver<Mail>,
    mut host: Host,
    mut door: Option<Door>,
) -> io::Result<()> {
    host.start(&mut context.ring);
    while !host.stopping {
        // Mail that did not fit into a turn rang its bell already.
        let deadline = match inbox.is_empty() {
            true => host.deadline(door.as_ref()),
            false => Some(host.now),
        };
        context.wait(deadline).await?;
        host.turn(&mut context.ring, &inbox, door.as_mut());
    }
    host.finish(&mut context.ring);
    Ok(())
}

impl Host {
    pub fn new(
        setup: Arc<Setup>,
        brain: Shard,
        lives: Lives,
        copies: Copies,
        mailbox: Mailbox,
        pools: Pools,
        board: Noticeboard,
    ) -> io::Result<Host> {
        let wake = copies.journal.wake_fd().try_clone_to_owned();
        let wake = wake.map_err(|error| io::Error::system("duplicate", "an eventfd", error))?;
        let alert = lives.colds.alert_fd().map(|fd| fd.try_clone_to_owned());
        let alert = alert.transpose();
        let alert = alert.map_err(|error| io::Error::system("duplicate", "inotify", error))?;
        let grants = Grants::new(&setup);
        Ok(Host {
            setup,
            grants,
            bells: Bells::default(),
            later: Later::default(),
            gathered: Gathered::default(),
            brain,
            lives,
            copies,
            links: Links::default(),
            mailbox,
            pools,
            board,
            positions: Positions::default(),
            meters: Meters::default(),
            codecs: Codecs::default(),
            last_turn: now(),
            now: now(),
            queue: VecDeque::new(),
            asked: BTreeMap::new(),
            next_asked: 0,
            held: None,
            next_frame: 0,
            journal_wake: Descriptor::from(wake),
            journal_watched: false,
            alert: alert.map(Descriptor::from),
            alert_watched: false,
            stopping: false,
        })
    }

    /// One turn of the loop: everything that happened since the last one.
    fn turn(&mut self, ring: &mut Ring, inbox: &flume::Receiver<Mail>, door: Option<&mut Door>) {
        self.last_turn = self.now;
        self.now = now();
        self.do_what_waited();
        self.take_completions(ring, door);
        for mail in inbox.try_iter().take(MAIL_PER_TURN) {
            self.take_mail(ring, mail);
        }
        self.sweep_lives();
        self.arm_bells(ring);
        self.tend_copies();
        self.continue_ships(ring);
        self.settle(ring);
        let mut incoming = Vec::new();
        self.links.pump(ring, self.now, &mut incoming);
        self.take_incoming(ring, incoming);
        self.settle(ring);
        self.publish_positions();
        self.tell_changes();
        self.measure();
        self.choose_codecs();
    }

    /// Steps the brain through everything queued, then ends the batch.
    fn settle(&mut self, ring: &mut Ring) {
        let mut out = Effects::default();
        let due = self
            .brain
            .deadline(self.now)
            .is_some_and(|deadline| deadline <= self.now);
        if due {
            self.brain.on_time(self.now, &mut out);
        }
        loop {
            self.execute_all(ring, &mut out);
            match self.queue.pop_front() {
                Some(event) => self.brain.step(self.now, event, &mut out),
                None => {
                    self.brain.flush(self.now, &mut out);
                    if out.0.is_empty() && self.queue.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn deadline(&self, door: Option<&Door>) -> Option<Time> {
        let door = door.and_then(Door::deadline);
        [
            self.brain.deadline(self.now),
            self.links.deadline(),
            self.lives.deadline(),
            self.copies.deadline(),
            self.later.deadline(),
            self.gathered.deadline(),
            door,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn take_completions(&mut self, ring: &mut Ring, mut door: Option<&mut Door>) {
        if !self.journal_watched {
            ring.poll_multishot(Token::new(JOURNAL, 0), &self.journal_wake, POLLIN);
            self.journal_watched = true;
        }
        if let Some(alert) = self.alert.as_ref().filter(|_| !self.alert_watched) {
            ring.poll_multishot(Token::new(ALERTS, 0), alert, POLLIN);
            self.alert_watched = true;
        }
        if let Some(door) = door.as_deref_mut() {
            door.pump(ring, self.now);
        }
        let mut incoming = Vec::new();
        while let Some(completion) = ring.completion() {
            if completion.token.owner() == JOURNAL {
                self.journal_watched = completion.more;
                self.take_commits();
            } else if completion.token.owner() == ALERTS {
                self.alert_watched = completion.more;
                self.take_alerts();
            } else if completion.token.owner() == BELLS {
                self.rung(completion);
            } else if completion.token.owner() == LISTENER {
                if let Some(door) = door.as_deref_mut() {
                    door.on_completion(completion, self.now, &self.pools);
                }
            } else {
                self.links.on_completion(ring, completion, &mut incoming);
            }
        }
        self.take_incoming(ring, incoming);
    }

    fn take_incoming(&mut self, ring: &mut Ring, incoming: Vec<Incoming>) {
        for entry in incoming {
            match entry {
                Incoming::Frame(link, frame) => self.take_frame(ring, link, frame),
                Incoming::Down(link, reason) => {
                    self.queue.push_back(Event::LinkDown { link, reason });
                }
            }
        }
    }

    /// A frame is decided about at once, while it is held.
    fn take_frame(&mut self, ring: &mut Ring, link: LinkId, frame: Frame) {
        let event = match describe(link, &frame, FrameKey(self.next_frame)) {
            Ok(event) => event,
            Err(error) => {
                let reason = format!("an unreadable frame: {error}");
                self.links.hang_up(ring, self.now, link);
                self.queue.push_back(Event::LinkDown { link, reason });
                return;
            }
        };
        if let Event::Arrived {
            cargo: Cargo::Delta { .. },
            ..
        } = &event
        {
            failpoint::reach(Step::ShipReceived);
        }
        let acknowledged = match &event {
            Event::Received {
                message: Message::Ack { partition, durable },
                ..
            } => Some((*partition, durable.lsn)),
            _ => None,
        };
        self.held = Some((FrameKey(self.next_frame), frame));
        self.next_frame += 1;
        let mut out = Effects::default();
        self.brain.step(self.now, event, &mut out);
        self.execute_all(ring, &mut out);
        self.held = None;
        if let Some((partition, lsn)) = acknowledged
            && self.lives.by_id.contains_key(&partition)
        {
            self.positions_acknowledged(partition, lsn);
        }
    }

    fn take_mail(&mut self, ring: &mut Ring, mail: Mail) {
        match mail {
            Mail::Event(event) => self.queue.push_back(event),
            Mail::Renamed(id) => self.verify_colds(&[id]),
            Mail::Finished(take) => take(self),
            Mail::Ask(query, answer) => {
                self.next_asked += 1;
                let asked = Asked(self.next_asked);
                self.asked.insert(asked, answer);
                self.queue.push_back(Event::Asked { asked, query });
            }
            Mail::Greeted {
                link,
                hello,
                stream,
                address,
            } => match self.links.add(ring, self.now, link, stream, address) {
                Ok(()) => self.queue.push_back(Event::LinkUp { link, hello }),
                Err(error) => {
                    let reason = error.to_string();
                    self.queue.push_back(Event::LinkDown { link, reason });
                }
            },
            Mail::Reload { bytes_per_sec_max } => self.lives.set_rate(bytes_per_sec_max),
            Mail::Stop => self.stopping = true,
        }
    }

    fn start(&mut self, ring: &mut Ring) {
        self.now = now();
        let mut out = Effects::default();
        for event in self.setup.take_first_events(self.brain.settings().shard) {
            self.queue.push_back(event);
        }
        self.brain.open(self.now, &mut out);
        self.execute_all(ring, &mut out);
        self.settle(ring);
    }

    /// Lets every database go as it is: nothing has to be undone.
    fn finish(&mut self, ring: &mut Ring) {
        for link in self.links.ids() {
            self.links.hang_up(ring, self.now, link);
        }
        self.lives.detach_all();
        self.copies.close_all();
    }

    fn execute_all(&mut self, ring: &mut Ring, out: &mut Effects) {
        for effect in std::mem::take(&mut out.0) {
            self.execute(ring, effect);
        }
    }

    fn execute(&mut self, ring: &mut Ring, effect: Effect) {
        match effect {
            Effect::Engine { ticket, operation } => self.execute_engine(ticket, operation),
            Effect::Shadow { ticket, operation } => self.execute_shadow(ticket, operation),
            Effect::Dial { link } => self.dial(link),
            Effect::Hangup { link, .. } => self.links.hang_up(ring, self.now, link),
            Effect::Send {
                link,
                class,
                message,
            } => {
                match message {
                    Message::Ready { .. } => failpoint::reach(Step::FenceReady),
                    Message::Grant { .. } => failpoint::reach(Step::FenceGrant),
                    Message::Serving { .. } => failpoint::reach(Step::RouteServing),
                    _ => {}
                }
                self.send(ring, link, class, message.seal());
            }
            Effect::Ship {
                ticket,
                link,
                class,
                from,
                digest,
                bytes_max,
            } => {
                self.ship(ring, ticket, link, class, from, digest, bytes_max);
            }
            Effect::Copy { ticket, link, last } => self.begin_copy(ticket, link, last),
            Effect::Compare {
                ticket,
                peer,
                first,
                hashes,
                last,
            } => {
                self.compare(ticket, peer, first, hashes, last);
            }
            Effect::SendHashes { link, partition } => self.send_hashes(link, partition),
            Effect::Record { ticket, note } => self.record(ticket, note),
            Effect::Coordinate { ticket, request } => self.coordinate(ticket, request),
            Effect::Route { partition } => self.route(partition),
            Effect::Reply { asked, reply } => self.reply(asked, reply),
            Effect::Publish { notice } => self.publish(notice),
        }
    }

    /// Queues a frame; a link that drowns is ended, because a queue without bound is no queue.
    pub fn send(&mut self, ring: &mut Ring, link: LinkId, class: Class, frame: Frame) -> bool {
        if self.links.send(link, class, frame) {
            return true;
        }
        if self.links.is_up(link) {
            self.links.hang_up(ring, self.now, link);
            let reason = "the peer takes frames in too slowly".to_owned();
            self.queue.push_back(Event::LinkDown { link, reason });
        }
        false
    }

    /// Answers an effect.
    pub fn done(&mut self, ticket: Ticket, result: Result<Outcome, Failure>) {
        self.queue.push_back(Event::Done { ticket, result });
    }

    pub fn happened(&mut self, event: Event) {
        self.queue.push_back(event);
    }

    pub fn name_of(&self, partition: PartitionId) -> Option<PartitionName> {
        self.brain
            .partitions()
            .get(&partition)
            .map(|partition| partition.name.clone())
    }

    /// The data frame named by `key`, while the brain decides about it.
    pub fn held_frame(&self, key: FrameKey) -> Option<Frame> {
        self.held
            .as_ref()
            .filter(|(held, _)| *held == key)
            .map(|(_, frame)| frame.clone())
    }

    fn reply(&mut self, asked: Asked, reply: Result<Reply, Problem>) {
        let Some(answer) = self.asked.remove(&asked) else {
            return;
        };
        answer(reply.map(|reply| self.complete(reply)));
    }

    fn publish(&mut self, notice: Notice) {
        self.count(&notice);
        let name = self.name_of(notice.partition);
        self.board.post(name, notice);
    }
}

/// What came in, for the brain.
fn describe(link: LinkId, frame: &Frame, key: FrameKey) -> Result<Event, wal::Error> {
    let header = frame.header();
    let partition = header.partition;
    Ok(match header.kind {
        FrameKind::Message => Event::Received {
            link,
            message: Message::open(frame)?,
        },
        FrameKind::Delta => {
            let head = wal::delta::Decoder::delta_head(frame)?;
            let cargo = Cargo::Delta {
                from: head.from,
                to: head.to,
            };
            Event::Arrived {
                link,
                partition,
                frame: key,
                cargo,
            }
        }
        FrameKind::Pages if header.flags.has(Flags::LAST) => {
            let at: Position = wal::delta::Decoder::pages_head(frame)?.at;
            Event::Arrived {
                link,
                partition,
                frame: key,
                cargo: Cargo::LastPages { at },
            }
        }
        FrameKind::Pages => Event::Arrived {
            link,
            partition,
            frame: key,
            cargo: Cargo::Pages,
        },
        FrameKind::Note => {
            let kind = header.kind as u64;
            return Err(wal::Error::Field {
                what: "frame from a peer",
                field: "kind",
                value: kind,
            });
        }
    })
}
