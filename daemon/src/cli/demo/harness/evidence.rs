//! Evidence: hard links to what an owner served before a move, so that rows accepted by a fenced
//! generation can still be counted after the daemon has removed it.
//!
//! A link keeps the inode and opens nothing, so no lock of a writer or daemon is disturbed. A late
//! writer with the old files open writes into these same inodes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Cluster, Error};

/// One old generation of one partition.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub partition: String,
    /// The link; its log is linked beside it with `-wal` appended.
    pub link: PathBuf,
    inode: u64,
}

impl Cluster {
    /// Links the files that the route of `partition` leads to now.
    pub(super) fn keep_evidence(&mut self, partition: &str) -> Result<(), Error> {
        let route = self.routes().join(partition);
        let Ok(database) = fs::canonicalize(&route) else {
            return Ok(());
        };
        let Ok(meta) = fs::metadata(&database) else {
            return Ok(());
        };
        let inode = meta.ino();
        let known = |old: &&Evidence| old.partition == partition && old.inode == inode;
        if let Some(old) = self.evidence.iter().find(known) {
            return link_log(&database, &old.link);
        }
        let number = self.evidence.len();
        let name = format!("{number:04}-{}", partition.replace('/', "_"));
        let link = self.root().join("evidence").join(name);
        fs::hard_link(&database, &link).map_err(|error| Error::at("link", &database, error))?;
        link_log(&database, &link)?;
        self.evidence.push(Evidence {
            partition: partition.to_owned(),
            link,
            inode,
        });
        Ok(())
    }
}

/// The path of the write-ahead log beside a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn link_log(database: &Path, link: &Path) -> Result<(), Error> {
    let (from, to) = (log_of(database), log_of(link));
    match fs::hard_link(&from, &to) {
        Ok(()) => Ok(()),
        Err(error) => match error.kind() {
            // No log yet, or linked at an earlier move that was aborted.
            std::io::ErrorKind::NotFound | std::io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(Error::at("link", &from, error)),
        },
    }
}
