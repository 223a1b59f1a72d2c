//! What can go wrong while doing: which operation, on what, why, and what to do about it.

use std::path::Path;

/// An operation on the outside world that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {subject}: {reason}")]
pub struct Error {
    /// What was being done, as a verb: "open", "lock WRITE of".
    pub op: &'static str,
    /// On what: a path, an address, a partition.
    pub subject: String,
    /// Why it failed, and what to do where that is not obvious.
    pub reason: String,
    kind: Kind,
}

/// What the caller should do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The same call may succeed later.
    Retry,
    /// It will not be done as things stand; the reason says why.
    Refused,
    /// Bytes were not what they must be; nothing after them may be believed.
    Corrupt,
    /// No space left; writes stop, everything else goes on.
    Full,
    /// This resource can't be used any more.
    Fatal,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(
        kind: Kind,
        op: &'static str,
        subject: impl Into<String>,
        reason: impl Into<String>,
    ) -> Error {
        Error {
            op,
            subject: subject.into(),
            reason: reason.into(),
            kind,
        }
    }

    /// Wraps a system error, with its kind taken from the error number.
    pub fn system(op: &'static str, subject: impl Into<String>, source: std::io::Error) -> Error {
        Error {
            op,
            subject: subject.into(),
            kind: kind_of(&source),
            reason: source.to_string(),
        }
    }

    /// Wraps a system error on a path.
    pub fn at(op: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::system(op, path.display().to_string(), source)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

fn kind_of(error: &std::io::Error) -> Kind {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::EAGAIN | libc::ETIMEDOUT | libc::ECONNREFUSED) => Kind::Retry,
        Some(libc::ECONNRESET | libc::EPIPE | libc::EHOSTUNREACH) => Kind::Retry,
        // Descriptors and memory come back when something else lets go.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Kind::Retry,
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Kind::Full,
        Some(libc::EACCES | libc::EPERM | libc::ENOENT | libc::EROFS) => Kind::Refused,
        _ => Kind::Fatal,
    }
}

impl From<wal::Error> for Error {
    fn from(error: wal::Error) -> Error {
        Error::new(Kind::Corrupt, "decode", "frame", error.to_string())
    }
}
