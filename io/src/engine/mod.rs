//! Storage engines: how a live engine's change log is tailed, frozen and fenced without changing
//! the engine or linking its library.
//!
//! | module | engine |
//! |---|---|
//! | [`sqlite`] | SQLite in WAL mode, of unmodified applications |
//! | [`native`] | the native log of engines that link `foreshadow-wal` |
//! | `change` | the pages of a change and their images, for all engines |
//! | [`table`] | the hash of every page of a partition, for all engines |
mod change;
pub mod native;
pub mod sqlite;
pub mod table;
