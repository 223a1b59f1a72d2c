//! Questions and answers: what can be asked of a daemon, and what it says.
//!
//! | module | what it says |
//! |---|---|
//! | [`query`] | every question and command, one enum |
//! | [`reply`] | every answer, and its JSON |
//! | [`observed`] | what is seen, and its JSON |
//! | [`forecasts`], [`models`] | what is foretold, why, and by whom, and its JSON |
//! | [`sentence`] | why a forecast is what it is, in words |
//! | [`merge`] | one answer out of every shard's |
//! | [`problem`] | every refusal, and its HTTP status |
//! | [`http`] | method + path + body -> [`query::Query`] |
//! | [`probe`] | the yes-or-no questions of load balancers |
//!
//! Pure: no clock, file or socket. The control thread carries questions in and answers out; the
//! command line reads the same types back.

pub mod forecasts;
pub mod http;
pub mod merge;
pub mod models;
pub mod observed;
pub mod probe;
pub mod problem;
pub mod query;
pub mod reply;
pub mod sentence;

pub use problem::{Problem, ProblemKind};
pub use query::{EventId, MoveId, NodeName, Query};
pub use reply::Reply;
