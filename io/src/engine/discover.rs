//! Which partitions of an engine a configured directory holds.
//!
//! Never taken for one: SQLite's own siblings (`-wal`, `-shm`, `-journal`), pages of leases
//! (`-lease`), files of that name that do not begin as a log does where logs are looked for, the
//! generations directory, and names that begin with a dot. A symbolic link is followed if it ends
//! inside the directory or its generations.

use std::fs::{DirEntry, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use wal::{Engine, PartitionName};

use super::names::resolve_inside;
use crate::error::{Error, Kind, Result};

/// The most databases of one directory; the kernel allows a process 65,530 mappings.
pub const DATABASES_MAX: usize = 50_000;
/// How deep a recursive directory is searched.
const DEPTH_MAX: usize = 16;

/// A configured directory.
#[derive(Debug)]
pub struct Directory {
    engine: Engine,
    dir: PathBuf,
    generations: PathBuf,
    matcher: GlobMatcher,
    /// Whether the pattern speaks of the path below the directory, not just of the file's name.
    by_path: bool,
    recursive: bool,
}

/// A database, or a name that looks like one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub name: PartitionName,
    /// Where applications open it; may be a symbolic link.
    pub path: PathBuf,
}

/// What a directory holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Sorted by name.
    pub databases: Vec<Found>,
    /// Names that match but can't be taken, and why.
    pub refused: Vec<(String, String)>,
}

impl Directory {
    /// Partitions in `dir` whose file name matches `pattern`, or whose path below `dir` does where
    /// the pattern has a `/`. `generations` need not exist yet.
    pub fn new(
        engine: Engine,
        dir: &Path,
        pattern: &str,
        recursive: bool,
        generations: &Path,
    ) -> Result<Directory> {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|e| Error::new(Kind::Refused, "read", pattern, e.to_string()))?;
        let dir = dir.canonicalize().map_err(|e| Error::at("find", dir, e))?;
        let generations = generations
            .canonicalize()
            .unwrap_or_else(|_| generations.to_owned());
        let (by_path, matcher) = (pattern.contains('/'), glob.compile_matcher());
        Ok(Directory {
            engine,
            dir,
            generations,
            matcher,
            by_path,
            recursive,
        })
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Everything there now.
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        self.each_directory(&mut |dir, entries| {
            for entry in entries {
                self.take(&dir.join(entry.file_name()), &mut listing)?;
            }
            Ok(())
        })?;
        listing.databases.sort_by(|a, b| a.name.cmp(&b.name));
        listing.refused.sort();
        Ok(listing)
    }

    /// What `path` is: for a hint.
    pub fn look(&self, path: &Path) -> Result<Listing> {
        let mut listing = Listing::default();
        self.take(path, &mut listing)?;
        Ok(listing)
    }

    /// Enters `path` into `listing`, if it is a database by its name.
    fn take(&self, path: &Path, listing: &mut Listing) -> Result<()> {
        let Ok(below) = path.strip_prefix(&self.dir) else {
            return Ok(());
        };
        let Some(file_name) = path.file_name() else {
            return Ok(());
        };
        let matched = if self.by_path {
            below.as_os_str()
        } else {
            file_name
        };
        // The kernel is asked last: ten thousand are listed again and again.
        if is_sibling(file_name.as_bytes()) || !self.matcher.is_match(matched) {
            return Ok(());
        }
        let Ok(meta) = std::fs::symlink_metadata(path) else {
            return Ok(());
        };
        let is_lease =
            || file_name.as_bytes().ends_with(b"-lease") && lease::database::is_page(path);
        if meta.is_dir() || is_lease() {
            return Ok(());
        }
        let name = below.to_str().and_then(PartitionName::new);
        let Some(name) = name else {
            let reason = "its name is not UTF-8, or too long".to_owned();
            listing.refused.push((below.display().to_string(), reason));
            return Ok(());
        };
        // A file right below leads nowhere else.
        let is_plain = meta.is_file() && path.parent() == Some(&self.dir);
        let inside = match is_plain {
            true => Ok(path.to_owned()),
            false if self.generations.exists() => {
                resolve_inside(&[&self.dir, &self.generations], path)
            }
            false => resolve_inside(&[&self.dir], path),
        };
        match inside {
            Ok(real) if (is_plain || real.is_file()) && self.is_of_engine(&real) => {
                if listing.databases.len() == DATABASES_MAX {
                    let reason = format!("it holds more than {DATABASES_MAX} databases");
                    let dir = self.dir.display().to_string();
                    return Err(Error::new(Kind::Refused, "list", dir, reason));
                }
                listing.databases.push(Found {
                    name,
                    path: path.to_owned(),
                });
            }
            Ok(_) => {}
            Err(error) => listing.refused.push((name.to_string(), error.reason)),
        }
        Ok(())
    }

    fn is_of_engine(&self, path: &Path) -> bool {
        match self.engine {
            Engine::Sqlite => true,
            // Other programs name their text so, too.
            Engine::Native => File::open(path).is_ok_and(|file| wal::log::is_log(&file)),
        }
    }

    /// Calls `visit` with each directory that is searched, and its entries.
    pub(super) fn each_directory(
        &self,
        visit: &mut dyn FnMut(&Path, &[DirEntry]) -> Result<()>,
    ) -> Result<()> {
        let mut queue = vec![(self.dir.clone(), 0)];
        while let Some((dir, depth)) = queue.pop() {
            let fail = |e| Error::at("list", &dir, e);
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>().map_err(fail)?,
                // A subdirectory may vanish while it is looked at; the configured one may not.
                Err(e) if depth > 0 && e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(fail(e)),
            };
            visit(&dir, &entries)?;
            for entry in entries
                .iter()
                .filter(|_| self.recursive && depth < DEPTH_MAX)
            {
                let hidden = entry.file_name().as_bytes().starts_with(b".");
                // Links to directories are not followed: they may lead in circles.
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let path = dir.join(entry.file_name());
                if is_dir && !hidden && path != self.generations {
                    queue.push((path, depth + 1));
                }
            }
        }
        Ok(())
    }
}

/// Whether SQLite, or a step of ours, made a file of this name beside a database. What lies beside
/// a log does not begin as a log does.
fn is_sibling(name: &[u8]) -> bool {
    let ends = [&b"-wal"[..], b"-shm", b"-journal", b".lock"];
    name.starts_with(b".") || ends.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listing: &Listing) -> Vec<&str> {
        listing
            .databases
            .iter()
            .map(|found| found.name.as_str())
            .collect()
    }

    fn touch(path: &Path) {
        std::fs::write(path, b"x").expect("write");
    }

    #[test]
    fn only_names_that_match_and_stay_inside_are_listed() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("live");
        let generations = dir.join("gen");
        std::fs::create_dir_all(dir.join("sub")).expect("create");
        std::fs::create_dir_all(generations.join("7")).expect("create");
        for name in [
            "a.db",
            "a.db-wal",
            "a.db-shm",
            "b.db-journal",
            ".hidden.db",
            "c.txt",
        ] {
            touch(&dir.join(name));
        }
        touch(&dir.join("sub/d.db"));
        touch(&generations.join("7/e.db"));
        touch(&root.path().join("outside.db"));
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, dir.join(name));
        link(&generations.join("7/e.db"), "e.db").expect("link");
        link(&root.path().join("outside.db"), "evil.db").expect("link");
        link(Path::new("/nowhere/f.db"), "f.db").expect("link");

        let flat =
            Directory::new(Engine::Sqlite, &dir, "*.db", false, &generations).expect("a directory");
        let listing = flat.list().expect("list");
        assert_eq!(names(&listing), ["a.db", "e.db"]);
        let refused: Vec<&str> = listing
            .refused
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(refused, ["evil.db", "f.db"]);
        assert!(
            listing.refused[0].1.contains("outside"),
            "{:?}",
            listing.refused
        );

        let deep =
            Directory::new(Engine::Sqlite, &dir, "*.db", true, &generations).expect("a directory");
        assert_eq!(
            names(&deep.list().expect("list")),
            ["a.db", "e.db", "sub/d.db"]
        );
        let by_path = Directory::new(Engine::Sqlite, &dir, "sub/*.db", true, &generations)
            .expect("a directory");
        assert_eq!(names(&by_path.list().expect("list")), ["sub/d.db"]);
    }
}
