//! Hints that files of a configured directory appeared or vanished, by inotify.
//!
//! The listing ([`super::discover`]) is the truth; a hint only says when to look again, because the
//! queue may overflow and says nothing of what is inside a file: a commit is never noticed here.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::discover::Directory;
use super::inotify::{Event, Inotify};
use crate::error::Result;

/// The kernel's clock for files may stand still for some milliseconds: two changes within this may
/// bear the same time.
const BLURRED: Duration = Duration::from_secs(1);

/// Hints of new and vanished files in a [`Directory`].
#[derive(Debug)]
pub struct DirectoryWatch {
    inotify: Inotify,
    /// Watch descriptor to directory.
    dirs: HashMap<i32, PathBuf>,
}

/// What may have changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hint {
    /// Look at this database: it, or its WAL or WAL-index, appeared, vanished or was replaced.
    Look(PathBuf),
    /// List everything again: hints were lost, or a directory changed.
    List,
}

/// When the watched directories changed last. While it is the same, none of their entries came,
/// went or was renamed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp(BTreeSet<(PathBuf, u64, Duration)>);

impl DirectoryWatch {
    /// Watches what `directory` searches now.
    pub fn new(directory: &Directory) -> Result<DirectoryWatch> {
        let mut watch = DirectoryWatch {
            inotify: Inotify::new()?,
            dirs: HashMap::new(),
        };
        watch.renew(directory)?;
        Ok(watch)
    }

    /// Watches directories that came since; to be called before each listing.
    pub fn renew(&mut self, directory: &Directory) -> Result<()> {
        let mut dirs = Vec::new();
        directory.each_directory(&mut |dir, _| {
            dirs.push(dir.to_owned());
            Ok(())
        })?;
        for dir in dirs {
            let mask = libc::IN_CREATE
                | libc::IN_DELETE
                | libc::IN_MOVED_FROM
                | libc::IN_MOVED_TO
                | libc::IN_DELETE_SELF
                | libc::IN_ONLYDIR;
            let id = self.inotify.add(&dir, mask)?;
            self.dirs.insert(id, dir);
        }
        Ok(())
    }

    /// The watched directories as they are now; nothing while one of them changed so lately that
    /// its time would say nothing of the next change, or can't be looked at.
    pub fn stamp(&self) -> Option<Stamp> {
        let blurred = SystemTime::now() - BLURRED;
        let blurred = blurred.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let stamp = |dir: &PathBuf| {
            let meta = std::fs::metadata(dir).ok()?;
            let seconds = u64::try_from(meta.mtime()).ok()?;
            let changed = Duration::new(seconds, meta.mtime_nsec() as u32);
            (changed < blurred).then(|| (dir.clone(), meta.ino(), changed))
        };
        self.dirs
            .values()
            .map(stamp)
            .collect::<Option<_>>()
            .map(Stamp)
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.fd()
    }

    /// Hints since the last call, each once and in order; never waits.
    pub fn hints(&mut self) -> Result<Vec<Hint>> {
        let (mut hints, dirs) = (BTreeSet::new(), &mut self.dirs);
        self.inotify.read(|event| {
            hints.insert(hint(dirs, event));
        })?;
        Ok(hints.into_iter().collect())
    }
}

fn hint(dirs: &mut HashMap<i32, PathBuf>, event: Event<'_>) -> Hint {
    let Event { watch, mask, name } = event;
    let lost = libc::IN_Q_OVERFLOW | libc::IN_ISDIR | libc::IN_DELETE_SELF | libc::IN_IGNORED;
    if mask & (libc::IN_IGNORED | libc::IN_DELETE_SELF) != 0 {
        dirs.remove(&watch);
    }
    let Some(dir) = dirs.get(&watch).filter(|_| mask & lost == 0) else {
        return Hint::List;
    };
    // A WAL that comes or goes is news of its database.
    let database = [&b"-wal"[..], b"-shm"]
        .iter()
        .find_map(|end| name.strip_suffix(*end));
    let name = std::ffi::OsString::from_vec(database.unwrap_or(name).to_vec());
    Hint::Look(dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Listing;
    use std::path::Path;

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
    fn a_stamp_is_another_after_every_change_of_an_entry_and_none_right_behind_one() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().canonicalize().expect("real");
        std::fs::create_dir(dir.join("sub")).expect("create");
        let directory = Directory::new(wal::Engine::Sqlite, &dir, "*.db", true, &dir.join(".gen"))
            .expect("a directory");
        let watch = DirectoryWatch::new(&directory).expect("watch");
        let at_rest = || std::thread::sleep(BLURRED + Duration::from_millis(100));
        assert_eq!(watch.stamp(), None, "it was just made");
        at_rest();
        let mut last = watch.stamp().expect("nothing changes");
        let (one, other) = (dir.join("sub/a.db"), dir.join("sub/b.db"));
        let changes: [&dyn Fn(); 3] = [
            &|| touch(&one),
            &|| std::fs::rename(&one, &other).expect("rename"),
            &|| std::fs::remove_file(&other).expect("remove"),
        ];
        for change in changes {
            assert_eq!(watch.stamp().as_ref(), Some(&last));
            change();
            assert_eq!(watch.stamp(), None);
            at_rest();
            let now = watch.stamp().expect("nothing changes");
            assert_ne!(now, last);
            last = now;
        }
    }

    #[test]
    fn new_and_vanished_files_are_hinted_at() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().canonicalize().expect("real");
        let directory = Directory::new(wal::Engine::Sqlite, &dir, "*.db", true, &dir.join(".gen"))
            .expect("a directory");
        let mut watch = DirectoryWatch::new(&directory).expect("watch");
        assert_eq!(watch.hints().expect("read"), []);
        touch(&dir.join("a.db"));
        touch(&dir.join("a.db-wal"));
        assert_eq!(watch.hints().expect("read"), [Hint::Look(dir.join("a.db"))]);
        assert_eq!(
            names(&directory.look(&dir.join("a.db")).expect("look")),
            ["a.db"]
        );
        std::fs::remove_file(dir.join("a.db-wal")).expect("remove");
        std::fs::remove_file(dir.join("a.db")).expect("remove");
        assert_eq!(watch.hints().expect("read"), [Hint::Look(dir.join("a.db"))]);
        assert_eq!(
            names(&directory.look(&dir.join("a.db")).expect("look")),
            [""; 0]
        );
        std::fs::create_dir(dir.join("sub")).expect("create");
        assert_eq!(watch.hints().expect("read"), [Hint::List]);
        watch.renew(&directory).expect("renew");
        touch(&dir.join("sub/b.db"));
        assert_eq!(
            watch.hints().expect("read"),
            [Hint::Look(dir.join("sub/b.db"))]
        );
    }
}
