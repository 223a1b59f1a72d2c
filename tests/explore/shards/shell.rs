//! The executor of effects: jobs wait in queues, what only reads is done at once.

use std::collections::VecDeque;

use foreshadow::effect::{Effect, Effects, EngineOperation, Note, ShadowOperation};
use foreshadow::event::{
    Cargo, Event, Failure, FrameKey, LinkId, Outcome, Ownership, Task, Ticket,
};
use foreshadow::shard::Shard;
use wal::message::Message;
use wal::{Digest, Epoch, Lsn};

use super::disk::{Content, gone, position};
use super::keeper::Errand;
use super::variants::Variant;
use super::world::{
    END, ENDS, Job, NOW, Parcel, World, database, id_of, index_of, link_to, wire_between,
};

/// It failed, and may succeed when it is tried again.
fn later() -> Failure {
    Failure::Retry("it failed".to_owned())
}

impl World {
    pub fn tell(&mut self, node: usize, event: Event) {
        if self.nodes[node].shard.is_some() {
            self.call(node, None, |shard, out| shard.step(NOW, event, out));
        }
    }

    /// One call of a shard; what its shell answers at once is answered before this ends.
    pub fn call(
        &mut self,
        node: usize,
        frame: Option<(Cargo, Content)>,
        call: impl FnOnce(&mut Shard, &mut Effects),
    ) {
        let mut answers = VecDeque::new();
        self.call_once(node, frame, &mut answers, call);
        for _ in 0..1000 {
            let Some(event) = answers.pop_front() else {
                return;
            };
            self.call_once(node, None, &mut answers, |shard, out| {
                shard.step(NOW, event, out);
            });
        }
        unreachable!("a shell answers a few questions at once");
    }

    fn call_once(
        &mut self,
        node: usize,
        frame: Option<(Cargo, Content)>,
        answers: &mut VecDeque<Event>,
        call: impl FnOnce(&mut Shard, &mut Effects),
    ) {
        let mut out = Effects::default();
        let Some(shard) = &mut self.node(node).shard else {
            return;
        };
        call(shard, &mut out);
        shard.flush(NOW, &mut out);
        for effect in out.0 {
            if let Some((ticket, result)) = self.execute(node, &frame, effect) {
                answers.push_back(Event::Done { ticket, result });
            }
        }
    }

    fn execute(
        &mut self,
        node: usize,
        frame: &Option<(Cargo, Content)>,
        effect: Effect,
    ) -> Option<(Ticket, Result<Outcome, Failure>)> {
        match effect {
            Effect::Engine { ticket, operation } => self.engine(node, ticket, operation),
            Effect::Shadow { ticket, operation } => {
                let job = Job::Copy(ticket, operation, frame.clone());
                self.node(node).jobs[1].push_back(job);
            }
            Effect::Record { ticket, note } => {
                self.node(node).jobs[2].push_back(Job::Journal(ticket, note));
            }
            Effect::Coordinate { ticket, request } => {
                let errand = Errand::new(id_of(node), ticket, request);
                self.node(node).errands.push_back(errand);
            }
            Effect::Send { link, message, .. } => self.send(node, link, message),
            Effect::Ship {
                ticket,
                link,
                from,
                digest,
                ..
            } => return Some((ticket, self.ship(node, link, from, digest))),
            Effect::Copy { ticket, link, last } => {
                return Some((ticket, self.copy(node, link, last)));
            }
            Effect::Compare { ticket, .. } => {
                return Some((ticket, Ok(Outcome::Copied { pages_left: 0 })));
            }
            Effect::SendHashes { link, partition } => {
                // Pages will be written into it: it gives its position up.
                if let Some(copy) = &mut self.node(node).disk.copy {
                    copy.position = None;
                }
                let message = Message::Hashes {
                    partition,
                    first: 1,
                    hashes: Vec::new(),
                    last: true,
                };
                self.send(node, link, message);
            }
            Effect::Dial { .. }
            | Effect::Hangup { .. }
            | Effect::Route { .. }
            | Effect::Reply { .. }
            | Effect::Publish { .. } => {}
        }
        None
    }

    /// What lets go is done at once, and a freeze that still waits is cancelled by it.
    fn engine(&mut self, node: usize, ticket: Ticket, operation: EngineOperation) {
        let node = self.node(node);
        if !matches!(operation, EngineOperation::Thaw | EngineOperation::Detach) {
            node.jobs[0].push_back(Job::Engine(ticket, operation));
            return;
        }
        let waits = |job: &Job| matches!(job, Job::Engine(_, EngineOperation::Freeze { .. }));
        node.jobs[0].retain(|job| !waits(job));
        // A database that is gone is let go already.
        let _ = node.disk.engine(&operation);
    }

    fn send(&mut self, node: usize, link: LinkId, message: Message) {
        // Whoever took over from itself has no link to whom it took over from.
        if link.peer == id_of(node) {
            return;
        }
        if !matches!(message, Message::Ping { .. } | Message::Pong { .. }) {
            self.put(node, link, Parcel::Message(message));
        }
    }

    fn put(&mut self, node: usize, link: LinkId, parcel: Parcel) {
        let wire = wire_between(node, index_of(link.peer));
        if self.wires[wire].up {
            let direction = usize::from(ENDS[wire].1 == node);
            self.wires[wire].queues[direction].push_back(parcel);
        }
    }

    fn ship(
        &mut self,
        node: usize,
        link: LinkId,
        from: Lsn,
        known: Option<Digest>,
    ) -> Result<Outcome, Failure> {
        let live = self.nodes[node].disk.live.as_ref().ok_or_else(gone)?;
        let (content, epoch) = (live.content.clone(), live.epoch);
        let start = usize::try_from(from.0).expect("few writes");
        if !live.attached || start < live.log_from || start > content.len() {
            return Err(gone());
        }
        let from = position(epoch, &content[..start]);
        if let Some(digest) = known {
            let (to, bytes) = (from.lsn, 0);
            let same = from.digest == digest;
            return same
                .then_some(Outcome::Shipped { to, bytes })
                .ok_or_else(gone);
        }
        let to = position(epoch, &content);
        self.put(
            node,
            link,
            Parcel::Frame(Cargo::Delta { from, to }, content),
        );
        let (to, bytes) = (to.lsn, 256);
        Ok(Outcome::Shipped { to, bytes })
    }

    fn copy(&mut self, node: usize, link: LinkId, last: bool) -> Result<Outcome, Failure> {
        let live = self.nodes[node].disk.live.as_ref().ok_or_else(gone)?;
        if !last {
            return Ok(Outcome::Copied { pages_left: 0 });
        }
        let (at, content) = (position(live.epoch, &live.content), live.content.clone());
        self.put(node, link, Parcel::Frame(Cargo::LastPages { at }, content));
        Ok(Outcome::CopiedAll(at))
    }

    /// The oldest parcel of one direction of a wire arrives.
    pub fn delivers(&mut self, wire: usize, direction: usize) {
        let (one, two) = ENDS[wire];
        let (from, to) = if direction == 0 {
            (one, two)
        } else {
            (two, one)
        };
        let parcel = self.wires[wire].queues[direction].pop_front();
        let link = link_to(from);
        match parcel.expect("offered with a parcel") {
            Parcel::Message(message) => self.tell(to, Event::Received { link, message }),
            Parcel::Frame(cargo, content) => {
                let event = Event::Arrived {
                    link,
                    partition: database().id(),
                    frame: FrameKey(0),
                    cargo,
                };
                let frame = Some((cargo, content));
                self.call(to, frame, |shard, out| shard.step(NOW, event, out));
            }
        }
    }

    /// A job takes place; its answer is heard at once, unless the daemon dies before.
    pub fn runs(&mut self, index: usize, queue: usize, fails: bool) {
        let variant = self.variant;
        let node = self.node(index);
        let job = node.jobs[queue].pop_front().expect("offered with a job");
        let (ticket, result) = match job {
            Job::Engine(ticket, _) if fails => (ticket, Err(later())),
            Job::Engine(ticket, EngineOperation::Fence) if variant == Variant::FenceIsForgotten => {
                let thawed = node.disk.engine(&EngineOperation::Thaw);
                (ticket, thawed)
            }
            Job::Engine(ticket, operation) => (ticket, node.disk.engine(&operation)),
            Job::Copy(ticket, ..) | Job::Journal(ticket, _) if fails => (ticket, Err(later())),
            Job::Copy(ticket, operation, frame) => {
                let landed = matches!(operation, ShadowOperation::Remap { .. });
                let result = node.disk.shadow(&operation, frame.as_ref());
                if let (Some(copy), Ok(Outcome::Durable(_)), ShadowOperation::Accept { .. }) =
                    (&mut node.disk.copy, &result, &operation)
                    && variant == Variant::ShadowStandsStill
                {
                    copy.content.pop();
                }
                node.asked |= landed && result.is_ok();
                (ticket, result)
            }
            Job::Journal(ticket, Note::Seized { .. })
                if variant == Variant::TakeoverIsForgotten =>
            {
                (ticket, Ok(Outcome::Nothing))
            }
            Job::Journal(ticket, note) => {
                node.note = Some(note);
                // Promoted in the background, about when the journal hears of it.
                if let (Some(live), true) =
                    (&mut node.disk.live, matches!(note, Note::Landed { .. }))
                {
                    live.landing = None;
                }
                (ticket, Ok(Outcome::Nothing))
            }
        };
        let event = Event::Done { ticket, result };
        self.tell(index, event);
    }

    /// The coordinator takes a node's oldest request. Its answer may be lost; it may not even hear.
    pub fn coordinates(&mut self, index: usize, heard: bool, answered: bool) {
        let errand = self.node(index).errands.pop_front().expect("offered");
        if self.variant == Variant::NobodyAsks
            && let Some(believed) = self.believed(index, &errand)
        {
            let answer = (errand.ticket, Ok(Outcome::Owned(believed)));
            return self.node(index).answers.push_back(answer);
        }
        let mut answer = Err(later());
        self.node(index).asked |= heard && answered;
        if heard {
            let given = self.keeper.ask(id_of(index), &errand, self.variant);
            if answered {
                answer = given;
            }
        }
        self.node(index).answers.push_back((errand.ticket, answer));
    }

    /// What a node would believe that does not ask: that nothing changed while it was away.
    fn believed(&self, index: usize, errand: &Errand) -> Option<Ownership> {
        let live = self.nodes[index].disk.live.as_ref()?;
        let was_owner = errand.ticket.task == Task::Claim && live.epoch > Epoch(0);
        was_owner.then_some(Ownership {
            owner: id_of(index),
            epoch: live.epoch,
            previous: None,
            formerly: false,
            reserved: live.epoch,
        })
    }

    pub fn hears(&mut self, index: usize) {
        let node = self.node(index);
        let (ticket, result) = node.answers.pop_front().expect("offered with an answer");
        self.tell(index, Event::Done { ticket, result });
    }

    /// The coordinator's newest record reaches a node.
    pub fn news(&mut self, index: usize) {
        self.node(index).told = self.revision();
        let Some(record) = &self.keeper.record else {
            return;
        };
        let deaf = self.variant == Variant::NobodyHears && self.nodes[index].serves().is_some();
        if deaf {
            return;
        }
        let ownership = foreshadow::runtime::errands::ownership(record, id_of(index));
        let name = database();
        self.tell(index, Event::Owned { name, ownership });
    }

    /// Every deadline of a node is over.
    pub fn time_passes(&mut self, index: usize) {
        self.call(index, None, |shard, out| {
            shard.on_time(END, out);
            shard.flush(END, out);
        });
    }
}
