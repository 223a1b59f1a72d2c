//! Machines that are broken on purpose, one way at a time: tests of the tests.
//!
//! Only a build with the feature `mutations` can be told to be broken; in every other one
//! [`is`] is `false` before the optimizer looks. `cargo sim --mutation NAME` has to fail.

/// One way to break a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// The source grants before its fence is durable.
    GrantBeforeFence,
    /// The target lands when the source has not decided yet.
    UndecidedIsGranted,
    /// The target says that it is ready before its copy is durable.
    ReadyUnsynced,
    /// Neither end compares where the copy stands.
    PositionUnproven,
    /// A delta that could not be applied counts as applied.
    FailedDeltaApplied,
    /// A shadow that was away goes on without the proof of its digest.
    ResumeUnproven,
    /// The coordinator passes on from an owner of before, under an epoch of before.
    PassFromStale,
    /// The freeze comes without an intent that was noted.
    FreezeUnnoted,
    /// A pause that is given up keeps the write lock.
    AbortKeepsLock,
    /// A fence that failed is not taken back.
    FenceNotLifted,
    /// An owner that was deposed serves on.
    DeposedServes,
    /// A move does not wait until the coordinator knows of the last one, nor does that one mind.
    SecondMoveTooEarly,
    /// A shadow that was just put away does not ask whether it is wanted.
    DiscardUnheard,
}

impl Mutation {
    pub const ALL: [Mutation; 13] = [
        Mutation::GrantBeforeFence,
        Mutation::UndecidedIsGranted,
        Mutation::ReadyUnsynced,
        Mutation::PositionUnproven,
        Mutation::FailedDeltaApplied,
        Mutation::ResumeUnproven,
        Mutation::PassFromStale,
        Mutation::FreezeUnnoted,
        Mutation::AbortKeepsLock,
        Mutation::FenceNotLifted,
        Mutation::DeposedServes,
        Mutation::SecondMoveTooEarly,
        Mutation::DiscardUnheard,
    ];
}

#[cfg(feature = "mutations")]
static CHOSEN: std::sync::OnceLock<Mutation> = std::sync::OnceLock::new();

/// Breaks this process for good.
#[cfg(feature = "mutations")]
pub fn choose(mutation: Mutation) {
    CHOSEN.set(mutation).expect("one mutation a process");
}

/// Whether this process is broken in that way.
#[cfg(feature = "mutations")]
pub fn is(mutation: Mutation) -> bool {
    CHOSEN.get() == Some(&mutation)
}

/// Whether this process is broken in that way: never, in this build.
#[cfg(not(feature = "mutations"))]
pub const fn is(_: Mutation) -> bool {
    false
}
