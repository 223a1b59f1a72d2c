//! Work that would block a shard, done elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use io::compute::Pool;
use io::urgent::Urgent;

use super::host::Host;
use super::mail::Mail;

/// Where work goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// Background priority: compressing, hashing.
    Compute,
    /// Normal priority: what waits for the disk or a lock.
    Disk,
    /// Real-time priority where allowed: the syncs inside a pause, and nothing else.
    Urgent,
}

/// The pools of a node, shared by its shards.
#[derive(Clone, Debug)]
pub struct Pools {
    pub compute: Arc<Pool>,
    pub disk: Arc<Pool>,
    pub urgent: Arc<Urgent>,
}

impl Pools {
    /// Runs `work` elsewhere and then `done`, on the same thread; `done` is called in any case.
    pub fn run<T: Send + 'static>(
        &self,
        place: Where,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, String>) + Send + 'static,
    ) {
        let slot = Arc::new(Mutex::new(Some(done)));
        let taken = Arc::clone(&slot);
        let finish = move |result: Result<T, String>| {
            let done = taken
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .take();
            if let Some(done) = done {
                done(result);
            }
        };
        let finish = move |result: io::Result<T>| finish(result.map_err(|error| error.to_string()));
        let ran = match place {
            Where::Compute => self.compute.submit(work, finish),
            Where::Disk => self.disk.submit(work, finish),
            Where::Urgent => self.urgent.run(move || {
                let panicked = |_| io::Error::new(io::Kind::Fatal, "run", "an urgent job", "panic");
                finish(catch_unwind(AssertUnwindSafe(work)).map_err(panicked));
            }),
        };
        if let Err(error) = ran {
            let done = slot
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .take();
            if let Some(done) = done {
                done(Err(error.to_string()));
            }
        }
    }
}

impl Host {
    /// Runs `work` elsewhere and `finish` here with its result, or with the words of its panic.
    pub fn offload<T: Send + 'static>(
        &self,
        place: Where,
        work: impl FnOnce() -> T + Send + 'static,
        finish: impl FnOnce(&mut Host, Result<T, String>) + Send + 'static,
    ) {
        let mailbox = self.mailbox.clone();
        self.pools.run(place, work, move |result| {
            mailbox.post(Mail::Finished(Box::new(move |host| finish(host, result))));
        });
    }
}
