//! What the brain asks of the world beyond databases and shadows: peers, the switch journal,
//! routes.

use std::sync::Arc;

use wal::{PartitionId, PartitionName};

use super::host::Host;
use super::lives::failure_of;
use super::mail::Mail;
use super::pools::Where;
use super::{errands, greet};
use crate::control::routing;
use crate::effect::{Note, Request};
use crate::event::{Event, LinkId, Outcome, Ticket};
use io::failpoint::{self, Step};

impl Host {
    /// Connects to a peer on a helper thread; the result is a greeting or a broken link.
    pub fn dial(&mut self, link: LinkId) {
        let Some(peer) = self.setup.config.peer(link.peer) else {
            return;
        };
        let (address, name) = (peer.address.clone(), peer.name.to_string());
        let hello = self.brain.settings().hello(link);
        let mailbox = self.mailbox.clone();
        let work = move || {
            let resolved = address
                .resolve()
                .map_err(|error| format!("{name}: {error}"))?;
            let mut reason = format!("{name}: {address} has no address");
            for address in resolved {
                match greet::dial(address, &hello) {
                    Ok((stream, theirs)) => return Ok((stream, theirs, address)),
                    Err(error) => reason = error,
                }
            }
            Err(reason)
        };
        self.pools.run(Where::Disk, work, move |met| match met {
            Ok(Ok((stream, hello, address))) => {
                mailbox.post(Mail::Greeted {
                    link,
                    hello,
                    stream,
                    address,
                });
            }
            Ok(Err(reason)) | Err(reason) => {
                mailbox.post(Mail::Event(Event::LinkDown { link, reason }));
            }
        });
    }

    /// Asks the coordinator; to tell it of a switchover that happened can wait.
    pub fn coordinate(&mut self, ticket: Ticket, request: Request) {
        self.grants.asks_the_coordinator(ticket.partition, &request);
        let ask = move |host: &mut Host| {
            if let Some(name) = host.name_of(ticket.partition) {
                let (desk, node) = (&host.setup.desk, host.setup.config.node.id);
                errands::run(desk, node, &host.mailbox, ticket, name, request);
            }
        };
        match request {
            Request::Pass { .. } => self.after_the_pause(ask),
            _ => ask(self),
        }
    }

    /// Writes a line of the switch journal; what a pause ended with can wait.
    pub fn record(&mut self, ticket: Ticket, note: Note) {
        match note {
            Note::Released { .. } | Note::Landed { .. } => {
                self.after_the_pause(move |host| host.write_note(ticket, note));
            }
            _ => self.write_note(ticket, note),
        }
    }

    fn write_note(&mut self, ticket: Ticket, note: Note) {
        let setup = Arc::clone(&self.setup);
        let work = move || {
            setup.notes.record(ticket.partition, note)?;
            match note {
                Note::Prepared { .. } => failpoint::reach(Step::NotePrepared),
                Note::Intent { .. } => failpoint::reach(Step::NoteIntent),
                Note::Landed { .. } => failpoint::reach(Step::NoteLanded),
                Note::Released { .. } => failpoint::reach(Step::NoteReleased),
                Note::Abandoned { .. } | Note::Seized { .. } | Note::Shadow { .. } => {}
            }
            Ok(())
        };
        self.offload(Where::Disk, work, move |host, recorded| {
            let result = match recorded {
                Ok(Ok(())) => Ok(Outcome::Nothing),
                Ok(Err(error)) => Err(failure_of(&error)),
                Err(panic) => Err(crate::event::Failure::Refused(panic)),
            };
            host.done(ticket, result);
        });
    }

    pub fn route(&mut self, partition: PartitionId) {
        let Some(name) = self.name_of(partition) else {
            return;
        };
        let Some(place) = self.setup.place_of(&name) else {
            return;
        };
        self.publish_route(&name, place);
    }

    /// Points the route here at once, because writers wait for it; the publisher tries again what
    /// does not work.
    pub fn publish_route(&self, name: &PartitionName, place: usize) {
        let path = self.setup.places[place].live_path(name);
        if let Some(dir) = &self.setup.config.routing.dir
            && let Err(error) = routing::publish(dir, name, &path)
        {
            tracing::warn!(partition = %name, %error, "the route is published later");
            self.setup.routes.publish(name.clone(), path);
        }
    }
}
