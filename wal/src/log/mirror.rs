//! Waiting until a peer has it too.

use std::time::{Duration, Instant};

use super::control::Control;
use super::error::{Error, Result};
use crate::lsn::Lsn;

/// Returns once a mirror has everything below `end` on stable storage, or when `limit` is over: it
/// is durable here then and may or may not be there.
pub(super) fn wait(control: &Control, end: Lsn, limit: Duration) -> Result<()> {
    let began = Instant::now();
    let done = |mirrored: Lsn| mirrored >= end;
    while !done(control.mirrored()) {
        let waited = began.elapsed();
        let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Err(Error::NotMirrored { at: end, waited });
        };
        control.wait_mirrored(left, done);
    }
    Ok(())
}
