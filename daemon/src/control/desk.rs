//! The coordinator's desk: a thread of its own that makes the blocking calls.
//!
//! Requests that wait while another is being synced are carried out as one group, so ten thousand
//! claims at start cost a handful of syncs. Between requests it looks for what others changed: at
//! once where the coordinator tells of it, and now and then besides, because what is told may be
//! lost.
//!
//! The thread sleeps in poll(2) on what the coordinator has for it and on a socket that every
//! request rings. The socket's other end is dropped with the last [`Desk`], which ends the thread.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use io::failpoint::{self, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::coordinator::{Conflict, Coordinator, Error, OwnerRecord, Request, Revision};

/// How often changes of other daemons are looked for where the coordinator tells of none by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same where it does: what is told may be lost, as by a file system that tells nothing.
const LOOK_EVERY_TOLD: Duration = Duration::from_secs(2);
/// A look that found something is not followed by another for so long: whoever changes many
/// records tells of each group. Requests are answered meanwhile.
const REST: Duration = Duration::from_millis(10);
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
    /// Dropped before the bell: whoever hears that nobody can ring finds that nobody can ask.
    calls: flume::Sender<Call>,
    bell: Arc<UnixStream>,
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
        let (bell, rung) = UnixStream::pair()?;
        // An answer may ask again, on the thread that listens: it must not wait for itself.
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let thread = std::thread::Builder::new()
            .name("coordinator".to_owned())
            .spawn(move || {
                Clerk {
                    coordinator,
                    changed,
                    seen: Revision(0),
                    rung,
                }
                .work(&waiting)
            })?;
        let bell = Arc::new(bell);
        Ok((Desk { calls, bell }, changes, thread))
    }

    /// Asks; `answer` is called on the coordinator's thread and must not block.
    pub fn submit(&self, request: Request, answer: impl FnOnce(Answer) + Send + 'static) {
        let call = Call {
            request,
            answer: Box::new(answer),
        };
        if let Err(flume::SendError(call)) = self.calls.send(call) {
            return (call.answer)(Err(Failure("the coordinator has stopped".to_owned())));
        }
        // It fails when the socket is full of rings that nobody has heard yet: one is enough.
        let _ = (&*self.bell).write(&[1]);
    }
}

/// Works at the desk.
struct Clerk {
    coordinator: Box<dyn Coordinator>,
    changed: flume::Sender<OwnerRecord>,
    seen: Revision,
    /// The other end of every desk's bell.
    rung: UnixStream,
}

impl Clerk {
    fn work(mut self, waiting: &flume::Receiver<Call>) {
        loop {
            match waiting.try_recv() {
                Ok(first) => {
                    let more = waiting.try_iter().take(GROUP_MAX - 1);
                    self.answer(std::iter::once(first).chain(more).collect());
                }
                Err(flume::TryRecvError::Empty) => {
                    let next = self.look();
                    self.wait(next);
                }
                Err(flume::TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Until there is a request, or everybody is gone, or it is time to look again.
    fn wait(&mut self, next: Next) {
        let (longest, news) = match next {
            Next::In(longest) => (longest, None),
            Next::Told(longest) => (longest, self.coordinator.news()),
        };
        let mut fds = vec![PollFd::new(&self.rung, PollFlags::IN)];
        fds.extend(news.map(|news| PollFd::from_borrowed_fd(news, PollFlags::IN)));
        let longest = Timespec::try_from(longest).expect("some seconds");
        match poll(&mut fds, Some(&longest)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the coordinator's thread can't wait");
                std::thread::sleep(RETRY_AFTER);
            }
        }
        // Rings are taken away before the requests are: who asks from here on rings again.
        let mut rings = [0; 512];
        while (&self.rung).read(&mut rings).is_ok_and(|got| got > 0) {}
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
    fn look(&mut self) -> Next {
        match self.coordinator.changes(self.seen) {
            Ok(records) if records.is_empty() => match self.coordinator.news() {
                Some(_) => Next::Told(LOOK_EVERY_TOLD),
                None => Next::In(LOOK_EVERY),
            },
            Ok(records) => {
                for record in records {
                    self.seen = self.seen.max(record.revision);
                    // The runtime has stopped listening: it is being shut down.
                    let _ = self.changed.send(record);
                }
                Next::In(REST)
            }
            Err(error) => {
                let damaged = matches!(error, Error::Damaged { .. });
                tracing::error!(%error, damaged, "owners can't be read; moves wait");
                Next::In(RETRY_AFTER)
            }
        }
    }
}

/// When to look again for what others changed.
enum Next {
    /// After so long, whatever is told.
    In(Duration),
    /// When the coordinator tells of something, and after so long at the latest.
    Told(Duration),
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use wal::{Epoch, NodeId, PartitionId, PartitionName};

    use super::super::coordinator::Act;
    use super::super::embedded::Embedded;
    use super::*;

    /// Much less than [`LOOK_EVERY_TOLD`], and much for a busy machine.
    const AT_ONCE: Duration = Duration::from_secs(1);

    fn claim(index: u32) -> Request {
        let name = PartitionName::new(&format!("{index}.db")).expect("valid");
        Request {
            name,
            act: Act::Claim { node: NodeId(1) },
        }
    }

    /// Tells of what changed only where it was given something to tell it by, of which nothing is
    /// ever heard.
    struct Silent {
        looks: Arc<AtomicU32>,
        records: Vec<OwnerRecord>,
        /// The look that finds the records.
        found_by: u32,
        news: Option<UnixStream>,
    }

    impl Coordinator for Silent {
        fn submit(
            &mut self,
            requests: &[Request],
        ) -> Result<Vec<Result<OwnerRecord, Conflict>>, Error> {
            let answers = requests.iter().map(|_| Ok(self.records[0].clone()));
            Ok(answers.collect())
        }

        fn owner(&mut self, _: PartitionId) -> Result<Option<OwnerRecord>, Error> {
            unreachable!("no desk asks this")
        }

        fn list(&mut self) -> Result<Vec<OwnerRecord>, Error> {
            unreachable!("no desk asks this")
        }

        fn changes(&mut self, after: Revision) -> Result<Vec<OwnerRecord>, Error> {
            let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
            let there = look >= self.found_by && self.records[0].revision > after;
            Ok(if there {
                self.records.clone()
            } else {
                Vec::new()
            })
        }

        fn news(&self) -> Option<BorrowedFd<'_>> {
            self.news.as_ref().map(AsFd::as_fd)
        }
    }

    /// One whose record is found by a later look, with how often it was looked at so far.
    fn silent(news: Option<UnixStream>) -> (Box<Silent>, Arc<AtomicU32>) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut real = Embedded::open(dir.path()).expect("opens");
        let record = real.one(claim(1)).expect("durable").expect("claims");
        let looks = Arc::new(AtomicU32::new(0));
        let silent = Silent {
            looks: Arc::clone(&looks),
            records: vec![record],
            found_by: 2,
            news,
        };
        (Box::new(silent), looks)
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

    #[test]
    fn what_another_daemon_changes_is_told_at_once_however_long_nothing_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let coordinator = Box::new(Embedded::open(dir.path()).expect("opens"));
        let (_desk, changes, _thread) = Desk::start(coordinator).expect("starts");
        let mut other = Embedded::open(dir.path()).expect("opens");
        for index in 0..5 {
            // It sleeps by now, and will do so for much longer.
            std::thread::sleep(Duration::from_millis(100));
            let record = other.one(claim(index)).expect("durable").expect("claims");
            assert_eq!(changes.recv_timeout(AT_ONCE), Ok(record));
        }
        assert!(changes.is_empty());
    }

    #[test]
    fn what_is_not_told_is_found_by_looking() {
        let (mute, _other_end) = UnixStream::pair().expect("a pair");
        for (news, within) in [(None, AT_ONCE), (Some(mute), 3 * LOOK_EVERY_TOLD)] {
            let (coordinator, _) = silent(news);
            let record = coordinator.records[0].clone();
            let (_desk, changes, _thread) = Desk::start(coordinator).expect("starts");
            assert_eq!(changes.recv_timeout(within), Ok(record));
        }
    }

    #[test]
    fn a_desk_that_sleeps_looks_at_nothing_and_hears_requests_and_the_end_at_once() {
        let (mute, _other_end) = UnixStream::pair().expect("a pair");
        let (coordinator, looks) = silent(Some(mute));
        let (desk, _changes, thread) = Desk::start(coordinator).expect("starts");
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(looks.load(Ordering::Relaxed), 1, "only at the start");
        let (answered, answers) = flume::unbounded();
        let again = desk.clone();
        let begun = Instant::now();
        // An answer that asks again.
        desk.submit(claim(1), move |_| {
            again.submit(claim(2), move |answer| {
                answered.send(answer).expect("listening")
            });
        });
        assert!(matches!(answers.recv_timeout(AT_ONCE), Ok(Ok(Ok(_)))));
        assert!(begun.elapsed() < AT_ONCE);
        // The first answer's own desk is gone with it.
        let begun = Instant::now();
        drop(desk);
        thread.join().expect("ends");
        assert!(begun.elapsed() < AT_ONCE, "it ends when nobody can ask");
    }
}
