//! The page of one database, as the daemon writes it: served here, or not.
//!
//! Nothing stays open: ten thousand databases cost ten thousand small files, and no descriptor.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use map::Mapping;

use crate::{
    DATABASE_MAGIC, EPOCH_AT, Error, GRANTED_AT, PAGE, PARTITION_AT, PATH_AT, PATH_LEN_AT, VERSION,
    VERSION_AT, open_page, path_of, put_page,
};

/// A grant that was given, to be taken back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    path: PathBuf,
    /// Device and inode: another file at the path is not the one that writers have mapped.
    identity: (u64, u64),
}

/// What is granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms<'a> {
    pub partition: u64,
    pub epoch: u64,
    /// The node's page.
    pub node: &'a Path,
}

impl Grant {
    /// Makes the page of the database at `database` if there is none like it, granted under
    /// `incarnation`; under 0 it refuses every writer.
    pub fn give(database: &Path, terms: Terms<'_>, incarnation: u64) -> Result<Grant, Error> {
        let path = path_of(database);
        let (file, map) = made(&path, terms)?;
        map.store_long(GRANTED_AT, 0);
        map.store_long(EPOCH_AT, terms.epoch);
        map.store_long(GRANTED_AT, incarnation);
        let identity = identity(&file, &path)?;
        Ok(Grant { path, identity })
    }

    /// Makes the page without a grant, so that giving one takes no new file. One that is there, and
    /// what it grants, stays as it is.
    pub fn prepare(database: &Path, terms: Terms<'_>) -> Result<(), Error> {
        made(&path_of(database), terms).map(drop)
    }

    /// Removes the page, if there is one of any version.
    pub fn remove(database: &Path) -> Result<(), Error> {
        let path = path_of(database);
        if !is_page(&path) {
            return Ok(());
        }
        std::fs::remove_file(&path).map_err(|error| Error::at("remove", &path, error))
    }

    /// Refuses every writer from here on. An error means that somebody may still hold the grant:
    /// the incarnation has to end.
    pub fn take_back(&self) -> Result<(), Error> {
        let file = open_page(&self.path)?;
        if identity(&file, &self.path)? != self.identity {
            let reason = std::io::Error::other("another file was put in its place");
            return Err(Error::at("take back", &self.path, reason));
        }
        let map = Mapping::new(&file, 0, PAGE);
        let map = map.map_err(|error| Error::at("map", &self.path, error))?;
        map.store_long(GRANTED_AT, 0);
        Ok(())
    }

    /// The page.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the file at `path` is a database's page, not a database of such a name.
pub fn is_page(path: &Path) -> bool {
    let mut magic = [0; 8];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut magic, 0));
    read.is_ok() && magic == DATABASE_MAGIC
}

fn made(path: &Path, terms: Terms<'_>) -> Result<(File, Mapping), Error> {
    let wanted = page(path, terms)?;
    usable(path, &wanted).or_else(|_| {
        put_page(path, &wanted)?;
        usable(path, &wanted)
    })
}

/// Maps what is there, if it is `wanted` but for the epoch and the grant.
fn usable(path: &Path, wanted: &[u8; PAGE]) -> Result<(File, Mapping), Error> {
    let file = open_page(path)?;
    let map = Mapping::new(&file, 0, PAGE).map_err(|error| Error::at("map", path, error))?;
    let mut bytes = [0; PAGE];
    map.copy_out(0, &mut bytes);
    if bytes[..EPOCH_AT] == wanted[..EPOCH_AT] && bytes[PATH_AT..] == wanted[PATH_AT..] {
        return Ok((file, map));
    }
    let reason = std::io::Error::other("another format, database or node");
    Err(Error::at("use", path, reason))
}

fn page(path: &Path, terms: Terms<'_>) -> Result<[u8; PAGE], Error> {
    let node = terms.node.as_os_str().as_bytes();
    if node.len() > PAGE - PATH_AT || !terms.node.is_absolute() {
        let reason =
            std::io::Error::other("the path of the node's page is not absolute or fits not");
        return Err(Error::at("make", path, reason));
    }
    let mut bytes = [0; PAGE];
    bytes[..8].copy_from_slice(&DATABASE_MAGIC);
    bytes[VERSION_AT..VERSION_AT + 4].copy_from_slice(&VERSION.to_ne_bytes());
    bytes[PATH_LEN_AT..PATH_LEN_AT + 4].copy_from_slice(&(node.len() as u32).to_ne_bytes());
    bytes[PARTITION_AT..PARTITION_AT + 8].copy_from_slice(&terms.partition.to_ne_bytes());
    bytes[EPOCH_AT..EPOCH_AT + 8].copy_from_slice(&terms.epoch.to_ne_bytes());
    bytes[PATH_AT..PATH_AT + node.len()].copy_from_slice(node);
    Ok(bytes)
}

fn identity(file: &File, path: &Path) -> Result<(u64, u64), Error> {
    let meta = file.metadata();
    let meta = meta.map_err(|error| Error::at("look at", path, error))?;
    Ok((meta.dev(), meta.ino()))
}
