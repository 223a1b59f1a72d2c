//! `foreshadow model`: who foretells, and what the model is worth.
//!
//! | module | what it does |
//! |---|---|
//! | [`show`] | who foretells, for people |
//! | [`wait`] | waiting for a training |
//! | [`trace`] | reads files of measurements and accesses |
//! | [`plot`] | draws it |
//! | [`eval`] | trains on the first part of a trace and walks through the rest; how good it was |

mod eval;
mod plot;
pub mod show;
mod trace;
pub mod wait;

pub use eval::run as evaluate;
