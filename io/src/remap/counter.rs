//! Numbers for generations, handed out once for ever.
//!
//! The file `counter` holds the first number that was never reserved. Numbers are reserved many at
//! a time, durably, before the first of them is used, so an allocation usually costs no sync and a
//! crash loses a few numbers instead of repeating one.

use std::fmt;
use std::path::Path;

use crate::durable::{self, Attributes};
use crate::error::{Error, Kind, Result};

/// Numbers reserved by one write of the counter file.
const RESERVE: u64 = 64;
const FILE: &str = "counter";

/// One directory in which a database lived or lives; later ones have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[derive(Debug)]
pub(super) struct Counter {
    next: u64,
    reserved: u64,
}

impl Counter {
    /// Continues after everything that was reserved and after every directory that exists.
    pub(super) fn open(dir: &Path) -> Result<Counter> {
        let path = dir.join(FILE);
        let reserved = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| damaged(&path))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 1,
            Err(e) => return Err(Error::at("read", &path, e)),
        };
        let above = existing(dir)?.last().map_or(1, |newest| newest.0 + 1);
        let next = above.max(reserved);
        Ok(Counter {
            next,
            reserved: next,
        })
    }

    pub(super) fn next(&mut self, dir: &Path) -> Result<Generation> {
        if self.next >= self.reserved {
            let reserved = self.next + RESERVE;
            write(dir, reserved)?;
            self.reserved = reserved;
        }
        self.next += 1;
        Ok(Generation(self.next - 1))
    }
}

/// The generations in `dir`, in order.
pub(super) fn existing(dir: &Path) -> Result<Vec<Generation>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::at("list", dir, e))? {
        let entry = entry.map_err(|e| Error::at("list", dir, e))?;
        if let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            found.push(Generation(number));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn write(dir: &Path, reserved: u64) -> Result<()> {
    let (path, temp) = (dir.join(FILE), dir.join("counter.new"));
    match std::fs::remove_file(&temp) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::at("remove", &temp, e));
        }
        _ => {}
    }
    let file = durable::create_new(&temp, &Attributes::own(0o644))?;
    durable::write_at(&file, &temp, format!("{reserved}\n").as_bytes(), 0)?;
    durable::sync_data(&file, &temp)?;
    std::fs::rename(&temp, &path).map_err(|e| Error::at("rename", &temp, e))?;
    durable::sync_dir(dir)
}

fn damaged(path: &Path) -> Error {
    let reason = "is not a number; write the greatest number of a directory beside it plus 1000";
    Error::new(Kind::Corrupt, "read", path.display().to_string(), reason)
}
