//! SQLite in WAL mode, spoken to through its files alone: no libsqlite3, and nothing that an
//! unmodified application would notice but a reader that never leaves.
//!
//! | module | what it does |
//! |---|---|
//! | [`locks`] | locks that belong to an open file, compatible with SQLite's |
//! | `map`, [`shm`] | the mapped WAL-index |
//! | [`files`] | where the files of a database are, and whether they are still the same |
//! | `open`, `recover` | joining a live database by SQLite's rules; which are refused |
//! | [`source`], `tail` | reading every transaction, missing none |
//! | [`change`], [`table`] | what transactions changed; the hash of every page |
//! | [`scan`] | hashing a whole database off the tail's thread |
//! | [`pin`], `gate` | keeping the WAL readable; who of us may write |
//! | [`checkpoint`] | copying the WAL into the database and restarting it |
//! | [`fence`], `append` | stopping writers: for a moment, for good |
//! | [`watch`] | one descriptor and one mapped page for a database at rest |
mod append;
mod gate;
mod open;
mod recover;
mod tail;

pub mod change;
pub mod checkpoint;
pub mod fence;
pub mod files;
pub mod locks;
pub mod pin;
pub mod scan;
pub mod shm;
pub mod source;
pub mod table;
pub mod watch;

pub use change::{Change, Mark};
pub use checkpoint::{CheckpointTask, Checkpointed, Obstacle};
pub use fence::{FenceTask, FreezeTask, fence_state};
pub use files::Paths;
pub use pin::PinState;
pub use scan::{Adopted, SavedTable, Scan, ScanTask};
pub use source::{Source, SourceOptions};
pub use table::Table;
pub use watch::Watch;
