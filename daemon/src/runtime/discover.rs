//! Finds databases: a listing of every configured directory at start, then what inotify hints at.
//!
//! A hint only says that something may be new: the path is looked at, and only news make the whole
//! directory be listed again, because every application that opens a database gives hints of its
//! -wal and -shm. What was known and is there may be another file by now: its shard looks. A path
//! that leads to a tombstone is not a database: it moved away.
//!
//! Between hints the thread sleeps in poll(2); a socket whose other end is dropped ends it.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use io::engine::{Directory, DirectoryWatch, Hint, Stamp, is_tombstone};
use io::failpoint::{self, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wal::{Engine, PartitionName, ShardIndex};

use super::mail::{Mail, Mailbox};
use super::setup::{Place, Setup};
use crate::event::Event;

/// How often a directory is listed without any hint: hints can be lost.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// How often nevertheless while no entry came or went without a hint, and nothing is wrong.
const LIST_EVERY_UNCHANGED: Duration = Duration::from_secs(600);
/// After hints, those that follow gather for so long: every database that is opened gives some.
const GATHER: Duration = Duration::from_millis(100);

/// One configured directory, as seen last.
pub struct Seen {
    engine: Engine,
    directory: Directory,
    watch: Option<DirectoryWatch>,
    known: BTreeSet<PartitionName>,
    listed_at: Option<Instant>,
    /// The last listing found nothing that may become a database under the same name.
    settled: bool,
    /// As it was looked at last.
    stamp: Option<Stamp>,
    /// There were hints since then.
    hinted: bool,
    /// When to look whether it has to be listed.
    look_at: Option<Instant>,
}

/// What came of hints.
struct Heeded {
    any: bool,
    /// A listing would find something else than the last one did.
    news: bool,
}

/// What a hint means.
enum Read {
    News,
    /// A partition that is known is there, perhaps in another file.
    Same(PartitionName),
    Nothing,
}

/// The first listing. Shards begin with what it finds: a copy that a switchover left behind has to
/// be known before its new owner offers a shadow in its place.
pub fn first(setup: &Setup) -> Vec<Seen> {
    let mut places: Vec<Seen> = setup.places.iter().filter_map(open).collect();
    for seen in &mut places {
        seen.list(&|name, event| setup.keep_first(name.id(), event));
    }
    places
}

/// Looks at the places of [`first`] until the other end of `stop` is dropped.
pub fn run(mut places: Vec<Seen>, shards: &[Mailbox], stop: &UnixStream) {
    loop {
        let mut hinted = false;
        for seen in &mut places {
            let heeded = seen.heed(&|name| post(shards, name, Mail::Renamed(name.id())));
            hinted |= heeded.any;
            if heeded.news || seen.is_due() {
                seen.list(&|name, event| tell(shards, name, event));
            }
        }
        let stopped = match hinted {
            true => wait(&[], stop, GATHER),
            false => {
                let looks = places.iter().map(Seen::next_look).min();
                wait(&places, stop, looks.unwrap_or(LIST_EVERY))
            }
        };
        if stopped {
            return;
        }
    }
}

/// Sleeps until there are hints, or for `longest`; `true` when it is time to end.
fn wait(places: &[Seen], stop: &UnixStream, longest: Duration) -> bool {
    let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
    let watches = places.iter().filter_map(|seen| seen.watch.as_ref());
    fds.extend(watches.map(|watch| PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN)));
    let longest = Timespec::try_from(longest).expect("some seconds");
    match poll(&mut fds, Some(&longest)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => {
            tracing::error!(%error, "hints can't be waited for");
            std::thread::sleep(GATHER);
        }
    }
    !fds[0].revents().is_empty()
}

fn open(place: &Place) -> Option<Seen> {
    let config = &place.config;
    let opened = Directory::new(
        config.engine,
        &config.dir,
        &config.pattern,
        config.recursive,
        &config.generations,
    );
    let directory = match opened {
        Ok(directory) => directory,
        Err(error) => {
            tracing::error!(%error, "databases of this directory are not found");
            return None;
        }
    };
    let watch = config
        .watch
        .then(|| DirectoryWatch::new(&directory))
        .and_then(|watch| {
            watch
                .inspect_err(|error| tracing::warn!(%error, "not watched; listed now and then"))
                .ok()
        });
    Some(Seen {
        engine: config.engine,
        directory,
        watch,
        known: BTreeSet::new(),
        listed_at: None,
        settled: false,
        stamp: None,
        hinted: false,
        look_at: None,
    })
}

impl Seen {
    /// Takes in hints; `same` is told of each that is of a partition which is known and there.
    fn heed(&mut self, same: &dyn Fn(&PartitionName)) -> Heeded {
        let hints = match self.watch.as_mut().map(DirectoryWatch::hints) {
            Some(Ok(hints)) => hints,
            Some(Err(error)) => {
                tracing::warn!(%error, "hints are lost; the directory is listed");
                vec![Hint::List]
            }
            None => Vec::new(),
        };
        self.hinted |= !hints.is_empty();
        let mut heeded = Heeded {
            any: !hints.is_empty(),
            news: false,
        };
        for hint in &hints {
            match self.read(hint) {
                Read::News => heeded.news = true,
                Read::Same(name) => same(&name),
                Read::Nothing => {}
            }
        }
        heeded
    }

    fn next_look(&self) -> Duration {
        self.look_at.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Whether the directory has to be listed without any hint.
    fn is_due(&mut self) -> bool {
        if !self.next_look().is_zero() {
            return false;
        }
        self.look_at = Some(Instant::now() + LIST_EVERY);
        let listed_lately = self
            .listed_at
            .is_some_and(|at| at.elapsed() < LIST_EVERY_UNCHANGED);
        let now = self.watch.as_ref().and_then(DirectoryWatch::stamp);
        let before = std::mem::replace(&mut self.stamp, now);
        let unchanged = before.is_some() && before == self.stamp;
        // None of the hints was news, or it would have been listed then.
        let told = std::mem::take(&mut self.hinted);
        !(self.settled && listed_lately && (unchanged || told))
    }

    fn read(&self, hint: &Hint) -> Read {
        let Hint::Look(path) = hint else {
            return Read::News;
        };
        let Ok(found) = self.directory.look(path) else {
            return Read::News;
        };
        if !found.refused.is_empty() {
            return Read::News;
        }
        let database = found.databases.first();
        let is_there = database.is_some_and(|found| !is_tombstone(self.engine, &found.path));
        let below = path.strip_prefix(self.directory.path()).ok();
        let name = below.and_then(Path::to_str).and_then(PartitionName::new);
        match name {
            Some(name) => match (self.known.contains(&name), is_there) {
                (true, true) => Read::Same(name),
                (false, false) => Read::Nothing,
                _ => Read::News,
            },
            None => Read::News,
        }
    }

    fn list(&mut self, tell: &dyn Fn(&PartitionName, Event)) {
        self.listed_at = Some(Instant::now());
        self.look_at = Some(Instant::now() + LIST_EVERY);
        (self.settled, self.stamp, self.hinted) = (false, None, false);
        if let Some(watch) = &mut self.watch
            && let Err(error) = watch.renew(&self.directory)
        {
            tracing::warn!(%error, "a directory can't be watched");
        }
        let stamp = self.watch.as_ref().and_then(DirectoryWatch::stamp);
        let listing = match self.directory.list() {
            Ok(listing) => listing,
            Err(error) => {
                tracing::warn!(%error, "a directory of databases can't be read");
                return;
            }
        };
        failpoint::reach(Step::RecoverFound);
        // What was wrong may be right, and what was left behind put away, under the same name.
        let mut settled = listing.refused.is_empty();
        let mut there = BTreeSet::new();
        for found in listing.databases {
            if is_tombstone(self.engine, &found.path) {
                settled = false;
                continue;
            }
            if !self.known.contains(&found.name) {
                tell(
                    &found.name,
                    Event::Found {
                        name: found.name.clone(),
                    },
                );
            }
            there.insert(found.name);
        }
        for (text, reason) in listing.refused {
            let Some(name) = PartitionName::new(&text) else {
                continue;
            };
            if !self.known.contains(&name) {
                tell(
                    &name,
                    Event::Rejected {
                        name: name.clone(),
                        reason,
                    },
                );
            }
            there.insert(name);
        }
        for name in self.known.difference(&there) {
            let reason = "its path is gone".to_owned();
            tell(
                name,
                Event::Vanished {
                    partition: name.id(),
                    reason,
                },
            );
        }
        self.known = there;
        (self.settled, self.stamp) = (settled, stamp);
    }
}

/// Sends an event to the shard that owns the partition.
pub fn tell(shards: &[Mailbox], name: &PartitionName, event: Event) {
    post(shards, name, Mail::Event(event));
}

fn post(shards: &[Mailbox], name: &PartitionName, mail: Mail) {
    let shard = ShardIndex::of(name.id(), shards.len() as u16);
    shards[usize::from(shard.0)].post(mail);
}
