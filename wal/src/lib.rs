//! What changed: bytes to meaning and back. No sockets, no `unsafe`; files and a clock only in
//! [`log`], the native change log.
//!
//! | module | what it says |
//! |---|---|
//! | [`ids`] | who and what: nodes, partitions, shards |
//! | [`engine`] | whose files a partition is |
//! | [`lsn`] | where in a change log: `Lsn`, `Epoch`, `Position`, ranges |
//! | [`time`] | plain numbers for time, handed in by the caller |
//! | [`version`] | version vectors: how complete a shadow is |
//! | [`digest`] | the order-free rolling checksum of a whole partition |
//! | [`frame`] | the 64-byte header around all that moves or rests |
//! | [`delta`] | what changed between two positions, and whole pages |
//! | [`compress`] | zstd with the previous images as prefix, and the link squeezer |
//! | [`message`] | what peers say to one another |
//! | [`log`] | the native change log: append, seal, recover, scan |
//! | [`sqlite`] | SQLite's WAL and WAL-index, decoded and encoded |
//! | [`error`] | what can be wrong with bytes from outside |
#![forbid(unsafe_code)]

pub mod compress;
pub mod delta;
pub mod digest;
pub mod engine;
pub mod error;
pub mod frame;
pub mod ids;
pub mod log;
pub mod lsn;
pub mod message;
pub mod sqlite;
pub mod time;
pub mod version;

pub use digest::Digest;
pub use engine::Engine;
pub use error::{Error, Kind};
pub use ids::{NodeId, PartitionId, PartitionName, ShardIndex};
pub use lsn::{Epoch, Lsn, LsnRange, Position};
pub use time::{Span, Time, Wall};
pub use version::VersionVector;
