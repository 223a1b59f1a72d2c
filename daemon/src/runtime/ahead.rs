//! Attaching a landed copy ahead of its being served.

use io::engine::sqlite::Source;
use wal::lsn::Epoch;
use wal::{PartitionId, Position};

use super::host::Host;
use crate::event::Ticket;

/// A landed copy whose attachment begins before it is served.
pub struct Landing {
    pub position: Position,
    pub state: LandingState,
}

/// Whether the attachment stands.
pub enum LandingState {
    /// A helper thread attaches; the brain may ask for it meanwhile.
    Underway { asked: Option<(Ticket, Epoch)> },
    /// `None`: it did not work, and the copy is scanned when it is asked for.
    Finished(Option<Box<Source>>),
}

impl Landing {
    pub fn underway(position: Position) -> Landing {
        Landing {
            position,
            state: LandingState::Underway { asked: None },
        }
    }
}

impl Host {
    /// A landed copy was attached ahead, or could not be.
    pub fn attached_ahead(&mut self, id: PartitionId, source: Option<Source>) {
        let Some(landing) = self.lives.landing.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(
            &mut landing.state,
            LandingState::Finished(source.map(Box::new)),
        );
        if let LandingState::Underway {
            asked: Some((ticket, epoch)),
        } = before
        {
            self.attach(ticket, epoch);
        }
    }
}
