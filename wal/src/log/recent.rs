//! The newest groups, in memory that appender and sidecar share: they are written past the page
//! cache, and who follows the log would wait for the disk to give back what it was just given.
//!
//! A file in `/dev/shm`, made by the one who tails and named by a number in the control page. What
//! lies at `lsn` in the log lies at `lsn` modulo its length here; the appender copies a group there
//! before he writes it. Nothing here is trusted: a group is checked as one from the file is, and
//! one that was overwritten meanwhile, or is of an earlier run, is read from the file. Without such
//! a file nothing is lost but time.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::PathBuf;
use std::sync::Arc;

use map::Mapping;

use super::control::Control;
use super::saved::Run;
use crate::lsn::Lsn;

/// Bytes of the newest groups: what is committed within a millisecond or two.
const LEN: usize = 256 << 10;
const DIR: &str = "/dev/shm";
const PREFIX: &str = "foreshadow-log-";

/// What the sidecar shares with the appender of one log.
#[derive(Debug)]
pub struct Recent {
    page: Mapping,
    name: u64,
    control: Arc<Control>,
    /// Locked while this lives.
    _file: File,
}

impl Recent {
    /// Removes what sidecars left that were killed; for the start of one.
    pub fn clean() {
        let entries = std::fs::read_dir(DIR).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
            let file = is_ours.then(|| File::open(entry.path()));
            // One that can't be opened is another user's.
            if file.is_some_and(|file| file.is_ok_and(|file| file.try_lock().is_ok())) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Shares the newest groups of a log; for the one who tails it.
    pub fn share(control: &Arc<Control>) -> std::io::Result<Recent> {
        forget(control);
        // No secret: whoever may write to the log may say in its control page what he likes.
        let name = RandomState::new().build_hasher().finish().max(1);
        let log = control.metadata()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        options.mode(log.mode() & 0o666);
        let file = options.open(path(name))?;
        file.try_lock()?;
        // Only root may give it away; others made it for appenders of their own.
        let _ = fchown(&file, Some(log.uid()), Some(log.gid()));
        file.set_len(LEN as u64)?;
        let page = Mapping::new(&file, 0, LEN)?;
        control.set_recent(name);
        Ok(Recent {
            page,
            name,
            control: Arc::clone(control),
            _file: file,
        })
    }

    /// Whether what lies at `lsn` may still be here when the log is written up to `end`.
    pub fn reaches(lsn: Lsn, end: Lsn) -> bool {
        end.0 - lsn.0 <= LEN as u64 / 2
    }

    /// Whether a group of `run` is what the file has at its place. An appender that can't reach
    /// this memory leaves what an earlier one did not get acknowledged; it is of an earlier run.
    pub fn is_of(&self, run: u32) -> bool {
        self.control.saved::<Run>().is_ok_and(|now| now.run == run)
    }

    /// Copies what lies at `lsn`, which may be something else by now.
    pub fn copy_out(&self, lsn: Lsn, into: &mut [u8]) {
        let at = place(lsn);
        let (here, rest) = into.split_at_mut(into.len().min(LEN - at));
        self.page.copy_out(at, here);
        self.page.copy_out(0, rest);
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        if self.control.recent() == self.name {
            forget(&self.control);
        }
    }
}

/// Shares nothing any more: of a sidecar before us, too.
fn forget(control: &Control) {
    let name = control.recent();
    if name != 0 {
        control.set_recent(0);
        // It is gone after the next start of the machine at the latest.
        let _ = std::fs::remove_file(path(name));
    }
}

/// What the appender knows of the memory that the sidecar shares.
#[derive(Debug, Default)]
pub(super) struct Shared {
    name: u64,
    /// `None`: there is none of that name, or it can't be mapped.
    page: Option<Mapping>,
}

impl Shared {
    /// Copies what is about to be written at `lsn`, if anybody wants it.
    pub(super) fn copy_in(&mut self, control: &Control, lsn: Lsn, bytes: &[u8]) {
        let name = control.recent();
        if name != self.name {
            self.name = name;
            self.page = if name == 0 { None } else { open(name) };
        }
        let Some(page) = self.page.as_ref().filter(|_| bytes.len() <= LEN / 2) else {
            return;
        };
        let at = place(lsn);
        let (here, rest) = bytes.split_at(bytes.len().min(LEN - at));
        page.copy_in(at, here);
        page.copy_in(0, rest);
    }
}

fn open(name: u64) -> Option<Mapping> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let file: File = options.open(path(name)).ok()?;
    let is_whole = file.metadata().is_ok_and(|meta| meta.len() == LEN as u64);
    is_whole.then(|| Mapping::new(&file, 0, LEN).ok()).flatten()
}

fn place(lsn: Lsn) -> usize {
    (lsn.0 % LEN as u64) as usize
}

fn path(name: u64) -> PathBuf {
    PathBuf::from(format!("{DIR}/{PREFIX}{name:016x}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::log::group::{Builder, Bytes};
    use crate::log::{Appender, Kind, Options, Scanner};

    struct Log {
        dir: tempfile::TempDir,
        control: Arc<Control>,
        recent: Arc<Recent>,
        appender: Option<Appender>,
    }

    impl Log {
        fn new() -> Log {
            let dir = tempfile::tempdir().expect("a directory");
            let appender = open(&dir);
            let control = Arc::new(Control::open(&dir.path().join("log")).expect("a log"));
            let recent = Arc::new(Recent::share(&control).expect("shared"));
            Log {
                dir,
                control,
                recent,
                appender: Some(appender),
            }
        }

        fn append(&self, payload: &[u8]) -> Lsn {
            let appender = self.appender.as_ref().expect("it is open");
            appender.append(Kind(1), payload).expect("appended")
        }

        /// All payloads from `at` on, with and without the shared memory.
        fn read(&self, at: Lsn, shared: bool) -> crate::log::Result<Vec<Vec<u8>>> {
            let mut scanner = Scanner::from(&*self.control, at)?;
            if shared {
                scanner.set_recent(Arc::clone(&self.recent));
            }
            let mut found = Vec::new();
            while let Some(group) = scanner.next_group()? {
                found.extend(group.records().map(|record| record.payload.to_vec()));
            }
            Ok(found)
        }
    }

    fn open(dir: &tempfile::TempDir) -> Appender {
        Appender::open(&dir.path().join("log"), &Options::default()).expect("a log")
    }

    #[test]
    fn the_newest_groups_are_not_read_from_the_file() {
        let log = Log::new();
        log.append(b"before");
        let at = log.control.word().lsn;
        log.append(b"one");
        log.append(b"two");
        let file = OpenOptions::new()
            .write(true)
            .open(log.dir.path().join("log"));
        let slot = log.control.layout().slot_at(0);
        let damaged = file
            .expect("there")
            .write_all_at(&[0xff; 8192], slot + at.0);
        damaged.expect("written");
        assert!(log.read(at, false).is_err(), "the file is damaged there");
        let read = log.read(at, true).expect("readable");
        assert_eq!(read, [b"one", b"two"]);
    }

    #[test]
    fn what_was_overwritten_is_read_from_the_file() {
        let log = Log::new();
        let payload = |index: u8| vec![index; 30_000];
        let all: Vec<Vec<u8>> = (0..40).map(payload).collect();
        let mut ends = vec![log.control.word().lsn];
        for payload in &all {
            log.append(payload);
            ends.push(log.control.word().lsn);
        }
        for (index, at) in ends.iter().enumerate() {
            let read = log.read(*at, true).expect("readable");
            assert!(read == all[index..], "from {index}");
        }
    }

    #[test]
    fn what_an_earlier_appender_left_unacknowledged_is_not_taken_for_what_the_file_has() {
        let mut log = Log::new();
        log.append(b"before");
        let at = log.control.word().lsn;
        let run = log.control.saved::<Run>().expect("whole");
        let mut left = Builder::new(Bytes::new(), at);
        left.push(Kind(1), b"left");
        let (_, bytes) = left.finish(at, at, run.epoch, run.run);
        Shared::default().copy_in(&log.control, at, &bytes);
        // The next appender can't reach the memory.
        std::fs::remove_file(path(log.recent.name)).expect("there");
        log.appender = None;
        log.appender = Some(open(&log.dir));
        log.append(b"kept");
        assert_eq!(log.read(at, true).expect("readable"), [b"kept"]);
    }

    #[test]
    fn what_a_killed_sidecar_left_goes_and_what_is_in_use_stays() {
        let log = Log::new();
        let left = path(log.recent.name ^ 1);
        File::create(&left).expect("made");
        Recent::clean();
        assert!(!left.exists() && path(log.recent.name).exists());
    }

    #[test]
    fn nothing_is_left_behind() {
        let log = Log::new();
        let name = path(log.recent.name);
        assert!(name.exists() && log.control.recent() != 0);
        let again = Recent::share(&log.control).expect("a sidecar after us");
        assert!(!name.exists(), "what the one before left");
        let newer = path(again.name);
        drop(log.recent);
        assert!(
            newer.exists(),
            "and the one before takes nothing of the newer"
        );
        drop(again);
        assert!(!newer.exists() && log.control.recent() == 0);
    }
}
