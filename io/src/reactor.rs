//! The shell of a shard thread: one glommio executor, one raw ring, one loop that sleeps until an
//! answer, a wake-up or a deadline.
//!
//! Executors are made once and never recycled (glommio leaks a descriptor per executor); a loop
//! that fails is restarted on the same executor when its supervisor says so. glommio lets a panic
//! of any task unwind the whole executor, so everything that runs here runs under `catch_unwind`.
//!
//! A loop that is alone on its executor sleeps in its own ring: a wake-up then costs one system
//! call on each side. Only while tasks beside it are alive does it sleep through glommio, which
//! takes about ten system calls per sleep. An idle shard makes none, and the bell is rung only for
//! a shard that sleeps.

mod bell;
mod context;
#[cfg(test)]
mod memlock;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use glommio::io::BufferedFile;
use glommio::{
    Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares, TaskQueueHandle,
};
use wal::Time;

use crate::error::{Error, Kind, Result};
use bell::Bell;
pub use bell::Wake;
pub use context::{ShardContext, Task};

/// glommio's own preemption is off. Its executor parks with runnable tasks when the preemption
/// timer fires between arming it and running the first queue (`run_task_queues` then answers "ran
/// nothing"): on a contended machine, where a thread easily loses the processor for the 1–2 ms of
/// a useful timer, a wake-up was lost within seconds. The loop gives the executor its turns itself.
const PREEMPT: Duration = Duration::from_secs(24 * 3600);
/// Entries of each of glommio's three rings; small, because they are charged to RLIMIT_MEMLOCK.
const GLOMMIO_DEPTH: usize = 128;
/// How late the kernel may end a sleep to save a wake-up.
const TIMER_SLACK_NANOS: libc::c_ulong = 1_000;
/// The kernel frees the rings of an earlier process late.
const MEMORY_WAIT: Duration = Duration::from_secs(1);

/// Monotonic time now: the clock of every deadline here.
pub fn now() -> Time {
    let mut moment = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec of ours; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut moment) };
    Time(moment.tv_sec as u64 * 1_000_000_000 + moment.tv_nsec as u64)
}

/// Starts a shard thread that runs `body`; what `supervise` answers to its end decides whether it
/// runs again. Returns once the executor stands.
pub fn spawn_shard<F, Fut, S>(
    name: &str,
    cpu: Option<usize>,
    body: F,
    supervise: S,
) -> Result<Shard>
where
    F: Fn(ShardContext) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + 'static,
    S: FnMut(End) -> Next + Send + 'static,
{
    let bell = Arc::new(Bell::new()?);
    let (ready, made) = std::sync::mpsc::sync_channel(1);
    let wake = Wake(Arc::clone(&bell));
    let label = name.to_owned();
    let run = move || {
        // SAFETY: a plain system call about the calling thread. The default slack of 50 us would
        // make every deadline late by as much; it can't fail for this option.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NANOS) };
        let executor = match make_executor(&label, cpu) {
            Ok(executor) => executor,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let mut supervise = supervise;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            executor.run(run_loop(label, bell, ready, body, &mut supervise));
        }));
        if let Err(panic) = ran {
            // The executor itself is gone: whatever the supervisor answers, nothing can restart.
            supervise(End::Panicked(panic_text(&*panic)));
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let thread = thread.map_err(|error| Error::system("start thread", name, error))?;
    match made.recv() {
        Ok(Ok(())) => Ok(Shard { wake, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::new(
            Kind::Fatal,
            "start",
            name,
            "its executor ended at once",
        )),
    }
}

/// A running shard thread.
#[derive(Debug)]
pub struct Shard {
    wake: Wake,
    thread: std::thread::JoinHandle<()>,
}

impl Shard {
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// Waits for the thread's end: after its supervisor said [`Next::Stop`].
    pub fn join(self) -> Result<()> {
        let failed = |panic: Box<dyn Any + Send>| {
            Error::new(Kind::Fatal, "join", "a shard thread", panic_text(&*panic))
        };
        self.thread.join().map_err(failed)
    }
}

/// Why a shard's loop is over.
#[derive(Debug)]
pub enum End {
    Finished,
    Failed(Error),
    /// The loop, or the executor under it, panicked.
    Panicked(String),
}

/// What becomes of a shard whose loop is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    Restart,
    Stop,
}

async fn run_loop<F, Fut>(
    name: String,
    bell: Arc<Bell>,
    ready: std::sync::mpsc::SyncSender<Result<()>>,
    body: F,
    supervise: &mut impl FnMut(End) -> Next,
) where
    F: Fn(ShardContext) -> Fut + 'static,
    Fut: Future<Output = Result<()>> + 'static,
{
    let (file, queue) = match prepare(&name, &bell) {
        Ok(prepared) => prepared,
        Err(error) => return drop(ready.send(Err(error))),
    };
    // The caller may have given up waiting; the shard then runs unobserved until stopped.
    drop(ready.send(Ok(())));
    drop(ready);
    let body = Rc::new(body);
    loop {
        let (body, again, bell) = (Rc::clone(&body), Rc::clone(&file), Arc::clone(&bell));
        let run = async move { body(ShardContext::new(&bell, &again, queue)?).await };
        let end = match glommio::spawn_local_into(CatchUnwind(Box::pin(run)), queue) {
            Err(error) => End::Failed(executor_error("spawn", error)),
            Ok(task) => match task.await {
                Ok(Ok(())) => End::Finished,
                Ok(Err(error)) => End::Failed(error),
                Err(panic) => End::Panicked(panic),
            },
        };
        if supervise(end) == Next::Stop {
            return;
        }
    }
}

fn prepare(name: &str, bell: &Bell) -> Result<(Rc<BufferedFile>, TaskQueueHandle)> {
    let signal = bell.signal.try_clone();
    let signal = signal.map_err(|error| Error::system("duplicate", "an eventfd", error))?;
    // SAFETY: ownership of the duplicate passes to the BufferedFile, which closes it. It is not a
    // regular file, but only `read_at` is called on it, which is a plain IORING_OP_READ.
    let file = Rc::new(unsafe { BufferedFile::from_raw_fd(signal.into_raw_fd()) });
    let executor = glommio::executor();
    let queue = executor.create_task_queue(Shares::default(), Latency::NotImportant, name);
    Ok((file, queue))
}

fn make_executor(name: &str, cpu: Option<usize>) -> Result<LocalExecutor> {
    let started = Instant::now();
    loop {
        let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
        let made = LocalExecutorBuilder::new(placement)
            .name(name)
            .io_memory(0)
            .ring_depth(GLOMMIO_DEPTH)
            .preempt_timer(PREEMPT)
            .spin_before_park(Duration::ZERO)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(2))
            .make();
        match made {
            Ok(executor) => return Ok(executor),
            Err(error) if started.elapsed() > MEMORY_WAIT => {
                let reason = format!("{error}; if it says ENOMEM, raise LimitMEMLOCK");
                return Err(Error::new(Kind::Refused, "make", "an executor", reason));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn executor_error(op: &'static str, error: glommio::GlommioError<()>) -> Error {
    Error::new(Kind::Fatal, op, "a task of the shard", error.to_string())
}

/// The words of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked with a value that is not text".to_owned())
}

/// A future whose panic is a value; the rest of it is dropped under the same guard.
struct CatchUnwind<T>(Pin<Box<dyn Future<Output = T>>>);

impl<T> Future for CatchUnwind<T> {
    type Output = std::result::Result<T, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = &mut self.0;
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        }
    }
}
