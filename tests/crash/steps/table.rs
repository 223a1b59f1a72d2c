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

/// What the tenants are whose daemons pass a step. The fence of a database is a transaction that is
/// written, a log's is a word and then a block; a landed database is one, a landed log is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Any,
    Only(Engine),
}

/// Every step that is passed with tenants of an engine.
pub fn steps_of(engine: Engine) -> impl Iterator<Item = Step> {
    let passed = move |step: &Step| [Of::Any, Of::Only(engine)].contains(&entry(*step).0);
    Step::ALL.iter().copied().filter(passed)
}

pub fn place(step: Step) -> (At, By) {
    let (_, at, by) = entry(step);
    (at, by)
}

/// Whose step it is, and its place. A `match`, so that a new step does not compile without both.
fn entry(step: Step) -> (Of, At, By) {
    match step {
        Step::TailAttach => (Of::Any, At::Owner, By::Start),
        Step::TailRead
        | Step::TailConsumed
        | Step::ShipEncoded
        | Step::ShipLogged
        | Step::ShipSend => (Of::Any, At::Owner, By::Writes),
        Step::ShipReceived
        | Step::ShipApplied
        | Step::JournalAppend
        | Step::JournalWrite
        | Step::JournalSynced
        | Step::JournalAcknowledge => (Of::Any, At::Shadow, By::Writes),
        Step::ShipFilled | Step::ShipProven | Step::ShipCompleted => {
            (Of::Any, At::Shadow, By::StartWithoutShadow)
        }
        Step::ShipHashed => (Of::Any, At::Shadow, By::OwnerWithoutLog),
        Step::NoteBegun
        | Step::NoteWritten
        | Step::NoteIntent
        | Step::NoteReleased
        | Step::FenceLocked
        | Step::FenceRead
        | Step::FenceSynced
        | Step::FencePublished
        | Step::FenceReaders
        | Step::FenceGrant
        | Step::RetireTombstone
        | Step::RetireExchanged
        | Step::RetireMarked
        | Step::ReverseCreated
        | Step::ReverseCopied
        | Step::ReverseKept => (Of::Any, At::Owner, By::Move),
        Step::FenceWritten => (Of::Only(Engine::Sqlite), At::Owner, By::Move),
        Step::RemapLogWritten => (Of::Only(Engine::Native), At::Shadow, By::Move),
        Step::RetireAdopted => (Of::Any, At::Owner, By::FirstMove),
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
        | Step::RouteRecorded => (Of::Any, At::Shadow, By::Move),
        Step::RecoverListed
        | Step::RecoverOpened
        | Step::RecoverReplayed
        | Step::RecoverSettled
        | Step::RecoverFound
        | Step::RecoverStarted => (Of::Any, At::Shadow, By::Start),
        Step::RecoverLanding => (Of::Any, At::Shadow, By::StartAfterExchange),
        Step::RecoverRemoved => (Of::Any, At::Owner, By::StartWithOldCopies),
    }
}
