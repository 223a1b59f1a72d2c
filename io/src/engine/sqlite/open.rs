//! Opening a live database without SQLite: which databases are refused, and how the others are
//! joined so that every connection, open or to come, takes us for one of its own.
//!
//! Order, as SQLite's: SHARED on the database, then look at journal and header, then the WAL, then
//! the WAL-index with its dead-man byte. The SHARED lock keeps a last closer from deleting the
//! `-wal` and `-shm` between our steps.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wal::sqlite::{
    DATABASE_HEADER_LEN, DEAD_MAN_SWITCH_LOCK, DatabaseHeader, PENDING_BYTE, REGION_LEN,
    SHARED_FIRST, SHARED_SIZE, VERSION_FENCED, VERSION_ROLLBACK, VERSION_WAL, WAL_HEADER_LEN,
    WRITE_LOCK, WalHeader,
};

use super::files::{self, Files, Paths};
use super::locks::{self, Held, byte};
use super::recover;
use super::shm::{self, Shm};
use crate::durable;
use crate::error::{Error, Kind, Result};

/// How often a lock that others hold for microseconds is tried again, and how long apart.
const TRIES: usize = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(2);

/// Joins the database at `path`: SHARED on the file, dead-man byte shared, a valid index.
pub(super) fn open(path: &Path) -> Result<(Files, Shm)> {
    let paths = Paths::of(path)?;
    refuse_place(&paths)?;
    let db = durable::open_rw(&paths.db)?;
    share(&db, &paths)?;
    refuse_journal(&paths)?;
    let page_size = accept_header(&db, &paths)?;
    let meta = db.metadata().map_err(|e| Error::at("stat", &paths.db, e))?;
    let wal = files::open_sibling(&paths.wal, &meta)?;
    accept_wal(&wal, &paths, page_size)?;
    let shm_file = Arc::new(files::open_sibling(&paths.shm, &meta)?);
    join(&shm_file, &paths.shm)?;
    let files = Files::new(paths, db, wal, page_size)?;
    let shm = Shm::new(shm_file, &files.paths.shm)?;
    validate(&files, &shm)?;
    Ok((files, shm))
}

/// Regular files on a local file system, locked by SQLite's usual means.
fn refuse_place(paths: &Paths) -> Result<()> {
    let meta = std::fs::metadata(&paths.db).map_err(|e| Error::at("stat", &paths.db, e))?;
    if !meta.is_file() {
        return Err(refused(&paths.db, "it is not a regular file"));
    }
    if let Some(name) = network_file_system(&paths.db)? {
        let reason = format!(
            "it is on {name}, where locks and shared memory do not reach other machines; move it \
             to a local file system"
        );
        return Err(refused(&paths.db, reason));
    }
    if paths.dot_lock().exists() {
        let reason = "its .lock directory shows that an application uses the unix-dotfile VFS, \
                      which shares no WAL-index; use the default VFS";
        return Err(refused(&paths.db, reason));
    }
    Ok(())
}

/// Takes SQLite's SHARED lock, which keeps the last application that closes the database from
/// deleting the WAL, and anyone from leaving WAL mode.
fn share(db: &File, paths: &Paths) -> Result<()> {
    let lock = |e| Error::at("lock", &paths.db, e);
    for _ in 0..TRIES {
        // PENDING first: whoever holds it waits for readers to leave and lets no new one in.
        if locks::try_shared(db, byte(PENDING_BYTE)).map_err(lock)? {
            let shared = locks::try_shared(db, SHARED_FIRST..SHARED_FIRST + SHARED_SIZE);
            locks::unlock(db, byte(PENDING_BYTE)).map_err(lock)?;
            if shared.map_err(lock)? {
                return Ok(());
            }
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    let wal_len = std::fs::metadata(&paths.wal).map_or(0, |meta| meta.len());
    if !paths.shm.exists() && wal_len > 0 {
        let reason = "an application holds it with locking_mode=EXCLUSIVE or the unix-excl VFS \
                      and keeps the WAL-index to itself; use locking_mode=NORMAL";
        return Err(refused(&paths.db, reason));
    }
    let reason = "an application holds it EXCLUSIVE: it is closing it, or uses \
                  locking_mode=EXCLUSIVE or a rollback journal";
    Err(Error::new(
        Kind::Retry,
        "lock",
        paths.db.display().to_string(),
        reason,
    ))
}

/// A journal with content beside a WAL database is a crash that SQLite must repair first.
fn refuse_journal(paths: &Paths) -> Result<()> {
    let journal = paths.journal();
    let Ok(file) = File::open(&journal) else {
        return Ok(());
    };
    let mut first = [0; 1];
    durable::read_at(&file, &journal, &mut first, 0)?;
    if first[0] == 0 {
        return Ok(());
    }
    let reason = "a hot rollback journal lies beside it; open and close it once with SQLite, \
                  which rolls it back";
    Err(refused(&paths.db, reason))
}

/// The page size, when page 1 is that of a WAL database.
fn accept_header(db: &File, paths: &Paths) -> Result<u32> {
    let mut page = [0; DATABASE_HEADER_LEN];
    let have = durable::read_at(db, &paths.db, &mut page, 0)?;
    if have == 0 {
        return Err(refused(&paths.db, "it is empty: not a database yet"));
    }
    let Ok(header) = DatabaseHeader::parse(&page[..have]) else {
        let reason = "page 1 is not SQLite's: another kind of file, or an encrypted database";
        return Err(refused(&paths.db, reason));
    };
    // File format, section 1.3.5: these three bytes have one value each.
    if page[21..24] != [64, 32, 32] {
        let reason = "page 1 is garbled: the payload fractions are not SQLite's";
        return Err(refused(&paths.db, reason));
    }
    match (header.write_version, header.read_version) {
        (VERSION_WAL | VERSION_FENCED, VERSION_WAL) => Ok(header.page_size),
        (VERSION_ROLLBACK, VERSION_ROLLBACK) => {
            let reason = "it uses a rollback journal; run PRAGMA journal_mode=WAL once";
            Err(refused(&paths.db, reason))
        }
        (VERSION_FENCED, VERSION_FENCED) => Err(refused(
            &paths.db,
            "it is a tombstone: the database moved to another node",
        )),
        (write, read) => {
            let reason = format!("its format versions are {write} and {read}, not 2 and 2");
            Err(refused(&paths.db, reason))
        }
    }
}

fn accept_wal(wal: &File, paths: &Paths, page_size: u32) -> Result<()> {
    let mut head = [0; WAL_HEADER_LEN];
    let have = durable::read_at(wal, &paths.wal, &mut head, 0)?;
    match WalHeader::parse(&head[..have]) {
        Ok(header) if header.page_size != page_size => {
            let wal_size = header.page_size;
            let reason = format!("the WAL has pages of {wal_size} bytes, the database {page_size}");
            Err(refused(&paths.db, reason))
        }
        Err(error @ wal::Error::Version { .. }) => Err(refused(&paths.db, error.to_string())),
        // What is no WAL header is no content to SQLite either.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes the dead-man byte shared. Whoever finds nobody there empties the file first: its content
/// may be from before a crash of the machine.
fn join(shm: &Arc<File>, path: &Path) -> Result<()> {
    let fail = |e| Error::at("join", path, e);
    for _ in 0..TRIES {
        let holder = locks::holder(shm, byte(DEAD_MAN_SWITCH_LOCK)).map_err(fail)?;
        if holder.is_none()
            && locks::try_exclusive(shm, byte(DEAD_MAN_SWITCH_LOCK)).map_err(fail)?
        {
            // Three bytes, as SQLite does: too short for a header, and a mark of who did it.
            shm.set_len(3).map_err(fail)?;
        }
        let exclusive = holder.is_some_and(|holder| holder.exclusive);
        if !exclusive && locks::try_shared(shm, byte(DEAD_MAN_SWITCH_LOCK)).map_err(fail)? {
            return first_region(shm, path);
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    let reason = "another process has been emptying the WAL-index for long";
    Err(Error::new(
        Kind::Retry,
        "join",
        path.display().to_string(),
        reason,
    ))
}

/// Gives a new index its first region, which only the holder of WRITE may do.
fn first_region(shm: &Arc<File>, path: &Path) -> Result<()> {
    for _ in 0..TRIES {
        let meta = shm.metadata().map_err(|e| Error::at("stat", path, e))?;
        if meta.len() >= REGION_LEN as u64 {
            return Ok(());
        }
        let write = Held::try_exclusive(shm, byte(WRITE_LOCK));
        if let Some(_write) = write.map_err(|e| Error::at("lock", path, e))? {
            return shm::extend(shm, path, 0);
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    let reason = "a writer holds WRITE on an index that has no content yet";
    Err(Error::new(
        Kind::Retry,
        "join",
        path.display().to_string(),
        reason,
    ))
}

/// Sees to it that the index has a valid header, by recovery if need be.
fn validate(files: &Files, shm: &Shm) -> Result<()> {
    for _ in 0..TRIES {
        if let Some(header) = shm.header_soon() {
            if header.max_frame > 0 && header.page_size != files.page_size {
                let (index, db) = (header.page_size, files.page_size);
                let reason = format!("the WAL-index has pages of {index} bytes, the database {db}");
                return Err(refused(&files.paths.db, reason));
            }
            return Ok(());
        }
        if shm.is_unreadable_by_us() {
            // A handover that a crash of ours interrupted: the fence, not this, keeps writers out.
            if let Some(_write) = shm.try_write()? {
                shm.publish_readable();
            }
            continue;
        }
        if let Some(version) = shm.foreign_version() {
            let reason = format!("its WAL-index has version {version}: readers are being refused");
            return Err(refused(&files.paths.db, reason));
        }
        if let Some(_write) = shm.try_write()? {
            // With WRITE ours nobody is about to store a header.
            if shm.header().is_none() {
                recover::recover(files, shm)?;
            }
            continue;
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    let reason = "its WAL-index is being rebuilt by another process for long";
    Err(Error::new(
        Kind::Retry,
        "attach",
        files.paths.db.display().to_string(),
        reason,
    ))
}

/// The name of the file system below `path`, if it is one that spans machines.
fn network_file_system(path: &Path) -> Result<Option<&'static str>> {
    const SPANNING: [(i64, &str); 13] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xfe53_4d42, "SMB2"),
        (0xff53_4d42, "CIFS"),
        (0x6573_5546, "FUSE"),
        (0x0102_1997, "9P"),
        (0x5346_414f, "AFS"),
        (0x6b41_4653, "AFS"),
        (0x00c3_6400, "Ceph"),
        (0x0bd0_0bd0, "Lustre"),
        (0x4750_4653, "GPFS"),
        (0x7461_636f, "OCFS2"),
        (0x0116_1970, "GFS2"),
    ];
    let fail = |e| Error::at("statfs", path, e);
    let name = std::ffi::CString::new(path.as_os_str().as_bytes());
    let name = name.map_err(|e| fail(std::io::Error::other(e)))?;
    // SAFETY: `statfs` is plain integers, for which all zeros is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the name is a C string and the result buffer is ours; both outlive the call.
    if unsafe { libc::statfs(name.as_ptr(), &mut stat) } != 0 {
        return Err(fail(std::io::Error::last_os_error()));
    }
    let found = SPANNING.iter().find(|(magic, _)| *magic == stat.f_type);
    Ok(found.map(|(_, name)| *name))
}

fn refused(path: &Path, reason: impl Into<String>) -> Error {
    Error::new(Kind::Refused, "attach", path.display().to_string(), reason)
}
