//! Attaching a landed copy ahead of its being served.

use io::engine::Source;
use io::remap::Generation;
use wal::lsn::Epoch;
use wal::{PartitionId, Position};

use super::host::Host;
use super::lives::Lives;
use crate::effect::ShadowOperation;
use crate::event::Ticket;

/// A landed copy whose attachment begins before it is served.
pub struct Landing {
    generation: Generation,
    pub position: Position,
    pub state: LandingState,
}

/// Whether the attachment stands.
pub enum LandingState {
    /// A helper thread attaches; the brain may ask for something meanwhile.
    Underway { asked: Option<Asked> },
    /// `None`: it did not work, and the copy is scanned when it is asked for.
    Finished(Option<Box<Source>>),
}

/// What waits for an attachment that is under way.
#[derive(Clone, Copy)]
pub enum Asked {
    Attach(Ticket, Epoch),
    /// A copy of a native log is served once it is a log.
    Remap(Ticket, Epoch, Position),
}

impl Landing {
    pub fn underway(generation: Generation, position: Position) -> Landing {
        Landing {
            generation,
            position,
            state: LandingState::Underway { asked: None },
        }
    }

    pub fn is_attached(&self) -> bool {
        matches!(self.state, LandingState::Finished(Some(_)))
    }
}

impl Lives {
    /// Lets `request` wait if an attachment is under way.
    pub fn waits_for_landing(&mut self, id: PartitionId, request: Asked) -> bool {
        match self.landing.get_mut(&id).map(|landing| &mut landing.state) {
            Some(LandingState::Underway { asked }) => {
                *asked = Some(request);
                true
            }
            _ => false,
        }
    }
}

impl Host {
    /// A landed copy was attached ahead, or could not be.
    pub fn attached_ahead(
        &mut self,
        id: PartitionId,
        generation: Generation,
        source: Option<Source>,
    ) {
        // A copy that was discarded and made anew meanwhile is another one.
        let copy = self.copies.by_id.get_mut(&id);
        if let Some(copy) = copy.filter(|copy| copy.held.generation == generation) {
            copy.ahead = false;
        }
        let landing = self.lives.landing.get_mut(&id);
        let Some(landing) = landing.filter(|landing| landing.generation == generation) else {
            return self.work_off(id);
        };
        let before = std::mem::replace(
            &mut landing.state,
            LandingState::Finished(source.map(Box::new)),
        );
        match before {
            LandingState::Underway {
                asked: Some(Asked::Attach(ticket, epoch)),
            } => self.attach(ticket, epoch),
            LandingState::Underway {
                asked: Some(Asked::Remap(ticket, epoch, position)),
            } => self.execute_shadow(ticket, ShadowOperation::Remap { epoch, position }),
            _ => {}
        }
        self.work_off(id);
    }
}
