//! The explorer: the product's own pure machines through every interleaving at small scope.
//!
//! | module | what it explores |
//! |---|---|
//! | [`bfs`] | nothing by itself: the search, liveness, counterexamples |
//! | [`session`] | `ship::sender` and `ship::receiver`: shadows that come, go and resume |
//! | [`shards`] | whole shards: rollback after a move, takeover through the coordinator |
//! | [`switchover`] | `switch::source` and `switch::target`: the grant protocol |

mod bfs;
mod session;
mod shards;
mod switchover;
