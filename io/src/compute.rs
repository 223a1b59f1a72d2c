//! Threads for work that must not run on a shard: processor time (zstd, hashing, scans) at nice
//! 10, and calls that block (fsync, waits for a lock) at normal priority.
//!
//! Invariants: every accepted job is answered exactly once, a panic included; the queue and the
//! number of threads are bounded; threads come when jobs wait and go when none comes for a while.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// A thread without a job for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How much compute threads stand back behind everything else on the machine.
const NICE: libc::c_int = 10;
const NICE_MAX: libc::c_int = 19;
/// Jobs that wait: at start every partition of a node has one.
const QUEUE_MAX: usize = 65_536;
/// Blocking calls at once: one per partition in a switchover, and the checkpoints.
const DISK_THREADS_MAX: usize = 32;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool of threads.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    nice: bool,
    threads_max: usize,
    queue_max: usize,
    idle_max: Duration,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} jobs, {} threads, {} idle",
            self.jobs.len(),
            self.threads,
            self.idle
        )
    }
}

impl Pool {
    /// For processor time: at most `threads` threads at nice 10.
    pub fn compute(threads: usize) -> Pool {
        Pool::new("compute", true, threads, QUEUE_MAX, IDLE_MAX)
    }

    /// For calls that block: grows to 32 threads at normal priority.
    pub fn disk() -> Pool {
        Pool::new("disk", false, DISK_THREADS_MAX, QUEUE_MAX, IDLE_MAX)
    }

    fn new(
        name: &'static str,
        nice: bool,
        threads_max: usize,
        queue_max: usize,
        idle_max: Duration,
    ) -> Pool {
        let threads_max = threads_max.max(1);
        let (state, bell) = (Mutex::default(), Condvar::new());
        let shared = Shared {
            name,
            nice,
            threads_max,
            queue_max,
            idle_max,
            state,
            bell,
        };
        Pool {
            shared: Arc::new(shared),
        }
    }

    /// Runs `job` on a thread of the pool, then `done` with its result on the same thread; `done`
    /// hands it to the shard (a channel and a `Wake`). A job that panics is an `Err`. Fails, and
    /// drops both, when the queue is full or no thread can be started for it.
    pub fn submit<T>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(std::result::Result<T, Error>) + Send + 'static,
    ) -> Result<()> {
        let name = self.shared.name;
        let task = Box::new(move || {
            let ran = catch_unwind(AssertUnwindSafe(job));
            let panicked = |panic: Box<dyn Any + Send>| {
                let words = crate::reactor::panic_text(&*panic);
                Error::new(Kind::Fatal, "run", format!("a {name} job"), words)
            };
            done(ran.map_err(panicked));
        });
        let mut state = self.shared.lock();
        if state.jobs.len() >= self.shared.queue_max {
            let reason = format!("{} jobs wait already", state.jobs.len());
            return Err(Error::new(
                Kind::Retry,
                "queue",
                format!("a {name} job"),
                reason,
            ));
        }
        if state.idle <= state.jobs.len() && state.threads < self.shared.threads_max {
            let started = start(Arc::clone(&self.shared));
            match started {
                Ok(()) => state.threads += 1,
                // With at least one thread the job is only later.
                Err(error) if state.threads == 0 => {
                    return Err(Error::system("start", format!("a {name} thread"), error));
                }
                Err(error) => tracing::warn!(%error, name, "a thread could not be started"),
            }
        }
        state.jobs.push_back(task);
        drop(state);
        self.shared.bell.notify_one();
        Ok(())
    }

    /// Jobs that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.shared.lock().jobs.len()
    }

    /// Threads that exist now.
    pub fn threads(&self) -> usize {
        self.shared.lock().threads
    }
}

impl Drop for Pool {
    /// Threads end after the jobs that were accepted.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.bell.notify_all();
    }
}

impl Shared {
    /// No job runs under the lock, so a poisoned lock still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` when this thread should end, already counted out.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let waited = self.bell.wait_timeout(state, self.idle_max);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

fn start(shared: Arc<Shared>) -> std::io::Result<()> {
    let name = format!("fs-{}", shared.name);
    let run = move || {
        if shared.nice {
            // SAFETY: a plain system call; on Linux 0 means the calling thread alone. Raising
            // one's own nice value is always allowed.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        }
        while let Some(job) = shared.next() {
            // `done` is the caller's code: its panic must not cost the pool a thread either.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!(pool = shared.name, "a job's answer panicked");
            }
        }
    };
    std::thread::Builder::new().name(name).spawn(run).map(drop)
}

/// Lets the calling thread run only while nobody else wants a processor: for training, which may
/// take a core for minutes. A thread at nice 10 keeps a tenth of a core that a shard wants too and
/// ends its slice first; one that wakes takes the processor from SCHED_IDLE at once (sched(7)).
/// Answers whether it is so; if not, the thread is at least at nice 19.
pub fn ask_idle() -> bool {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: sched_setscheduler(2) reads `parameters`, which outlives the call; 0 is this thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
    if result != 0 {
        // SAFETY: as in `start`.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE_MAX) };
    }
    result == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    #[test]
    fn every_job_is_answered_with_its_result() {
        let pool = Pool::compute(2);
        let (said, heard) = channel();
        for number in 0..500u64 {
            let said = said.clone();
            pool.submit(
                move || number * 2,
                move |result| said.send(result.unwrap()).unwrap(),
            )
            .unwrap();
        }
        let mut results: Vec<u64> = (0..500)
            .map(|_| heard.recv_timeout(WAIT).unwrap())
            .collect();
        results.sort_unstable();
        assert!(
            results
                .iter()
                .enumerate()
                .all(|(i, result)| *result == i as u64 * 2)
        );
        assert!(pool.threads() <= 2);
    }

    #[test]
    fn a_job_that_panics_is_an_error_and_the_pool_lives_on() {
        let pool = Pool::compute(1);
        let (said, heard) = channel();
        for _ in 0..3 {
            let said = said.clone();
            let job = || -> u8 { panic!("on purpose") };
            pool.submit(job, move |result| {
                said.send(result.map_err(|e| e.to_string())).unwrap()
            })
            .unwrap();
        }
        for _ in 0..3 {
            let error = heard.recv_timeout(WAIT).unwrap().unwrap_err();
            assert!(error.contains("on purpose"), "{error}");
        }
        pool.submit(|| 1u8, |_| panic!("in the answer")).unwrap();
        pool.submit(
            || 7u8,
            move |result| said.send(Ok(result.unwrap())).unwrap(),
        )
        .unwrap();
        assert_eq!(heard.recv_timeout(WAIT).unwrap(), Ok(7));
    }

    #[test]
    fn blocking_jobs_make_the_pool_grow_to_its_bound_and_no_further() {
        let pool = Pool::new("test", false, 4, 100, IDLE_MAX);
        let together = Arc::new(Barrier::new(4));
        let (said, heard) = channel();
        for _ in 0..8 {
            let (together, said) = (Arc::clone(&together), said.clone());
            // Four must run at once, or nobody gets past the barrier.
            pool.submit(
                move || together.wait().is_leader(),
                move |_| said.send(()).unwrap(),
            )
            .unwrap();
        }
        (0..8).for_each(|_| heard.recv_timeout(WAIT).unwrap());
        assert_eq!(pool.threads(), 4);
    }

    #[test]
    fn a_full_queue_refuses() {
        let pool = Pool::new("test", false, 1, 2, IDLE_MAX);
        let (release, held) = channel::<()>();
        let (said, heard) = channel();
        pool.submit(move || held.recv().ok(), |_| ()).unwrap();
        let started = Instant::now();
        while pool.waiting() > 0 {
            assert!(started.elapsed() < WAIT);
            std::thread::yield_now();
        }
        for _ in 0..2 {
            let said = said.clone();
            pool.submit(|| (), move |_| said.send(()).unwrap()).unwrap();
        }
        let error = pool.submit(|| (), |_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Retry);
        release.send(()).unwrap();
        (0..2).for_each(|_| heard.recv_timeout(WAIT).unwrap());
    }

    #[test]
    fn compute_threads_stand_back_and_idle_ones_end() {
        let pool = Pool::new("compute", true, 2, 10, Duration::from_millis(50));
        let (said, heard) = channel();
        // SAFETY: a plain system call about the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        pool.submit(nice, move |result| said.send(result.unwrap()).unwrap())
            .unwrap();
        assert_eq!(heard.recv_timeout(WAIT).unwrap(), NICE);
        let started = Instant::now();
        while pool.threads() > 0 {
            assert!(started.elapsed() < WAIT, "the idle thread stays");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_thread_that_asks_is_idle_and_others_are_not() {
        // SAFETY: plain system calls about the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let asked = std::thread::spawn(move || (ask_idle(), policy()));
        assert_eq!(asked.join().unwrap(), (true, libc::SCHED_IDLE));
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
