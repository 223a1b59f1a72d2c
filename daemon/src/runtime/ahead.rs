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
    /// A copy of a native log is a log by now.
    pub is_log: bool,
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
            is_log: false,
        }
    }
}

impl Lives {
    /// Lets `request` wait if what it needs is under way.
    pub fn waits_for_landing(&mut self, id: PartitionId, request: Asked) -> bool {
        match self.landing.get_mut(&id) {
            Some(Landing {
                state: LandingState::Underway { asked },
                is_log,
                ..
            }) if !*is_log || matches!(request, Asked::Attach(..)) => {
                *asked = Some(request);
                true
            }
            _ => false,
        }
    }
}

impl Host {
    /// A landed copy is a log: it can be served, and is attached meanwhile.
    pub fn became_log(&mut self, id: PartitionId, generation: Generation) {
        let landing = self.lives.landing.get_mut(&id);
        let Some(landing) = landing.filter(|landing| landing.generation == generation) else {
            return;
        };
        landing.is_log = true;
        if let LandingState::Underway { asked } = &mut landing.state
            && let Some(Asked::Remap(ticket, epoch, position)) = *asked
        {
            *asked = None;
            self.execute_shadow(ticket, ShadowOperation::Remap { epoch, position });
        }
    }

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
