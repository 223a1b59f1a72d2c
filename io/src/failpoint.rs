//! Named steps at which a test makes the daemon die, stand still or fail. Compiled in with the
//! feature `failpoints` only; without it [`pass`] and [`reach`] are empty and inlined away.
//!
//! The program calls [`pass`] (where an error can be told) or [`reach`] (where none can) right
//! after what the step's name says has happened. A test puts a file of [`BOARD_LEN`] zeros where
//! [`listen`] looks for it at start and maps it too: one shared page, through which a running
//! daemon is armed without a signal or a wait, and in which the number of passes outlives kill -9.
//! Without that file nothing happens.
//!
//! | action | what the thread does that reaches the armed step |
//! |---|---|
//! | kill | SIGKILL to its own process |
//! | hold | waits there until [`Board::release`], ten seconds at most |
//! | stop | SIGSTOP to its own process, until somebody sends SIGCONT |
//! | fail | `pass` answers EIO; `reach` can't, and goes on |
//!
//! One step is armed at a time, and is disarmed as it fires.

use crate::error::Result;

macro_rules! steps {
    ($($step:ident $name:literal)+) => {
        /// Every step there is. A step that the program never passes is found by the crash tests.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Step { $($step),+ }

        impl Step {
            pub const ALL: &[Step] = &[$(Step::$step),+];

            pub fn name(self) -> &'static str {
                match self { $(Step::$step => $name),+ }
            }
        }
    };
}

steps! {
    TailAttach "tail.attach"
    TailRead "tail.read"
    TailConsumed "tail.consumed"
    ShipEncoded "ship.encoded"
    ShipLogged "ship.logged"
    ShipSend "ship.send"
    ShipReceived "ship.received"
    ShipApplied "ship.applied"
    ShipHashed "ship.hashed"
    ShipFilled "ship.filled"
    ShipProven "ship.proven"
    ShipCompleted "ship.completed"
    JournalAppend "journal.append"
    JournalWrite "journal.write"
    JournalSynced "journal.synced"
    JournalAcknowledge "journal.acknowledge"
    CheckpointLogSynced "checkpoint.log_synced"
    CheckpointAnnounced "checkpoint.announced"
    CheckpointCopied "checkpoint.copied"
    CheckpointDatabaseSynced "checkpoint.database_synced"
    CheckpointFinished "checkpoint.finished"
    NoteBegun "note.begun"
    NoteWritten "note.written"
    NotePrepared "note.prepared"
    NoteIntent "note.intent"
    NoteLanded "note.landed"
    NoteReleased "note.released"
    FenceLocked "fence.locked"
    FenceRead "fence.read"
    FenceWritten "fence.written"
    FenceSynced "fence.synced"
    FencePublished "fence.published"
    FenceReaders "fence.readers"
    FenceReady "fence.ready"
    FenceGrant "fence.grant"
    RemapPreparing "remap.preparing"
    RemapPrepared "remap.prepared"
    RemapSynced "remap.synced"
    RemapLogWritten "remap.log_written"
    RemapAttached "remap.attached"
    RemapLinked "remap.linked"
    RemapExchanged "remap.exchanged"
    RemapDirSynced "remap.dir_synced"
    RemapPromoted "remap.promoted"
    RouteLinked "route.linked"
    RoutePublished "route.published"
    RouteServing "route.serving"
    RouteAsked "route.asked"
    RouteSubmitted "route.submitted"
    RouteWritten "route.written"
    RouteRecorded "route.recorded"
    RetireTombstone "retire.tombstone"
    RetireExchanged "retire.exchanged"
    RetireMarked "retire.marked"
    RetireAdopted "retire.adopted"
    ReverseCreated "reverse.created"
    ReverseCopied "reverse.copied"
    ReverseKept "reverse.kept"
    RecoverListed "recover.listed"
    RecoverOpened "recover.opened"
    RecoverRemoved "recover.removed"
    RecoverLanding "recover.landing"
    RecoverReplayed "recover.replayed"
    RecoverSettled "recover.settled"
    RecoverFound "recover.found"
    RecoverStarted "recover.started"
}

#[cfg(feature = "failpoints")]
mod board;
#[cfg(feature = "failpoints")]
pub use board::{Action, BOARD_LEN, Board, listen};

/// A step where an error can be told.
#[cfg(feature = "failpoints")]
pub fn pass(step: Step) -> Result<()> {
    if board::meet(step) {
        let error = std::io::Error::from_raw_os_error(libc::EIO);
        return Err(crate::Error::system("pass", step.name(), error));
    }
    Ok(())
}

/// A step where no error can be told.
#[cfg(feature = "failpoints")]
pub fn reach(step: Step) {
    board::meet(step);
}

/// A step where an error can be told.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_: Step) -> Result<()> {
    Ok(())
}

/// A step where no error can be told.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_: Step) {}

/// Nothing listens in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn listen(_: &std::path::Path) {}
