//! The executor of effects in scripts: a database is a list of numbered writes.

use std::collections::BTreeMap;

use foreshadow::effect::{Effect, EngineOperation, Note, ShadowOperation};
use foreshadow::event::{
    Attachment, Cargo, Event, Failure, FrameKey, LinkId, Outcome, Remains, Ticket,
};
use wal::message::{Attributes, Message};
use wal::{Digest, Epoch, Lsn, Position};

use crate::world::{World, database};

/// Writes in order: the content of a database.
pub type Content = Vec<u64>;

/// What a node holds of the one database of a script.
#[derive(Default)]
pub struct Disk {
    pub live: Option<Live>,
    pub copy: Option<Copy>,
    /// Frames under way to this node.
    frames: BTreeMap<FrameKey, Content>,
    next_frame: u64,
}

pub struct Live {
    pub content: Content,
    pub epoch: Epoch,
    pub frozen: bool,
    pub fenced: bool,
    /// The delta log reaches back to here.
    pub log_from: usize,
    /// The path was exchanged under it; what it led to before was a copy of the epoch before.
    pub landed: Option<Epoch>,
}

pub struct Copy {
    pub content: Content,
    pub epoch: Epoch,
    /// Exactly the source at some position; else pages of no known one.
    pub whole: bool,
    pub landing: Option<Epoch>,
    /// How many writes it had when that landing was prepared.
    base: usize,
    /// A crash came since: where it stands is not known, only its digest.
    unsettled: bool,
}

impl Copy {
    fn whole(content: Content, epoch: Epoch) -> Copy {
        Copy {
            content,
            epoch,
            whole: true,
            landing: None,
            base: 0,
            unsettled: false,
        }
    }

    /// The landing will not happen, as io's shadow gives it up.
    fn abandon(&mut self) {
        if self.landing.take().is_some() && self.unsettled {
            self.content.truncate(self.base);
        }
        self.unsettled = false;
    }
}

pub fn position(epoch: Epoch, content: &[u64]) -> Position {
    let digest = content.iter().fold(1_u64, |digest, write| {
        digest.wrapping_mul(31).wrapping_add(*write)
    });
    Position {
        epoch,
        lsn: Lsn(content.len() as u64),
        digest: Digest(digest),
    }
}

impl Disk {
    pub fn remains(&self) -> Option<Remains> {
        let copy = self.copy.as_ref()?;
        let position = position(copy.epoch, &copy.content);
        Some(match (copy.whole, copy.landing) {
            (false, _) => Remains::Partial,
            (true, Some(epoch)) => Remains::Landing {
                epoch,
                // How far it came is known by its digest alone.
                position: Position {
                    lsn: Lsn(copy.base as u64 + 1),
                    ..position
                },
            },
            (true, None) => Remains::At(position),
        })
    }

    /// The write lock dies with the daemon; what is on disk stays.
    pub fn daemon_died(&mut self) {
        self.frames.clear();
        if let Some(live) = &mut self.live {
            live.frozen = false;
        }
        if let Some(copy) = &mut self.copy {
            copy.unsettled = copy.landing.is_some();
        }
    }

    /// The path leads where it led before its exchange; what was written to the files is there.
    pub fn undo_exchange(&mut self) {
        if let Some(live) = self.live.take_if(|live| live.landed.is_some()) {
            let before = Epoch(live.landed.map_or(0, |epoch| epoch.0 - 1));
            self.copy = Some(Copy {
                landing: live.landed,
                base: live.log_from,
                unsettled: true,
                ..Copy::whole(live.content, before)
            });
        }
    }

    /// A landing that no note explains is given up, as runtime/recover.rs does.
    pub fn settle_landing(&mut self, note: Option<Note>) {
        if let Some(copy) = &mut self.copy
            && let Some(epoch) = copy.landing
            && !note.is_some_and(|note| note.expects_landing(epoch))
        {
            copy.abandon();
        }
    }

    fn keep_frame(&mut self, content: Content) -> FrameKey {
        self.next_frame += 1;
        self.frames.insert(FrameKey(self.next_frame), content);
        FrameKey(self.next_frame)
    }
}

fn gone() -> Failure {
    Failure::Gone("it is not there".to_owned())
}

impl World {
    pub fn execute(&mut self, name: &str, effect: Effect) {
        match effect {
            Effect::Engine { ticket, operation } => self.engine(name, ticket, &operation),
            Effect::Shadow { ticket, operation } => {
                let result = self.shadow(name, &operation);
                self.done(name, ticket, result);
            }
            Effect::Send { link, message, .. } => self.deliver(name, link, message),
            Effect::Ship {
                ticket,
                link,
                from,
                digest,
                ..
            } => {
                let result = self.ship(name, link, from, digest);
                self.done(name, ticket, result);
            }
            Effect::Copy { ticket, link, last } => {
                let result = self.copy(name, link, last);
                self.done(name, ticket, result);
            }
            Effect::Compare { ticket, .. } => {
                self.done(name, ticket, Ok(Outcome::Copied { pages_left: 1 }));
            }
            Effect::SendHashes { link, partition } => {
                let message = Message::Hashes {
                    partition,
                    first: 1,
                    hashes: Vec::new(),
                    last: true,
                };
                self.deliver(name, link, message);
            }
            Effect::Record { ticket, note } => {
                match note {
                    Note::Shadow { node, .. } => self.node(name).wishes.insert(node, note),
                    _ => self.node(name).note.replace(note),
                };
                self.done(name, ticket, Ok(Outcome::Nothing));
            }
            Effect::Coordinate { ticket, request } => self.coordinate(name, ticket, request),
            Effect::Hangup { link, .. } => {
                let there = self.name_of(link.peer);
                self.link_breaks(name, &there);
            }
            Effect::Dial { .. }
            | Effect::Route { .. }
            | Effect::Reply { .. }
            | Effect::Publish { .. } => {}
        }
    }

    fn engine(&mut self, name: &str, ticket: Ticket, operation: &EngineOperation) {
        let disk = &mut self.node(name).disk;
        let result = match (operation, disk.live.as_mut()) {
            (_, None) => Err(gone()),
            (EngineOperation::Attach { epoch }, Some(live)) => {
                live.epoch = *epoch;
                Ok(Outcome::Attached(Attachment {
                    position: position(*epoch, &live.content),
                    page_size: 4096,
                    page_count: 1,
                    attributes: Attributes::default(),
                    fenced: live.fenced,
                }))
            }
            (EngineOperation::Freeze { .. }, Some(live)) => {
                live.frozen = true;
                Ok(Outcome::Frozen(position(live.epoch, &live.content)))
            }
            (EngineOperation::Thaw | EngineOperation::Detach, Some(live)) => {
                live.frozen = false;
                return;
            }
            (EngineOperation::Fence, Some(live)) => {
                (live.fenced, live.frozen) = (true, false);
                Ok(Outcome::Nothing)
            }
            (EngineOperation::Lift, Some(live)) => {
                live.fenced = false;
                Ok(Outcome::Nothing)
            }
            (EngineOperation::Retire { keep, .. }, Some(_)) => {
                let live = disk.live.take().expect("matched above");
                let at = position(live.epoch, &live.content);
                disk.copy = keep.then(|| Copy::whole(live.content, live.epoch));
                Ok(if *keep {
                    Outcome::Durable(at)
                } else {
                    Outcome::Nothing
                })
            }
        };
        self.done(name, ticket, result);
    }

    fn shadow(&mut self, name: &str, operation: &ShadowOperation) -> Result<Outcome, Failure> {
        let disk = &mut self.node(name).disk;
        if let ShadowOperation::Create { .. } = operation {
            disk.copy = Some(Copy {
                whole: false,
                ..Copy::whole(Content::new(), Epoch(0))
            });
            return Ok(Outcome::Nothing);
        }
        let copy = disk.copy.as_mut().ok_or_else(gone)?;
        match operation {
            ShadowOperation::Fill { frame } | ShadowOperation::Accept { frame } => {
                copy.content = disk.frames.remove(frame).ok_or_else(gone)?;
                (copy.whole, copy.epoch) = (true, Epoch(1).max(copy.epoch));
                return Ok(Outcome::Durable(position(copy.epoch, &copy.content)));
            }
            ShadowOperation::SyncLanding => {
                return Ok(Outcome::Durable(position(copy.epoch, &copy.content)));
            }
            ShadowOperation::Restart => copy.whole = false,
            ShadowOperation::PrepareLanding { epoch } => {
                (copy.landing, copy.base) = (Some(*epoch), copy.content.len());
            }
            ShadowOperation::Remap { epoch, .. } => {
                let content = copy.content.clone();
                disk.copy = None;
                disk.live = Some(Live {
                    log_from: content.len(),
                    content,
                    epoch: *epoch,
                    frozen: false,
                    fenced: false,
                    landed: Some(*epoch),
                });
            }
            ShadowOperation::Abandon => {
                copy.abandon();
                return Ok(Outcome::Durable(position(copy.epoch, &copy.content)));
            }
            ShadowOperation::Discard => disk.copy = None,
            ShadowOperation::Create { .. } => unreachable!("done above"),
        }
        Ok(Outcome::Nothing)
    }

    fn ship(
        &mut self,
        name: &str,
        link: LinkId,
        from: Lsn,
        digest: Option<Digest>,
    ) -> Result<Outcome, Failure> {
        let live = self.node(name).disk.live.as_ref().ok_or_else(gone)?;
        let (content, epoch) = (live.content.clone(), live.epoch);
        let start = usize::try_from(from.0).expect("few writes");
        if start < live.log_from || start > content.len() {
            return Err(Failure::Gone("the log does not reach back".to_owned()));
        }
        let known = position(epoch, &content[..start]);
        if let Some(digest) = digest {
            let same = known.digest == digest;
            let shipped = Outcome::Shipped { to: from, bytes: 0 };
            return same.then_some(shipped).ok_or_else(gone);
        }
        let to = position(epoch, &content);
        self.send_frame(name, link, content, Cargo::Delta { from: known, to });
        Ok(Outcome::Shipped {
            to: to.lsn,
            bytes: 50,
        })
    }

    fn copy(&mut self, name: &str, link: LinkId, last: bool) -> Result<Outcome, Failure> {
        let live = self.node(name).disk.live.as_ref().ok_or_else(gone)?;
        let at = position(live.epoch, &live.content);
        let content = live.content.clone();
        if !last {
            return Ok(Outcome::Copied { pages_left: 0 });
        }
        self.send_frame(name, link, content, Cargo::LastPages { at });
        Ok(Outcome::CopiedAll(at))
    }

    fn send_frame(&mut self, name: &str, link: LinkId, content: Content, cargo: Cargo) {
        let there = self.name_of(link.peer);
        if !self.are_linked(name, &there) {
            return;
        }
        let frame = self.node(&there).disk.keep_frame(content);
        let link = LinkId {
            peer: self.id_of(name),
            lane: 0,
        };
        let event = Event::Arrived {
            link,
            partition: database().id(),
            frame,
            cargo,
        };
        self.tell(&there, event);
    }
}
