//! What can be wrong with bytes from outside: a disk, a peer, another program.

/// Bytes that are not what they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the format needs.
    #[error("{what} is cut short: {have} bytes where {need} are needed")]
    Short {
        what: &'static str,
        have: usize,
        need: usize,
    },
    /// A fixed marker is not there: another format, or damage.
    #[error("{what} does not begin with its magic number")]
    Magic { what: &'static str },
    /// Written by a version that this program does not read.
    #[error("{what} has version {found}; this program reads version {known}")]
    Version {
        what: &'static str,
        found: u32,
        known: u32,
    },
    /// The checksum does not match the bytes.
    #[error("{what} fails its checksum: the bytes were damaged")]
    Checksum { what: &'static str },
    /// A field is outside of what the format allows.
    #[error("{what}: field {field} holds {value}, which the format does not allow")]
    Field {
        what: &'static str,
        field: &'static str,
        value: u64,
    },
    /// A declared size is above the limit.
    #[error("{what} declares {declared} bytes; at most {max} are accepted")]
    TooLong {
        what: &'static str,
        declared: u64,
        max: u64,
    },
    /// zstd refused the bytes.
    #[error("{what} can't be decompressed: {reason}")]
    Compressed { what: &'static str, reason: String },
    /// The archive's internal offsets are not valid.
    #[error("{what} is not a valid archive: {reason}")]
    Archive { what: &'static str, reason: String },
    /// The delta does not start where this copy stands.
    #[error("the delta starts at {delta}, this copy stands at {copy}")]
    OutOfOrder { delta: String, copy: String },
    /// The copy differs from its source after the change.
    #[error("digest is {found} where the source has {expected}")]
    Digest { found: String, expected: String },
    /// The caller's page source or sink failed.
    #[error("{0}")]
    Page(String),
}

/// What to do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// More bytes may make it whole.
    Retry,
    /// Not for this program.
    Refused,
    /// Damage: nothing after it may be believed.
    Corrupt,
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Error::Short { .. } => Kind::Retry,
            Error::Version { .. } | Error::OutOfOrder { .. } => Kind::Refused,
            _ => Kind::Corrupt,
        }
    }
}
