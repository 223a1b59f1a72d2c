//! The lease of this node: for how long it vouches for the databases that it serves.
//!
//! A thread of its own renews it, for as long as every shard answers: a shard that hangs hears of
//! no new owner, and reads no commit. What it costs does not grow with the databases. A lease that
//! ran out is never renewed: a new incarnation begins, which voids every grant, and each shard asks
//! the coordinator before it grants again (see `grants`).
//!
//! No thread and no file without a guarded place.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lease::NodePage;
use lease::node::new_incarnation;

use super::mail::{Mail, Mailbox};
use super::setup::{Place, Setup};

/// A lease is renewed so many times within its length.
const RENEWALS: u32 = 4;

/// The pages of this node, one beside the generations of each guarded place, and what they say.
#[derive(Debug)]
pub struct Leases {
    pages: Vec<Option<NodePage>>,
    /// The shortest lease.
    length: Duration,
    incarnation: Mutex<u64>,
}

impl Leases {
    /// `None` if no place is guarded. Grants of an earlier daemon are void from here on.
    pub fn open(places: &[Place]) -> Result<Option<Leases>, lease::Error> {
        let mut pages = Vec::new();
        for place in places {
            let guarded = place.config.lease_guard;
            let page = || {
                let dir = place.remap().generations_dir().to_owned();
                NodePage::open(&dir, place.config.lease.0)
            };
            pages.push(guarded.then(page).transpose()?);
        }
        let guarded = places.iter().filter(|place| place.config.lease_guard);
        let Some(length) = guarded.map(|place| place.config.lease.to_duration()).min() else {
            return Ok(None);
        };
        let incarnation = Mutex::new(0);
        let leases = Leases {
            pages,
            length,
            incarnation,
        };
        leases.begin();
        Ok(Some(leases))
    }

    /// The page that databases of this place name; `None` where it is not guarded.
    pub fn page(&self, place: usize) -> Option<&NodePage> {
        self.pages.get(place)?.as_ref()
    }

    pub fn incarnation(&self) -> u64 {
        *self.locked()
    }

    /// Voids every grant of this node: each is asked about and given anew.
    pub fn begin(&self) {
        let mut incarnation = self.locked();
        match new_incarnation() {
            Ok(new) => {
                self.pages().for_each(|page| page.begin(new));
                *incarnation = new;
            }
            Err(error) => {
                tracing::error!(%error, "no random number: nothing is granted");
                self.pages().for_each(NodePage::end);
                *incarnation = 0;
            }
        }
    }

    /// Vouches from `seen` on, when every shard was alive.
    fn renew(&self, seen: u64) {
        if seen + self.length.as_nanos() as u64 <= lease::now() {
            return;
        }
        let deadline = self.pages().filter_map(NodePage::deadline).min();
        let has_ended = || deadline.is_some_and(|deadline| deadline <= lease::now());
        if has_ended() {
            tracing::warn!("the lease was not renewed in time; every grant is asked about anew");
            self.begin();
            return self.pages().for_each(|page| page.renew(seen));
        }
        self.pages().for_each(|page| page.renew(seen));
        // The process may have been stopped since it looked.
        if has_ended() {
            self.begin();
        }
    }

    fn pages(&self) -> impl Iterator<Item = &NodePage> {
        self.pages.iter().flatten()
    }

    fn locked(&self) -> MutexGuard<'_, u64> {
        self.incarnation
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What the thread hears.
enum Word {
    /// A shard was alive at this time.
    Alive(usize, u64),
    End,
}

/// The thread that renews, if there is anything to renew.
pub struct Renewal(Option<(flume::Sender<Word>, JoinHandle<()>)>);

impl Renewal {
    pub fn start(setup: &Arc<Setup>, shards: &[Mailbox]) -> Result<Renewal, super::Error> {
        if setup.leases.is_none() {
            return Ok(Renewal(None));
        }
        let (sender, words) = flume::unbounded();
        let (setup, shards, answers) = (Arc::clone(setup), shards.to_vec(), sender.clone());
        let thread = std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || {
                if let Some(leases) = &setup.leases {
                    run(leases, &shards, &answers, &words);
                    leases.pages().for_each(NodePage::end);
                }
            });
        let thread = thread.map_err(|source| super::Error::System {
            what: "start thread",
            path: "lease".to_owned(),
            source,
        })?;
        Ok(Renewal(Some((sender, thread))))
    }

    /// Vouches for nothing from here on.
    pub fn end(self) {
        let Some((sender, thread)) = self.0 else {
            return;
        };
        // Both fail only if the thread is gone already, and its lease with it.
        let _ = sender.send(Word::End);
        let _ = thread.join();
    }
}

fn run(
    leases: &Leases,
    shards: &[Mailbox],
    answers: &flume::Sender<Word>,
    words: &flume::Receiver<Word>,
) {
    // A shard that has not answered is not asked again: one question waits there at most.
    let mut waiting = vec![false; shards.len()];
    let mut alive = vec![0; shards.len()];
    loop {
        for (index, shard) in shards.iter().enumerate() {
            if std::mem::replace(&mut waiting[index], true) {
                continue;
            }
            let answers = answers.clone();
            shard.post(Mail::Finished(Box::new(move |host| {
                host.look_after_grants();
                // The thread has ended: so does the daemon.
                let _ = answers.send(Word::Alive(index, lease::now()));
            })));
        }
        let again = Instant::now() + leases.length / RENEWALS;
        loop {
            match words.recv_deadline(again) {
                Ok(Word::Alive(index, at)) => {
                    waiting[index] = false;
                    let before = alive.iter().copied().min();
                    alive[index] = at;
                    let oldest = alive.iter().copied().min();
                    if let Some(oldest) = oldest.filter(|_| oldest != before) {
                        leases.renew(oldest);
                    }
                }
                Err(flume::RecvTimeoutError::Timeout) => break,
                Ok(Word::End) | Err(flume::RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wal::Span;

    use super::*;
    use crate::config::EngineConfig;

    fn leases(dir: &std::path::Path, guarded: bool) -> Option<Leases> {
        let config = EngineConfig {
            lease_guard: guarded,
            lease: Span::secs(1),
            ..EngineConfig::of(wal::Engine::Sqlite, dir.to_owned())
        };
        let place = Place::open(config).expect("a place");
        Leases::open(&[place]).expect("pages")
    }

    #[test]
    fn a_lease_that_ran_out_goes_on_under_another_incarnation() {
        let dir = tempfile::tempdir().expect("a directory");
        let leases = leases(dir.path(), true).expect("guarded");
        let deadline = || leases.page(0).and_then(NodePage::deadline);
        let (first, second) = (leases.incarnation(), 1_000_000_000);
        leases.renew(lease::now() - 2 * second);
        assert_eq!(deadline(), None, "it would have ended already");
        let now = lease::now();
        leases.renew(now);
        leases.renew(now + 1);
        assert_eq!(
            (deadline(), leases.incarnation()),
            (Some(now + second + 1), first)
        );
        leases.pages().for_each(|page| page.renew(now - second));
        leases.renew(now + 2);
        assert_eq!(deadline(), Some(now + second + 2));
        assert_ne!(leases.incarnation(), first);
    }

    #[test]
    fn without_a_guarded_place_there_is_no_lease_and_no_page() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(leases(dir.path(), false).is_none());
        assert!(!dir.path().join(".gen/lease").exists());
    }
}
