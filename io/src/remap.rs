//! Moves a live path between generations of a database without ever leaving the path empty.
//!
//! `live/<name>` is a symlink to `<generations>/<n>/<file>`; a generation is a directory with its
//! own -wal and -shm, so a connection that is still open stays with the generation it opened
//! (SQLite resolves symlinks when it opens, and its siblings land in the real directory).
//!
//! Invariants: a generation's number is never used twice, crash or not; the exchange is one
//! renameat2(2), so a reader of the path finds the old or the new generation; every step may be
//! repeated. [`Remap::sync_dir`] is separate, because it may come after the pause: a crash before
//! it undoes at most the exchange, which recovery repeats.

mod counter;
mod exchange;

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use wal::PartitionName;

use crate::durable::{self, Attributes};
use crate::error::{Error, Kind, Result};

use counter::Counter;
pub use counter::Generation;
pub use exchange::Exchanged;

/// Names that this module makes in live directories begin so; they are removed at start.
const TEMP_PREFIX: &str = ".foreshadow-remap-";
/// What SQLite keeps beside a database.
const SIBLINGS: [&str; 2] = ["-wal", "-shm"];

/// A directory of live paths and its generations.
#[derive(Debug)]
pub struct Remap {
    live: PathBuf,
    generations: PathBuf,
    counter: Counter,
}

/// What a live path is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    Nothing,
    /// A database file that never moved.
    Plain,
    Generation(Generation),
    /// Something that is not ours to touch; the text says what.
    Foreign(String),
}

impl Remap {
    /// Opens both directories (making the second), refusing two filesystems.
    pub fn open(live: &Path, generations: &Path) -> Result<Remap> {
        let live = live
            .canonicalize()
            .map_err(|e| Error::at("find directory", live, e))?;
        if !generations.is_dir() {
            std::fs::create_dir_all(generations)
                .map_err(|e| Error::at("create directory", generations, e))?;
            share_owner(&live, generations)?;
            durable::sync_dir(durable::parent(generations))?;
        }
        let generations = generations
            .canonicalize()
            .map_err(|e| Error::at("find directory", generations, e))?;
        if device(&live)? != device(&generations)? {
            let reason = "is on another filesystem than the databases; set `generations` to a \
                          directory beside them";
            return Err(refused("use directory", &generations, reason));
        }
        if live.starts_with(&generations) {
            return Err(refused(
                "use directory",
                &generations,
                "it contains the databases",
            ));
        }
        let counter = Counter::open(&generations)?;
        Ok(Remap {
            live,
            generations,
            counter,
        })
    }

    /// A fresh directory for one database, with owner and mode of the live path's directory so
    /// that applications can make their -wal and -shm in it.
    pub fn allocate(&mut self, name: &PartitionName) -> Result<Generation> {
        self.make_parents(name)?;
        let generation = self.counter.next(&self.generations)?;
        let dir = self.dir(generation);
        std::fs::create_dir(&dir).map_err(|e| Error::at("create directory", &dir, e))?;
        let live_dir = self.live_path(name)?;
        share_owner(durable::parent(&live_dir), &dir)?;
        durable::sync_dir(&self.generations)?;
        Ok(generation)
    }

    /// Makes the directories on the way to `live/<name>` that are not there, each with the owner
    /// and mode of the one above it.
    fn make_parents(&self, name: &PartitionName) -> Result<()> {
        let mut dir = self.live.clone();
        let Some((parents, _)) = name.as_str().rsplit_once('/') else {
            return Ok(());
        };
        for part in parents.split('/') {
            let above = dir.clone();
            dir.push(part);
            match std::fs::create_dir(&dir) {
                Ok(()) => {
                    share_owner(&above, &dir)?;
                    durable::sync_dir(&above)?;
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::at("create directory", &dir, e)),
            }
            let real = dir
                .canonicalize()
                .map_err(|e| Error::at("find directory", &dir, e))?;
            if !real.starts_with(&self.live) {
                return Err(refused(
                    "use",
                    &dir,
                    "it leads outside of the configured directory",
                ));
            }
        }
        Ok(())
    }

    /// The directory of `generation`.
    pub fn dir(&self, generation: Generation) -> PathBuf {
        self.generations.join(generation.to_string())
    }

    /// The directory of all generations.
    pub fn generations_dir(&self) -> &Path {
        &self.generations
    }

    /// Where `name` lies in `generation`.
    pub fn path(&self, generation: Generation, name: &PartitionName) -> PathBuf {
        self.dir(generation).join(file_name(name))
    }

    /// Where applications open `name`. Refused when a symlink on the way leads outside.
    pub fn live_path(&self, name: &PartitionName) -> Result<PathBuf> {
        let path = self.live.join(name.as_str());
        let dir = durable::parent(&path);
        let real = dir
            .canonicalize()
            .map_err(|e| Error::at("find directory", dir, e))?;
        if !real.starts_with(&self.live) || real.starts_with(&self.generations) {
            return Err(refused(
                "use",
                &path,
                "it leads outside of the configured directory",
            ));
        }
        Ok(real.join(file_name(name)))
    }

    /// All generations that exist, in order.
    pub fn generations(&self) -> Result<Vec<Generation>> {
        counter::existing(&self.generations)
    }

    /// What `live/<name>` is now.
    pub fn target(&self, name: &PartitionName) -> Result<Target> {
        let path = self.live_path(name)?;
        let meta = match std::fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Target::Nothing),
            Err(e) => return Err(Error::at("stat", &path, e)),
        };
        if meta.is_file() {
            return Ok(Target::Plain);
        }
        if !meta.is_symlink() {
            return Ok(Target::Foreign("neither a file nor a symlink".to_owned()));
        }
        let link = std::fs::read_link(&path).map_err(|e| Error::at("read link", &path, e))?;
        Ok(
            match self.generation_of(&durable::parent(&path).join(&link), name) {
                Some(generation) => Target::Generation(generation),
                None => Target::Foreign(format!("a symlink to {}", link.display())),
            },
        )
    }

    /// The generation that `live/<name>` leads to, if it leads to one.
    pub fn points_to(&self, name: &PartitionName) -> Result<Option<Generation>> {
        Ok(match self.target(name)? {
            Target::Generation(generation) => Some(generation),
            _ => None,
        })
    }

    /// Makes the live path's directory durable; after [`Remap::exchange`], off the pause.
    pub fn sync_dir(&self, name: &PartitionName) -> Result<()> {
        durable::sync_dir(durable::parent(&self.live_path(name)?))
    }

    /// Deletes `generation`. Refused while `live/<name>` leads to it.
    pub fn remove(&self, name: &PartitionName, generation: Generation) -> Result<()> {
        let dir = self.dir(generation);
        if self.points_to(name)? == Some(generation) {
            return Err(refused("remove", &dir, "the live path leads to it"));
        }
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::at("remove", &dir, e)),
            _ => Ok(()),
        }
    }

    /// The generation that `path` names, when it is `<generations>/<n>/<file of name>`.
    fn generation_of(&self, path: &Path, name: &PartitionName) -> Option<Generation> {
        let path = fold(path);
        let rest = path.strip_prefix(&self.generations).ok()?;
        let mut parts = rest.components();
        let number = parts.next()?.as_os_str().to_str()?.parse().ok()?;
        let file = parts.next()?.as_os_str();
        (file == file_name(name) && parts.next().is_none()).then_some(Generation(number))
    }

    /// The text of the symlink at `live_path`: relative, so that the tree may be moved as a whole.
    fn link_text(&self, live_path: &Path, generation: Generation, name: &PartitionName) -> PathBuf {
        relative(durable::parent(live_path), &self.path(generation, name))
    }
}

/// The last part of a partition's name.
fn file_name(name: &PartitionName) -> &str {
    let text = name.as_str();
    text.rsplit('/').next().unwrap_or(text)
}

/// `path` without `.` and with each `..` folded into what precedes it (no symlink is followed:
/// our own links lead through real directories only).
fn fold(path: &Path) -> PathBuf {
    let mut folded = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                folded.pop();
            }
            Component::CurDir => {}
            part => folded.push(part),
        }
    }
    folded
}

/// The way from directory `from` to `to`, both absolute and folded.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

fn device(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)
        .map_err(|e| Error::at("stat", path, e))?
        .dev())
}

/// Gives directory `to` the owner and mode of directory `from`.
fn share_owner(from: &Path, to: &Path) -> Result<()> {
    Attributes::of(from)?.give(to)
}

fn refused(op: &'static str, path: &Path, reason: impl Into<String>) -> Error {
    Error::new(Kind::Refused, op, path.display().to_string(), reason)
}

#[cfg(test)]
mod tests;
