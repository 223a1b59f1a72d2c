//! The pause, as the source's shell executes it: write lock, rest of the log, fence, hand-over.

use std::sync::Arc;
use std::time::Duration;

use io::durable::Attributes as FileAttributes;
use io::engine::shadow::{Shadow, ShadowPaths, ShadowSpec};
use io::engine::tombstone;
use io::failpoint::{self, Step};
use wal::{PartitionId, PartitionName, Position, Span};

use super::copies::Held;
use super::host::Host;
use super::lives::{Live, attach_and_scan, failure_of};
use super::pools::Where;
use super::recover::mark_retired;
use super::setup::Setup;
use crate::event::{Failure, Outcome, Ticket};

/// What of a pause is under way in the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Freeze {
    #[default]
    None,
    /// A helper thread waits for the write lock, for the attempt of this number.
    Waiting(u64),
    Frozen,
}

/// Budget for the write lock of a database that another node took over.
const DEPOSED_BUDGET: Duration = Duration::from_secs(5);

impl Host {
    pub fn freeze(&mut self, ticket: Ticket, budget: Span) {
        let id = ticket.partition;
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            let gone = Failure::Gone("the database is not attached".to_owned());
            return self.done(ticket, Err(gone));
        };
        live.freeze = Freeze::Waiting(ticket.number);
        let task = live.source.freeze(budget.to_duration());
        self.offload(
            Where::Disk,
            move || task.run(),
            move |host, locked| {
                let Some(live) = host.lives.by_id.get_mut(&id) else {
                    return;
                };
                if live.freeze != Freeze::Waiting(ticket.number) {
                    return;
                }
                match locked {
                    Ok(Ok(())) => {
                        live.freeze = Freeze::Frozen;
                        let result = host.read_rest(id);
                        host.done(ticket, result);
                    }
                    Ok(Err(error)) => host.done(ticket, Err(failure_of(&error))),
                    Err(panic) => host.done(ticket, Err(Failure::Refused(panic))),
                }
            },
        );
    }

    /// Consumes everything that was committed before the lock was had.
    fn read_rest(&mut self, id: PartitionId) -> Result<Outcome, Failure> {
        while !self.read_live(id) {}
        let Some(live) = self.lives.by_id.get(&id) else {
            return Err(Failure::Gone("the database is not attached".to_owned()));
        };
        if live.source.changed() || live.source.wants_scan().is_some() {
            let reason = "its log could not be read to the end".to_owned();
            return Err(Failure::Retry(reason));
        }
        failpoint::reach(Step::FenceRead);
        Ok(Outcome::Frozen(live.position))
    }

    pub fn thaw(&mut self, id: PartitionId) {
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        live.freeze = Freeze::None;
        if let Err(error) = live.source.thaw() {
            self.broken(id, error.to_string());
        }
    }

    pub fn fence(&mut self, ticket: Ticket) {
        self.write_version(ticket, true);
    }

    pub fn lift(&mut self, ticket: Ticket) {
        self.write_version(ticket, false);
    }

    fn write_version(&mut self, ticket: Ticket, fenced: bool) {
        let id = ticket.partition;
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            let gone = Failure::Gone("the database is not attached".to_owned());
            return self.done(ticket, Err(gone));
        };
        let task = if fenced {
            live.source.fence()
        } else {
            live.source.lift_fence()
        };
        let task = match task {
            Ok(task) => task,
            Err(error) => return self.done(ticket, Err(failure_of(&error))),
        };
        self.offload(
            Where::Urgent,
            move || task.run(),
            move |host, written| {
                let result = match written {
                    Ok(Ok(())) => Ok(Outcome::Nothing),
                    Ok(Err(error)) => Err(failure_of(&error)),
                    Err(panic) => Err(Failure::Refused(panic)),
                };
                if fenced && result.is_ok() {
                    host.after_fence(id);
                } else if result.is_ok() {
                    host.grant_again(id);
                }
                host.done(ticket, result);
            },
        );
    }

    /// The fence is durable: readers are sent away too, so that nobody reads what the new owner
    /// has already overwritten, and the write lock has nothing left to protect.
    fn after_fence(&mut self, id: PartitionId) {
        let at_once = self.setup.config.switch.stale_reads == Span::ZERO;
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        live.fenced = true;
        if at_once && let Err(error) = live.source.refuse_readers() {
            tracing::warn!(partition = %live.name, %error, "readers of the old copy go on");
        }
        failpoint::reach(Step::FenceReaders);
        live.freeze = Freeze::None;
        if let Err(error) = live.source.thaw() {
            tracing::warn!(partition = %live.name, %error, "the write lock is still held");
        }
        self.take_grant_back(id);
    }

    /// The partition is another node's: the path becomes a tombstone, the old copy a shadow.
    pub fn retire(&mut self, ticket: Ticket, position: Position, keep: bool) {
        let id = ticket.partition;
        let Some(name) = self.name_of(id) else { return };
        // Before anything that takes time: whoever is guarded stops here.
        self.take_grant_back(id);
        match self.lives.by_id.remove(&id) {
            Some(live) => {
                self.forget_live(id);
                if live.fenced {
                    self.retire_fenced(ticket, live, position, keep);
                } else {
                    self.retire_deposed(ticket, live);
                }
            }
            None => self.retire_unattached(ticket, name),
        }
    }

    fn forget_live(&mut self, id: PartitionId) {
        self.bells.forget(id);
        self.lives.tiers.remove(id);
        self.lives.copying.forget(id);
        self.positions_forget(id);
    }

    /// The tombstone once the writers had time to go on, who find the old copy fenced until then;
    /// then, at background priority, the reverse shadow: writers that just moved need the processor
    /// and the disk more.
    fn retire_fenced(&mut self, ticket: Ticket, live: Live, position: Position, keep: bool) {
        let keep = keep && self.setup.config.switch.keep_reverse_shadow;
        let (name, place) = (live.name.clone(), live.place);
        let (setup, entry) = (Arc::clone(&self.setup), name.clone());
        let work = move || bury(&setup, place, &entry);
        self.after_the_pause(move |host| {
            host.offload(Where::Disk, work, move |host, buried| match buried {
                Ok(Ok(())) if keep => host.keep_reverse(ticket, live, position),
                Ok(buried) => host.handed_over(ticket, name, place, Ok(buried.map(|()| None))),
                Err(panic) => host.handed_over(ticket, name, place, Err(panic)),
            });
        });
    }

    fn keep_reverse(&mut self, ticket: Ticket, live: Live, position: Position) {
        let setup = Arc::clone(&self.setup);
        let (name, place) = (live.name.clone(), live.place);
        let work = move || match reverse_shadow(&setup, ticket.partition, live, position) {
            Ok(held) => Ok(Some(held)),
            // The path is a tombstone already: the new owner fills a shadow anew.
            Err(error) => {
                tracing::warn!(%error, "no reverse shadow");
                Ok(None)
            }
        };
        self.offload(Where::Compute, work, move |host, shadow| {
            host.handed_over(ticket, name, place, shadow);
        });
    }

    fn handed_over(
        &mut self,
        ticket: Ticket,
        name: PartitionName,
        place: usize,
        shadow: Result<io::Result<Option<Held>>, String>,
    ) {
        let result = match shadow {
            Ok(Ok(Some(held))) => {
                let position = held.shadow.as_ref().and_then(Shadow::position);
                self.copies.insert(ticket.partition, name, place, held);
                position.map_or(Ok(Outcome::Nothing), |position| {
                    Ok(Outcome::Durable(position))
                })
            }
            Ok(Ok(None)) => Ok(Outcome::Nothing),
            Ok(Err(error)) => Err(failure_of(&error)),
            Err(panic) => Err(Failure::Refused(panic)),
        };
        self.done(ticket, result);
    }

    /// Another node took over without our word: stop the writers here first.
    fn retire_deposed(&mut self, ticket: Ticket, live: Live) {
        let name = live.name.clone();
        // Its locks end here; a freeze that still waits gives up.
        drop(live);
        self.retire_unattached(ticket, name);
    }

    /// A copy of a partition that is another node's, not attached here, fenced or not.
    fn retire_unattached(&mut self, ticket: Ticket, name: PartitionName) {
        let setup = Arc::clone(&self.setup);
        let Some(place) = setup.place_of(&name) else {
            return self.done(ticket, Ok(Outcome::Nothing));
        };
        let entry = name.clone();
        let work = move || {
            stop_writers(&setup, place, &entry)?;
            bury(&setup, place, &entry).map(|()| None)
        };
        self.offload(Where::Disk, work, move |host, shadow| {
            host.handed_over(ticket, name, place, shadow);
        });
    }
}

/// Fences the live database of a partition that is not ours any more, if it is not yet.
fn stop_writers(setup: &Setup, place: usize, name: &PartitionName) -> io::Result<()> {
    let path = setup.places[place].live_path(name);
    let mut source = attach_and_scan(&path, &setup.places[place].options())?;
    if source.is_fenced()? {
        return Ok(());
    }
    source.freeze(DEPOSED_BUDGET).run()?;
    while let Some(change) = source.poll(usize::MAX)? {
        source.consume(&change);
    }
    source.fence()?.run()?;
    source.refuse_readers()?;
    source.thaw()
}

/// Exchanges the live path with a tombstone. The old generation stays until the next clean-up.
fn bury(setup: &Setup, place: usize, name: &PartitionName) -> io::Result<()> {
    let place = &setup.places[place];
    let live_path = place.live_path(name);
    let attributes = FileAttributes::of(&live_path)?;
    let mut remap = place.remap();
    let left = remap.adopt_plain(name, place.engine())?;
    let generation = remap.allocate(name)?;
    let grave = remap.path(generation, name);
    tombstone(place.engine(), &grave, name.id(), &attributes)?;
    // Its name too, before a path leads to it: an open there must not find nothing, and make it.
    io::durable::sync_dir(&remap.dir(generation))?;
    failpoint::pass(Step::RetireTombstone)?;
    remap.exchange(name, generation)?;
    failpoint::pass(Step::RetireExchanged)?;
    remap.sync_dir(name)?;
    mark_retired(&remap.dir(left))?;
    failpoint::pass(Step::RetireMarked)
}

/// A shadow of the new owner, made of the old copy as it was before the fence.
fn reverse_shadow(
    setup: &Setup,
    id: PartitionId,
    live: Live,
    position: Position,
) -> io::Result<Held> {
    let Live {
        name,
        place,
        source,
        ..
    } = live;
    let attributes = FileAttributes::of(source.path())?;
    let (page_size, page_count) = (source.page_size(), source.page_count());
    let spec = ShadowSpec {
        partition: id,
        page_size,
        attributes,
    };
    let generation = setup.places[place].remap().allocate(&name)?;
    let dir = setup.places[place].remap().dir(generation);
    super::copies::write_name(&dir, &name)?;
    let file = super::copies::file_name(&name);
    let paths = ShadowPaths::new(&dir, file);
    let seed = source.path().to_owned();
    let read = Box::new(move |page: u32, into: &mut [u8]| source.read_page(page, into));
    let shadow = Shadow::from_live(&paths, &spec, position, page_count, read)
        .seed(seed)
        .run()?;
    failpoint::pass(Step::ReverseKept)?;
    Ok(Held {
        shadow: Some(shadow),
        generation,
    })
}
