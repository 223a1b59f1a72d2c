//! The native engine: a store and a reader for applications that write a native log themselves.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | keys and values in a native log: the log is the database |
//! | [`view`] | records by position for reader processes, mapped, across switchovers |
pub mod store;
pub mod view;
