//! What is found on disk at start: shadows, their journal, and copies that nobody needs any more.
//!
//! Every shadow is brought to its newest position and checkpointed before its shard starts, so the
//! journals begin empty and the number of shards may change between runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use io::commit::CommitOptions;
use io::engine::is_tombstone;
use io::engine::shadow::{Found, Opened, Shadow, ShadowPaths, Stage};
use io::failpoint::{self, Step};
use io::journal::Journal;
use io::remap::Generation;
use wal::{Engine, Epoch, PartitionId, PartitionName, Position, ShardIndex};

use super::copies::{Held, file_name, read_name};
use super::notes::epoch_of;
use super::setup::{Place, Setup};
use crate::effect::Note;
use crate::event::{Event, Remains};

/// In a generation that was fenced and left: it may be deleted once nobody reads it any more.
pub const RETIRED_FILE: &str = "retired";
/// A fenced copy is kept at least this long: for readers that are still at it, and for proof.
pub const RETIRED_FOR: Duration = Duration::from_secs(60);

/// A shadow found at start.
pub struct Recovered {
    pub name: PartitionName,
    pub place: usize,
    pub held: Held,
    pub remains: Remains,
}

/// Everything that is found.
pub struct Findings {
    pub journals: Vec<Journal>,
    pub copies: Vec<Recovered>,
    /// Landings that the journal may not know.
    pub landed: Vec<(PartitionId, Note)>,
}

/// Opens the journal of each shard and brings every shadow forward.
pub fn shadows(setup: &Setup) -> io::Result<Findings> {
    let (mut found, mut landed) = (BTreeMap::new(), Vec::new());
    for (index, place) in setup.places.iter().enumerate() {
        for generation in place_generations(place)? {
            if let Some(recovered) = open_generation(setup, index, generation, &mut landed) {
                keep_newer(setup, &mut found, recovered);
            }
        }
    }
    failpoint::pass(Step::RecoverListed)?;
    let journals = replay(setup, &mut found)?;
    for recovered in found.values_mut() {
        settle(recovered);
    }
    failpoint::pass(Step::RecoverSettled)?;
    let copies = found.into_values().collect();
    Ok(Findings {
        journals,
        copies,
        landed,
    })
}

fn place_generations(place: &Place) -> io::Result<Vec<Generation>> {
    place.remap().generations()
}

/// The shadow in a generation, if there is one that is still of use.
fn open_generation(
    setup: &Setup,
    place: usize,
    generation: Generation,
    landed: &mut Vec<(PartitionId, Note)>,
) -> Option<Recovered> {
    let engine = setup.places[place].engine();
    let remap = setup.places[place].remap();
    let dir = remap.dir(generation);
    if is_retired(&dir) && !is_served(&setup.places[place], &dir) {
        remove(&dir);
        failpoint::reach(Step::RecoverRemoved);
        return None;
    }
    let name = read_name(&dir)?;
    let paths = ShadowPaths::new(&dir, file_name(&name));
    if remap.points_to(&name).ok()? == Some(generation) {
        drop(remap);
        if let Some(note) = finish_landing(setup, &setup.places[place], &name, &paths) {
            landed.push((name.id(), note));
        }
        return None;
    }
    drop(remap);
    let live = setup.places[place].live_path(&name);
    if live.exists() && !is_tombstone(engine, &live) {
        // What is served, or has to be put away first, counts; a copy of before is left alone.
        return None;
    }
    let opened = match Shadow::open(&paths) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(partition = %name, %error, "a shadow can't be read; it is copied anew");
            return None;
        }
    };
    failpoint::reach(Step::RecoverOpened);
    let Opened::Shadow(shadow, state) = opened else {
        return None;
    };
    let remains = match state {
        Found::Filling | Found::Damaged(_) => Remains::Partial,
        Found::At(position) => Remains::At(position),
        Found::Landing {
            epoch,
            base,
            digest,
        } => {
            // How far the landing came is known by its digest alone; the lsn only has to differ.
            let position = Position {
                lsn: base.lsn.after(1),
                digest,
                ..base
            };
            Remains::Landing { epoch, position }
        }
    };
    let (shadow, remains) = settle_landing(setup, &name, *shadow, remains);
    let held = Held {
        shadow: Some(shadow),
        generation,
    };
    Some(Recovered {
        name,
        place,
        held,
        remains,
    })
}

/// A landing that our own journal does not know, or knows as given up, will not happen.
fn settle_landing(
    setup: &Setup,
    name: &PartitionName,
    mut shadow: Shadow,
    remains: Remains,
) -> (Shadow, Remains) {
    let Remains::Landing { epoch, .. } = remains else {
        return (shadow, remains);
    };
    if is_noted(setup, name, |note| note.expects_landing(epoch)) {
        return (shadow, remains);
    }
    let remains = match shadow.abandon_landing() {
        Ok(position) => Remains::At(position),
        Err(error) => {
            tracing::warn!(partition = %name, %error, "a landing could not be given up");
            Remains::Partial
        }
    };
    (shadow, remains)
}

/// The path was exchanged before the stop: it was granted, whatever the journal had time to say.
/// The files may have been given to applications already, and only the note be missing: two
/// threads do the one and the other, and an earlier start may have ended in between.
///
/// Returns the note. What can't be written now is still true: without it the landed copy would be
/// taken for one that another node took over.
fn finish_landing(
    setup: &Setup,
    place: &Place,
    name: &PartitionName,
    paths: &ShadowPaths,
) -> Option<Note> {
    let landing = match Shadow::stage(paths) {
        Ok(Stage::Landing { epoch, base }) => {
            // The exchange first: without its path a promoted copy is nobody's.
            let exchanged = place.remap().sync_dir(name);
            let promoted = exchanged
                .and_then(|()| Shadow::mark_promoted(paths, epoch))
                .and_then(|()| failpoint::pass(Step::RecoverLanding));
            Some((epoch, base, promoted))
        }
        // Where it landed is not known any more; nothing but a word to the source needs it.
        Ok(Stage::Promoted(epoch)) => {
            let is_announced = is_noted(setup, name, |note| note.announces_landing(epoch));
            is_announced.then_some((epoch, Position::default(), Ok(())))
        }
        Ok(_) | Err(_) => return None,
    };
    // The stop may have come before it was removed, whether or not the landing is news.
    let settled = landing
        .as_ref()
        .is_none_or(|(_, _, settled)| settled.is_ok());
    if place.engine() == Engine::Native
        && settled
        && let Err(error) = paths.drop_wal()
    {
        tracing::debug!(partition = %name, %error, "the -wal of a landed log stays");
    }
    let (epoch, position, settled) = landing?;
    let note = Note::Landed { epoch, position };
    if let Err(error) = settled.and_then(|()| setup.notes.record(name.id(), note)) {
        tracing::warn!(partition = %name, %error, "the note of a landing is missing");
    }
    Some(note)
}

/// Whether the newest thing that our own journal knows of a partition says so.
fn is_noted(setup: &Setup, name: &PartitionName, says: impl Fn(Note) -> bool) -> bool {
    let mut noted = setup.notes.all().into_iter();
    noted.any(|(id, note)| id == name.id() && says(note))
}

/// Of two copies of one partition the further one counts.
fn keep_newer(setup: &Setup, found: &mut BTreeMap<PartitionId, Recovered>, recovered: Recovered) {
    let is_expected = |name: &PartitionName, epoch: Epoch| {
        is_noted(setup, name, |note| epoch_of(note) == Some(epoch))
    };
    let rank = |recovered: &Recovered| match recovered.remains {
        Remains::Partial => (0, 0, 0),
        Remains::At(position) => (1, position.epoch.0, position.lsn.0),
        Remains::Landing { epoch, .. } if is_expected(&recovered.name, epoch) => (2, 0, 0),
        Remains::Landing { position, .. } => (1, position.epoch.0, position.lsn.0),
    };
    let id = recovered.name.id();
    match found.get(&id) {
        // The other one is a left-over of an attempt; it is not deleted, only not used.
        Some(held) if rank(held) >= rank(&recovered) => {}
        _ => {
            found.insert(id, recovered);
        }
    }
}

/// Applies what the journals hold to the shadows.
fn replay(setup: &Setup, found: &mut BTreeMap<PartitionId, Recovered>) -> io::Result<Vec<Journal>> {
    let options = CommitOptions {
        bytes_max: setup.config.ship.journal.0,
        ..CommitOptions::default()
    };
    let mut journals = Vec::new();
    let mut index = 0;
    loop {
        let dir = journal_dir(setup, index);
        let wanted = index < setup.config.node.shards;
        if !wanted && !dir.is_dir() {
            return Ok(journals);
        }
        let mut journal = Journal::open(&dir, &options)?;
        journal.replay(&mut |id, frame| {
            apply(found, id, &frame);
            Ok(())
        })?;
        failpoint::pass(Step::RecoverReplayed)?;
        for id in journal.partitions() {
            let lands = found.get_mut(&id).is_some_and(|recovered| {
                settle(recovered);
                matches!(recovered.remains, Remains::Landing { .. })
            });
            // One that is given up after all goes back to its base, and needs what came since.
            let shard = ShardIndex::of(id, setup.config.node.shards);
            if !(lands && wanted && shard.0 == index) {
                journal.forget(id)?;
            }
        }
        if wanted {
            journals.push(journal);
        } else {
            drop(journal);
            remove(&dir);
        }
        index += 1;
    }
}

fn apply(found: &mut BTreeMap<PartitionId, Recovered>, id: PartitionId, frame: &wal::frame::Frame) {
    let Some(recovered) = found.get_mut(&id) else {
        return;
    };
    let Some(shadow) = &mut recovered.held.shadow else {
        return;
    };
    let applied = match recovered.remains {
        Remains::Partial => return,
        Remains::At(_) => shadow
            .apply(frame)
            .map(|position| Some(Remains::At(position))),
        Remains::Landing { epoch, .. } => shadow.catch_up(frame).map(|position| {
            let position = position?;
            Some(Remains::Landing { epoch, position })
        }),
    };
    match applied {
        Ok(remains) => recovered.remains = remains.unwrap_or(recovered.remains),
        // A delta of before a comparison: the copy has gone another way since.
        Err(error) if error.kind() == io::Kind::Refused => {}
        Err(error) => {
            tracing::warn!(partition = %recovered.name, %error, "a journalled delta did not apply");
            // What was granted may still land without it.
            let lands = matches!(recovered.remains, Remains::Landing { .. });
            if !lands || error.kind() == io::Kind::Corrupt {
                recovered.remains = Remains::Partial;
            }
        }
    }
}

/// Moves the database file forward, so that the journal is not needed for it any more.
fn settle(recovered: &mut Recovered) {
    let Some(shadow) = &mut recovered.held.shadow else {
        return;
    };
    if let (Remains::Partial, false) = (recovered.remains, shadow.is_filling())
        && let Err(error) = compare_anew(shadow)
    {
        tracing::warn!(partition = %recovered.name, %error, "a shadow can't be compared");
    }
    // What the journal gave a landing is in its -wal alone.
    if let (Remains::Landing { .. }, Some(_)) = (recovered.remains, shadow.position())
        && let Err(error) = shadow.land_sync()
    {
        // Before it lands it is synced once more, or does not land.
        tracing::warn!(partition = %recovered.name, %error, "a landing can't be synced");
    }
    let Some(task) = shadow.checkpoint_task() else {
        return;
    };
    if let Err(error) = shadow.checkpoint_done(task.run()) {
        tracing::warn!(partition = %recovered.name, %error, "a shadow can't be checkpointed");
        recovered.remains = Remains::Partial;
    }
}

fn compare_anew(shadow: &mut Shadow) -> io::Result<()> {
    if shadow.landing_epoch().is_some() {
        shadow.abandon_landing()?;
    }
    shadow.refill()
}

fn journal_dir(setup: &Setup, shard: u16) -> PathBuf {
    setup.config.node.state_dir.join(format!("journal-{shard}"))
}

/// Says that a generation was fenced and left; durable on return.
pub fn mark_retired(dir: &Path) -> io::Result<()> {
    let path = dir.join(RETIRED_FILE);
    std::fs::write(&path, b"").map_err(|error| io::Error::at("write", &path, error))?;
    io::durable::sync_dir(dir)
}

/// Whether some live path still leads into `dir`: then it is not what it was marked as.
fn is_served(place: &Place, dir: &Path) -> bool {
    let Ok(dir) = dir.canonicalize() else {
        return true;
    };
    let Ok(entries) = std::fs::read_dir(&dir) else {
        return true;
    };
    let retired: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.path().canonicalize().ok())
        .collect();
    served_below(&place.config.dir, &retired, 0)
}

/// Looks through a live directory for links into what was retired.
fn served_below(live: &Path, retired: &[PathBuf], depth: usize) -> bool {
    const DEPTH_MAX: usize = 16;
    let Ok(entries) = std::fs::read_dir(live) else {
        return true;
    };
    entries.flatten().any(|entry| {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && depth < DEPTH_MAX && !path.ends_with(".gen") {
            return served_below(&path, retired, depth + 1);
        }
        path.canonicalize()
            .is_ok_and(|real| retired.contains(&real))
    })
}

/// Whether a generation was left long enough ago.
fn is_retired(dir: &Path) -> bool {
    let left = std::fs::metadata(dir.join(RETIRED_FILE)).and_then(|meta| meta.modified());
    left.is_ok_and(|left| {
        SystemTime::now()
            .duration_since(left)
            .is_ok_and(|age| age > RETIRED_FOR)
    })
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "what is no longer needed can't be removed");
    }
}

/// Puts what was found where the shards begin.
pub fn tell(setup: &Setup, findings: &Findings) {
    let noted = setup.notes.all();
    // What came after a landing counts, although its files still say that it is under way.
    let newest = |(partition, landed): &&(PartitionId, Note)| {
        let mut later = noted.iter().filter(|(id, _)| id == partition);
        !later.any(|(_, note)| epoch_of(*note) > epoch_of(*landed))
    };
    let landed = findings.landed.iter().filter(newest);
    for (partition, note) in noted.iter().chain(landed).copied() {
        setup.keep_first(partition, Event::Noted { partition, note });
    }
    for entry in &findings.copies {
        let event = Event::Recovered {
            name: entry.name.clone(),
            remains: entry.remains,
        };
        setup.keep_first(entry.name.id(), event);
    }
}
