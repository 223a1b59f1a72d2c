//! The peer's shell: the copy on disk, as runtime/copies.rs keeps it.

use foreshadow::effect::{Effect, Effects, ShadowOperation};
use foreshadow::event::{Cargo, FrameKey, Outcome, Remains};
use foreshadow::ship::receiver::Receiver;
use wal::Epoch;
use wal::message::Message;

use super::world::{
    Disk, Job, LINK, Parcel, PeerWork, World, diverged, lsn, partition, position, refused,
};

impl World {
    fn peer_does(&mut self, cargo: Option<Cargo>, call: impl FnOnce(&mut Receiver, &mut Effects)) {
        let mut out = Effects::default();
        call(&mut self.receiver, &mut out);
        self.receiver.flush(&mut out);
        for effect in out.0 {
            match effect {
                Effect::Send { message, .. } => self.say(message),
                Effect::SendHashes { partition, .. } => self.say(Message::Hashes {
                    partition,
                    first: 1,
                    hashes: Vec::new(),
                    last: true,
                }),
                Effect::Shadow { ticket, operation } => {
                    let work = work_of(&operation, cargo);
                    self.peer_jobs.push_back(Job { ticket, work });
                }
                other => unreachable!("a receiver does not do {other:?}"),
            }
        }
    }

    fn say(&mut self, message: Message) {
        if self.up {
            self.to_owner.push_back(message);
        }
    }

    pub fn peer_delivers(&mut self) {
        match self.to_peer.pop_front().expect("offered with a parcel") {
            Parcel::Frame(cargo) => self.peer_does(Some(cargo), |receiver, out| {
                receiver.on_frame(LINK, FrameKey(0), cargo, out);
            }),
            Parcel::Message(Message::Offer {
                at,
                page_size,
                attributes,
                ..
            }) => self.peer_does(None, |receiver, out| {
                receiver.on_offer(LINK, at, page_size, attributes, out);
            }),
            Parcel::Message(Message::AskHashes { .. }) => {
                self.peer_does(None, |receiver, out| receiver.on_ask_hashes(LINK, out));
            }
            Parcel::Message(other) => unreachable!("a sender does not say {other:?}"),
        }
    }

    /// A job takes place; the receiver does not know it yet.
    pub fn peer_runs(&mut self, done: bool) {
        let job = self.peer_jobs.pop_front().expect("offered with a job");
        self.used.failures += u8::from(!done);
        let result = if done { self.work(&job.work) } else { None };
        self.peer_answers
            .push_back((job, result.ok_or_else(refused)));
    }

    fn work(&mut self, work: &PeerWork) -> Option<Outcome> {
        match (work, self.disk) {
            (PeerWork::Create, _) => self.disk = Disk::Partial,
            (PeerWork::Discard, _) => self.disk = Disk::Nothing,
            (PeerWork::Restart, Disk::Nothing) => return None,
            (PeerWork::Restart, _) => self.disk = Disk::Partial,
            // The copy refuses what does not continue it: it checks position and digest itself.
            (PeerWork::Accept { from, to }, Disk::At(at)) if at == *from => {
                self.disk = Disk::At(*to);
                return Some(Outcome::Durable(position(*to)));
            }
            (PeerWork::Accept { .. }, _) => return None,
            (PeerWork::Fill { last: None }, _) => self.disk = Disk::Partial,
            (PeerWork::Fill { last: Some(at) }, _) => {
                self.disk = Disk::At(*at);
                return Some(Outcome::Durable(position(*at)));
            }
        }
        Some(Outcome::Nothing)
    }

    pub fn peer_hears(&mut self) {
        let (job, result) = self.peer_answers.pop_front().expect("offered with one");
        let number = job.ticket.number;
        self.peer_does(None, |receiver, out| match job.work {
            PeerWork::Create => receiver.on_created(number, result, out),
            PeerWork::Accept { .. } => receiver.on_accepted(number, result, out),
            PeerWork::Fill { .. } => receiver.on_filled(number, result, out),
            PeerWork::Restart | PeerWork::Discard => receiver.on_restarted(number, result, out),
        });
    }

    /// The daemon of the peer dies and starts: what ran on disk stays.
    pub fn peer_restarts(&mut self) {
        self.peer_jobs.clear();
        self.peer_answers.clear();
        if self.up {
            self.link_breaks();
        }
        self.recover_peer();
    }

    pub fn recover_peer(&mut self) {
        let remains = match self.disk {
            Disk::Nothing => {
                self.receiver = Receiver::new(partition(), Epoch(0));
                return;
            }
            Disk::Partial => Remains::Partial,
            Disk::At(lsn) => Remains::At(position(lsn)),
            Disk::Diverged(lsn) => Remains::At(diverged(lsn)),
        };
        self.receiver = Receiver::recover(partition(), remains);
    }
}

fn work_of(operation: &ShadowOperation, cargo: Option<Cargo>) -> PeerWork {
    match (operation, cargo) {
        (ShadowOperation::Create { .. }, _) => PeerWork::Create,
        (ShadowOperation::Accept { .. }, Some(Cargo::Delta { from, to })) => PeerWork::Accept {
            from: lsn(from),
            to: lsn(to),
        },
        (ShadowOperation::Fill { .. }, Some(Cargo::LastPages { at })) => PeerWork::Fill {
            last: Some(lsn(at)),
        },
        (ShadowOperation::Fill { .. }, _) => PeerWork::Fill { last: None },
        (ShadowOperation::Restart, _) => PeerWork::Restart,
        (ShadowOperation::Discard, _) => PeerWork::Discard,
        other => unreachable!("a receiver does not ask for {other:?}"),
    }
}
