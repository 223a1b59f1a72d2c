//! One database of this process: its lease, and what was last found wrong with it.
//!
//! All connections and the files of the log share it. A lease that refuses is mapped anew now and
//! then, because the daemon may have put another file there; a valid one is not looked for again.
//!
//! A database without a lease is not guarded, unless that is demanded. One that had a lease and
//! lost its file stays refused: for those who know of the guard, a file that vanished is no grant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};

use lease::{Lease, Refusal, Valid};

/// A lease that refuses is mapped anew at most so often, in nanoseconds.
const LOOK_EVERY: u64 = 50_000_000;

/// One database.
#[derive(Debug)]
pub struct Guarded {
    lease: PathBuf,
    look: Mutex<Look>,
}

#[derive(Debug)]
struct Look {
    found: Result<Lease, Refusal>,
    at: u64,
    /// No lease is a refusal.
    required: bool,
    /// What was said last, so that the same is not said with each write.
    said: Option<Refusal>,
}

/// What a guard says about a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Granted(Valid),
    /// There is no lease, and nobody demands one.
    Unguarded,
    Refused(Refusal),
}

impl Guarded {
    /// The guard of the database at `database`, as SQLite opens it.
    pub fn of(database: &Path) -> Arc<Guarded> {
        static ALL: LazyLock<Mutex<BTreeMap<PathBuf, Weak<Guarded>>>> =
            LazyLock::new(Mutex::default);
        let lease = lease::path_of(database);
        let mut all = lock(&ALL);
        if let Some(guarded) = all.get(&lease).and_then(Weak::upgrade) {
            return guarded;
        }
        all.retain(|_, guarded| guarded.strong_count() > 0);
        let look = Look {
            found: Lease::open(&lease),
            at: lease::now(),
            required: false,
            said: None,
        };
        let guarded = Arc::new(Guarded {
            lease: lease.clone(),
            look: Mutex::new(look),
        });
        all.insert(lease, Arc::downgrade(&guarded));
        guarded
    }

    /// From now on a database without a lease is refused, to all connections of this process.
    pub fn require(&self) {
        lock(&self.look).required = true;
    }

    /// Whether the database may be written now.
    pub fn check(&self) -> Verdict {
        let mut look = lock(&self.look);
        let verdict = look.verdict();
        if let Verdict::Granted(_) = verdict {
            return verdict;
        }
        let now = lease::now();
        if now.saturating_sub(look.at) < LOOK_EVERY {
            return verdict;
        }
        look.at = now;
        let found = Lease::open(&self.lease);
        // A lease that was there once, and is not any more, is still what binds us.
        let vanished = matches!(found, Err(Refusal::Absent(_))) && !look.is_absent();
        look.required |= vanished;
        look.found = found;
        look.verdict()
    }

    /// Whether this refusal is another than the last one.
    pub fn is_news(&self, refusal: &Refusal) -> bool {
        let mut look = lock(&self.look);
        let same =
            look.said.as_ref().map(std::mem::discriminant) == Some(std::mem::discriminant(refusal));
        look.said = Some(refusal.clone());
        !same
    }

    /// A write was taken: the next refusal is news.
    pub fn forget_refusal(&self) {
        lock(&self.look).said = None;
    }
}

impl Look {
    fn verdict(&self) -> Verdict {
        match self
            .found
            .as_ref()
            .map_err(Clone::clone)
            .and_then(Lease::check)
        {
            Ok(valid) => Verdict::Granted(valid),
            Err(Refusal::Absent(_)) if !self.required => Verdict::Unguarded,
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn is_absent(&self) -> bool {
        matches!(self.found, Err(Refusal::Absent(_)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever a panic left behind, the page is looked at again.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
