//! What a node of a model holds on its disk: databases as lists of writes, by number.

use foreshadow::effect::{EngineOperation, ShadowOperation};
use foreshadow::event::{Attachment, Cargo, Failure, Outcome, Remains};
use wal::message::Attributes;
use wal::{Digest, Epoch, Lsn, Position};

/// Writes in order.
pub type Content = Vec<u8>;

/// What of the one partition is at a node.
#[derive(Clone, Hash, Debug, Default)]
pub struct Disk {
    pub live: Option<Live>,
    pub copy: Option<Copy>,
}

/// The database at the live path.
#[derive(Clone, Hash, Debug)]
pub struct Live {
    pub content: Content,
    /// The last epoch under which a daemon attached it.
    pub epoch: Epoch,
    /// A daemon has it open.
    pub attached: bool,
    pub frozen: bool,
    pub fenced: bool,
    /// It was exchanged in, and the journal may not know of it yet.
    pub landing: Option<(Epoch, Position)>,
    /// What it was when that landing was prepared.
    pub base: Option<Position>,
    /// The delta log reaches back to here.
    pub log_from: usize,
}

/// A shadow.
#[derive(Clone, Hash, Debug, Default)]
pub struct Copy {
    pub content: Content,
    /// `None`: pages of no known position.
    pub position: Option<Position>,
    pub landing: Option<Epoch>,
    /// What its files go back to when the landing is given up after a crash.
    pub base: Option<Position>,
    /// A crash came while it was landing: where it stands is not known, only its digest.
    pub unsettled: bool,
}

pub fn digest(content: &[u8]) -> Digest {
    let mixed = content.iter().fold(1_u64, |digest, write| {
        digest.wrapping_mul(31).wrapping_add(u64::from(*write))
    });
    Digest(mixed)
}

pub fn position(epoch: Epoch, content: &[u8]) -> Position {
    Position {
        epoch,
        lsn: Lsn(content.len() as u64),
        digest: digest(content),
    }
}

pub fn gone() -> Failure {
    Failure::Gone("it is not there".to_owned())
}

pub fn refused(why: &str) -> Failure {
    Failure::Refused(why.to_owned())
}

impl Live {
    pub fn new(content: Content) -> Live {
        Live {
            log_from: content.len(),
            content,
            epoch: Epoch(0),
            attached: false,
            frozen: false,
            fenced: false,
            landing: None,
            base: None,
        }
    }

    /// Whether an application's write would be acknowledged, whatever its daemon does.
    pub fn is_writable(&self) -> bool {
        !self.frozen && !self.fenced
    }
}

impl Copy {
    /// The landing will not happen, as io's shadow gives it up.
    pub fn abandon(&mut self) {
        if self.unsettled && self.landing.is_some() {
            let kept = self.base.map_or(0, |base| base.lsn.0 as usize);
            self.content.truncate(kept);
            self.position = self.base;
        }
        (self.landing, self.base, self.unsettled) = (None, None, false);
    }
}

impl Disk {
    /// As runtime/recover.rs reads a shadow.
    pub fn remains(&self) -> Option<Remains> {
        let copy = self.copy.as_ref()?;
        Some(match (copy.position, copy.landing) {
            (None, _) => Remains::Partial,
            (Some(position), None) => Remains::At(position),
            (Some(position), Some(epoch)) => Remains::Landing {
                epoch,
                // How far it came is known by its digest alone.
                position: {
                    let base = copy.base.unwrap_or(position);
                    let lsn = base.lsn.after(1);
                    let digest = digest(&copy.content);
                    Position {
                        lsn,
                        digest,
                        ..base
                    }
                },
            },
        })
    }

    pub fn engine(&mut self, operation: &EngineOperation) -> Result<Outcome, Failure> {
        let live = self.live.as_mut().ok_or_else(gone)?;
        match operation {
            EngineOperation::Attach { epoch } => {
                (live.epoch, live.attached) = (*epoch, true);
                Ok(Outcome::Attached(Attachment {
                    position: position(*epoch, &live.content),
                    page_size: 4096,
                    page_count: 1,
                    attributes: Attributes::default(),
                    fenced: live.fenced,
                }))
            }
            EngineOperation::Freeze { .. } => {
                live.frozen = true;
                Ok(Outcome::Frozen(position(live.epoch, &live.content)))
            }
            EngineOperation::Fence if !live.frozen => Err(refused("the lock is not held")),
            EngineOperation::Fence => {
                (live.fenced, live.frozen) = (true, false);
                Ok(Outcome::Nothing)
            }
            EngineOperation::Lift => {
                live.fenced = false;
                Ok(Outcome::Nothing)
            }
            EngineOperation::Thaw => {
                live.frozen = false;
                Ok(Outcome::Nothing)
            }
            EngineOperation::Detach => {
                (live.attached, live.frozen) = (false, false);
                Ok(Outcome::Nothing)
            }
            EngineOperation::Retire { position, keep } => Ok(self.retire(*position, *keep)),
        }
    }

    /// As runtime/freeze.rs: only an attached, fenced copy becomes a shadow.
    fn retire(&mut self, position: Position, keep: bool) -> Outcome {
        let live = self.live.take();
        match live {
            Some(live) if keep && live.attached && live.fenced => {
                self.copy = Some(Copy {
                    content: live.content,
                    position: Some(position),
                    ..Copy::default()
                });
                Outcome::Durable(position)
            }
            _ => Outcome::Nothing,
        }
    }

    pub fn shadow(
        &mut self,
        operation: &ShadowOperation,
        frame: Option<&(Cargo, Content)>,
    ) -> Result<Outcome, Failure> {
        match operation {
            ShadowOperation::Create { .. } => {
                self.copy = Some(Copy::default());
                return Ok(Outcome::Nothing);
            }
            ShadowOperation::Discard => {
                self.copy = None;
                return Ok(Outcome::Nothing);
            }
            ShadowOperation::Remap { epoch, position } => return self.remap(*epoch, *position),
            _ => {}
        }
        let copy = self.copy.as_mut().ok_or_else(gone)?;
        match operation {
            ShadowOperation::Fill { .. } => return fill(copy, frame),
            ShadowOperation::Accept { .. } => return accept(copy, frame),
            ShadowOperation::Restart => (copy.position, copy.landing) = (None, None),
            ShadowOperation::PrepareLanding { .. } if copy.position.is_none() => {
                return Err(refused("it has no position"));
            }
            ShadowOperation::PrepareLanding { epoch } => {
                (copy.landing, copy.base) = (Some(*epoch), copy.position);
            }
            ShadowOperation::SyncLanding => {
                let landing = copy.position.filter(|_| copy.landing.is_some());
                let landing = landing.ok_or_else(|| refused("it is not landing"))?;
                return Ok(Outcome::Durable(landing));
            }
            ShadowOperation::Abandon => {
                copy.abandon();
                let stands = copy.position.map(Outcome::Durable);
                return Ok(stands.unwrap_or(Outcome::Nothing));
            }
            _ => unreachable!("done above"),
        }
        Ok(Outcome::Nothing)
    }

    /// A power cut before the directory was synced: the path leads where it led, and the files have
    /// what was written to them since.
    pub fn undo_exchange(&mut self) {
        let Some(live) = self.live.take_if(|live| live.landing.is_some()) else {
            return;
        };
        self.copy = Some(Copy {
            landing: live.landing.map(|(epoch, _)| epoch),
            position: live.base,
            base: live.base,
            unsettled: true,
            content: live.content,
        });
    }

    /// The exchange leaves what was there in its old generation.
    fn remap(&mut self, epoch: Epoch, granted: Position) -> Result<Outcome, Failure> {
        let copy = self.copy.as_ref().ok_or_else(gone)?;
        let at = copy.position.ok_or_else(|| refused("no position"))?;
        let now = match copy.unsettled {
            true => digest(&copy.content),
            false => at.digest,
        };
        if now != granted.digest {
            return Err(Failure::Corrupt("another digest was granted".to_owned()));
        }
        let base = copy.base.or(copy.position);
        let content = self.copy.take().map(|copy| copy.content);
        let mut live = Live::new(content.unwrap_or_default());
        (live.landing, live.base) = (Some((epoch, granted)), base);
        self.live = Some(live);
        Ok(Outcome::Nothing)
    }
}

fn fill(copy: &mut Copy, frame: Option<&(Cargo, Content)>) -> Result<Outcome, Failure> {
    match (frame, copy.position) {
        (Some((Cargo::Pages, _)), None) => Ok(Outcome::Nothing),
        (Some((Cargo::LastPages { at }, content)), None) => {
            copy.content.clone_from(content);
            copy.position = Some(*at);
            Ok(Outcome::Durable(*at))
        }
        _ => Err(refused("it is not being filled")),
    }
}

/// The copy checks position and digest itself.
fn accept(copy: &mut Copy, frame: Option<&(Cargo, Content)>) -> Result<Outcome, Failure> {
    let Some((Cargo::Delta { from, to }, content)) = frame else {
        return Err(refused("it is no delta"));
    };
    let at = copy.position.ok_or_else(|| refused("no position"))?;
    if (from.lsn, from.digest) != (at.lsn, at.digest) {
        return Err(refused("it starts elsewhere"));
    }
    copy.content.clone_from(content);
    copy.position = Some(*to);
    Ok(Outcome::Durable(*to))
}
