//! Storage engines: how a live engine's change log is tailed, frozen and fenced without changing
//! the engine or linking its library.
//!
//! | module | engine |
//! |---|---|
//! | [`sqlite`] | SQLite in WAL mode, of unmodified applications |
pub mod sqlite;
