//! Forecasters of one series, the members of the mix: each sees the track bin by bin and says what
//! comes a fixed number of bins later.

mod linear;
mod smooth;
mod trees;

pub use linear::Linear;
pub use smooth::{Ewma, HoltWinters, Last, Seasonal, SlotEwma};
pub use trees::{Forest, Goal, Trees, Unlearned};

use crate::track::Track;

/// Says what comes.
pub trait Forecaster: std::fmt::Debug + Send {
    /// Learns of the newest bin of `track`.
    fn observe(&mut self, track: &Track);

    /// The value some bins from now; `None` while it knows nothing.
    fn forecast(&self, track: &Track) -> Option<f32>;

    /// Another that knows the same.
    fn boxed(&self) -> Box<dyn Forecaster>;
}

impl Clone for Box<dyn Forecaster> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}
