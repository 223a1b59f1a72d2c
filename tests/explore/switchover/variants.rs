//! Protocols that are known to be wrong: the explorer must find each of them out.
//!
//! None of them exists in the product. Each is a switch of the world around the product's machines.

/// A way to get the grant protocol wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// The protocol as it is.
    Right,
    /// Ownership is asked for under the lock alone, and a local timeout resumes.
    Naive,
    /// The grant goes out when the fence is begun.
    GrantBeforeFence,
    /// The source takes its grant back because the target looks dead.
    SourceRevokes,
    /// The old copy answers reads after the grant.
    ReadsAfterGrant,
    /// The target says that it is ready without looking where it stands.
    Unchecked,
    /// The target does not prove the position that it made durable.
    Unproven,
    /// A source that restarts serves, whatever it finds.
    StraightIntoServing,
    /// A target that restarts serves, whatever became of its landing.
    TargetStraightIntoServing,
    /// Recovery looks at the fence and not at the intent.
    RecoveryIgnoresIntent,
    /// A target that said ready gives up by its own timeout.
    TargetGivesUp,
    /// Any epoch is taken for the one in progress.
    EpochIgnored,
}
