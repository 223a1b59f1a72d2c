//! Session resume: one sender and one receiver over a link that breaks.
//!
//! | file | what it holds |
//! |---|---|
//! | `world` | the copy, the log, the link, and how states are told apart |
//! | `owner`, `peer` | the shells around the two machines |
//! | `tests` | the models and the promises |
//!
//! Within a session messages and frames arrive in order; a break loses what is under way. Whatever
//! the copy was at first, it has to become and stay a prefix, and streaming at the newest position
//! has to be reachable from every state without further faults.

mod owner;
mod peer;
mod tests;
mod world;

use std::fmt;

use crate::bfs::Model;
use world::{Limits, World};

/// One step of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Write,
    /// The delta log is cut off behind the newest position.
    LogTrims,
    LinkBreaks,
    LinkComesUp,
    Timer,
    PeerRestarts,
    OwnerDelivers,
    PeerDelivers,
    OwnerRuns(bool),
    /// Comparing finds more pages than fit in one last part.
    OwnerFindsMuch,
    PeerRuns(bool),
    PeerHears,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Model for Limits {
    type State = World;
    type Action = Action;

    fn start(&self) -> World {
        World::new(self)
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::with_capacity(12);
        let mut offer = |possible: bool, action: Action| {
            if possible {
                actions.push(action);
            }
        };
        let (used, may_fail) = (&world.used, world.used.failures < self.failures);
        offer(world.content < self.writes, Action::Write);
        offer(
            used.trims < self.trims && world.log_from < world.content,
            Action::LogTrims,
        );
        offer(world.up && used.breaks < self.breaks, Action::LinkBreaks);
        offer(!world.up, Action::LinkComesUp);
        // States beyond this many offers are not judged: the horizon of the model.
        let offers_left = used.offers < self.offers;
        offer(
            offers_left && world.sender.deadline().is_some(),
            Action::Timer,
        );
        offer(used.restarts < self.restarts, Action::PeerRestarts);
        offer(world.up && !world.to_peer.is_empty(), Action::PeerDelivers);
        offer(
            world.up && !world.to_owner.is_empty(),
            Action::OwnerDelivers,
        );
        if let Some(job) = world.owner_jobs.front() {
            offer(true, Action::OwnerRuns(true));
            offer(may_fail, Action::OwnerRuns(false));
            offer(job.is_compare() && may_fail, Action::OwnerFindsMuch);
        }
        if !world.peer_jobs.is_empty() {
            offer(true, Action::PeerRuns(true));
            offer(may_fail, Action::PeerRuns(false));
        }
        offer(!world.peer_answers.is_empty(), Action::PeerHears);
        actions
    }

    fn apply(&self, world: &mut World, action: &Action) {
        match action {
            Action::Write => {
                world.content += 1;
                world.owner_does(|_, _| {});
            }
            Action::LogTrims => {
                world.used.trims += 1;
                world.log_from = world.content;
            }
            Action::LinkBreaks => {
                world.used.breaks += 1;
                world.link_breaks();
            }
            Action::LinkComesUp => world.link_comes_up(),
            Action::Timer => world.timer(),
            Action::PeerRestarts => {
                world.used.restarts += 1;
                world.peer_restarts();
            }
            Action::OwnerDelivers => world.owner_delivers(),
            Action::PeerDelivers => world.peer_delivers(),
            Action::OwnerRuns(done) => world.owner_runs(*done, 0),
            Action::OwnerFindsMuch => {
                world.used.failures += 1;
                world.owner_runs(true, 5_000);
            }
            Action::PeerRuns(done) => world.peer_runs(*done),
            Action::PeerHears => world.peer_hears(),
        }
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        world.broken.or_else(|| tests::broken(world))
    }

    fn is_settled(&self, world: &World) -> bool {
        tests::is_settled(world) || world.used.offers >= self.offers
    }

    fn is_progress(&self, action: &Action) -> bool {
        match action {
            Action::Write
            | Action::LogTrims
            | Action::LinkBreaks
            | Action::PeerRestarts
            | Action::OwnerFindsMuch => false,
            Action::OwnerRuns(done) | Action::PeerRuns(done) => *done,
            _ => true,
        }
    }

    fn describe(&self, world: &World) -> String {
        format!(
            "content {}, log from {}, sender {:?} sent {} | copy {:?}, disk {:?} | link {} \
             -> {:?} <- {:?}",
            world.content,
            world.log_from,
            world.sender.progress(),
            world.sender.sent(),
            world.receiver.copy(),
            world.disk,
            if world.up { "up" } else { "down" },
            world.to_peer,
            world.to_owner
        )
    }
}
