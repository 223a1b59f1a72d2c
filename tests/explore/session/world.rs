//! The copy on the peer's disk, the owner's log, the link between them.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use foreshadow::event::{Cargo, Failure, LinkId, Outcome, Task, Ticket};
use foreshadow::ship::receiver::Receiver;
use foreshadow::ship::sender::Sender;
use wal::message::Message;
use wal::{Digest, Epoch, Lsn, NodeId, PartitionId, PartitionName, Position, Time};

pub const LINK: LinkId = LinkId {
    peer: NodeId(2),
    lane: 0,
};
pub const LATE: Time = Time(u64::MAX);

/// How much may happen in one model.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub writes: u8,
    pub breaks: u8,
    pub restarts: u8,
    pub failures: u8,
    pub trims: u8,
    /// Offers made; states beyond are not judged.
    pub offers: u8,
    /// What the peer holds at first.
    pub disk: Disk,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Used {
    pub breaks: u8,
    pub restarts: u8,
    pub failures: u8,
    pub trims: u8,
    pub offers: u8,
}

/// What the peer has on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Disk {
    Nothing,
    /// Pages of no known position.
    Partial,
    At(u8),
    /// As many changes, but of another history.
    Diverged(u8),
}

/// A job of a shell; `answers` names the effect, `current` whether anyone still listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job<W> {
    pub ticket: Ticket,
    pub work: W,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum OwnerWork {
    /// With a digest it asks whether the log reaches back; without it ships one change.
    Ship {
        from: Lsn,
        digest: Option<Digest>,
    },
    Compare,
    Copy {
        last: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PeerWork {
    Create,
    Accept { from: u8, to: u8 },
    Fill { last: Option<u8> },
    Restart,
    Discard,
}

/// What travels to the peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Parcel {
    Message(Message),
    Frame(Cargo),
}

pub type Answer = (Job<PeerWork>, Result<Outcome, Failure>);

/// The whole state.
#[derive(Clone, Debug)]
pub struct World {
    pub sender: Sender,
    pub receiver: Receiver,
    pub content: u8,
    pub log_from: u8,
    pub disk: Disk,
    pub up: bool,
    pub to_peer: VecDeque<Parcel>,
    pub to_owner: VecDeque<Message>,
    pub owner_jobs: VecDeque<Job<OwnerWork>>,
    pub peer_jobs: VecDeque<Job<PeerWork>>,
    pub peer_answers: VecDeque<Answer>,
    pub used: Used,
    pub broken: Option<&'static str>,
}

impl World {
    pub fn new(limits: &Limits) -> World {
        let mut world = World {
            sender: Sender::new(name().id(), LINK),
            receiver: Receiver::new(name().id(), Epoch(0)),
            content: 1,
            log_from: 0,
            disk: limits.disk,
            up: false,
            to_peer: VecDeque::new(),
            to_owner: VecDeque::new(),
            owner_jobs: VecDeque::new(),
            peer_jobs: VecDeque::new(),
            peer_answers: VecDeque::new(),
            used: Used::default(),
            broken: None,
        };
        world.recover_peer();
        world
    }
}

impl Job<OwnerWork> {
    pub fn is_compare(&self) -> bool {
        self.work == OwnerWork::Compare
    }
}

/// Sessions are counted, but only whether a ticket is of the present one matters: states that
/// differ in the count alone are one state. Measured delays decide nothing here.
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (sender, sender_session) = without_counts(format!("{:?}", self.sender));
        let (receiver, receiver_session) = without_counts(format!("{:?}", self.receiver));
        (sender, receiver, self.content, self.log_from, self.disk).hash(state);
        (
            self.up,
            &self.to_peer,
            &self.to_owner,
            self.used,
            self.broken,
        )
            .hash(state);
        for job in &self.owner_jobs {
            (&job.work, job.ticket.number == sender_session).hash(state);
        }
        state.write_u8(0xFF);
        for job in &self.peer_jobs {
            (&job.work, job.ticket.number == receiver_session).hash(state);
        }
        state.write_u8(0xFE);
        for (job, result) in &self.peer_answers {
            let current = job.ticket.number == receiver_session;
            (&job.work, current, result.is_ok()).hash(state);
        }
    }
}

/// A machine's text without its session and its averages, and the session.
fn without_counts(text: String) -> (String, u64) {
    let (head, tail) = text.split_once("session: ").expect("both machines count");
    let end = tail
        .find(|c: char| !c.is_ascii_digit())
        .expect("a field follows or the struct ends");
    let session = tail[..end].parse().expect("digits");
    let tail = match tail.split_once("acknowledgement: ") {
        Some((before, after)) => {
            let after = after.split_once('}').expect("an average ends").1;
            format!("{}{after}", &before[end..])
        }
        None => tail[end..].to_owned(),
    };
    (format!("{head}{tail}"), session)
}

pub fn name() -> PartitionName {
    PartitionName::new("t.db").expect("a plain name")
}

pub fn partition() -> PartitionId {
    name().id()
}

/// The owner's position after `lsn` changes.
pub fn position(lsn: u8) -> Position {
    Position {
        epoch: Epoch(1),
        lsn: Lsn(u64::from(lsn)),
        digest: Digest(u64::from(lsn) + 100),
    }
}

/// The same count of changes of another history.
pub fn diverged(lsn: u8) -> Position {
    Position {
        digest: Digest(u64::from(lsn) + 900),
        ..position(lsn)
    }
}

pub fn lsn(position: Position) -> u8 {
    u8::try_from(position.lsn.0).expect("few changes in a model")
}

pub fn refused() -> Failure {
    Failure::Refused("failed".to_owned())
}

/// Whose session a ticket belongs to does not depend on its task.
pub fn is_ship(task: Task) -> bool {
    matches!(task, Task::Ship(_))
}
