//! Crashes: daemons and writers are killed, stopped and started again while real applications
//! write, and every acknowledged row must be there exactly once in the end.
//!
//! | module | what is broken |
//! |---|---|
//! | [`rounds`] | daemons and writers are killed at random moments of moves |
//! | [`quiet`] | daemons are killed while nothing moves |
//! | `steps` | everybody is killed at every named step (feature `failpoints`) |
//! | [`target`] | the target of a move is killed when it is ready, or stands still |
//!
//! `FORESHADOW_SEED` and `FORESHADOW_ROUNDS` replay or lengthen a run; a failure prints them.

#[path = "../cluster.rs"]
mod cluster;
mod look;
mod quiet;
mod rounds;
mod seed;
#[cfg(feature = "failpoints")]
mod steps;
mod target;
