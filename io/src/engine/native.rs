//! The native log as an engine: tailed, frozen, sealed and copied like any other.
//!
//! | module | what it does |
//! |---|---|
//! | [`image`] | the log as pages: what deltas, fills and digests speak of |
//! | [`source`], `reading` | a live log: what was committed, as changes |
//! | [`fence`] | the freeze and the seal |
//! | [`watch`] | a log at rest |
//! | [`scan`] | hashing every page off the tail's thread |
//! | [`store`] | keys and values in a log: the log is the database |
//! | [`view`] | a log by position, mapped, across switchovers |
mod reading;

pub mod fence;
pub mod image;
pub mod scan;
pub mod source;
pub mod store;
pub mod view;
pub mod watch;

pub use fence::{FenceTask, LiftTask};
pub use image::Image;
pub use scan::{Scan, ScanTask};
pub use source::{Adopted, Change, Source};
pub use watch::Watch;

use crate::error::{Error, Kind};

impl From<wal::log::Error> for Error {
    fn from(error: wal::log::Error) -> Error {
        use wal::log::Error as Log;
        let kind = match &error {
            full if full.is_no_space() => Kind::Full,
            Log::System { code, .. } => {
                let system = std::io::Error::from_raw_os_error(*code);
                Error::system("use", "a native log", system).kind()
            }
            Log::Damaged { .. } | Log::NotALog { .. } => Kind::Corrupt,
            Log::Broken { .. } => Kind::Fatal,
            Log::InUse { .. } | Log::LeaseOver | Log::NotMirrored { .. } => Kind::Retry,
            Log::Sealed { .. } | Log::TooLong { .. } | Log::Gone { .. } | Log::Version { .. } => {
                Kind::Refused
            }
        };
        Error::new(kind, "use", "a native log", error.to_string())
    }
}
