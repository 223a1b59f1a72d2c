//! Small steps towards durability that several modules share: whole writes at an offset, syncs of
//! files and of directory entries, and files with a given owner.
//!
//! A name is durable only after its directory was synced (fsync(2): "calling fsync() does not
//! necessarily ensure that the entry in the directory containing the file has also reached disk").

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// Owner and permissions that a file is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Attributes {
    /// Those of the file at `path`.
    pub fn of(path: &Path) -> Result<Attributes> {
        let meta = std::fs::metadata(path).map_err(|e| Error::at("stat", path, e))?;
        Ok(Attributes {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
        })
    }

    /// What a file created by this process gets, with `mode`.
    pub fn own(mode: u32) -> Attributes {
        // SAFETY: geteuid(2) and getegid(2) take nothing and always succeed.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Attributes { mode, uid, gid }
    }

    /// Gives `path` this owner and mode. Changing the owner needs CAP_CHOWN.
    pub fn give(&self, path: &Path) -> Result<()> {
        let now = Attributes::of(path)?;
        if (now.uid, now.gid) != (self.uid, self.gid) {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
                .map_err(|e| self.refused(path, &e))?;
        }
        // After chown(2), which may clear mode bits.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(self.mode);
        std::fs::set_permissions(path, mode).map_err(|e| Error::at("set the mode of", path, e))
    }

    fn refused(&self, path: &Path, error: &std::io::Error) -> Error {
        let reason = format!(
            "{error}: the source's file belongs to uid {} gid {}; run the daemon as that user or \
             with CAP_CHOWN",
            self.uid, self.gid
        );
        Error::new(
            Kind::Refused,
            "give the owner to",
            path.display().to_string(),
            reason,
        )
    }
}

/// Creates `path`, which must not exist, for reading and writing.
pub fn create_new(path: &Path, attributes: &Attributes) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(attributes.mode & 0o777)
        .open(path)
        .map_err(|e| Error::at("create", path, e))?;
    attributes.give(path)?;
    Ok(file)
}

/// Opens an existing file for reading and writing.
pub fn open_rw(path: &Path) -> Result<File> {
    let open = OpenOptions::new().read(true).write(true).open(path);
    open.map_err(|e| Error::at("open", path, e))
}

/// Makes the entries of directory `path` durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    let dir = File::open(path).map_err(|e| Error::at("open directory", path, e))?;
    dir.sync_all()
        .map_err(|e| Error::at("fsync directory", path, e))
}

/// Makes the bytes of `file` durable.
pub fn sync_data(file: &File, path: &Path) -> Result<()> {
    file.sync_data()
        .map_err(|e| Error::at("fdatasync", path, e))
}

pub fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<()> {
    file.write_all_at(bytes, offset)
        .map_err(|e| Error::at("write", path, e))
}

/// Reads as much of `into` as the file holds at `offset`; the rest becomes zero.
pub fn read_at(file: &File, path: &Path, into: &mut [u8], offset: u64) -> Result<usize> {
    let mut have = 0;
    while have < into.len() {
        match file.read_at(&mut into[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::at("read", path, e)),
        }
    }
    into[have..].fill(0);
    Ok(have)
}

/// Writes zeros over `[from, to)`, so that later writes there change neither size nor extents.
pub fn fill_zeros(file: &File, path: &Path, from: u64, to: u64) -> Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut at = from;
    while at < to {
        let len = (to - at).min(ZEROS.len() as u64);
        write_at(file, path, &ZEROS[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

/// Sends the first `len` bytes to the disk in small pieces with pauses between them. Durable only
/// after [`sync_data`], which then has little left to do: one sync of a whole database would hold
/// up every commit on the same disk for as long as it takes.
pub fn flush_slowly(file: &File, path: &Path, len: u64) -> Result<()> {
    const PIECE: u64 = 256 << 10;
    const PAUSE: Duration = Duration::from_millis(1);
    let how = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let mut at = 0;
    while at < len {
        let piece = PIECE.min(len - at);
        // SAFETY: sync_file_range(2) takes a descriptor and numbers, and touches no memory of ours.
        let result =
            unsafe { libc::sync_file_range(file.as_raw_fd(), at as i64, piece as i64, how) };
        if result != 0 {
            return Err(Error::at("flush", path, std::io::Error::last_os_error()));
        }
        at += piece;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// The directory that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
