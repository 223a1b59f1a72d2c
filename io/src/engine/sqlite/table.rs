//! What of page 1 is no part of a copy.
//!
//! Page 1 is hashed with both format versions set to 2: the fence of a switchover changes only
//! those two bytes, and is not copied.

use wal::sqlite::{VERSION_FENCED, VERSION_WAL};

pub use crate::engine::table::Table;

/// Where page 1 has its write version; the read version follows.
pub(super) const WRITE_VERSION_AT: usize = 18;

/// Sets page 1 back to what it is without a fence; true if it was fenced.
pub(super) fn lift_versions(page: u32, image: &mut [u8]) -> bool {
    if page != 1 {
        return false;
    }
    let fenced = image[WRITE_VERSION_AT] == VERSION_FENCED;
    if fenced {
        image[WRITE_VERSION_AT] = VERSION_WAL;
        image[WRITE_VERSION_AT + 1] = VERSION_WAL;
    }
    fenced
}
