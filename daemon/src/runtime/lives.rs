//! Live databases of this shard: attach, tail, log, freeze, fence, hand over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use io::deltalog::{DeltaLog, DeltaLogLimits};
use io::durable::Attributes as FileAttributes;
use io::engine::{Adopted, Change, Options, Source};
use io::failpoint::{self, Step};
use io::throttle::{Rate, Throttle};
use wal::delta::{DeltaHead, Encoder};
use wal::frame::Flags;
use wal::lsn::{Epoch, Lsn};
use wal::message::Attributes;
use wal::{NodeId, PartitionId, PartitionName, Position, Time};

use super::ahead::{Asked, Landing, LandingState};
use super::attaching::Attaching;
use super::compare::PeerTable;
use super::grants;
use super::host::Host;
use super::mirrored::Mirrored;
use super::pools::Where;
use super::setup::Setup;
use super::tiers::Tiers;
use crate::effect::EngineOperation;
use crate::event::{Attachment, Event, Failure, Outcome, Ticket};
use crate::positions::ChangeOffset;

/// Frames read in one poll while nothing is behind; a larger transaction is read whole.
const POLL_FRAMES: usize = 64;
/// Polls of one database in a turn, so that a flood in one does not starve the others.
const POLLS_PER_TURN: usize = 8;
/// Pages of one group while hot, and while catching up. wal bounds a group's bytes besides.
const GROUP_HOT: usize = 16;
const GROUP_FILLING: usize = 64;
/// Recent deltas of one database kept in memory for its peers.
const LOG_MEMORY: usize = 1 << 20;
/// zstd level of deltas: 3 gains 1 % of the ratio at twice the time.
pub const DELTA_LEVEL: i8 = 1;

/// One attached database.
pub struct Live {
    pub name: PartitionName,
    pub place: usize,
    pub source: Source,
    pub position: Position,
    pub log: DeltaLog,
    pub peers: BTreeMap<NodeId, PeerTable>,
    pub freeze: super::freeze::Freeze,
    pub change_offset: ChangeOffset,
    /// The fence is in place. The engine can't be asked once readers are refused.
    pub fenced: bool,
    pub upkeep: super::upkeep::Upkeep,
    pub mirrored: Mirrored,
    /// Its bell is waited for.
    pub rings: bool,
}

/// The attached databases of one shard.
pub struct Lives {
    pub by_id: BTreeMap<PartitionId, Live>,
    pub tiers: Tiers,
    pub colds: super::colds::Colds,
    pub encoder: Encoder,
    /// Bytes of all deltas encoded so far.
    pub encoded_bytes: u64,
    pub throttle: Throttle,
    /// Landed copies that are attached ahead of being served.
    pub landing: BTreeMap<PartitionId, Landing>,
    pub copying: super::compare::Copying,
    pub attaching: Attaching,
}

impl Lives {
    pub fn new(setup: &Setup) -> Lives {
        let rate = setup.config.ship.rate_max.limit().unwrap_or(0);
        let tiers = Tiers::new(&setup.config);
        Lives {
            by_id: BTreeMap::new(),
            colds: super::colds::Colds::new(tiers.cold_every()),
            tiers,
            encoder: Encoder::new(DELTA_LEVEL),
            encoded_bytes: 0,
            throttle: super::compare::throttle(rate),
            landing: BTreeMap::new(),
            copying: super::compare::Copying::default(),
            attaching: Attaching::default(),
        }
    }

    pub fn set_rate(&mut self, bytes_per_second: u64) {
        self.throttle
            .set_rate(Rate(bytes_per_second), io::reactor::now());
    }

    pub fn deadline(&self) -> Option<Time> {
        [
            self.tiers.deadline(),
            self.colds.deadline(),
            self.copying.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub fn detach_all(&mut self) {
        self.by_id.clear();
        self.colds.clear();
        self.landing.clear();
    }
}

/// What an attachment made on a helper thread brings back.
struct Prepared {
    source: Source,
    log: DeltaLog,
    attributes: Attributes,
    /// The file itself.
    database: PathBuf,
}

impl Host {
    pub fn execute_engine(&mut self, ticket: Ticket, operation: EngineOperation) {
        if operation != EngineOperation::Detach {
            self.warm(ticket.partition);
        }
        match operation {
            EngineOperation::Attach { epoch } => self.attach(ticket, epoch),
            EngineOperation::Detach => self.detach(ticket.partition),
            EngineOperation::Freeze { budget } => self.freeze(ticket, budget),
            EngineOperation::Thaw => self.thaw(ticket.partition),
            EngineOperation::Fence => self.fence(ticket),
            EngineOperation::Lift => self.lift(ticket),
            EngineOperation::Retire { position, keep } => self.retire(ticket, position, keep),
        }
    }

    pub fn attach(&mut self, ticket: Ticket, epoch: Epoch) {
        let id = ticket.partition;
        let Some(name) = self.name_of(id) else { return };
        let Some(place) = self.setup.place_of(&name) else {
            let reason = format!("{name} is below no configured directory");
            return self.done(ticket, Err(Failure::Refused(reason)));
        };
        let asked = Asked::Attach(ticket, epoch);
        if self.lives.waits_for_landing(id, asked) {
            return;
        }
        if !self.lives.attaching.begin(ticket, epoch) {
            return;
        }
        let landed = match self.lives.landing.remove(&id) {
            Some(Landing {
                position,
                state: LandingState::Finished(source),
                ..
            }) => Some((position, source.map(|source| *source))),
            _ => None,
        };
        let setup = Arc::clone(&self.setup);
        let path = setup.places[place].live_path(&name);
        let limits = log_limits(&setup);
        let (log_dir, options) = (setup.log_dir(id), setup.places[place].options());
        let (at, source) = landed.map_or((None, None), |(at, source)| (Some(at), source));
        let work = move || {
            let prepared = prepare(path, source, &log_dir, limits, &options)?;
            grants::prepare(&setup, place, id, epoch, &prepared.database);
            Ok::<Prepared, io::Error>(prepared)
        };
        self.offload(Where::Disk, work, move |host, prepared| {
            host.attach_next();
            let prepared = match prepared {
                Ok(Ok(prepared)) => prepared,
                Ok(Err(error)) => return host.done(ticket, Err(failure_of(&error))),
                Err(panic) => return host.done(ticket, Err(Failure::Retry(panic))),
            };
            host.attached(ticket, epoch, name, place, prepared, at);
        });
    }

    fn attached(
        &mut self,
        ticket: Ticket,
        epoch: Epoch,
        name: PartitionName,
        place: usize,
        mut prepared: Prepared,
        landed_at: Option<Position>,
    ) {
        let source = prepared.source;
        let at = |lsn: Lsn| Position {
            epoch,
            lsn,
            digest: source.digest(),
        };
        let position = match (landed_at, prepared.log.newest()) {
            (Some(landed), _) if landed.digest == source.digest() => at(landed.lsn),
            (Some(landed), _) => at(landed.lsn.after(1)),
            (None, Some(newest)) if newest.digest == source.digest() => at(newest.lsn),
            (None, Some(newest)) => at(newest.lsn.after(1)),
            (None, None) => at(Lsn(1)),
        };
        if prepared.log.newest() != Some(position)
            && let Err(error) = prepared.log.reset(Some(position))
        {
            return self.done(ticket, Err(failure_of(&error)));
        }
        let attachment = Attachment {
            position,
            page_size: source.page_size(),
            page_count: source.page_count(),
            attributes: prepared.attributes,
            fenced: source.is_fenced().unwrap_or(true),
        };
        let counter = source.change_counter();
        let change_offset = counter.map_or(ChangeOffset::default(), |change| {
            ChangeOffset::between(position.lsn, change)
        });
        let mut mirrored = Mirrored::default();
        mirrored.consumed(position.lsn, source.log_lsn());
        let live = Live {
            mirrored,
            rings: false,
            name,
            place,
            source,
            position,
            log: prepared.log,
            peers: BTreeMap::new(),
            freeze: super::freeze::Freeze::default(),
            change_offset,
            fenced: attachment.fenced,
            upkeep: super::upkeep::Upkeep::new(self.now),
        };
        // A copy that is fenced is on its way out: the route may lead to the new owner already.
        if !live.fenced {
            self.grant_served(ticket.partition, place, prepared.database, epoch);
            self.publish_route(&live.name, place);
        }
        self.lives.by_id.insert(ticket.partition, live);
        self.positions_consumed(ticket.partition);
        self.lives.tiers.add(ticket.partition, self.now);
        self.done(ticket, Ok(Outcome::Attached(attachment)));
    }

    pub fn detach(&mut self, id: PartitionId) {
        self.bells.forget(id);
        self.take_grant_back(id);
        self.lives.by_id.remove(&id);
        self.lives.colds.remove(id);
        self.lives.landing.remove(&id);
        self.lives.tiers.remove(id);
        self.lives.copying.forget(id);
        self.positions_forget(id);
    }

    /// Looks at every database whose tier is due, and reads what changed.
    pub fn sweep_lives(&mut self) {
        let due = self.lives.tiers.take_due(self.now);
        for id in due {
            let Some(live) = self.lives.by_id.get_mut(&id) else {
                continue;
            };
            if live.source.changed() || live.source.wants_scan().is_some() {
                match live.rings {
                    true => self.lives.tiers.stirred(id, self.now),
                    false => self.lives.tiers.saw_change(id, self.now),
                }
                self.meters.saw_tail_lag(self.now - self.last_turn);
                self.read_live(id);
            }
            self.tend_live(id);
            self.want_bell(id);
        }
        let colds = self.lives.colds.deadline();
        if colds.is_some_and(|due| due <= self.now) {
            self.sweep_colds();
        }
        self.continue_copies();
    }

    /// Reads what is published, up to a bound. `true` when nothing is left.
    pub fn read_live(&mut self, id: PartitionId) -> bool {
        for _ in 0..POLLS_PER_TURN {
            let Some(live) = self.lives.by_id.get_mut(&id) else {
                return true;
            };
            match live.source.poll(POLL_FRAMES) {
                Ok(Some(change)) => self.take_change(id, &change),
                Ok(None) => {
                    if live.source.wants_scan().is_some() {
                        self.rescan(id);
                    }
                    return true;
                }
                Err(error) if error.kind() == io::Kind::Retry => return false,
                Err(error) => {
                    self.broken(id, error.to_string());
                    return true;
                }
            }
        }
        false
    }

    fn take_change(&mut self, id: PartitionId, change: &Change) {
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        self.lives.tiers.took(change.commits(), self.now);
        let from = live.position;
        let lsn = from.lsn.after(change.commits());
        let to = Position {
            epoch: from.epoch,
            lsn,
            digest: change.digest(),
        };
        let head = DeltaHead {
            partition: id,
            from,
            to,
            page_size: live.source.page_size(),
            page_count: change.page_count(),
            flags: if change.is_rescan() {
                Flags::RESCAN
            } else {
                Flags::NONE
            },
        };
        let group = if change.pages() > GROUP_HOT {
            GROUP_FILLING
        } else {
            GROUP_HOT
        };
        let edits = change.edits();
        let codec = self.links.delta_codec(&edits);
        self.lives.encoder.set_level(codec.level());
        let logged = self
            .lives
            .encoder
            .delta(&head, &edits, group)
            .map_err(io::Error::from);
        failpoint::reach(Step::ShipEncoded);
        let bytes = match logged.and_then(|frame| {
            live.log.append(&frame)?;
            Ok(frame.len() as u64)
        }) {
            Ok(bytes) => bytes,
            Err(error) => {
                // Too large, or no space: the log begins anew here, and every shadow is compared.
                tracing::warn!(partition = %live.name, %error, "the delta log begins anew");
                if let Err(error) = live.log.reset(Some(to)) {
                    tracing::warn!(partition = %live.name, %error, "the delta log is not usable");
                }
                0
            }
        };
        self.lives.encoded_bytes += bytes;
        live.source.consume(change);
        live.position = to;
        live.mirrored.consumed(to.lsn, live.source.log_lsn());
        live.upkeep.on_commit(self.now);
        self.positions_consumed(id);
        self.saw_change(id, change.commits(), bytes, head.page_size, &edits);
        self.happened(Event::Advanced {
            partition: id,
            position: to,
            bytes,
        });
    }

    /// Transactions were missed, or there is no table yet: hash the pages on a helper thread.
    fn rescan(&mut self, id: PartitionId) {
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        let reason = live.source.wants_scan().unwrap_or_default().to_owned();
        let task = match live.source.scan() {
            Ok(task) => task,
            Err(error) if error.kind() == io::Kind::Retry => return,
            Err(error) => return self.broken(id, error.to_string()),
        };
        tracing::warn!(partition = %live.name, %reason, "pages are compared with what was known");
        let work = move || task.run(&mut |_, _| std::ops::ControlFlow::Continue(()));
        self.offload(Where::Compute, work, move |host, scan| {
            let Some(live) = host.lives.by_id.get_mut(&id) else {
                return;
            };
            let adopted = match scan {
                Ok(Ok(scan)) => live.source.adopt(scan),
                // It asks again with its next poll.
                _ => return live.source.scan_lost(),
            };
            match adopted {
                Ok(Adopted::Ready) => {}
                Ok(Adopted::Change(change)) => host.take_change(id, &change),
                Ok(Adopted::Replaced { commits, .. }) => host.replaced(id, commits),
                Err(error) if error.kind() == io::Kind::Retry => {}
                Err(error) => host.broken(id, error.to_string()),
            }
        });
    }

    /// More changed unseen than a delta holds: the log begins anew, shadows are compared.
    fn replaced(&mut self, id: PartitionId, commits: u64) {
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        let lsn = live.position.lsn.after(commits.max(1));
        live.position = Position {
            lsn,
            digest: live.source.digest(),
            ..live.position
        };
        if let Err(error) = live.log.reset(Some(live.position)) {
            tracing::warn!(partition = %live.name, %error, "the delta log is not usable");
        }
        let position = live.position;
        self.happened(Event::Advanced {
            partition: id,
            position,
            bytes: 0,
        });
    }

    pub fn broken(&mut self, id: PartitionId, reason: String) {
        self.happened(Event::Broken {
            partition: id,
            reason,
        });
    }
}

/// Attaches and hashes; on a helper thread, because it reads the whole database.
fn prepare(
    path: PathBuf,
    landed: Option<Source>,
    log_dir: &std::path::Path,
    limits: DeltaLogLimits,
    options: &Options,
) -> io::Result<Prepared> {
    let source = match landed {
        Some(source) => source,
        None => attach_and_scan(&path, options)?,
    };
    let database = source.path().to_owned();
    let attributes = FileAttributes::of(&path)?;
    let attributes = Attributes {
        engine: options.engine,
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
    };
    let log = DeltaLog::open(log_dir, limits)?;
    Ok(Prepared {
        source,
        log,
        attributes,
        database,
    })
}

pub fn attach_and_scan(path: &std::path::Path, options: &Options) -> io::Result<Source> {
    let mut source = Source::attach(path, options)?;
    let scan = source
        .scan()?
        .run(&mut |_, _| std::ops::ControlFlow::Continue(()))?;
    match source.adopt(scan)? {
        Adopted::Ready => Ok(source),
        other => unreachable!("a first scan is only ready, not {other:?}"),
    }
}

/// How much of the changes of one database is kept for its peers.
pub fn log_limits(setup: &Setup) -> DeltaLogLimits {
    DeltaLogLimits {
        disk_bytes: setup.config.ship.delta_log.0,
        memory_bytes: LOG_MEMORY,
    }
}

/// What the brain should do about an error of the engine.
pub fn failure_of(error: &io::Error) -> Failure {
    let text = error.to_string();
    match error.kind() {
        io::Kind::Full => {
            super::meters::disk_is_full();
            Failure::Retry(text)
        }
        io::Kind::Retry => Failure::Retry(text),
        io::Kind::Corrupt => Failure::Corrupt(text),
        io::Kind::Refused | io::Kind::Fatal => Failure::Refused(text),
    }
}
