//! Foreshadow's model: what will be needed, from what was. Numbers in, numbers out: no clock, no
//! file, no thread of its own.
//!
//! | module | what it is |
//! |---|---|
//! | [`series`], [`history`], [`running`], [`track`] | a series up to now: bins, level, inputs |
//! | [`member`] | forecasters of one series |
//! | [`cell`], [`lstm`] | the LSTM, or a plain RNN: one step of many items; training |
//! | [`mix`] | the members' weighted mean, by what each lost lately |
//! | [`walk`], [`score`], [`evaluate`] | how good forecasts were |
//! | [`random`] | numbers that can be repeated |

pub mod cell;
pub mod evaluate;
#[cfg(test)]
mod fixture;
pub mod history;
pub mod lstm;
pub mod member;
pub mod mix;
pub mod random;
pub mod running;
pub mod score;
pub mod series;
pub mod track;
pub mod walk;
