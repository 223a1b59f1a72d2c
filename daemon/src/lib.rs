//! Foreshadow's daemon: `observe -> predict -> decide -> ship -> switch`, and `serve`.
//!
//! | module | what it does | touches the world |
//! |---|---|---|
//! | [`observe`] | accesses, changes, load and history, in numbers | no |
//! | [`serve`] | every question and answer, as types | no |
//! | [`config`] | the TOML file, checked | reads it |
//! | [`control`] | coordinator, HTTP, metrics, notify, routing | yes |
//! | [`cli`] | the verbs of `foreshadow` | yes |
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod decide;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod effect;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod event;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod mutation;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod observe;
pub mod positions;
pub mod predict;
pub mod runtime;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod serve;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod shard;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod ship;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod switch;
pub mod units;
