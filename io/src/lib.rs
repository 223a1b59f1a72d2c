//! Doing: glommio, io_uring and every `unsafe` of the project. It knows the formats of `wal` and
//! nothing of why a thing is done; deciding is the daemon's.
//!
//! | module | what it does |
//! |---|---|
//! | [`error`] | one error: operation, subject, reason, kind |
//! | [`engine`] | attaching to an engine's own files |
//! | [`buffer`] | page-aligned buffers, reused within a bound |
//! | [`heap`] | what the allocator keeps of freed memory |
//! | [`link`] | frames to and from a peer over TCP, urgent ones first |
//! | [`probe`] | what this kernel and this user offer |
//! | [`compute`] | threads for work that must not run on a shard |
//! | [`throttle`] | a token bucket, on time handed in |
//! | [`reactor`] | the shell of a shard thread: executor, loop, sleep and wake |
//! | [`ring`] | a raw io_uring ring beside glommio's: operations and completions |
//! | [`durable`] | whole writes, syncs of files and names, owners |
//! | [`clone`] | a whole file copied by the cheapest way there is |
//! | [`notes`] | a small durable list of notes, for what must outlive a crash |
//! | [`commit`] | the thread that makes many submissions durable with one write |
//! | [`journal`] | what a shard's shadows acknowledged and no checkpoint holds yet |
//! | [`deltalog`] | a source's bounded log of deltas, for peers that were away |
//! | [`remap`] | live paths moved between generations without being empty |
//! | [`urgent`] | real-time threads for the syncs inside a pause |
//! | [`failpoint`] | named steps at which tests make the daemon die or fail |
pub mod buffer;
pub mod clone;
pub mod commit;
pub mod compute;
pub mod deltalog;
pub mod durable;
pub mod engine;
pub mod error;
pub mod failpoint;
pub mod heap;
pub mod journal;
pub mod link;
pub mod notes;
pub mod probe;
pub mod reactor;
pub mod remap;
pub mod ring;
pub mod throttle;
pub mod urgent;

pub use error::{Error, Kind, Result};
