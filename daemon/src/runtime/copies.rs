//! Shadows of this shard: filled, followed, landed, discarded.
//!
//! A shadow that a helper thread works on is away; what is asked of it meanwhile waits in order.
//! Deltas are applied first and journalled right after; only the acknowledgement waits for the
//! disk. The order is safe because the -wal that a delta is applied to means nothing after a crash
//! unless a checkpoint synced it.

mod files;
mod landing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use io::engine::shadow::Shadow;
use io::failpoint::{self, Step};
use wal::frame::{Flags, Frame};
use wal::message::{Attributes, HASHES_PER_MESSAGE_MAX, Message};
use wal::{PartitionId, PartitionName, Position, Span, Time};

use super::host::Host;
use super::journal::Journal;
use super::lives::failure_of;
use super::pools::Where;
use crate::effect::{Class, ShadowOperation};
use crate::event::{Failure, LinkId, Outcome, Task, Ticket};
use files::create;
pub use files::{Held, file_name, read_name, write_name};

/// A -wal of this size is checkpointed, and again when it grew by as much.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// Checkpoints in a row of a shadow that got more meanwhile than can be moved to the start of its
/// -wal: each is shorter than the one before.
const CHECKPOINTS_IN_A_ROW: u32 = 4;
/// A shadow that got nothing for so long is checkpointed, so that the journal may drop its deltas.
const CHECKPOINT_AFTER: Span = Span::secs(5);
/// How often shadows are looked at for that.
const TEND_EVERY: Span = Span::secs(1);
/// Operations that wait for a shadow that is away: the sender's window bounds them in bytes.
const WAITING_MAX: usize = 16_384;

/// One shadow.
pub struct ShadowCopy {
    pub name: PartitionName,
    pub place: usize,
    pub held: Held,
    waiting: VecDeque<Waiting>,
    /// Its files are attached ahead of being served; a landing is not given up meanwhile.
    pub ahead: bool,
    applied_at: Time,
    /// Checkpoints since the -wal began anew, and the size of it that asks for the next one.
    checkpoints: u32,
    checkpoint_at: u64,
    /// Who wants to know the page hashes once the shadow is filling.
    hashes_to: Option<LinkId>,
}

/// Something asked of a shadow while it was away.
struct Waiting {
    ticket: Ticket,
    operation: ShadowOperation,
    frame: Option<Frame>,
}

/// The shadows of one shard.
pub struct Copies {
    pub by_id: BTreeMap<PartitionId, ShadowCopy>,
    pub journal: Journal,
    tend_at: Time,
}

impl Copies {
    pub fn new(journal: Journal) -> Copies {
        Copies {
            by_id: BTreeMap::new(),
            journal,
            tend_at: Time(0),
        }
    }

    pub fn insert(&mut self, id: PartitionId, name: PartitionName, place: usize, held: Held) {
        let waiting = VecDeque::new();
        let copy = ShadowCopy {
            name,
            place,
            held,
            waiting,
            ahead: false,
            applied_at: Time(0),
            checkpoints: 0,
            checkpoint_at: CHECKPOINT_BYTES,
            hashes_to: None,
        };
        self.by_id.insert(id, copy);
    }

    pub fn deadline(&self) -> Option<Time> {
        (!self.by_id.is_empty()).then_some(self.tend_at)
    }

    pub fn close_all(&mut self) {
        self.by_id.clear();
    }
}

impl ShadowCopy {
    fn must_wait(&self, operation: &ShadowOperation) -> bool {
        !self.waiting.is_empty() || self.is_away_for(operation)
    }

    /// Says when to checkpoint next, with `bytes` left in the -wal.
    fn checkpointed(&mut self, bytes: u64) {
        let restarted = bytes < CHECKPOINT_BYTES;
        self.checkpoints = if restarted { 0 } else { self.checkpoints + 1 };
        let enough = self.checkpoints.is_multiple_of(CHECKPOINTS_IN_A_ROW);
        self.checkpoint_at = match (restarted, enough) {
            (true, _) => CHECKPOINT_BYTES,
            (false, true) => bytes + CHECKPOINT_BYTES,
            (false, false) => bytes,
        };
    }

    /// Lending a shadow while a checkpoint of it runs would lose the checkpoint's result. What
    /// attaches ahead may be writing a log into the file, and has its source to hand in.
    fn is_away_for(&self, operation: &ShadowOperation) -> bool {
        let lends = matches!(
            operation,
            ShadowOperation::Fill { .. }
                | ShadowOperation::Restart
                | ShadowOperation::PrepareLanding { .. }
                | ShadowOperation::Abandon
        );
        let gives_up = matches!(operation, ShadowOperation::Abandon);
        match &self.held.shadow {
            None => true,
            Some(shadow) => lends && shadow.is_checkpointing() || gives_up && self.ahead,
        }
    }
}

impl Host {
    pub fn execute_shadow(&mut self, ticket: Ticket, operation: ShadowOperation) {
        let frame = match &operation {
            ShadowOperation::Fill { frame } | ShadowOperation::Accept { frame } => {
                self.held_frame(*frame)
            }
            _ => None,
        };
        if let ShadowOperation::Create {
            page_size,
            attributes,
        } = operation
        {
            return self.create_shadow(ticket, page_size, attributes);
        }
        let Some(copy) = self.copies.by_id.get_mut(&ticket.partition) else {
            return self.done(
                ticket,
                Err(Failure::Gone("there is no such shadow".to_owned())),
            );
        };
        let waiting = Waiting {
            ticket,
            operation,
            frame,
        };
        if copy.must_wait(&waiting.operation) {
            if copy.waiting.len() >= WAITING_MAX {
                let reason = "too much waits for the shadow".to_owned();
                return self.done(ticket, Err(Failure::Retry(reason)));
            }
            copy.waiting.push_back(waiting);
            return;
        }
        self.work_on(waiting);
    }

    fn work_on(
        &mut self,
        Waiting {
            ticket,
            operation,
            frame,
        }: Waiting,
    ) {
        match operation {
            ShadowOperation::Create { .. } => unreachable!("made before anything waits for it"),
            ShadowOperation::Fill { .. } => self.fill(ticket, frame),
            ShadowOperation::Accept { .. } => self.accept(ticket, frame),
            ShadowOperation::Restart => {
                self.with_shadow(ticket, |shadow| shadow.refill().map(|()| Outcome::Nothing))
            }
            ShadowOperation::PrepareLanding { epoch } => {
                self.prepare_landing(ticket, epoch);
            }
            ShadowOperation::SyncLanding => self.sync_landing(ticket),
            ShadowOperation::Remap { epoch, position } => self.remap(ticket, epoch, position),
            ShadowOperation::Abandon => {
                self.take_grant_back(ticket.partition);
                self.lives.landing.remove(&ticket.partition);
                self.with_shadow(ticket, |shadow| {
                    if shadow.landing_epoch().is_some() {
                        shadow.abandon_landing()?;
                    }
                    let stands = shadow.position().map(Outcome::Durable);
                    Ok(stands.unwrap_or(Outcome::Nothing))
                });
            }
            ShadowOperation::Discard => self.discard(ticket),
        }
    }

    /// Lends the shadow to a helper thread; answers with what `work` returns.
    fn with_shadow(
        &mut self,
        ticket: Ticket,
        work: impl FnOnce(&mut Shadow) -> io::Result<Outcome> + Send + 'static,
    ) {
        let id = ticket.partition;
        let generation = self.copies.by_id.get(&id).map(|copy| copy.held.generation);
        let Some(mut shadow) = self.borrow(id) else {
            return self.done(ticket, Err(Failure::Gone("the shadow is away".to_owned())));
        };
        let lent = move || {
            let result = work(&mut shadow);
            (shadow, result)
        };
        self.offload(Where::Disk, lent, move |host, back| match back {
            Ok((shadow, result)) => {
                host.done(ticket, result.map_err(|error| failure_of(&error)));
                // A copy that was discarded and made anew meanwhile is another one.
                let current = host.copies.by_id.get(&id).map(|copy| copy.held.generation);
                if current == generation {
                    // What the journal holds of before is not this copy's past any more.
                    if matches!(ticket.task, Task::Restore | Task::Fill) {
                        host.copies.journal.release_all(id);
                        if let Some(copy) = host.copies.by_id.get_mut(&id) {
                            copy.checkpointed(0);
                        }
                    }
                    host.give_back(id, shadow);
                }
            }
            Err(panic) => {
                let lost = host.copies.by_id.remove(&id);
                host.done(ticket, Err(Failure::Corrupt(panic)));
                for waiting in lost.into_iter().flat_map(|copy| copy.waiting) {
                    let gone = Failure::Gone("the shadow is lost".to_owned());
                    host.done(waiting.ticket, Err(gone));
                }
            }
        });
    }

    fn borrow(&mut self, id: PartitionId) -> Option<Shadow> {
        self.copies.by_id.get_mut(&id)?.held.shadow.take()
    }

    fn give_back(&mut self, id: PartitionId, shadow: Shadow) {
        let Some(copy) = self.copies.by_id.get_mut(&id) else {
            return;
        };
        copy.held.shadow = Some(shadow);
        self.tell_hashes(id);
        self.work_off(id);
    }

    /// Does what waited, until the shadow is lent again.
    pub fn work_off(&mut self, id: PartitionId) {
        loop {
            let Some(copy) = self.copies.by_id.get_mut(&id) else {
                return;
            };
            let Some(waiting) = copy.waiting.pop_front() else {
                return;
            };
            if copy.is_away_for(&waiting.operation) {
                copy.waiting.push_front(waiting);
                return;
            }
            self.work_on(waiting);
        }
    }

    fn create_shadow(&mut self, ticket: Ticket, page_size: u32, attributes: Attributes) {
        let id = ticket.partition;
        let Some(name) = self.name_of(id) else { return };
        let Some(place) = self.setup.place_for(&name, attributes.engine) else {
            let reason = format!("no [[engine.{}]] is configured here", attributes.engine);
            return self.done(ticket, Err(Failure::Refused(reason)));
        };
        let (setup, entry) = (Arc::clone(&self.setup), name.clone());
        let old = self.copies.by_id.remove(&id);
        self.copies.journal.release_all(id);
        let work = move || {
            if let Some(old) = old {
                let (name, generation) = (&old.name, old.held.generation);
                setup.places[old.place].remap().remove(name, generation)?;
            }
            create(&setup, place, &entry, page_size, attributes)
        };
        self.offload(Where::Disk, work, move |host, made| {
            let result = match made {
                Ok(Ok(held)) => {
                    host.copies.insert(id, name, place, held);
                    Ok(Outcome::Nothing)
                }
                Ok(Err(error)) => Err(failure_of(&error)),
                Err(panic) => Err(Failure::Refused(panic)),
            };
            host.done(ticket, result);
        });
    }

    fn fill(&mut self, ticket: Ticket, frame: Option<Frame>) {
        let Some(frame) = frame else { return };
        let last = frame.header().flags.has(Flags::LAST);
        self.with_shadow(ticket, move |shadow| {
            let head = shadow.write_pages(&frame)?;
            if !last {
                return Ok(Outcome::Nothing);
            }
            shadow.complete(head.at, head.page_count)?;
            Ok(Outcome::Durable(head.at))
        });
    }

    /// Applies a delta and sends it on its way to the disk: in this order, because the commit
    /// thread takes the processor at once.
    fn accept(&mut self, ticket: Ticket, frame: Option<Frame>) {
        let (id, now) = (ticket.partition, self.now);
        let Some(frame) = frame else { return };
        let Some(copy) = self.copies.by_id.get_mut(&id) else {
            return;
        };
        let Some(shadow) = &mut copy.held.shadow else {
            return;
        };
        copy.applied_at = now;
        let applied = shadow.apply(&frame).map_err(|error| failure_of(&error));
        let submitted = applied.and_then(|position| {
            self.positions_applied(id, position);
            self.copies.journal.submit(ticket, position, frame)
        });
        match submitted {
            Ok(()) => self.checkpoint_if_large(id),
            Err(failure) => self.done(ticket, Err(failure)),
        }
    }

    /// A delta is applied and durable, or its journal failed.
    fn accepted(&mut self, ticket: Ticket, result: Result<Position, Failure>) {
        if let Ok(position) = &result {
            self.positions_durable(ticket.partition, *position);
        }
        self.done(ticket, result.map(Outcome::Durable));
    }

    /// Takes in what the commit thread made durable.
    pub fn take_commits(&mut self) {
        for (ticket, result) in self.copies.journal.take_finished() {
            self.accepted(ticket, result);
        }
    }

    fn discard(&mut self, ticket: Ticket) {
        let id = ticket.partition;
        self.take_grant_back(id);
        self.copies.journal.release_all(id);
        self.positions_forget(id);
        let Some(copy) = self.copies.by_id.remove(&id) else {
            return self.done(ticket, Ok(Outcome::Nothing));
        };
        let setup = Arc::clone(&self.setup);
        let work = move || {
            drop(copy.held.shadow);
            setup.places[copy.place]
                .remap()
                .remove(&copy.name, copy.held.generation)
        };
        self.offload(Where::Disk, work, move |host, removed| {
            let result = match removed {
                Ok(Ok(())) => Ok(Outcome::Nothing),
                Ok(Err(error)) => Err(failure_of(&error)),
                Err(panic) => Err(Failure::Refused(panic)),
            };
            host.done(ticket, result);
        });
    }

    /// Sends the page hashes of a shadow, so that its owner finds what differs. A shadow that had a
    /// position gives it up: pages will be written into it.
    pub fn send_hashes(&mut self, link: LinkId, id: PartitionId) {
        let ticket = Ticket {
            partition: id,
            task: Task::Restore,
            number: u64::MAX,
        };
        let operation = ShadowOperation::Restart;
        let Some(copy) = self.copies.by_id.get_mut(&id) else {
            return;
        };
        copy.hashes_to = Some(link);
        self.execute_shadow(ticket, operation);
    }

    /// The shadow is filling: its owner may know what is in it.
    fn tell_hashes(&mut self, id: PartitionId) {
        let Some(copy) = self.copies.by_id.get_mut(&id) else {
            return;
        };
        let (Some(link), Some(shadow)) = (copy.hashes_to.take(), &copy.held.shadow) else {
            return;
        };
        let hashes: Vec<u64> = shadow.hashes().iter().map(|hash| hash.0).collect();
        let mut first = 1;
        let mut chunks = hashes.chunks(HASHES_PER_MESSAGE_MAX).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default().to_vec();
            let last = chunks.peek().is_none();
            let count = chunk.len() as u32;
            let message = Message::Hashes {
                partition: id,
                first,
                hashes: chunk,
                last,
            };
            failpoint::reach(Step::ShipHashed);
            // The table goes out whole or with its link: what waits is no more than the table
            // itself, which is in memory already.
            self.links.send(link, Class::Bulk, message.seal());
            if last || !self.links.is_up(link) {
                return;
            }
            first += count;
        }
    }

    /// Checkpoints shadows that have been quiet, or that the journal waits for.
    pub fn tend_copies(&mut self) {
        if self.copies.tend_at > self.now || self.copies.by_id.is_empty() {
            return;
        }
        self.copies.tend_at = self.now + TEND_EVERY;
        let pressed = self.copies.journal.holders();
        let ids: Vec<PartitionId> = self.copies.by_id.keys().copied().collect();
        for id in ids {
            let quiet = self.copies.by_id[&id].applied_at + CHECKPOINT_AFTER < self.now;
            if quiet || pressed.contains(&id) {
                self.checkpoint_copy(id, 1);
            }
        }
    }

    fn checkpoint_if_large(&mut self, id: PartitionId) {
        if let Some(copy) = self.copies.by_id.get(&id) {
            self.checkpoint_copy(id, copy.checkpoint_at);
        }
    }

    fn checkpoint_copy(&mut self, id: PartitionId, bytes_min: u64) {
        let Some(copy) = self.copies.by_id.get_mut(&id) else {
            return;
        };
        let Some(shadow) = &mut copy.held.shadow else {
            return;
        };
        if shadow.wal_bytes() < bytes_min {
            return;
        }
        let Some(task) = shadow.checkpoint_task() else {
            return;
        };
        self.offload(
            Where::Disk,
            move || task.run(),
            move |host, done| {
                let Some(copy) = host.copies.by_id.get_mut(&id) else {
                    return;
                };
                let Some(shadow) = &mut copy.held.shadow else {
                    return;
                };
                match done {
                    Ok(done) => match shadow.checkpoint_done(done) {
                        Ok(position) => host.copies.journal.release(id, position),
                        Err(error) => {
                            tracing::warn!(partition = %copy.name, %error, "checkpoint failed");
                        }
                    },
                    Err(_) => shadow.checkpoint_lost(),
                }
                let bytes = shadow.wal_bytes();
                copy.checkpointed(bytes);
                host.work_off(id);
            },
        );
    }
}
