//! What a shard's loop has to work with: its ring, its sleep, and tasks beside it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use glommio::TaskQueueHandle;
use glommio::io::BufferedFile;
use wal::{Span, Time};

use super::bell::{self, Bell, Wake};
use super::{CatchUnwind, executor_error, now};
use crate::error::{Error, Kind, Result};
use crate::ring::Ring;

/// How long a busy loop may keep the executor from the tasks beside it.
const TURN: Span = Span::millis(2);

type Sleep = Pin<Box<dyn Future<Output = std::result::Result<(), glommio::GlommioError<()>>>>>;

/// What a shard's loop has to work with.
pub struct ShardContext {
    pub ring: Ring,
    bell: Arc<Bell>,
    /// The bell's signal, for glommio.
    file: Rc<BufferedFile>,
    /// Tasks beside the loop that are alive.
    beside: Rc<Cell<usize>>,
    /// The read of the eventfd; it survives a `wait` that was dropped half-way.
    sleep: Option<Sleep>,
    /// When the executor last had a turn of its own.
    turned: Time,
    queue: TaskQueueHandle,
    /// The panic of a task spawned by this loop.
    fallen: Rc<RefCell<Option<String>>>,
}

impl std::fmt::Debug for ShardContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardContext")
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

impl ShardContext {
    pub(super) fn new(
        bell: &Arc<Bell>,
        file: &Rc<BufferedFile>,
        queue: TaskQueueHandle,
    ) -> Result<Self> {
        let mut ring = Ring::new()?;
        ring.register_eventfd(bell.signal.as_raw_fd())?;
        ring.listen(&bell.doorbell);
        Ok(ShardContext {
            ring,
            bell: Arc::clone(bell),
            file: Rc::clone(file),
            beside: Rc::default(),
            sleep: None,
            turned: now(),
            queue,
            fallen: Rc::default(),
        })
    }

    /// A handle that ends this shard's sleep.
    pub fn wake(&self) -> Wake {
        Wake(Arc::clone(&self.bell))
    }

    /// Submits what is queued and sleeps until the ring has completions, a [`Wake`] is used or
    /// `deadline` has come; returns at once if one of them is already so. Fails when a task of
    /// this shard panicked or the ring is broken: the loop should end with that error.
    pub async fn wait(&mut self, deadline: Option<Time>) -> Result<()> {
        loop {
            if let Some(panic) = self.fallen.borrow_mut().take() {
                return Err(Error::new(Kind::Fatal, "run", "a task of the shard", panic));
            }
            let woken = self.bell.awake();
            self.ring.submit()?;
            let passed = deadline.is_some_and(|deadline| deadline <= now());
            if woken || passed || self.ring.has_completion() {
                return self.give_turn().await;
            }
            let how = match self.beside.get() {
                0 => bell::Sleep::Alone,
                _ => bell::Sleep::Beside,
            };
            if !self.bell.sleep(how) {
                return self.give_turn().await;
            }
            match how {
                bell::Sleep::Alone => self.sleep_alone(deadline)?,
                bell::Sleep::Beside => self.sleep_beside(deadline).await?,
            }
        }
    }

    /// Sleeps in the ring itself: nothing else lives on this executor.
    fn sleep_alone(&mut self, deadline: Option<Time>) -> Result<()> {
        let longest = deadline.map(|deadline| (deadline - now()).to_duration());
        self.ring.submit_and_wait(longest)
    }

    /// Sleeps through glommio, so that the tasks beside the loop run meanwhile.
    async fn sleep_beside(&mut self, deadline: Option<Time>) -> Result<()> {
        if let Some(deadline) = deadline {
            self.ring.alarm(deadline);
            self.ring.submit()?;
        }
        if !self.ring.notify(true) {
            self.sleep().await?;
        }
        self.ring.notify(false);
        Ok(())
    }

    /// Lets the tasks beside the loop run, and glommio collect what they wait for, if the loop was
    /// too busy to sleep for a while: by awaiting an eventfd that it writes itself.
    async fn give_turn(&mut self) -> Result<()> {
        if self.beside.get() == 0 || now() - self.turned < TURN {
            return Ok(());
        }
        bell::write(self.bell.signal.as_fd());
        self.sleep().await
    }

    async fn sleep(&mut self) -> Result<()> {
        let file = &self.file;
        let sleep = self.sleep.get_or_insert_with(|| {
            let file = Rc::clone(file);
            Box::pin(async move { file.read_at(0, 8).await.map(|_| ()) })
        });
        let slept = sleep.await;
        self.sleep = None;
        self.turned = now();
        slept.map_err(|error| Error::new(Kind::Fatal, "read", "an eventfd", error.to_string()))
    }

    /// Runs a task beside the loop, on the same thread, until the returned handle is dropped. Its
    /// panic ends the loop's next [`ShardContext::wait`] with an error. While such a task is alive
    /// every sleep costs several times more; a task spawned in any other way never runs while the
    /// loop sleeps alone.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> Result<Task> {
        let (fallen, wake) = (Rc::clone(&self.fallen), self.wake());
        self.beside.set(self.beside.get() + 1);
        let beside = Beside(Rc::clone(&self.beside));
        let guarded = async move {
            let _beside = beside;
            if let Err(panic) = CatchUnwind(Box::pin(task)).await {
                *fallen.borrow_mut() = Some(panic);
                wake.wake();
            }
        };
        let spawned = glommio::spawn_local_into(guarded, self.queue);
        spawned
            .map(|task| Task { _task: task })
            .map_err(|error| executor_error("spawn", error))
    }
}

/// A task beside a shard's loop; dropping it ends the task.
#[derive(Debug)]
pub struct Task {
    _task: glommio::Task<()>,
}

/// Counts a task among those alive until it is dropped.
struct Beside(Rc<Cell<usize>>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
