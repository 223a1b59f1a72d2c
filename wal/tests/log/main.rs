//! The native change log, from outside: appenders, readers, sealers, damage, signals.

mod append;
mod bounds;
mod child;
mod damage;
mod freeze;
mod seal;
mod support;
