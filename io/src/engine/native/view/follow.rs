//! A thread that keeps a view up to date, so that readers meet neither page faults nor the file
//! system when the log grows or moves.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wal::log::{Error, Result};

use super::View;
use crate::engine::native::store::system;

/// How often it looks; a sealed log is about to move, and is looked at more often for a while.
const LOOK: Duration = Duration::from_millis(5);
const LOOK_SEALED: Duration = Duration::from_micros(200);
/// Looks at a sealed log before it is taken as one that stays as it is.
const SEALED_MAX: u32 = 5000;

/// The thread; stopped when this is dropped.
#[derive(Debug)]
pub struct Follower {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Follower {
    pub fn start(view: &Arc<View>) -> Result<Follower> {
        let (stop, stopped) = channel();
        let failure = Arc::new(Mutex::new(None));
        let (view, told) = (Arc::clone(view), Arc::clone(&failure));
        let path = view.path.clone();
        let follow = move || {
            let mut sealed = 0;
            loop {
                let refreshed = view.refresh().err();
                *told.lock().unwrap_or_else(PoisonError::into_inner) = refreshed;
                sealed = if view.is_sealed() { sealed + 1 } else { 0 };
                let soon = (1..SEALED_MAX).contains(&sealed);
                let pause = if soon { LOOK_SEALED } else { LOOK };
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("view-follower".into());
        let thread = thread.spawn(follow);
        let thread = thread.map_err(|error| system("start the thread of", &path, &error))?;
        Ok(Follower {
            stop: Some(stop),
            thread: Some(thread),
            failure,
        })
    }

    /// Why it could not look, when it tried last.
    pub fn failure(&self) -> Option<Error> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed.
            let _ = thread.join();
        }
    }
}
