//! Threads for the few syncs inside a pause: the landing's and the fence's.
//!
//! An fdatasync sleeps and must be woken; on a busy machine the wake-up, not the disk, is the wait:
//! 4.9 ms at normal priority against 0.3 ms at SCHED_RR (p50, 4 KiB into a preallocated file, two
//! cores under a load of 5). So these syncs run on threads that have real-time priority where that
//! is allowed (CAP_SYS_NICE or RLIMIT_RTPRIO), and that do nothing else.
//!
//! Invariants: jobs start in order; a job that panics ends no thread; at most [`WAITING_MAX`] wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crate::error::{Error, Kind, Result};

/// More switchovers than this at once are a mistake of the caller.
pub const WAITING_MAX: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Dropping it waits for the jobs that were given.
#[derive(Debug)]
pub struct Urgent {
    jobs: Option<flume::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    realtime: bool,
}

impl Urgent {
    /// Starts `threads` of them; two, so that one slow disk does not hold up the other end.
    pub fn start(threads: usize) -> Result<Urgent> {
        let (jobs, inbox) = flume::bounded::<Job>(WAITING_MAX);
        let (granted_out, granted_in) = flume::unbounded();
        let spawn = |_| {
            let (inbox, granted) = (inbox.clone(), granted_out.clone());
            let work = move || {
                // The starter waits for this; it can only be gone if it panicked.
                let _ = granted.send(ask_realtime());
                while let Ok(job) = inbox.recv() {
                    // The panic was printed; whoever waits for the job sees its channel close.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            };
            let builder = std::thread::Builder::new().name("urgent".to_owned());
            builder
                .spawn(work)
                .map_err(|e| Error::system("start", "an urgent thread", e))
        };
        let threads = (0..threads.max(1)).map(spawn).collect::<Result<Vec<_>>>()?;
        let realtime = threads.iter().all(|_| granted_in.recv().unwrap_or(false));
        Ok(Urgent {
            jobs: Some(jobs),
            threads,
            realtime,
        })
    }

    /// Runs `job` soon. It reports by itself, over a channel and whatever wakes its receiver.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.try_send(Box::new(job)).is_ok());
        if sent {
            return Ok(());
        }
        let reason = format!("{WAITING_MAX} jobs are waiting");
        Err(Error::new(Kind::Retry, "run", "an urgent job", reason))
    }

    /// Whether real-time priority was allowed; for `status`.
    pub fn is_realtime(&self) -> bool {
        self.realtime
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Its jobs' panics are caught, so it ends by itself.
            let _ = thread.join();
        }
    }
}

/// IOPRIO_WHO_PROCESS with 0: the calling thread.
const IOPRIO_WHO_THREAD: libc::c_long = 1;
/// Class best-effort, level 4: what a thread of normal priority has.
const IOPRIO_NORMAL: libc::c_long = 2 << 13 | 4;

/// Asks for real-time priority for the calling thread. SCHED_RR 1 is the lowest such priority;
/// RESET_ON_FORK keeps children from inheriting it (sched(7)).
///
/// Of the processor only: a thread of real-time priority whose I/O priority was never set has
/// real-time I/O too (ioprio_set(2)), and mq-deadline dispatches no other request while one of that
/// class is under way, nor afterwards until something else runs the queue. An application's commit
/// stood still for 3 to 8 ms behind ours.
pub fn ask_realtime() -> bool {
    // SAFETY: ioprio_set(2) takes numbers and touches no memory of ours. Where it fails, I/O is as
    // the kernel has it.
    unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_THREAD, 0, IOPRIO_NORMAL) };
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: sched_setscheduler(2) reads `parameters`, which outlives the call; 0 is this thread.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters)
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_panics_ends_no_thread() {
        let urgent = Urgent::start(1).expect("start");
        urgent.run(|| panic!("as the test wants")).expect("run");
        let (done_out, done_in) = flume::bounded(1);
        urgent
            .run(move || done_out.send(7).expect("send"))
            .expect("run");
        assert_eq!(done_in.recv(), Ok(7));
    }

    #[test]
    fn real_time_is_asked_of_the_processor_and_not_of_the_disk() {
        const IOPRIO_CLASS_BEST_EFFORT: libc::c_long = 2;
        let urgent = Urgent::start(1).expect("start");
        let (done_out, done_in) = flume::bounded(1);
        urgent
            .run(move || {
                // SAFETY: ioprio_get(2) takes numbers only.
                let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_THREAD, 0) };
                done_out.send(priority >> 13).expect("send");
            })
            .expect("run");
        assert_eq!(done_in.recv(), Ok(IOPRIO_CLASS_BEST_EFFORT));
    }

    #[test]
    fn dropping_waits_for_the_jobs_that_were_given() {
        let urgent = Urgent::start(2).expect("start");
        let (done_out, done_in) = flume::unbounded();
        for n in 0..50 {
            let done = done_out.clone();
            urgent
                .run(move || done.send(n).expect("send"))
                .expect("run");
        }
        drop(urgent);
        assert_eq!(done_in.len(), 50);
    }
}
