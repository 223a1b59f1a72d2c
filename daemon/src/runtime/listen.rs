//! The door of a node: accepts peers on shard 0 and hands them to the shard that they are for.

use std::net::TcpStream;
use std::sync::Arc;

use io::link::Listener;
use io::ring::{Completion, Ring};
use wal::Time;
use wal::message::Hello;

use super::greet;
use super::links::{LISTENER, link_of};
use super::mail::{Mail, Mailbox};
use super::pools::{Pools, Where};
use crate::config::Config;
use crate::shard::{Settings, refusal};

/// The listener and where its connections go.
pub struct Door {
    listener: Listener,
    guide: Arc<Guide>,
}

/// Knows the peers and the shards.
pub struct Guide {
    pub settings: Settings,
    pub mailboxes: Vec<Mailbox>,
}

impl Door {
    /// Fails when another process listens there.
    pub fn open(config: &Config, guide: Guide) -> io::Result<Door> {
        let listener = Listener::bind(LISTENER, config.node.listen)?;
        Ok(Door {
            listener,
            guide: Arc::new(guide),
        })
    }

    pub fn pump(&mut self, ring: &mut Ring, now: Time) {
        self.listener.pump(ring, now);
    }

    pub fn deadline(&self) -> Option<Time> {
        self.listener.deadline()
    }

    /// Greets a new connection on a helper thread.
    pub fn on_completion(&mut self, completion: Completion, now: Time, pools: &Pools) {
        match self.listener.on_completion(completion, now) {
            Ok(Some((socket, address))) => {
                let guide = Arc::clone(&self.guide);
                let greet = move || match guide.greet(TcpStream::from(socket)) {
                    Ok((stream, hello)) => {
                        let link = link_of(&hello);
                        let shard = usize::from(link.lane) % guide.mailboxes.len();
                        let mail = Mail::Greeted {
                            link,
                            hello,
                            stream,
                            address,
                        };
                        guide.mailboxes[shard].post(mail);
                    }
                    Err(reason) => tracing::warn!(%address, "a connection was refused: {reason}"),
                };
                pools.run(Where::Disk, greet, |_| ());
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "no connection can be accepted"),
        }
    }
}

impl Guide {
    fn greet(&self, stream: TcpStream) -> Result<(TcpStream, Hello), String> {
        greet::accept(stream, |theirs| {
            let link = link_of(theirs);
            match refusal(&self.settings, link, theirs) {
                Some(reason) => Err(reason),
                None => Ok(self.settings.hello(link)),
            }
        })
    }
}
