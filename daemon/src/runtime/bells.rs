//! Bells of native logs: a commit wakes the shard at once, not at its next look.
//!
//! A bell costs whoever commits a system call, and the shard a turn; so in a flood of commits
//! nobody waits for bells, and the looks of the hot tier find many commits at a time.

use std::sync::Arc;

use io::ring::{Bell, Completion, Payload, Ring, Token};
use rustix::io::Errno;
use wal::PartitionId;

use super::host::Host;
use super::links::LISTENER;

/// Marks completions of bells.
pub const BELLS: u64 = LISTENER - 3;
/// Bells that one shard waits for at once; other logs are looked at as databases are.
const BELLS_MAX: usize = 256;

/// The bells of one shard.
#[derive(Default)]
pub struct Bells {
    waiting: usize,
    /// Whose bell is to be waited for again at the end of the turn.
    next: Vec<PartitionId>,
    /// Whose bell is of no interest any more.
    gone: Vec<PartitionId>,
    /// The kernel can't wait for them.
    missing: bool,
}

impl Bells {
    /// Nobody waits for the bell of a log that is let go of.
    pub fn forget(&mut self, id: PartitionId) {
        self.gone.push(id);
    }
}

impl Host {
    /// Waits for the bell of a log, if it has one and commits are not too many.
    pub fn want_bell(&mut self, id: PartitionId) {
        let room = self.bells.waiting + self.bells.next.len() < BELLS_MAX;
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        let wanted = room && !self.bells.missing && !self.lives.tiers.is_flood();
        if wanted && !live.rings && live.source.log_control().is_some() {
            live.rings = true;
            self.bells.next.push(id);
        }
    }

    /// A bell was rung, or its wait ended.
    pub fn rung(&mut self, completion: Completion) {
        self.bells.waiting -= 1;
        let Payload::Bell(bell) = completion.payload else {
            return;
        };
        if let Err(error) = completion.result
            && error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
        {
            self.bells.missing = true;
            tracing::info!("the kernel can't wait for bells; native logs are swept");
        }
        let id = PartitionId(bell.key);
        let Some(live) = self.lives.by_id.get_mut(&id) else {
            return;
        };
        live.rings = false;
        if live.source.changed() {
            self.lives.tiers.stirred(id, self.now);
            self.read_live(id);
        }
        self.want_bell(id);
    }

    /// Hands what changed in this turn to the ring, and reads what came before the ring waits.
    pub fn arm_bells(&mut self, ring: &mut Ring) {
        for id in self.bells.gone.drain(..) {
            ring.cancel_bell(id.0);
        }
        for id in std::mem::take(&mut self.bells.next) {
            let Some(live) = self.lives.by_id.get(&id) else {
                continue;
            };
            let Some(control) = live.source.log_control() else {
                continue;
            };
            let bell = Bell::new(Arc::clone(control), id.0);
            let seen = control.bell();
            ring.wait_bell(Token::new(BELLS, 0), bell, seen);
            self.bells.waiting += 1;
            // What was rung before it was `seen` is found here, what comes later ends the wait.
            if live.source.changed() {
                self.read_live(id);
            }
        }
    }
}
