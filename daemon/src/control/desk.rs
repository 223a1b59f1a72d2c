//! The coordinator's desk: a thread of its own that makes the blocking calls.
//!
//! Requests that wait while another is being synced are carried out as one group, so ten thousand
//! claims at start cost a handful of syncs. Between requests it looks for what others changed.

use std::thread::JoinHandle;
use std::time::Duration;

use io::failpoint::{self, Step};

use super::coordinator::{Conflict, Coordinator, Error, OwnerRecord, Request, Revision};

/// How often changes of other daemons are looked for: a stat, when there are none.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// How long to wait after the coordinator failed, before it is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Requests in one group, at most.
const GROUP_MAX: usize = 512;
/// Changed records that wait for the runtime, at most; then the desk waits.
const CHANGES_MAX: usize = 64 << 10;

/// What became of a request.
pub type Answer = Result<Result<OwnerRecord, Conflict>, Failure>;

/// The coordinator could not be reached or could not write; ask again later.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// Takes requests; cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    calls: flume::Sender<Call>,
}

struct Call {
    request: Request,
    answer: Box<dyn FnOnce(Answer) + Send>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.request.fmt(f)
    }
}

impl Desk {
    /// Starts the thread. Ends when every [`Desk`] is dropped.
    ///
    /// The receiver yields every record once at start and then whenever it changes, by whomever.
    pub fn start(
        coordinator: Box<dyn Coordinator>,
    ) -> std::io::Result<(Desk, flume::Receiver<OwnerRecord>, JoinHandle<()>)> {
        // Bounded by the askers: a partition asks again only when it was answered. A bound here
        // would make a request from within an answer wait for itself.
        let (calls, waiting) = flume::unbounded();
        let (changed, changes) = flume::bounded(CHANGES_MAX);
        let thread = std::thread::Builder::new()
            .name("coordinator".to_owned())
            .spawn(move || {
                Clerk {
                    coordinator,
                    changed,
                    seen: Revision(0),
                }
                .work(&waiting)
            })?;
        Ok((Desk { calls }, changes, thread))
    }

    /// Asks; `answer` is called on the coordinator's thread and must not block.
    pub fn submit(&self, request: Request, answer: impl FnOnce(Answer) + Send + 'static) {
        let call = Call {
            request,
            answer: Box::new(answer),
        };
        if let Err(flume::SendError(call)) = self.calls.send(call) {
            (call.answer)(Err(Failure("the coordinator has stopped".to_owned())));
        }
    }
}

/// Works at the desk.
struct Clerk {
    coordinator: Box<dyn Coordinator>,
    changed: flume::Sender<OwnerRecord>,
    seen: Revision,
}

impl Clerk {
    fn work(mut self, waiting: &flume::Receiver<Call>) {
        let mut look_again = Duration::ZERO;
        loop {
            match waiting.recv_timeout(look_again) {
                Ok(first) => {
                    let more = waiting.try_iter().take(GROUP_MAX - 1);
                    self.answer(std::iter::once(first).chain(more).collect());
                    look_again = Duration::ZERO;
                }
                Err(flume::RecvTimeoutError::Timeout) => look_again = self.look(),
                Err(flume::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn answer(&mut self, calls: Vec<Call>) {
        let requests: Vec<Request> = calls.iter().map(|call| call.request.clone()).collect();
        failpoint::reach(Step::RouteSubmitted);
        match self.coordinator.submit(&requests) {
            Ok(answers) => {
                for (call, answer) in calls.into_iter().zip(answers) {
                    (call.answer)(Ok(answer));
                }
            }
            Err(error) => {
                let failure = Failure(error.to_string());
                for call in calls {
                    (call.answer)(Err(failure.clone()));
                }
            }
        }
    }

    /// Passes on what changed; says when to look again.
    fn look(&mut self) -> Duration {
        match self.coordinator.changes(self.seen) {
            Ok(records) => {
                for record in records {
                    self.seen = self.seen.max(record.revision);
                    // The runtime has stopped listening: it is being shut down.
                    let _ = self.changed.send(record);
                }
                WATCH_EVERY
            }
            Err(error) => {
                let damaged = matches!(error, Error::Damaged { .. });
                tracing::error!(%error, damaged, "owners can't be read; moves wait");
                RETRY_AFTER
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wal::{Epoch, NodeId, PartitionName};

    use super::super::coordinator::Act;
    use super::super::embedded::Embedded;
    use super::*;

    fn claim(index: u32) -> Request {
        let name = PartitionName::new(&format!("{index}.db")).expect("valid");
        Request {
            name,
            act: Act::Claim { node: NodeId(1) },
        }
    }

    #[test]
    fn a_thousand_claims_are_answered_and_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let coordinator = Box::new(Embedded::open(dir.path()).expect("opens"));
        let (desk, changes, thread) = Desk::start(coordinator).expect("starts");
        let (answered, answers) = flume::unbounded();
        for index in 0..1000 {
            let answered = answered.clone();
            desk.submit(claim(index), move |answer| {
                answered.send(answer).expect("listening")
            });
        }
        for _ in 0..1000 {
            let record = answers
                .recv()
                .expect("an answer")
                .expect("durable")
                .expect("no conflict");
            assert_eq!(record.epoch, Epoch(1));
        }
        let wait = Duration::from_secs(5);
        for _ in 0..1000 {
            changes.recv_timeout(wait).expect("every record is told");
        }
        drop(desk);
        thread.join().expect("ends");
    }

    #[test]
    fn what_another_daemon_changes_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let coordinator = Box::new(Embedded::open(dir.path()).expect("opens"));
        let (_desk, changes, _thread) = Desk::start(coordinator).expect("starts");
        let mut other = Embedded::open(dir.path()).expect("opens");
        let record = other.one(claim(1)).expect("durable").expect("claims");
        assert_eq!(changes.recv_timeout(Duration::from_secs(5)), Ok(record));
    }
}
