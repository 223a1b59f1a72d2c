//! Tenants that are native logs: made, appended to and read with what an engine links, and with its
//! library for C.
//!
//! | module | what it does |
//! |---|---|
//! | [`record`] | what the records of a tenant say |
//! | [`create`] | makes a log with accounts in it |
//! | [`writer`], book.py | appends, in Rust and through `libforeshadow_wal` |
//! | [`verify`] | reads a log up to its end, checks it, and computes its digest |
//! | [`probe`] | looks at the words of the control page |

pub mod create;
pub mod probe;
pub mod record;
pub mod verify;
pub mod writer;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library for C, if it was built beside the program.
pub fn library(binary: &Path) -> Option<PathBuf> {
    let path = binary.with_file_name("libforeshadow_wal.so");
    path.is_file().then_some(path)
}

/// The Python that can load the library, if both are there.
pub fn python(binary: &Path) -> Option<PathBuf> {
    library(binary)?;
    let code = "import sys, ctypes; print(sys.executable)";
    let answer = Command::new("python3").args(["-c", code]).output().ok()?;
    let path = String::from_utf8(answer.stdout).ok()?;
    (answer.status.success() && !path.trim().is_empty()).then(|| path.trim().into())
}
