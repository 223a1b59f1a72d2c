//! The page of memory that a daemon and the test which arms it share.
//!
//! | word | meaning |
//! |---|---|
//! | 0 | the armed step, counted from 1; 0: none |
//! | 1 | how many passes are left until it fires |
//! | 2 | what it does then |
//! | 3 | the step that fired, counted from 1; 0: none since it was armed |
//! | 4 | not 0: whoever is held goes on |
//! | 16.. | how often each step was passed |

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::Step;
use crate::error::{Error, Result};

/// Bytes of the file.
pub const BOARD_LEN: usize = 4096;
/// A test that forgot whom it holds must not hold it for ever.
const HOLD_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_micros(100);

const ARMED: usize = 0;
const LEFT: usize = 1;
const ACTION: usize = 2;
const FIRED: usize = 3;
const RELEASED: usize = 4;
const PASSES: usize = 16;
const _: () = assert!((PASSES + Step::ALL.len()) * 4 <= BOARD_LEN);

static BOARD: OnceLock<Board> = OnceLock::new();

/// What happens at the armed step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Action {
    Kill = 1,
    Hold = 2,
    Stop = 3,
    Fail = 4,
}

/// A mapped board.
#[derive(Debug)]
pub struct Board {
    map: MmapMut,
}

impl Board {
    /// Maps the file at `path`, which has [`BOARD_LEN`] bytes.
    pub fn open(path: &Path) -> Result<Board> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|e| Error::at("open", path, e))?;
        let len = file.metadata().map_err(|e| Error::at("stat", path, e))?;
        if len.len() != BOARD_LEN as u64 {
            let reason = format!("{} bytes are no board of steps", len.len());
            let subject = path.display().to_string();
            return Err(Error::new(crate::Kind::Refused, "map", subject, reason));
        }
        // SAFETY: a file for tests, never shortened while mapped, read and written by whole words
        // through atomics only.
        let map = unsafe { MmapMut::map_mut(&file) }.map_err(|e| Error::at("map", path, e))?;
        Ok(Board { map })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at < BOARD_LEN / 4, "a word of the board");
        // SAFETY: within the mapping, aligned as a page is, and everybody uses atomics on it.
        unsafe { &*self.map.as_ptr().cast::<AtomicU32>().add(at) }
    }

    /// Arms `step`: it fires at its `nth` pass from now, the first being 1.
    pub fn arm(&self, step: Step, nth: u32, action: Action) {
        self.disarm();
        self.word(LEFT).store(nth.max(1), Ordering::SeqCst);
        self.word(ACTION).store(action as u32, Ordering::SeqCst);
        self.word(ARMED).store(number(step), Ordering::SeqCst);
    }

    /// Arms nothing, and forgets what fired.
    pub fn disarm(&self) {
        for word in [ARMED, FIRED, RELEASED] {
            self.word(word).store(0, Ordering::SeqCst);
        }
    }

    /// What fired since it was armed.
    pub fn fired(&self) -> Option<Step> {
        let fired = self.word(FIRED).load(Ordering::SeqCst);
        Step::ALL.get((fired as usize).checked_sub(1)?).copied()
    }

    /// Lets go on who is held.
    pub fn release(&self) {
        self.word(RELEASED).store(1, Ordering::SeqCst);
    }

    /// How often `step` was passed since the file was made.
    pub fn passes(&self, step: Step) -> u32 {
        self.word(PASSES + step as usize).load(Ordering::SeqCst)
    }

    /// `true` when the step has to fail.
    fn meet(&self, step: Step) -> bool {
        self.word(PASSES + step as usize)
            .fetch_add(1, Ordering::SeqCst);
        if self.word(ARMED).load(Ordering::SeqCst) != number(step) {
            return false;
        }
        let down = |left: u32| left.checked_sub(1);
        let left = self
            .word(LEFT)
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, down);
        if left != Ok(1) {
            return false;
        }
        let action = self.word(ACTION).load(Ordering::SeqCst);
        self.word(ARMED).store(0, Ordering::SeqCst);
        self.word(FIRED).store(number(step), Ordering::SeqCst);
        match action {
            action if action == Action::Kill as u32 => signal(libc::SIGKILL),
            action if action == Action::Stop as u32 => signal(libc::SIGSTOP),
            action if action == Action::Hold as u32 => self.hold(),
            action => return action == Action::Fail as u32,
        }
        false
    }

    fn hold(&self) {
        let until = Instant::now() + HOLD_MAX;
        while self.word(RELEASED).load(Ordering::SeqCst) == 0 && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn number(step: Step) -> u32 {
    step as u32 + 1
}

fn signal(number: libc::c_int) {
    // SAFETY: kill(2) takes two numbers. To our own process it can't fail.
    unsafe { libc::kill(libc::getpid(), number) };
}

/// Obeys the board at `path` from now on, if there is one.
pub fn listen(path: &Path) {
    if !path.exists() {
        return;
    }
    match Board::open(path) {
        Ok(board) => {
            tracing::warn!(board = %path.display(), "a test may end this daemon at any step");
            // A second board of one process is nobody's.
            let _ = BOARD.set(board);
        }
        Err(error) => tracing::error!(%error, "the board of steps is not obeyed"),
    }
}

pub(super) fn meet(step: Step) -> bool {
    BOARD.get().is_some_and(|board| board.meet(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> (tempfile::TempDir, Board) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("board");
        std::fs::write(&path, [0; BOARD_LEN]).expect("written");
        let board = Board::open(&path).expect("mapped");
        (dir, board)
    }

    #[test]
    fn an_armed_step_fires_once_at_the_pass_that_was_asked_for() {
        let (_dir, board) = board();
        board.arm(Step::TailRead, 3, Action::Fail);
        let met: Vec<bool> = (0..5).map(|_| board.meet(Step::TailRead)).collect();
        assert_eq!(met, [false, false, true, false, false]);
        assert!(!board.meet(Step::ShipApplied));
        assert_eq!(board.fired(), Some(Step::TailRead));
        assert_eq!(board.passes(Step::TailRead), 5);
        board.disarm();
        assert_eq!(board.fired(), None);
    }

    #[test]
    fn who_is_held_goes_on_when_it_is_released() {
        let (_dir, board) = board();
        board.arm(Step::FenceSynced, 1, Action::Hold);
        std::thread::scope(|scope| {
            let held = scope.spawn(|| board.meet(Step::FenceSynced));
            let until = Instant::now() + HOLD_MAX;
            while board.fired().is_none() && Instant::now() < until {
                std::thread::sleep(LOOK_EVERY);
            }
            assert!(!held.is_finished(), "it waits");
            board.release();
            assert!(!held.join().expect("no panic"), "it did not fail");
        });
    }

    #[test]
    fn what_is_no_board_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("board");
        std::fs::write(&path, [0; 100]).expect("written");
        assert!(Board::open(&path).is_err());
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> = Step::ALL.iter().map(|step| step.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Step::ALL.len());
    }
}
