//! Hints that files of a configured directory appeared or vanished, by inotify.
//!
//! The listing ([`super::discover`]) is the truth; a hint only says when to look again, because the
//! queue may overflow and says nothing of what is inside a file: a commit is never noticed here.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::discover::Directory;
use crate::error::{Error, Result};

/// Hints of new and vanished files in a [`Directory`].
#[derive(Debug)]
pub struct DirectoryWatch {
    inotify: OwnedFd,
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

impl DirectoryWatch {
    /// Watches what `directory` searches now.
    pub fn new(directory: &Directory) -> Result<DirectoryWatch> {
        // SAFETY: creates a descriptor and touches no memory.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::at("watch", directory.path(), error));
        }
        // SAFETY: the descriptor is new and nobody else's.
        let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut watch = DirectoryWatch {
            inotify,
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
            let name = std::ffi::CString::new(dir.as_os_str().as_bytes());
            let name = name.map_err(|e| Error::at("watch", &dir, std::io::Error::other(e)))?;
            let mask = libc::IN_CREATE
                | libc::IN_DELETE
                | libc::IN_MOVED_FROM
                | libc::IN_MOVED_TO
                | libc::IN_DELETE_SELF
                | libc::IN_ONLYDIR;
            let fd = self.inotify.as_raw_fd();
            // SAFETY: the name is a C string that outlives the call.
            let id = unsafe { libc::inotify_add_watch(fd, name.as_ptr(), mask) };
            if id < 0 {
                return Err(Error::at("watch", &dir, std::io::Error::last_os_error()));
            }
            self.dirs.insert(id, dir);
        }
        Ok(())
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.inotify)
    }

    /// Hints since the last call, each once and in order; never waits.
    pub fn hints(&mut self) -> Result<Vec<Hint>> {
        let mut hints = BTreeSet::new();
        let mut buffer = [0; 64 << 10];
        loop {
            let fd = self.inotify.as_raw_fd();
            // SAFETY: the buffer is ours and as long as we say.
            let got = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
            if got <= 0 {
                let error = std::io::Error::last_os_error();
                return match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => Ok(hints.into_iter().collect()),
                    _ => Err(Error::system("read", "inotify", error)),
                };
            }
            self.decode(&buffer[..got as usize], &mut hints);
        }
    }

    /// Takes events apart (inotify(7): wd, mask, cookie and len, then len bytes of name).
    fn decode(&mut self, mut bytes: &[u8], hints: &mut BTreeSet<Hint>) {
        const HEAD: usize = 16;
        while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
            let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
            let id = i32::from_ne_bytes(word(0));
            let mask = u32::from_ne_bytes(word(4));
            let len = (u32::from_ne_bytes(word(12)) as usize).min(rest.len());
            let name = rest[..len]
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            hints.insert(self.hint(id, mask, name));
            bytes = &rest[len..];
        }
    }

    fn hint(&mut self, id: i32, mask: u32, name: &[u8]) -> Hint {
        let lost = libc::IN_Q_OVERFLOW | libc::IN_ISDIR | libc::IN_DELETE_SELF | libc::IN_IGNORED;
        if mask & (libc::IN_IGNORED | libc::IN_DELETE_SELF) != 0 {
            self.dirs.remove(&id);
        }
        let Some(dir) = self.dirs.get(&id).filter(|_| mask & lost == 0) else {
            return Hint::List;
        };
        // A WAL that comes or goes is news of its database.
        let database = [&b"-wal"[..], b"-shm"]
            .iter()
            .find_map(|end| name.strip_suffix(*end));
        let name = std::ffi::OsString::from_vec(database.unwrap_or(name).to_vec());
        Hint::Look(dir.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sqlite::Listing;
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
    fn new_and_vanished_files_are_hinted_at() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().canonicalize().expect("real");
        let directory = Directory::new(&dir, "*.db", true, &dir.join(".gen")).expect("a directory");
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
