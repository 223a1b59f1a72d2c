//! Tenants that are databases of SQLite: made, written and read with the real one.
//!
//! | module | what it does |
//! |---|---|
//! | [`create`] | makes a database |
//! | [`writer`], book.py | writes with the bundled SQLite, and with the machine's own |
//! | [`verify`] | reads a copy's rows, and checks it |
//! | [`probe`] | looks at the WAL-index and the positions file; never locks or opens a database |
//! | fence.py | a second opinion on the fence that the daemon writes, for tests |

pub mod create;
pub mod probe;
pub mod verify;
pub mod writer;

use std::path::PathBuf;
use std::process::Command;

/// The Python that has an SQLite of its own, if there is one.
pub fn python() -> Option<PathBuf> {
    let code = "import sys, sqlite3; print(sys.executable)";
    let answer = Command::new("python3").args(["-c", code]).output().ok()?;
    let path = String::from_utf8(answer.stdout).ok()?;
    (answer.status.success() && !path.trim().is_empty()).then(|| path.trim().into())
}
