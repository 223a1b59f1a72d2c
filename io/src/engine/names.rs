//! Names of files: what lies beside a file, whether a name still leads to the file that was opened,
//! and where links may lead.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// Device and inode of a file.
pub(super) type Identity = (u64, u64);

pub(super) const REPLACED: &str = "the file was replaced while it was attached; attach again";

/// `path` with `suffix` behind its whole name.
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether `path` still names the file of `identity`.
pub(super) fn same(path: &Path, identity: Identity) -> Result<()> {
    let reason = match std::fs::metadata(path) {
        Ok(meta) if self::identity(&meta) == identity => return Ok(()),
        Ok(_) => REPLACED,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            "the file was deleted while it was attached; attach again"
        }
        Err(e) => return Err(Error::at("stat", path, e)),
    };
    Err(Error::new(
        Kind::Fatal,
        "keep",
        path.display().to_string(),
        reason,
    ))
}

pub(super) fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

/// `path` with links followed, if it ends in one of `dirs`; refused otherwise. `dirs` are the
/// configured directories and their generations.
pub fn resolve_inside(dirs: &[&Path], path: &Path) -> Result<PathBuf> {
    let real = path
        .canonicalize()
        .map_err(|e| Error::at("resolve", path, e))?;
    for dir in dirs {
        let dir = dir
            .canonicalize()
            .map_err(|e| Error::at("resolve", dir, e))?;
        if real.starts_with(&dir) {
            return Ok(real);
        }
    }
    let reason = format!(
        "it leads to {}, outside of the configured directories",
        real.display()
    );
    Err(Error::new(
        Kind::Refused,
        "follow",
        path.display().to_string(),
        reason,
    ))
}
