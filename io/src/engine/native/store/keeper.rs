//! The thread of a store: hints of finished segments, and compaction within its rate.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wal::Time;
use wal::log::saved::Run;
use wal::log::{Error, Result};

use super::{Core, hint, load, system};
use crate::throttle::{Burst, Throttle};

/// It looks this often without being asked: a hold may have been let go.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that compaction may move at once after a pause.
const BURST: u64 = 1 << 20;

/// How the thread is told something.
#[derive(Debug, Default)]
pub struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    nudged: bool,
    stopped: bool,
}

impl Bell {
    pub fn nudge(&self) {
        self.change(|state| state.nudged = true);
    }

    fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for a nudge or for `limit`; `false` once stopped.
    fn wait(&self, limit: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut State| !state.nudged && !state.stopped;
        let waited = self.changed.wait_timeout_while(state, limit, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.nudged = false;
        !state.stopped
    }

    /// Waits for `limit`; `false` once stopped.
    fn pause(&self, limit: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |state: &mut State| !state.stopped;
        let waited = self.changed.wait_timeout_while(state, limit, running);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }
}

/// The thread; stopped and waited for when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub fn start(core: &Arc<Core>) -> Result<Keeper> {
        let kept = Arc::clone(core);
        let builder = std::thread::Builder::new().name("store-keeper".into());
        let thread = builder.spawn(move || keep(&kept));
        let log = core.appender.control().path();
        let thread = thread.map_err(|error| system("start the thread of", log, &error))?;
        Ok(Keeper {
            core: Arc::clone(core),
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.core.bell.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed; the store is being dropped anyway.
            let _ = thread.join();
        }
    }
}

fn keep(core: &Core) {
    let began = Instant::now();
    let now = || Time(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut throttle = Throttle::new(core.options.compact_rate, Burst(BURST), now());
    let mut pace = |bytes: usize| {
        while let Err(at) = throttle.take(now(), bytes) {
            if !core
                .bell
                .pause(Duration::from_nanos(at.0.saturating_sub(now().0)))
            {
                return false;
            }
        }
        core.bell.pause(Duration::ZERO)
    };
    loop {
        let result = core.write_hints().and_then(|_| core.compact_all(&mut pace));
        core.tell(result.err());
        if !core.bell.wait(LOOK) {
            return;
        }
    }
}

impl Core {
    /// Writes the hints of finished segments that have none; how many.
    pub fn write_hints(&self) -> Result<u64> {
        let mut hinted = self.hinted.lock().unwrap_or_else(PoisonError::into_inner);
        let control = self.appender.control();
        let (layout, end) = (&self.layout, self.appender.position());
        let first = control.saved::<Run>()?.first;
        let begin = layout.number(first);
        *hinted = hinted.split_off(&begin);
        let finished = |number: &u64| load::is_finished(layout, *number, end);
        let mut written = 0;
        for number in (begin..).take_while(finished) {
            if !hinted.contains(&number) {
                let made = hint::write(control, number, first.max(layout.begin(number)));
                // Compaction may have given the segment back meanwhile.
                if made.is_err() && layout.number(control.saved::<Run>()?.first) > number {
                    continue;
                }
                made?;
                hinted.insert(number);
                written += 1;
            }
        }
        Ok(written)
    }

    /// Compacts until the store is as small as it wants to be.
    pub fn compact_all(&self, mut pace: impl FnMut(usize) -> bool) -> Result<()> {
        while self.wants_compaction()? && self.compact(&mut pace)?.is_some() {}
        Ok(())
    }

    /// Keeps the last failure of the thread for who asks; logs it when it is a new one.
    fn tell(&self, failure: Option<Error>) {
        let mut told = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let text = failure.as_ref().map(Error::to_string);
        if let Some(text) = &text
            && told.as_ref().map(Error::to_string).as_ref() != Some(text)
        {
            tracing::warn!(log = %self.appender.control().path().display(), "store: {text}");
        }
        *told = failure;
    }
}
