//! Foreshadow's model: what will be needed, from what was. Numbers in, numbers out: no clock, no
//! file, no thread of its own.
//!
//! | module | what it is |
//! |---|---|
//! | [`series`], [`history`], [`running`], [`track`] | a series up to now: bins, level, inputs |
//! | [`member`], [`mix`] | forecasters of one series' values, and their weighted mean |
//! | [`chance`] | how likely something happens: hazards, regression, calibration, cold start |
//! | [`cell`], [`lstm`] | recurrent networks: one step of many items; training |
//! | [`learn`], [`learned`], [`stored`] | learning from many series; what came of it; in bytes |
//! | [`fleet`] | many items, bin by bin, and what is foretold of them |
//! | [`trial`], [`drift`] | whether what was learned anew is better; whether inputs changed |
//! | [`score`], [`evaluate`] | how good forecasts were |
//! | [`random`] | numbers that can be repeated |

pub mod cell;
pub mod chance;
pub mod drift;
pub mod evaluate;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod history;
pub mod learn;
pub mod learned;
pub mod lstm;
pub mod member;
pub mod mix;
pub mod random;
pub mod running;
pub mod score;
pub mod series;
pub mod stored;
#[cfg(test)]
mod tests;
pub mod track;
pub mod trial;
