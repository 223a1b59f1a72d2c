//! Whoever foresees, with what it needs of the world.

pub mod show;
