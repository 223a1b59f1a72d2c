//! The native change log, from outside: appenders, readers, sealers, damage, signals.

mod append;
mod bounds;
mod child;
mod damage;
mod seal;
mod support;
