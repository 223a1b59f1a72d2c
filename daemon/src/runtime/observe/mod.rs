//! The thread `observe`: owns the observatory, and brings it what happens.
//!
//! | module | what it does |
//! |---|---|
//! | [`source`] | lines of one source, counted; what is malformed is told once a minute |
//! | [`datagram`] | a Unix socket that takes events |
//! | [`follow`] | a file that grows, is rotated, is cut |
//! | [`reading`] | the node's counters, from /proc and the cgroup |
//! | [`changes`] | what shards read, gathered there and handed over once a second |
//! | [`show`] | what is seen, for people |
//! | [`outlook`] | where finished bins go |
//!
//! It sleeps in poll(2) until one of these has something, a reading is due or a bin is over.
//! Whoever hands something over never waits: the queue is bounded, what finds no room is dropped
//! and counted.

pub mod changes;
pub mod datagram;
pub mod follow;
pub mod outlook;
pub mod reading;
pub mod show;
pub mod source;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use wal::{PartitionName, Span, Time};

use self::datagram::Datagrams;
use self::follow::Follower;
use self::outlook::Outlook;
use self::reading::Node;
use self::source::Source;
use super::Error;
use super::foresee::{self, Foresight};
use crate::config::{Config, Feed, Follow, Format, ObserveConfig};
use crate::control::access::Access as Visitors;
use crate::control::gateway::Answer;
use crate::control::metrics as declared;
use crate::observe::change::Summary;
use crate::observe::history::Happening;
use crate::observe::{Observatory, Settings};
use crate::serve::observed::{AccessReply, CountReply};
use crate::serve::problem::{Problem, ProblemKind};
use crate::serve::query::Query;
use crate::serve::reply::Reply;

/// Mail that waits, at most: bodies of requests and what shards read in a second.
const MAIL_MAX: usize = 64;
/// Stand back behind applications and shards.
const NICE: i32 = 10;
/// How long the thread may take to end.
const END_MAX: Duration = Duration::from_secs(1);

/// What other threads bring.
#[derive(Debug)]
pub enum Mail {
    /// A question of people, or events by HTTP.
    Ask(Query, Answer),
    /// What a shard read since the last time.
    Changed(Vec<(PartitionName, Summary)>),
    Moved(PartitionName, Happening),
    Stop,
}

/// The way to the thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Observer {
    mail: flume::Sender<Mail>,
    bell: Arc<OwnedFd>,
}

impl Observer {
    /// Hands something over without waiting; `false` when it was dropped for lack of room.
    pub fn post(&self, mail: Mail) -> bool {
        let sent = self.mail.try_send(mail);
        match sent {
            Ok(()) => self.ring(),
            Err(flume::TrySendError::Full(Mail::Ask(_, answer))) => {
                let detail = format!("{MAIL_MAX} bodies wait to be read; send it again");
                answer.give(Err(Problem::new(ProblemKind::Throttled, detail)));
                return false;
            }
            Err(_) => {
                counter!(declared::OBSERVE_DROPPED_TOTAL.name).increment(1);
                return false;
            }
        }
        true
    }

    fn ring(&self) {
        // It fails only if the counter is at its end: then the bell rings already.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }
}

/// The running thread.
pub struct Running {
    observer: Observer,
    thread: JoinHandle<()>,
}

impl Running {
    /// Ends the thread; its sockets are gone when this returns.
    pub fn end(self) {
        let told = self.observer.mail.send_timeout(Mail::Stop, END_MAX);
        self.observer.ring();
        if told.is_ok() && self.thread.join().is_err() {
            tracing::error!("the observe thread panicked");
        }
    }
}

/// Opens every source and starts the thread.
pub fn start(config: &Config) -> Result<(Observer, Running), Error> {
    let system = |what: &'static str| {
        move |error: rustix::io::Errno| Error::System {
            what,
            path: "for the observe thread".to_owned(),
            source: error.into(),
        }
    };
    let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
    let bell = Arc::new(bell.map_err(system("make an eventfd"))?);
    let (mail, inbox) = flume::bounded(MAIL_MAX);
    let observer = Observer {
        mail,
        bell: Arc::clone(&bell),
    };
    let mut sources = Sources::open(&config.observe, config.serve.group.as_deref())?;
    sources.follower.begin();
    let foresight = foresight(config, &observer)?;
    let worker = Worker::new(&config.observe, sources, inbox, (bell, foresight));
    let thread = std::thread::Builder::new().name("observe".to_owned());
    let thread = thread.spawn(move || worker.run());
    let thread = thread.map_err(|source| Error::System {
        what: "start thread",
        path: "observe".to_owned(),
        source,
    })?;
    let running = Running {
        observer: observer.clone(),
        thread,
    };
    Ok((observer, running))
}

/// Who foresees, with the files below the state directory.
fn foresight(config: &Config, observer: &Observer) -> Result<Foresight, Error> {
    let settings = config.model.settings(config.observe.bin_seconds());
    let dir = config.node.state_dir.join("model");
    let observer = observer.clone();
    let ring = Arc::new(move || observer.ring());
    let opened = Foresight::open(settings, &dir, config.model.replay.0, ring);
    opened.map_err(|source| Error::System {
        what: "open",
        path: dir.display().to_string(),
        source,
    })
}

/// Where access events come from.
struct Sources {
    http: Source,
    sockets: Vec<Datagrams>,
    follower: Follower,
}

impl Sources {
    fn open(config: &ObserveConfig, group: Option<&str>) -> Result<Sources, Error> {
        let mut sockets = Vec::new();
        let is_socket = |follow: &Follow| matches!(follow.feed, Feed::Socket(_));
        let group = match config.socket.is_some() || config.follow.iter().any(is_socket) {
            true => Visitors::new(group).group(),
            false => None,
        };
        if let Some(path) = &config.socket {
            sockets.push(Datagrams::bind(path, group, Format::Json)?);
        }
        let mut follower = Follower::default();
        for follow in &config.follow {
            match &follow.feed {
                Feed::Socket(path) => {
                    sockets.push(Datagrams::bind(path, group, follow.format.clone())?);
                }
                Feed::File(path) => follower.add(path, follow.format.clone()),
            }
        }
        Ok(Sources {
            http: Source::new("http", Format::Json),
            sockets,
            follower,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Source> {
        let sockets = self.sockets.iter().map(|socket| &socket.source);
        [&self.http]
            .into_iter()
            .chain(sockets)
            .chain(self.follower.sources())
    }
}

/// What the thread has.
struct Worker {
    observatory: Observatory,
    outlook: Outlook,
    sources: Sources,
    node: Node,
    load_every: Span,
    load_due: Time,
    inbox: flume::Receiver<Mail>,
    bell: Arc<OwnedFd>,
}

impl Worker {
    fn new(
        config: &ObserveConfig,
        sources: Sources,
        inbox: flume::Receiver<Mail>,
        (bell, foresight): (Arc<OwnedFd>, Foresight),
    ) -> Worker {
        let settings = Settings {
            bin_seconds: config.bin_seconds(),
            bytes_max: usize::try_from(config.bytes_max.0).unwrap_or(usize::MAX),
            top: config.top as usize,
        };
        Worker {
            observatory: Observatory::new(settings, wall()),
            outlook: Outlook::new(foresight),
            sources,
            node: Node::of_here(),
            load_every: config.load_every,
            load_due: Time(0),
            inbox,
            bell,
        }
    }

    fn run(mut self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::warn!(%error, "the observe thread runs at normal priority");
        }
        let mut more = false;
        loop {
            self.tick();
            let longest = if more { Duration::ZERO } else { self.longest() };
            self.wait(longest);
            let (now, mut took) = (wall(), false);
            while let Ok(mail) = self.inbox.try_recv() {
                if matches!(mail, Mail::Stop) {
                    return;
                }
                self.take(now, mail);
                took = true;
            }
            more = self.outlook.foresight().catch_up(now);
            for socket in &mut self.sources.sockets {
                more |= socket.pump(now, &mut self.observatory);
            }
            more |= self.sources.follower.pump(now, &mut self.observatory);
            if took || more {
                self.close();
            }
            self.count();
        }
    }

    /// Sleeps until there is something to do, `longest` at most.
    fn wait(&self, longest: Duration) {
        let mut fds = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        let sockets = self.sources.sockets.iter().map(Datagrams::fd);
        let watched = sockets.chain(self.sources.follower.fd());
        fds.extend(watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let longest = Timespec::try_from(longest).expect("some seconds");
        match poll(&mut fds, Some(&longest)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "sources can't be waited for");
                std::thread::sleep(END_MAX);
            }
        }
        if !fds[0].revents().is_empty() {
            // What it says is looked for in any case; reading makes it silent.
            let _ = rustix::io::read(self.bell.as_fd(), &mut [0; 8]);
        }
    }

    /// Until the next reading, or the end of the bin by the clock as it goes now.
    fn longest(&self) -> Duration {
        let due = Duration::from_secs(self.observatory.due().unsigned_abs());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let bin = due.saturating_sub(now.unwrap_or_default());
        let reading = (self.load_due - io::reactor::now()).to_duration();
        // poll(2) never wakes too early; this is so that the end is not missed by a rounding.
        bin.min(reading) + Duration::from_micros(100)
    }

    /// What time brings.
    fn tick(&mut self) {
        let now = io::reactor::now();
        if now >= self.load_due {
            self.load_due = now + self.load_every;
            self.observatory.load(now, self.node.read(now));
            // What inotify says may be lost.
            self.sources.follower.look();
            gauge!(declared::OBSERVE_BYTES.name).set(self.observatory.bytes() as f64);
        }
        self.close();
        self.outlook.foresight().poll(wall());
    }

    fn close(&mut self) {
        let now = wall();
        if let Some(bin) = self.observatory.close(now) {
            self.outlook.take(bin, now);
        }
    }

    fn take(&mut self, now: i64, mail: Mail) {
        match mail {
            Mail::Changed(changes) => {
                for (name, summary) in &changes {
                    self.observatory.changed(name, summary);
                }
            }
            Mail::Moved(name, happening) => self.observatory.moved(now, &name, happening),
            Mail::Ask(Query::Access { lines }, answer) => {
                let source = &mut self.sources.http;
                let before = source.tally();
                source.take_all(now, &lines, &mut self.observatory);
                let after = source.tally();
                answer.give(Ok(Reply::Counted(CountReply {
                    accepted: after.accepted - before.accepted,
                    malformed: after.malformed - before.malformed,
                })));
            }
            Mail::Ask(Query::Observed { limit }, answer) => {
                let sources: Vec<AccessReply> = self.sources.all().map(show::source).collect();
                let reply = show::observed(&self.observatory, &self.outlook, sources, limit);
                answer.give(Ok(Reply::Observed(Box::new(reply))));
            }
            Mail::Ask(query, answer) => {
                answer.give(foresee::show::answer(self.outlook.foresight(), now, query));
            }
            Mail::Stop => {}
        }
    }

    /// Tells Prometheus what came since the last time.
    fn count(&self) {
        for source in self.sources.all() {
            let (name, tally) = (source.name().to_owned(), source.tally());
            counter!(declared::ACCESS_EVENTS_TOTAL.name, "source" => name.clone())
                .absolute(tally.accepted);
            counter!(declared::ACCESS_MALFORMED_TOTAL.name, "source" => name)
                .absolute(tally.malformed);
        }
    }
}

/// Seconds since 1970.
fn wall() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::gateway::Gateway;

    #[test]
    fn a_full_queue_holds_nobody_up_and_is_told_to_who_asks() {
        let bell = eventfd(0, EventfdFlags::NONBLOCK).expect("a bell");
        let (mail, _inbox) = flume::bounded(MAIL_MAX);
        let observer = Observer {
            mail,
            bell: Arc::new(bell),
        };
        let came = || {
            let name = PartitionName::new("t.db").expect("a name");
            Mail::Moved(name, Happening::Came)
        };
        assert!(
            (0..MAIL_MAX).all(|_| observer.post(came())),
            "there is room"
        );
        assert!(!observer.post(came()));
        let (gateway, asked) = Gateway::pair();
        std::thread::spawn(move || {
            let question = asked.recv().expect("a question");
            observer.post(Mail::Ask(question.query, question.answer))
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let ask = gateway.ask(Query::Access { lines: Vec::new() });
        assert_eq!(runtime.block_on(ask).expect_err("full").status(), 429);
    }
}
