//! Making a daemon pass a step: by writes, a move, a start, or a start after something was lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use io::failpoint::{Action, Step};

use super::stage::{Stage, Victim};
use super::table::{At, By, place};
use crate::cluster::LIMIT;

/// Writes pass their steps again and again: one of the first so many passes is met.
const NTH_MAX: u64 = 8;
/// Moves asked for until one comes to the step: a move may be given up before it.
const MOVES_MAX: usize = 3;
/// What comes after the end of a move (the old copy is put away) has its time too.
const AFTER_THE_MOVE: Duration = Duration::from_secs(2);
/// Older than what a start deletes.
const OLD: Duration = Duration::from_secs(120);

impl Stage {
    /// Arms the step, makes the daemon pass it and waits until it does. Returns whose step it is.
    pub fn meet(
        &mut self,
        step: Step,
        action: Action,
        tenant: &str,
        owner: usize,
    ) -> (usize, bool) {
        let (at, by) = place(step);
        let at = match at {
            At::Owner => owner,
            At::Shadow => 1 - owner,
        };
        let nth = match (by, step) {
            (By::Writes, _) => 1 + self.dice.below(NTH_MAX) as u32,
            (_, Step::NoteBegun | Step::NoteWritten) => 1 + self.dice.below(2) as u32,
            _ => 1,
        };
        match by {
            By::Writes => {
                self.boards[at].arm(step, nth, action);
                (at, self.fires(at))
            }
            By::Move | By::FirstMove => (at, self.meet_in_move(step, nth, action, tenant, at)),
            By::Start => (at, self.meet_at_start(step, action, at)),
            By::StartWithoutShadow => {
                self.kill(at, Victim::Daemon);
                self.lose_shadow(at, tenant);
                self.boards[at].arm(step, nth, action);
                self.cluster.nodes[at].start().expect("it starts");
                (at, self.fires(at))
            }
            By::OwnerWithoutLog => {
                self.kill(1 - at, Victim::Daemon);
                let deltas = self.cluster.nodes[1 - at].place.state().join("deltas");
                fs::remove_dir_all(deltas).expect("removed");
                self.boards[at].arm(step, nth, action);
                self.cluster.nodes[1 - at].start().expect("it starts");
                (at, self.fires(at))
            }
            By::StartWithOldCopies => {
                self.make_old(at);
                (at, self.meet_at_start(step, action, at))
            }
            By::StartAfterExchange => {
                if !self.meet_in_move(Step::RemapExchanged, 1, Action::Kill, tenant, at) {
                    return (at, false);
                }
                self.bury(at);
                self.tally.kills += 1;
                self.boards[at].arm(step, nth, action);
                self.cluster.nodes[at].start().expect("it starts");
                (at, self.fires(at))
            }
        }
    }

    fn meet_at_start(&mut self, step: Step, action: Action, at: usize) -> bool {
        self.kill(at, Victim::Daemon);
        self.boards[at].arm(step, 1, action);
        self.cluster.nodes[at].start().expect("it starts");
        self.fires(at)
    }

    pub fn meet_in_move(
        &mut self,
        step: Step,
        nth: u32,
        action: Action,
        tenant: &str,
        at: usize,
    ) -> bool {
        let source = self.owner(tenant);
        let target = 1 - source;
        for _ in 0..MOVES_MAX {
            let owner = self.owner(tenant);
            // An earlier move went through without passing the step.
            if owner != source {
                return false;
            }
            self.wait_for_shadow(tenant);
            self.boards[at].arm(step, nth, action);
            let name = self.cluster.nodes[target].place.name.clone();
            let pending = match self.cluster.begin_move(tenant, &name) {
                Ok(pending) => pending,
                // A move of the round before went through only now: the owner is another one.
                Err(error) => {
                    println!("{} was not met: {error}", step.name());
                    return false;
                }
            };
            self.pending = Some(pending.clone());
            let board = &self.boards[at];
            let deadline = Instant::now() + LIMIT;
            let mut ended = None;
            let mut words = String::new();
            while board.fired().is_none() && Instant::now() < deadline {
                if ended.is_none()
                    && let Ok(Some(report)) = self.cluster.poll_move(&pending)
                {
                    words = format!("{:?} after {:?}", report.outcome, report.steps);
                    ended = Some(Instant::now());
                }
                if ended.is_some_and(|at| at.elapsed() > AFTER_THE_MOVE) {
                    break;
                }
                sleep(Duration::from_millis(2));
            }
            if board.fired().is_some() {
                return true;
            }
            println!("{} was not met: {tenant} to {target}: {words}", step.name());
            assert!(
                !words.contains("stands at its path"),
                "an old copy was not put away"
            );
        }
        false
    }

    /// Waits until what is armed at a node fires.
    pub fn fires(&self, at: usize) -> bool {
        let deadline = Instant::now() + LIMIT;
        while self.boards[at].fired().is_none() {
            if Instant::now() > deadline {
                println!("not met in {LIMIT:?}: {:#?}", self.cluster.views());
                return false;
            }
            sleep(Duration::from_millis(1));
        }
        true
    }

    /// Removes a dead node's copies of a tenant, but for what its live path leads to.
    fn lose_shadow(&self, at: usize, tenant: &str) {
        let place = &self.cluster.nodes[at].place;
        let live = place.live().join(tenant).canonicalize().ok();
        for dir in generations(&place.generations()) {
            let file = dir.join(tenant);
            if file.is_file() && file.canonicalize().ok() != live {
                fs::remove_dir_all(&dir).expect("removed");
            }
        }
    }

    /// Makes what was fenced and left at a node look old.
    fn make_old(&self, at: usize) {
        for dir in generations(&self.cluster.nodes[at].place.generations()) {
            if let Ok(file) = fs::File::options().write(true).open(dir.join("retired")) {
                file.set_modified(SystemTime::now() - OLD).expect("set");
            }
        }
    }
}

pub fn generations(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}
