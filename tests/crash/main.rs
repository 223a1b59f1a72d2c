//! Crashes: daemons and writers are killed, stopped and started again while real applications
//! write, and every acknowledged row must be there exactly once in the end.
//!
//! | module | what is broken |
//! |---|---|
//! | [`rounds`] | daemons and writers are killed at random moments of moves |
//! | `steps` | death, standstill and EIO at every named step (feature `failpoints`) |
//! | [`quiet`] | daemons are killed while nothing moves |
//! | [`target`] | the target of a move is killed when it is ready, or stands still |
//! | [`damage`] | files of a dead daemon are cut, flipped, zeroed |
//! | [`disks`] | disks turn read-only, fail with EIO or ENOSPC |
//!
//! `FORESHADOW_SEED` and `FORESHADOW_ROUNDS` replay or lengthen a run; a failure prints them.

#[path = "../cluster.rs"]
mod cluster;
mod damage;
mod disks;
mod look;
mod quiet;
mod rounds;
mod seed;
#[cfg(feature = "failpoints")]
mod steps;
mod target;
mod volume;
