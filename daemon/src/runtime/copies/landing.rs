//! A shadow lands: the sync that proves it, the attach ahead of it, the exchange of the path.

use std::path::PathBuf;
use std::sync::Arc;

use io::engine::shadow::Shadow;
use io::engine::{Extent, Landed, Options, Source};
use io::failpoint::{self, Step};
use io::remap::{Generation, Target};
use wal::lsn::Epoch;
use wal::{Engine, PartitionId, PartitionName, Position};

use super::super::ahead::{Asked, Landing};
use super::super::grants;
use super::super::host::Host;
use super::super::lives::failure_of;
use super::super::pools::Where;
use super::super::setup::Place;
use crate::effect::Note;
use crate::event::{Failure, Outcome, Ticket};

impl Host {
    pub(super) fn prepare_landing(&mut self, ticket: Ticket, epoch: Epoch) {
        let id = ticket.partition;
        let Some(copy) = self.copies.by_id.get(&id) else {
            return;
        };
        let (setup, place, name) = (Arc::clone(&self.setup), copy.place, copy.name.clone());
        let generation = copy.held.generation;
        self.grants.is_granted_soon(id);
        self.with_shadow(ticket, move |shadow| {
            check_path(&setup.places[place], &name)?;
            let database = setup.places[place].remap().path(generation, &name);
            grants::prepare(&setup, place, id, epoch, &database);
            shadow.prepare_landing(epoch)?;
            // Repeated by the exchange itself, which tells what is wrong.
            let _ = setup.places[place].remap().prepare(&name, generation);
            Ok(Outcome::Nothing)
        });
    }

    pub(super) fn sync_landing(&mut self, ticket: Ticket) {
        let id = ticket.partition;
        let Some(copy) = self.copies.by_id.get(&id) else {
            return;
        };
        let sync = copy.held.shadow.as_ref().and_then(Shadow::landing_sync);
        let Some(sync) = sync else {
            let reason = "the shadow is not landing at a known position".to_owned();
            return self.done(ticket, Err(Failure::Refused(reason)));
        };
        let work = move || sync.run();
        self.offload(Where::Urgent, work, move |host, synced| {
            let result = match synced {
                Ok(Ok(position)) => Ok(Outcome::Durable(position)),
                Ok(Err(error)) => Err(failure_of(&error)),
                Err(panic) => Err(Failure::Refused(panic)),
            };
            if let Ok(Outcome::Durable(position)) = result {
                // The source fences meanwhile; its part is the longer one.
                host.after_this_turn(move |host| {
                    host.attach_ahead(id, Epoch(ticket.number), position);
                });
            }
            host.done(ticket, result);
        });
    }

    /// While the source writes its fence, the landed copy is attached: its WAL-index stands before
    /// the first application opens it, and what applications commit is read from the first on.
    pub(super) fn attach_ahead(&mut self, id: PartitionId, epoch: Epoch, position: Position) {
        let Some(copy) = self.copies.by_id.get_mut(&id) else {
            return;
        };
        let generation = copy.held.generation;
        let Some(shadow) = &copy.held.shadow else {
            return;
        };
        // A landing that was abandoned while it was synced must not be attached.
        if shadow.landing_epoch() != Some(epoch) {
            return;
        }
        let path = shadow.paths().database().to_owned();
        let hashes = shadow.hashes().to_vec();
        let options = self.setup.places[copy.place].options();
        let landing = Landing::underway(generation, position);
        self.lives.landing.insert(id, landing);
        copy.ahead = true;
        if options.engine == Engine::Sqlite {
            let extent = Extent::Frames(shadow.wal_frames());
            let landed = Landed { hashes, extent };
            return self.attach_landed(id, generation, path, options, landed);
        }
        // An application may open a landed database before it is attached, but not a landed log
        // before it is one.
        let log = shadow.log_task(epoch);
        let work = move || {
            let task = log?;
            let (first, lsn) = task.extent();
            task.run().map(|_| Extent::Log(first, lsn))
        };
        self.offload(Where::Urgent, work, move |host, made| {
            // What failed is tried again, and told, when it has to be served.
            let Ok(Ok(extent)) = made else {
                return host.attached_ahead(id, generation, None);
            };
            host.became_log(id, generation);
            let landed = Landed { hashes, extent };
            host.after_the_pause(move |host| {
                host.attach_landed(id, generation, path, options, landed);
            });
        });
    }

    fn attach_landed(
        &mut self,
        id: PartitionId,
        generation: Generation,
        path: PathBuf,
        options: Options,
        landed: Landed,
    ) {
        let work = move || {
            let source = Source::attach_landed(&path, &options, landed)?;
            failpoint::pass(Step::RemapAttached)?;
            Ok::<Source, io::Error>(source)
        };
        self.offload(Where::Disk, work, move |host, attached| {
            let source = match attached {
                Ok(Ok(source)) => Some(source),
                Ok(Err(error)) => {
                    tracing::info!(partition = %id, %error, "the landed copy is scanned instead");
                    None
                }
                Err(_) => None,
            };
            host.attached_ahead(id, generation, source);
        });
    }

    pub(super) fn remap(&mut self, ticket: Ticket, epoch: Epoch, position: Position) {
        let id = ticket.partition;
        let Some(copy) = self.copies.by_id.get_mut(&id) else {
            return;
        };
        let (name, generation) = (copy.name.clone(), copy.held.generation);
        let place = copy.place;
        let engine = self.setup.places[place].engine();
        let asked = Asked::Remap(ticket, epoch, position);
        if engine == Engine::Native && self.lives.waits_for_landing(id, asked) {
            return;
        }
        let Some(shadow) = &mut copy.held.shadow else {
            return;
        };
        // What was attached ahead was synced just before. After a crash the position is proven by
        // its digest; a takeover prepares here.
        let ahead = self.lives.landing.contains_key(&id);
        let ready = match shadow.position() {
            Some(_) if ahead && shadow.landing_epoch() == Some(epoch) => Ok(()),
            Some(_) => {
                // Whatever was attached ahead belongs to another landing.
                self.lives.landing.remove(&id);
                land_now(shadow, epoch)
            }
            // Found after a restart, maybe prepared for a landing that a takeover outdated.
            None => shadow
                .settle(position)
                .and_then(|()| land_now(shadow, epoch)),
        };
        let landing = self.lives.landing.get(&id);
        let ready = match engine {
            // It was made a log before it was attached.
            Engine::Native if !landing.is_some_and(|landing| landing.is_log) => {
                ready.and_then(|()| shadow.become_log(epoch).map(drop))
            }
            _ => ready,
        };
        let database = self.setup.places[place].remap().path(generation, &name);
        let exchanged = ready.and_then(|()| {
            // It is this node's by now; an application that follows the path must find it so.
            self.grant_served(id, place, database, epoch);
            self.setup.places[place]
                .remap()
                .exchange(&name, generation)
                .map(|_| ())
        });
        if let Err(error) = exchanged {
            return self.done(ticket, Err(failure_of(&error)));
        }
        self.publish_route(&name, place);
        self.done(ticket, Ok(Outcome::Nothing));
        let copy = self.copies.by_id.remove(&id);
        self.copies.journal.release_all(id);
        if let Some(shadow) = copy.and_then(|copy| copy.held.shadow) {
            self.landed(name, place, shadow, Note::Landed { epoch, position });
        }
    }

    /// Says durably that the files are the applications'. Until the note is durable the copy itself
    /// tells a start that it landed: the shard's own note is written by another thread, and may
    /// come later.
    fn landed(&mut self, name: PartitionName, place: usize, shadow: Shadow, note: Note) {
        let Some(epoch) = shadow.landing_epoch() else {
            return;
        };
        let setup = Arc::clone(&self.setup);
        let (engine, paths) = (setup.places[place].engine(), shadow.paths().clone());
        let settle = move || {
            setup.places[place].remap().sync_dir(&name)?;
            failpoint::pass(Step::RemapDirSynced)?;
            setup.notes.record(name.id(), note)?;
            shadow.promote(epoch)?;
            match engine {
                Engine::Sqlite => Ok(()),
                Engine::Native => paths.drop_wal(),
            }
        };
        self.after_the_pause(move |host| {
            host.offload(Where::Disk, settle, move |_, settled| {
                if let Ok(Err(error)) = settled {
                    let next = "the landing is not yet durable; the next start repeats it";
                    tracing::warn!(%error, "{next}");
                }
            });
        });
    }
}

/// Makes a shadow ready to land at once: for a takeover, which nobody prepared. What was prepared
/// for a move is not given up for it: a crash in between would find it without what came since.
fn land_now(shadow: &mut Shadow, epoch: Epoch) -> io::Result<()> {
    if shadow.landing_epoch().is_none() {
        shadow.prepare_landing(epoch)?;
    }
    // In this order: files that name an epoch hold all that lands under it.
    shadow.land_sync()?;
    shadow.land_under(epoch)
}

/// Fails where the live path can't be exchanged: better before the grant than after it.
fn check_path(place: &Place, name: &PartitionName) -> io::Result<()> {
    match place.remap().target(name)? {
        Target::Nothing | Target::Generation(_) => Ok(()),
        Target::Plain | Target::Foreign(_) => {
            let reason = "something that is not this partition's shadow stands at its path; \
                          move it away first";
            let path = place.live_path(name).display().to_string();
            Err(io::Error::new(io::Kind::Refused, "land at", path, reason))
        }
    }
}
