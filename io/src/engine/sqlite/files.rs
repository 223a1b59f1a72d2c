//! The files of one database: where they are, how they are opened, and whether they are still the
//! ones that were opened.
//!
//! SQLite resolves symbolic links before it derives the names of the `-wal` and `-shm`, so the
//! siblings lie beside the real file.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use wal::sqlite::{WAL_FRAME_HEADER_LEN, frame_offset};

use crate::durable;
use crate::engine::names::{Identity, identity, same, sibling};
use crate::error::{Error, Kind, Result};

/// Where the files of a database are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// As it was given: possibly a symbolic link.
    pub given: PathBuf,
    pub db: PathBuf,
    pub wal: PathBuf,
    pub shm: PathBuf,
}

impl Paths {
    /// Follows links from `path` to the real database.
    pub fn of(path: &Path) -> Result<Paths> {
        let db = path
            .canonicalize()
            .map_err(|e| Error::at("find", path, e))?;
        Ok(Paths {
            given: path.to_owned(),
            wal: sibling(&db, "-wal"),
            shm: sibling(&db, "-shm"),
            db,
        })
    }

    pub(super) fn journal(&self) -> PathBuf {
        sibling(&self.db, "-journal")
    }

    /// The directory that SQLite's "unix-dotfile" locking makes.
    pub(super) fn dot_lock(&self) -> PathBuf {
        sibling(&self.db, ".lock")
    }
}

/// The open database and WAL. Reads and writes go by offset and need no lock of ours.
#[derive(Debug)]
pub struct Files {
    pub paths: Paths,
    pub(super) db: File,
    pub(super) wal: File,
    pub(super) page_size: u32,
    identities: [Identity; 2],
}

impl Files {
    pub(super) fn new(paths: Paths, db: File, wal: File, page_size: u32) -> Result<Files> {
        let stat =
            |file: &File, path: &Path| file.metadata().map_err(|e| Error::at("stat", path, e));
        let identities = [
            identity(&stat(&db, &paths.db)?),
            identity(&stat(&wal, &paths.wal)?),
        ];
        Ok(Files {
            paths,
            db,
            wal,
            page_size,
            identities,
        })
    }

    /// Bytes of a frame: its header and a page.
    pub(super) fn frame_len(&self) -> usize {
        WAL_FRAME_HEADER_LEN + self.page_size as usize
    }

    /// Reads `count` frames from number `first` on (1-based) behind what `into` holds. All reading
    /// of frames in order goes through here, so that a ring can take it over.
    pub(super) fn read_frames(&self, first: u32, count: u32, into: &mut Vec<u8>) -> Result<()> {
        let at = into.len();
        let len = count as usize * self.frame_len();
        into.resize(at + len, 0);
        let offset = frame_offset(first, self.page_size);
        let have = durable::read_at(&self.wal, &self.paths.wal, &mut into[at..], offset)?;
        if have < len {
            let reason = format!("{have} of {len} bytes from frame {first} on: it was cut short");
            return Err(Error::new(Kind::Retry, "read", self.wal_name(), reason));
        }
        Ok(())
    }

    /// Reads the page of one frame.
    pub(super) fn read_frame_page(&self, frame: u32, into: &mut [u8]) -> Result<()> {
        let offset = frame_offset(frame, self.page_size) + WAL_FRAME_HEADER_LEN as u64;
        durable::read_at(&self.wal, &self.paths.wal, into, offset).map(|_| ())
    }

    /// Reads pages of the database file from `page` on (1-based); zeros beyond its end.
    pub(super) fn read_db(&self, page: u32, into: &mut [u8]) -> Result<()> {
        let offset = u64::from(page - 1) * u64::from(self.page_size);
        durable::read_at(&self.db, &self.paths.db, into, offset).map(|_| ())
    }

    /// Pages at `header`. An index that was recovered from an empty WAL does not say: then the
    /// length of the file does, as for SQLite.
    pub(super) fn page_count(&self, header: &wal::sqlite::IndexHeader) -> Result<u32> {
        if header.page_count > 0 {
            return Ok(header.page_count);
        }
        let meta = self.db.metadata();
        let len = meta
            .map_err(|e| Error::at("stat", &self.paths.db, e))?
            .len();
        Ok(len.div_ceil(u64::from(self.page_size)) as u32)
    }

    pub(super) fn wal_len(&self) -> Result<u64> {
        let meta = self.wal.metadata();
        Ok(meta
            .map_err(|e| Error::at("stat", &self.paths.wal, e))?
            .len())
    }

    pub(super) fn wal_name(&self) -> String {
        self.paths.wal.display().to_string()
    }

    /// Which file the database was when it was opened.
    pub(super) fn db_identity(&self) -> Identity {
        self.identities[0]
    }

    /// Whether the names still lead to the files we hold; `Fatal`, saying which, when one was
    /// replaced or deleted. Three stat(2) calls: for once a second, not for every sweep.
    pub(super) fn verify_names(&self, shm: Identity) -> Result<()> {
        same(&self.paths.given, self.identities[0])?;
        same(&self.paths.wal, self.identities[1])?;
        same(&self.paths.shm, shm)
    }
}

/// Opens `path`, creating it with the database's mode and owner as SQLite would, so that the
/// application can open it as well.
pub(super) fn open_sibling(path: &Path, db: &Metadata) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
        .mode(db.mode() & 0o777)
        .custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).map_err(|e| Error::at("open", path, e))?;
    let meta = file.metadata().map_err(|e| Error::at("stat", path, e))?;
    if (meta.uid(), meta.gid()) != (db.uid(), db.gid()) {
        // Only root may; for others the file they opened already belongs to someone able to.
        let _ = fchown(&file, Some(db.uid()), Some(db.gid()));
    }
    Ok(file)
}
