//! Deciding: which copies should exist where.

pub mod placement;
