//! What other threads put into a shard's inbox, and how they wake it.

use std::net::{SocketAddr, TcpStream};

use io::reactor::Wake;
use wal::PartitionId;
use wal::message::Hello;

use super::host::Host;
use crate::event::{Event, LinkId};
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::serve::reply::Reply;

/// Takes the answer to a question; called once, on the shard's thread.
pub type Answer = Box<dyn FnOnce(Result<Reply, Problem>) + Send>;

/// Work that another thread finished: its result is taken in on the shard's thread.
pub type Finished = Box<dyn FnOnce(&mut Host) + Send>;

/// One piece of mail.
pub enum Mail {
    Event(Event),
    /// Something happened to the name of a partition, which is there nevertheless.
    Renamed(PartitionId),
    Ask(Query, Answer),
    Finished(Finished),
    /// A connection whose greetings were exchanged.
    Greeted {
        link: LinkId,
        hello: Hello,
        stream: TcpStream,
        address: SocketAddr,
    },
    /// Settings that may change while running.
    Reload {
        bytes_per_sec_max: u64,
    },
    Stop,
}

/// Where to put mail for one shard.
#[derive(Clone)]
pub struct Mailbox {
    sender: flume::Sender<Mail>,
    wake: Wake,
}

impl Mailbox {
    pub fn new(sender: flume::Sender<Mail>, wake: Wake) -> Mailbox {
        Mailbox { sender, wake }
    }

    /// Puts mail in and wakes the shard. Mail to a shard that has ended is dropped: its partitions
    /// are gone with it, and a restarted shard starts from what is durable.
    pub fn post(&self, mail: Mail) {
        if self.sender.send(mail).is_ok() {
            self.wake.wake();
        }
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("waiting", &self.sender.len())
            .finish_non_exhaustive()
    }
}
