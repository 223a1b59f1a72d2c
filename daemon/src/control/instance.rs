//! One daemon per state directory: a lock that the kernel lets go when the daemon dies.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Holds a state directory until it is dropped.
#[derive(Debug)]
pub struct Instance {
    _lock: File,
}

/// Why a state directory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the state directory {} is in use by process {pid}: stop that daemon, or give this node \
         a node.state_dir of its own", .dir.display()
    )]
    InUse { dir: PathBuf, pid: String },
    #[error("the state directory {}: {operation}: {source}", .dir.display())]
    Storage {
        dir: PathBuf,
        operation: &'static str,
        source: std::io::Error,
    },
}

impl Instance {
    /// Takes `dir`, which is made if it is not there.
    pub fn take(dir: &Path) -> Result<Instance, Error> {
        let failed = |operation| {
            move |source| Error::Storage {
                dir: dir.to_owned(),
                operation,
                source,
            }
        };
        let made = DirBuilder::new().recursive(true).mode(0o750).create(dir);
        made.map_err(failed("can't be created"))?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let lock = options.open(dir.join("lock"));
        let mut lock = lock.map_err(failed("can't open its lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid)
                    .map_err(failed("can't read its lock"))?;
                return Err(Error::InUse {
                    dir: dir.to_owned(),
                    pid: pid.trim().to_owned(),
                });
            }
            Err(error) => return Err(failed("can't be locked")(error.into())),
        }
        let written = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(failed("can't write its lock"))?;
        Ok(Instance { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_daemon_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Instance::take(dir.path()).expect("free");
        let error = Instance::take(dir.path()).expect_err("taken").to_string();
        let expected = format!(
            "the state directory {} is in use by process {}: stop that daemon, or give this node \
             a node.state_dir of its own",
            dir.path().display(),
            std::process::id()
        );
        assert_eq!(error, expected);
        drop(first);
        Instance::take(dir.path()).expect("free again");
    }
}
