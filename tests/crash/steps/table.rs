//! Where each step is passed, and what makes the daemon pass it.

use foreshadow::cli::demo::harness::Engine;
use io::failpoint::Step;

/// Which of the two daemons passes the step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// The owner of the tenant, which is the source of its move.
    Owner,
    /// The node with the shadow, which is the target.
    Shadow,
}

/// What makes it pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Applications write.
    Writes,
    /// A move.
    Move,
    /// The first move of a database that is a plain file still.
    FirstMove,
    /// A start after a kill.
    Start,
    /// A start after a kill that met a landing between its exchange and its last word.
    StartAfterExchange,
    /// A start after the copies that were fenced and left have become old.
    StartWithOldCopies,
    /// A start without the shadow's files, as after the loss of a disk.
    StartWithoutShadow,
    /// The owner starts without its log of deltas: its shadows are compared with it.
    OwnerWithoutLog,
}

/// What the tenants are whose daemons pass a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Any,
    Only(Engine),
}

/// Every step that is passed with tenants of an engine.
pub fn steps_of(engine: Engine) -> impl Iterator<Item = Step> {
    let passed = move |step: &Step| [Of::Any, Of::Only(engine)].contains(&of(*step));
    Step::ALL.iter().copied().filter(passed)
}

/// The place of a step. A `match`, so that a new step does not compile without one.
pub fn place(step: Step) -> (At, By) {
    match step {
        Step::TailAttach => (At::Owner, By::Start),
        Step::TailRead
        | Step::TailConsumed
        | Step::ShipEncoded
        | Step::ShipLogged
        | Step::ShipSend => (At::Owner, By::Writes),
        Step::ShipReceived
        | Step::ShipApplied
        | Step::JournalAppend
        | Step::JournalWrite
        | Step::JournalSynced
        | Step::JournalAcknowledge => (At::Shadow, By::Writes),
        Step::ShipFilled | Step::ShipProven | Step::ShipCompleted => {
            (At::Shadow, By::StartWithoutShadow)
        }
        Step::ShipHashed => (At::Shadow, By::OwnerWithoutLog),
        Step::NoteBegun
        | Step::NoteWritten
        | Step::NoteIntent
        | Step::NoteReleased
        | Step::FenceLocked
        | Step::FenceRead
        | Step::FenceWritten
        | Step::FenceSynced
        | Step::FencePublished
        | Step::FenceReaders
        | Step::FenceGrant
        | Step::RetireTombstone
        | Step::RetireExchanged
        | Step::RetireMarked
        | Step::ReverseCreated
        | Step::ReverseCopied
        | Step::ReverseKept => (At::Owner, By::Move),
        Step::RetireAdopted => (At::Owner, By::FirstMove),
        Step::CheckpointLogSynced
        | Step::CheckpointAnnounced
        | Step::CheckpointCopied
        | Step::CheckpointDatabaseSynced
        | Step::CheckpointFinished
        | Step::NotePrepared
        | Step::NoteLanded
        | Step::FenceReady
        | Step::RemapPreparing
        | Step::RemapPrepared
        | Step::RemapSynced
        | Step::RemapLogWritten
        | Step::RemapAttached
        | Step::RemapLinked
        | Step::RemapExchanged
        | Step::RemapDirSynced
        | Step::RemapPromoted
        | Step::RouteLinked
        | Step::RoutePublished
        | Step::RouteServing
        | Step::RouteAsked
        | Step::RouteSubmitted
        | Step::RouteWritten
        | Step::RouteRecorded => (At::Shadow, By::Move),
        Step::RecoverListed
        | Step::RecoverOpened
        | Step::RecoverReplayed
        | Step::RecoverSettled
        | Step::RecoverFound
        | Step::RecoverStarted => (At::Shadow, By::Start),
        Step::RecoverLanding => (At::Shadow, By::StartAfterExchange),
        Step::RecoverRemoved => (At::Owner, By::StartWithOldCopies),
    }
}

/// Whose step it is. A `match`, so that a new step does not compile without an answer.
fn of(step: Step) -> Of {
    match step {
        // The fence of a database is a transaction; a log's is a word, and then a block.
        Step::FenceWritten => Of::Only(Engine::Sqlite),
        // A landed database is what it is; a landed log is made.
        Step::RemapLogWritten => Of::Only(Engine::Native),
        Step::TailAttach
        | Step::TailRead
        | Step::TailConsumed
        | Step::ShipEncoded
        | Step::ShipLogged
        | Step::ShipSend
        | Step::ShipReceived
        | Step::ShipApplied
        | Step::ShipHashed
        | Step::ShipFilled
        | Step::ShipProven
        | Step::ShipCompleted
        | Step::JournalAppend
        | Step::JournalWrite
        | Step::JournalSynced
        | Step::JournalAcknowledge
        | Step::CheckpointLogSynced
        | Step::CheckpointAnnounced
        | Step::CheckpointCopied
        | Step::CheckpointDatabaseSynced
        | Step::CheckpointFinished
        | Step::NoteBegun
        | Step::NoteWritten
        | Step::NotePrepared
        | Step::NoteIntent
        | Step::NoteLanded
        | Step::NoteReleased
        | Step::FenceLocked
        | Step::FenceRead
        | Step::FenceSynced
        | Step::FencePublished
        | Step::FenceReaders
        | Step::FenceReady
        | Step::FenceGrant
        | Step::RemapPreparing
        | Step::RemapPrepared
        | Step::RemapSynced
        | Step::RemapAttached
        | Step::RemapLinked
        | Step::RemapExchanged
        | Step::RemapDirSynced
        | Step::RemapPromoted
        | Step::RouteLinked
        | Step::RoutePublished
        | Step::RouteServing
        | Step::RouteAsked
        | Step::RouteSubmitted
        | Step::RouteWritten
        | Step::RouteRecorded
        | Step::RetireTombstone
        | Step::RetireExchanged
        | Step::RetireMarked
        | Step::RetireAdopted
        | Step::ReverseCreated
        | Step::ReverseCopied
        | Step::ReverseKept
        | Step::RecoverListed
        | Step::RecoverOpened
        | Step::RecoverRemoved
        | Step::RecoverLanding
        | Step::RecoverReplayed
        | Step::RecoverSettled
        | Step::RecoverFound
        | Step::RecoverStarted => Of::Any,
    }
}
