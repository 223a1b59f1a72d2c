//! What can go wrong with a native log, where, why, and what to do then.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lsn::{Epoch, Lsn};

pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on a native log did not happen.
#[derive(Clone, Debug)]
pub enum Error {
    /// The system refused; nothing was acknowledged.
    System {
        op: &'static str,
        path: PathBuf,
        code: i32,
    },
    /// Another process (or another appender of this one) has the log open.
    InUse { path: PathBuf, pid: u32 },
    /// The log was sealed: it belongs to another node, or will in a moment.
    Sealed { epoch: Epoch, at: Lsn },
    /// The lease is over: the sidecar is dead, frozen, or has not granted one yet.
    LeaseOver,
    /// It is durable here and no mirror has confirmed it: it may or may not survive a failover.
    NotMirrored { at: Lsn, waited: Duration },
    /// A batch that fits no segment.
    TooLong { len: usize, max: usize },
    /// Bytes that were acknowledged are not what was written.
    Damaged { at: Lsn, why: &'static str },
    /// What lay there is not kept any more.
    Gone { at: Lsn },
    /// A file of a format that this version does not know.
    Version {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    /// The file is none of a native log, or its fields contradict each other.
    NotALog { path: PathBuf, why: &'static str },
    /// An earlier write failed, so what is on the disk is not known: open the log again.
    Broken { why: String },
}

impl Error {
    pub(crate) fn system(op: &'static str, path: &Path, error: &std::io::Error) -> Error {
        Error::System {
            op,
            path: path.to_owned(),
            code: error.raw_os_error().unwrap_or(0),
        }
    }

    /// No space was left. Nothing was written, and the same append may be tried again.
    pub fn is_no_space(&self) -> bool {
        let full = [
            rustix::io::Errno::NOSPC.raw_os_error(),
            rustix::io::Errno::DQUOT.raw_os_error(),
        ];
        matches!(self, Error::System { code, .. } if full.contains(code))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::System { op, path, code } => {
                let reason = std::io::Error::from_raw_os_error(*code);
                write!(f, "{op} {}: {reason}", path.display())
            }
            Error::InUse { path, pid } => write!(
                f,
                "open {}: process {pid} appends to it; one at a time",
                path.display()
            ),
            Error::Sealed { epoch, at } => write!(
                f,
                "append: the log was sealed at {} under epoch {}; ask where it is served now",
                at.0, epoch.0
            ),
            Error::LeaseOver => f.write_str(
                "append: the lease is over because the sidecar does not renew it; \
                 start or look at the sidecar of this node",
            ),
            Error::NotMirrored { at, waited } => write!(
                f,
                "append: durable here up to {}, but no mirror confirmed it within {waited:?}",
                at.0
            ),
            Error::TooLong { len, max } => write!(
                f,
                "append: {len} bytes in one batch, at most {max} fit a segment; \
                 make smaller batches or a log with larger segments"
            ),
            Error::Damaged { at, why } => write!(
                f,
                "read at {}: {why}; what was acknowledged there is damaged, take a shadow",
                at.0
            ),
            Error::Gone { at } => write!(
                f,
                "read at {}: the log does not reach back so far; take a new copy",
                at.0
            ),
            Error::Version { path, found, known } => write!(
                f,
                "open {}: format version {found}, this program knows {known}; use a newer one",
                path.display()
            ),
            Error::NotALog { path, why } => write!(f, "open {}: {why}", path.display()),
            Error::Broken { why } => {
                write!(
                    f,
                    "append: {why}; nothing after it is acknowledged, open the log again"
                )
            }
        }
    }
}

impl std::error::Error for Error {}
