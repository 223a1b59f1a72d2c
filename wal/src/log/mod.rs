//! The native change log: what an engine links to append, and what everybody reads it with.
//!
//! | module | what it says |
//! |---|---|
//! | [`group`] | the unit that is written and acknowledged: header, records, checksums |
//! | [`segment`] | the slots of the file that groups lie in, made once and used again |
//! | [`control`] | the page that writer, sidecar and readers share |
//! | [`saved`] | what of the control page survives a power cut |
//! | [`recover`] | where the log ends, found at an open |
//! | [`appender`] | group commit, for many threads of one process |
//! | [`mirror`] | waiting until a peer has it too |
//! | [`recent`] | the newest groups in shared memory, for the one who follows |
//! | [`scanner`] | reading groups in order, to the commit position and no further |
//! | [`error`] | what can go wrong, and what to do then |
//!
//! A record is acknowledged by one compare-and-swap of the commit word after its group is on
//! stable storage, and a log is sealed by one compare-and-swap of the same word, so a record is
//! either below the seal or was never acknowledged, whatever became of the process that wrote it.
//! The word ends the log, not the checksum: bytes above it may be complete and are not records.
//!
//! Layouts, byte by byte: `wal/NATIVE.md`.

pub mod appender;
pub mod control;
pub mod error;
pub mod group;
pub mod mirror;
pub mod recent;
pub mod recover;
pub mod saved;
pub mod scanner;
pub mod segment;

pub use appender::{Appender, Durability, Options};
pub use control::{Control, Glance, Word, is_awake, is_log};
pub use error::{Error, Result};
pub use group::{Kind, Record};
pub use scanner::Scanner;

/// What is written at once is a multiple of this, and begins at one: a write never touches the
/// block of a group that was acknowledged.
pub const BLOCK: usize = 4096;
