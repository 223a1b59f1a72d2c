//! The native engine: a store for applications that write a native log themselves.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | keys and values in a native log: the log is the database |
pub mod store;

