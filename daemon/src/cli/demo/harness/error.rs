//! Why the demo or a harness run could not go on, in one line for a person.

use std::path::Path;

/// A failure of the harness itself or of what it started; broken promises are in the verdict.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: String,
}

impl Error {
    pub fn new(what: impl Into<String>) -> Error {
        Error { what: what.into() }
    }

    /// A system error on a path.
    pub fn at(verb: &str, path: &Path, error: std::io::Error) -> Error {
        Error::new(format!("{verb} {}: {error}", path.display()))
    }
}
