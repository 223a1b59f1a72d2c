//! Where finished bins go: the newest is kept for display, and whoever foresees takes it up.
//!
//! It is called on the observe thread, once a bin, after the bin was closed; so it may take its
//! time, and must not wait for anything. Samples come in order of subject and signal.

use crate::observe::Bin;
use crate::runtime::foresee::Foresight;

/// What takes the bins.
pub struct Outlook {
    newest: Option<Bin>,
    foresight: Foresight,
}

impl Outlook {
    pub fn new(foresight: Foresight) -> Outlook {
        let newest = None;
        Outlook { newest, foresight }
    }

    /// Takes a bin that was over at `now`.
    pub fn take(&mut self, bin: Bin, now: i64) {
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
        self.foresight.take(&bin, now);
        self.newest = Some(bin);
    }

    /// The bin that was over last.
    pub fn newest(&self) -> Option<&Bin> {
        self.newest.as_ref()
    }

    pub fn foresight(&mut self) -> &mut Foresight {
        &mut self.foresight
    }
}
