//! Worlds and coordinators that are known to be wrong: the explorer must find each of them out.

/// A way to get takeovers or rollbacks wrong. None of them exists in the product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// As it is.
    Right,
    /// The coordinator takes every word for an owner, whoever owned it before.
    NobodyCompares,
    /// A daemon that starts takes the epoch that it had for the newest.
    NobodyAsks,
    /// News of owners do not reach a daemon that serves.
    NobodyHears,
    /// The coordinator forgets who owned it before the last one.
    OwnersForget,
    /// A fence is said to be there, and only the lock was let go.
    FenceIsForgotten,
    /// That the coordinator gave the database to this node is not written down.
    TakeoverIsForgotten,
    /// What is shipped to a shadow is acknowledged, and never applied.
    ShadowStandsStill,
}
