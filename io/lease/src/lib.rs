//! A lease: until when a daemon vouches for the databases that it serves, in two mapped pages.
//!
//! Whoever writes a database looks here first: no daemon, or one that stands still, means that the
//! database may be another node's by now. Renewing touches one page of the node, however many
//! databases there are; a database's own page says only under which incarnation it was granted.
//!
//! | module | what it does |
//! |---|---|
//! | [`node`] | the node's page, as the daemon writes it |
//! | [`database`] | the page of one database, as the daemon writes it |
//! | [`reader`] | both, as a writer of the database reads them |
//!
//! The bytes are told in wal/README.md, "Leases". A lease is valid if, loaded in this order,
//!
//! 1. `deadline` of the node's page,
//! 2. `incarnation` of the node's page, and its `boot`, which is that of this boot,
//! 3. `granted` of the database's page, which is not 0 and equals `incarnation`,
//! 4. and the clock: it is before `deadline`, and not further before it than a lease is long.
//!
//! Invariants: an incarnation is random, never 0, and never used twice; its deadline is only moved
//! while it has not passed. So a lease that ran out never comes to life again: another incarnation
//! begins, and every grant is given anew by somebody who asked who owns the database. The deadline
//! is loaded before the incarnation and stored after it: nobody sees a new one with an old grant.

pub mod database;
pub mod node;
pub mod reader;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use database::Grant;
pub use node::NodePage;
pub use reader::{Lease, Refusal, Valid};

/// The layout of both pages.
pub const VERSION: u32 = 1;
/// Each is one page of the file system, and never another length.
pub const PAGE: usize = 4096;
/// How the file of a database's page ends; what is before it is the database's own name.
pub const SUFFIX: &str = "-lease";
/// The node's page, in the directory of the generations.
pub const NODE_FILE: &str = "lease";
/// Begins a database's page.
pub const DATABASE_MAGIC: [u8; 8] = *b"FSLEASED";
/// Begins the node's page.
pub const NODE_MAGIC: [u8; 8] = *b"FSLEASEN";

/// Where both pages say their version.
const VERSION_AT: usize = 8;

/// The node's page.
const INCARNATION_AT: usize = 16;
const DEADLINE_AT: usize = 24;
const LENGTH_AT: usize = 32;
const BOOT_AT: usize = 40;

/// A database's page.
const PATH_LEN_AT: usize = 12;
const PARTITION_AT: usize = 16;
const EPOCH_AT: usize = 24;
const GRANTED_AT: usize = 32;
const PATH_AT: usize = 64;

/// What can't be done to a page.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub struct Error {
    pub what: &'static str,
    pub path: PathBuf,
    pub source: std::io::Error,
}

impl Error {
    fn at(what: &'static str, path: &Path, source: std::io::Error) -> Error {
        let path = path.to_owned();
        Error { what, path, source }
    }
}

/// The page of the database at `path`, which is where SQLite ends up: symlinks resolved.
pub fn path_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(SUFFIX);
    PathBuf::from(path)
}

/// Nanoseconds since the machine was started, its sleep included.
pub fn now() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // libc's, because it finds the vDSO in whatever process this is loaded into; rustix looks for
    // it by itself, and reads what is not mapped under valgrind.
    // SAFETY: clock_gettime(2) writes one timespec.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    assert_eq!(code, 0, "the clock is there since Linux 2.6.39");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Which start of the machine this is: deadlines of another one mean nothing.
fn boot() -> std::io::Result<[u64; 2]> {
    static BOOT: OnceLock<[u64; 2]> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(*boot);
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16)
        .map_err(|error| std::io::Error::other(format!("boot_id {:?}: {error}", text.trim())))?;
    Ok(*BOOT.get_or_init(|| [number as u64, (number >> 64) as u64]))
}

/// A whole page under a name that nobody has mapped yet; readable by whoever reaches it.
fn put_page(path: &Path, bytes: &[u8; PAGE]) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;

    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(".new");
    let temp = path.with_file_name(hidden);
    std::fs::write(&temp, bytes).map_err(|error| Error::at("write", &temp, error))?;
    // Whatever the umask: the directory's own mode says who may come here.
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&temp, mode).map_err(|e| Error::at("set the mode of", &temp, e))?;
    std::fs::rename(&temp, path).map_err(|error| Error::at("rename to", path, error))
}

fn open_page(path: &Path) -> Result<std::fs::File, Error> {
    let open = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path);
    open.map_err(|error| Error::at("open", path, error))
}
