//! Files that are followed as `tail -F` does: they grow, are rotated, are cut, go and come back.
//!
//! A file that is there at the start is read from its end; one that comes later, from its
//! beginning. After a rotation the old file is read to its end before the new one is opened; one
//! that became shorter is read from its beginning. A last line without its end waits for the rest
//! of it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, WatchFlags};

use super::source::{LINE_LEN_MAX, Source};
use crate::config::Format;
use crate::observe::Observatory;

/// Bytes read at once, and before the other sources have their turn.
const CHUNK: usize = 256 << 10;

/// All files that are followed.
#[derive(Default, Debug)]
pub struct Follower {
    files: Vec<Followed>,
    /// Where the kernel tells that something happened to one of them.
    told: Option<OwnedFd>,
    /// They have to be looked at.
    stirred: bool,
    buffer: Vec<u8>,
}

impl Follower {
    pub fn add(&mut self, path: &Path, format: Format) {
        self.files.push(Followed {
            path: path.to_owned(),
            source: Source::new(path.display().to_string(), format),
            open: None,
            rest: Vec::new(),
            skipping: false,
            refused: false,
        });
    }

    /// Opens what is there; from now on everything that is added is read.
    pub fn begin(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        self.told = inotify::init(flags)
            .inspect_err(|error| tracing::warn!(%error, "files are looked at now and then"))
            .ok();
        self.buffer = vec![0; CHUNK];
        for file in &mut self.files {
            let end = |metadata: &std::fs::Metadata| metadata.len();
            if !file.open_at(end) {
                tracing::info!(file = %file.path.display(), "is not there yet");
            }
            file.watch(self.told.as_ref());
        }
    }

    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().map(|file| &file.source)
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.told.as_ref().map(AsFd::as_fd)
    }

    /// Next time they are looked at even if the kernel said nothing.
    pub fn look(&mut self) {
        self.stirred = !self.files.is_empty();
    }

    /// Reads what was added; `true` when there is more.
    pub fn pump(&mut self, now: i64, to: &mut Observatory) -> bool {
        let mut told = [0; 4096];
        while let Some(fd) = &self.told
            && rustix::io::read(fd, &mut told).is_ok_and(|len| len > 0)
        {
            self.stirred = true;
        }
        if !std::mem::take(&mut self.stirred) {
            return false;
        }
        for file in &mut self.files {
            self.stirred |= file.read(now, &mut self.buffer, to);
            if file.is_replaced() {
                file.finish(now, &mut self.buffer, to);
                file.open_at(|_| 0);
                file.watch(self.told.as_ref());
                self.stirred |= file.open.is_some();
            }
        }
        self.stirred
    }
}

/// One file that is followed.
#[derive(Debug)]
struct Followed {
    path: PathBuf,
    source: Source,
    /// The file, and how far it was read.
    open: Option<(File, u64)>,
    /// The last line, as far as it is there.
    rest: Vec<u8>,
    /// A line that is too long is passed over, up to its end.
    skipping: bool,
    /// It can't be opened, which was told.
    refused: bool,
}

impl Followed {
    fn open_at(&mut self, offset: impl Fn(&std::fs::Metadata) -> u64) -> bool {
        let opened = File::open(&self.path).and_then(|file| {
            let offset = offset(&file.metadata()?);
            Ok((file, offset))
        });
        self.open = match opened {
            Ok(opened) => {
                self.refused = false;
                Some(opened)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::warn!(file = %self.path.display(), %error, "not read");
                }
                None
            }
        };
        self.open.is_some()
    }

    /// Wants to be told of what is written, and of another file at the path.
    fn watch(&self, told: Option<&OwnedFd>) {
        let Some(told) = told else { return };
        let own = WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
        let dir = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let watches = [(Some(self.path.as_path()), own), (self.path.parent(), dir)];
        for (path, flags) in watches {
            // A path that is not there yet: its directory tells, or the look now and then does.
            let _ = path.map(|path| inotify::add_watch(told, path, flags));
        }
    }

    /// Another file is at the path, or none was open and there is one now.
    fn is_replaced(&self) -> bool {
        let Ok(there) = std::fs::metadata(&self.path) else {
            return false;
        };
        let same = |file: &File| {
            let open = file.metadata();
            open.is_ok_and(|open| (open.dev(), open.ino()) == (there.dev(), there.ino()))
        };
        !self.open.as_ref().is_some_and(|(file, _)| same(file))
    }

    /// Reads one chunk; `true` when there may be more.
    fn read(&mut self, now: i64, buffer: &mut [u8], to: &mut Observatory) -> bool {
        let Some((file, offset)) = &mut self.open else {
            return false;
        };
        if file
            .metadata()
            .is_ok_and(|metadata| metadata.len() < *offset)
        {
            (*offset, self.skipping) = (0, false);
            self.rest.clear();
        }
        match file.read_at(buffer, *offset) {
            Ok(0) => false,
            Ok(len) => {
                *offset += len as u64;
                self.take(now, &buffer[..len], to);
                true
            }
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "not read");
                false
            }
        }
    }

    /// Reads the old file to its end; nobody will finish its last line.
    fn finish(&mut self, now: i64, buffer: &mut [u8], to: &mut Observatory) {
        while self.read(now, buffer, to) {}
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.source.take_all(now, &rest, to);
        }
        self.skipping = false;
    }

    fn take(&mut self, now: i64, bytes: &[u8], to: &mut Observatory) {
        let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            return self.keep(bytes);
        };
        let (whole, rest) = bytes.split_at(last + 1);
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap_or(last);
        let (head, others) = whole.split_at(first + 1);
        self.keep(head);
        if !std::mem::take(&mut self.skipping) {
            let line = std::mem::take(&mut self.rest);
            self.source.take_all(now, &line, to);
        }
        self.source.take_all(now, others, to);
        self.rest.clear();
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LINE_LEN_MAX {
            self.source.refuse(&self.rest, "a line without an end");
            self.skipping = true;
            self.rest = Vec::new();
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
