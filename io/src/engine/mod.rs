//! Storage engines: how a live engine's change log is tailed, frozen and fenced without changing
//! the engine or linking its library.
//!
//! | module | engine |
//! |---|---|
//! | [`native`] | the native log, of applications that write it themselves |
//! | [`sqlite`] | SQLite in WAL mode, of unmodified applications |
pub mod native;
pub mod sqlite;
