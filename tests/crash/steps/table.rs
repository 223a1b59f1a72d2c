//! Where each step is passed, and what makes the daemon pass it.

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
    /// A move of a native log.
    LogMove,
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
        Step::RemapLogWritten => (At::Shadow, By::LogMove),
        Step::RecoverLanding => (At::Shadow, By::StartAfterExchange),
        Step::RecoverRemoved => (At::Owner, By::StartWithOldCopies),
    }
}
