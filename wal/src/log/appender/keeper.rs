//! One thread per process that makes the next segment before it is needed, for all logs.
//!
//! If it is late or fails, the leader makes the segment himself, and meets the error himself.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::Opened;
use crate::log::saved::Run;

type Work = (Weak<Opened>, u64);

/// Makes segment `number` soon, and saves how far the log has come: an open after a power cut
/// looks at what came later only.
pub fn look_ahead(log: &Arc<Opened>, number: u64) {
    static KEEPER: OnceLock<Mutex<Sender<Work>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, receiver) = channel();
        let builder = std::thread::Builder::new().name("log-keeper".into());
        // Without the thread the channel is closed, and leaders do what it would have done.
        let _ = builder.spawn(move || keep(&receiver));
        Mutex::new(sender)
    });
    let sender = keeper.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = sender.send((Arc::downgrade(log), number));
}

fn keep(work: &Receiver<Work>) {
    for (log, number) in work {
        // While it is worked on, the log stays open, and so locked: nobody else writes runs.
        let Some(log) = log.upgrade() else { continue };
        let is_open = log.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_open {
            continue;
        }
        // A leader meets the same failure when it matters, and tells it.
        let _ = log.place(number);
        let word = log.control.word();
        if !word.sealed {
            let _ = log.control.save(|run: &mut Run| {
                run.number += 1;
                run.lsn = run.lsn.max(word.lsn);
            });
        }
    }
}
