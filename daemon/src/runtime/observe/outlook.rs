//! Where finished bins go: the one place at which whoever foresees takes up what was seen.
//!
//! It is called on the observe thread, once a bin, after the bin was closed; so it may take its
//! time, and must not wait for anything. Samples come in order of subject and signal.

use crate::observe::Bin;

/// What takes the bins.
#[derive(Default, Debug)]
pub struct Outlook {
    newest: Option<Bin>,
}

impl Outlook {
    /// Takes a bin that is over.
    pub fn take(&mut self, bin: Bin) {
        if bin.missed > 0 {
            tracing::warn!(
                missed = bin.missed,
                "bins were missed: the clock was put forward, or the machine slept"
            );
        }
        let samples = bin.samples.len();
        tracing::debug!(
            begin = bin.begin,
            seconds = bin.seconds,
            samples,
            "a bin is over"
        );
        self.newest = Some(bin);
    }

    /// The bin that was over last.
    pub fn newest(&self) -> Option<&Bin> {
        self.newest.as_ref()
    }
}
