//! Both pages, as a writer of the database reads them: may it write now, and if not, why not.
//!
//! Everything that is not exactly right refuses: a damaged page, one of a newer version, one that
//! can't be read. Lengths are looked at before anything is mapped, and the daemon never shortens
//! these files, so no access raises SIGBUS.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use map::View;

use crate::{
    BOOT_AT, DATABASE_MAGIC, DEADLINE_AT, EPOCH_AT, GRANTED_AT, INCARNATION_AT, LENGTH_AT,
    NODE_MAGIC, PAGE, PATH_AT, PATH_LEN_AT, VERSION, VERSION_AT, boot, now,
};

/// The mapped pages of one database and its node.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    database: View,
    node: View,
    boot: [u64; 2],
}

/// The database may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Valid {
    /// Nanoseconds that are left.
    pub left: u64,
    pub epoch: u64,
}

/// Why the database may not be written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{}: there is no lease", .0.display())]
    Absent(PathBuf),
    #[error("{}: can't be read: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{}: is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: &'static str },
    #[error(
        "{}: is of version {version}, known is {VERSION}: load a newer extension",
        path.display()
    )]
    Newer { path: PathBuf, version: u32 },
    #[error("{}: not granted: the sidecar does not serve this database, or not yet", .0.display())]
    NotGranted(PathBuf),
    #[error("{}: was granted before the sidecar restarted or lost its lease", .0.display())]
    Void(PathBuf),
    #[error(
        "{}: the lease ended {} ms ago: the sidecar is dead or stands still",
        path.display(),
        ago / 1_000_000
    )]
    Ended { path: PathBuf, ago: u64 },
    #[error("{}: the lease is of another boot or clock of this machine", .0.display())]
    Foreign(PathBuf),
}

impl Lease {
    /// Maps the page at `path` and the node's that it names.
    pub fn open(path: &Path) -> Result<Lease, Refusal> {
        let (database, head) = match map(path, DATABASE_MAGIC) {
            Ok(mapped) => mapped,
            Err(Trouble::Absent) => return Err(Refusal::Absent(path.to_owned())),
            Err(Trouble::Other(refusal)) => return Err(refusal),
        };
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let length = u32::from_ne_bytes(word(PATH_LEN_AT)) as usize;
        let node = head.get(PATH_AT..PATH_AT + length).map(OsStr::from_bytes);
        let node = node.map(Path::new).filter(|node| node.is_absolute());
        let Some(node_path) = node else {
            let (path, reason) = (path.to_owned(), "it names no node");
            return Err(Refusal::Damaged { path, reason });
        };
        let (node, _) = map(node_path, NODE_MAGIC).map_err(|trouble| match trouble {
            Trouble::Absent => unreadable(node_path, "it is not there"),
            Trouble::Other(refusal) => refusal,
        })?;
        let boot = boot().map_err(|error| unreadable(path, &format!("boot_id: {error}")))?;
        let path = path.to_owned();
        Ok(Lease {
            path,
            database,
            node,
            boot,
        })
    }

    /// Whether it is valid now.
    pub fn check(&self) -> Result<Valid, Refusal> {
        // This order is what makes a new deadline useless to an old grant, and a thread that stood
        // still anywhere in here none the wiser: the clock comes last.
        let deadline = self.node.load_long(DEADLINE_AT);
        let incarnation = self.node.load_long(INCARNATION_AT);
        let boot = [
            self.node.load_long(BOOT_AT),
            self.node.load_long(BOOT_AT + 8),
        ];
        let length = self.node.load_long(LENGTH_AT);
        let granted = self.database.load_long(GRANTED_AT);
        let now = now();
        let path = || self.path.clone();
        if boot != self.boot || deadline > now.saturating_add(length) {
            return Err(Refusal::Foreign(path()));
        }
        if granted == 0 || incarnation == 0 {
            return Err(Refusal::NotGranted(path()));
        }
        if granted != incarnation {
            return Err(Refusal::Void(path()));
        }
        if now >= deadline {
            let (path, ago) = (path(), now - deadline);
            return Err(Refusal::Ended { path, ago });
        }
        Ok(Valid {
            left: deadline - now,
            epoch: self.database.load_long(EPOCH_AT),
        })
    }

    /// Until when the node vouches, on the clock of [`now`].
    pub fn deadline(&self) -> u64 {
        self.node.load_long(DEADLINE_AT)
    }

    /// Under which incarnation the database was granted, and which one the node has.
    pub fn incarnations(&self) -> (u64, u64) {
        let node = self.node.load_long(INCARNATION_AT);
        (self.database.load_long(GRANTED_AT), node)
    }
}

/// Why a page can't be mapped.
enum Trouble {
    Absent,
    Other(Refusal),
}

fn map(path: &Path, magic: [u8; 8]) -> Result<(View, [u8; PAGE]), Trouble> {
    let other = |error: std::io::Error| Trouble::Other(unreadable(path, &error.to_string()));
    let damaged = |reason| {
        let path = path.to_owned();
        Err(Trouble::Other(Refusal::Damaged { path, reason }))
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Trouble::Absent),
        Err(error) => return Err(other(error)),
    };
    let meta = file.metadata().map_err(other)?;
    if !meta.is_file() || meta.len() != PAGE as u64 {
        return damaged("it is not 4096 bytes long");
    }
    let view = View::new(&file, 0, PAGE).map_err(other)?;
    let mut bytes = [0; PAGE];
    view.copy_out(0, &mut bytes);
    if bytes[..8] != magic {
        return damaged("it does not begin as a lease does");
    }
    let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    match u32::from_ne_bytes(word(VERSION_AT)) {
        VERSION => Ok((view, bytes)),
        version if version > VERSION => {
            let path = path.to_owned();
            Err(Trouble::Other(Refusal::Newer { path, version }))
        }
        _ => damaged("there is no such version"),
    }
}

fn unreadable(path: &Path, reason: &str) -> Refusal {
    let (path, reason) = (path.to_owned(), reason.to_owned());
    Refusal::Unreadable { path, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Terms;
    use crate::node::new_incarnation;
    use crate::{Grant, NodePage, PARTITION_AT, path_of};

    const SECOND: u64 = 1_000_000_000;

    struct Place {
        _dir: tempfile::TempDir,
        database: PathBuf,
        node: NodePage,
        incarnation: u64,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let node = NodePage::open(dir.path(), 60 * SECOND).expect("a page");
        let incarnation = new_incarnation().expect("a number");
        node.begin(incarnation);
        node.renew(now());
        let database = dir.path().join("a.db");
        Place {
            database,
            node,
            incarnation,
            _dir: dir,
        }
    }

    impl Place {
        fn give(&self, incarnation: u64) -> Grant {
            let node = self.node.path();
            let terms = Terms {
                partition: 7,
                epoch: 3,
                node,
            };
            Grant::give(&self.database, terms, incarnation).expect("given")
        }

        fn open(&self) -> Result<Lease, Refusal> {
            Lease::open(&path_of(&self.database))
        }

        fn page(&self) -> Vec<u8> {
            std::fs::read(path_of(&self.database)).expect("a page")
        }

        fn put(&self, bytes: &[u8]) {
            let path = path_of(&self.database);
            std::fs::remove_file(&path).expect("removed");
            std::fs::write(path, bytes).expect("written");
        }

        fn put_dir(&self) {
            std::fs::create_dir(path_of(&self.database)).expect("made");
        }
    }

    #[test]
    fn a_granted_lease_is_valid_until_it_is_taken_back() {
        let place = place();
        let grant = place.give(place.incarnation);
        let lease = place.open().expect("mapped");
        let valid = lease.check().expect("valid");
        assert!(valid.epoch == 3 && valid.left <= 60 * SECOND, "{valid:?}");
        grant.take_back().expect("taken back");
        assert!(matches!(lease.check(), Err(Refusal::NotGranted(_))));
        place.give(place.incarnation);
        assert!(lease.check().is_ok(), "in the same file");
    }

    #[test]
    fn a_new_incarnation_voids_every_grant_and_a_deadline_ends_it() {
        let place = place();
        place.give(place.incarnation);
        let lease = place.open().expect("mapped");
        place.node.begin(place.incarnation ^ 1);
        place.node.renew(now());
        assert!(matches!(lease.check(), Err(Refusal::Void(_))));
        place.node.begin(place.incarnation);
        place.node.renew(now() - 61 * SECOND);
        assert!(place.node.deadline() < Some(now()));
        assert!(matches!(lease.check(), Err(Refusal::Ended { ago, .. }) if ago >= SECOND));
        place.node.renew(now() + 10 * SECOND);
        assert!(
            matches!(lease.check(), Err(Refusal::Foreign(_))),
            "too far in the future"
        );
        place.node.end();
        assert!(matches!(lease.check(), Err(Refusal::NotGranted(_))));
    }

    #[test]
    fn a_daemon_that_starts_takes_the_page_over_and_grants_of_before_are_void() {
        let place = place();
        place.give(place.incarnation);
        let lease = place.open().expect("mapped");
        let dir = place.node.path().parent().expect("a directory");
        let node = NodePage::open(dir, 60 * SECOND).expect("the same page");
        assert!(matches!(lease.check(), Err(Refusal::NotGranted(_))));
        node.begin(new_incarnation().expect("a number"));
        node.renew(now());
        assert!(matches!(lease.check(), Err(Refusal::Void(_))));
    }

    #[test]
    fn another_boot_voids_the_lease() {
        let place = place();
        place.give(place.incarnation);
        let path = place.node.path().to_owned();
        let mut bytes = std::fs::read(&path).expect("a page");
        bytes[BOOT_AT] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let refused = place.open().expect("mapped").check();
        assert!(matches!(refused, Err(Refusal::Foreign(_))), "{refused:?}");
    }

    #[test]
    fn pages_of_another_length_are_damaged_and_never_mapped() {
        let place = place();
        place.give(place.incarnation);
        let page = place.page();
        for length in [0, 1, 8, 12, 63, 4095] {
            place.put(&page[..length]);
            let refused = place.open();
            assert!(
                matches!(refused, Err(Refusal::Damaged { .. })),
                "{length}: {refused:?}"
            );
        }
        place.put(&[&page[..], b"x"].concat());
        assert!(matches!(place.open(), Err(Refusal::Damaged { .. })));
    }

    #[test]
    fn any_other_head_refuses_and_a_newer_version_says_so() {
        let place = place();
        place.give(place.incarnation);
        let page = place.page();
        for at in 0..PARTITION_AT {
            for bit in 0..8 {
                let mut bytes = page.clone();
                bytes[at] ^= 1 << bit;
                place.put(&bytes);
                let refused = place.open();
                assert!(refused.is_err(), "byte {at} bit {bit}: {refused:?}");
            }
        }
        let mut bytes = page.clone();
        bytes[VERSION_AT] = 2;
        place.put(&bytes);
        let refused = place.open().expect_err("newer").to_string();
        assert!(refused.contains("a.db-lease: is of version 2"), "{refused}");
        std::fs::remove_file(path_of(&place.database)).expect("removed");
        assert!(matches!(place.open(), Err(Refusal::Absent(_))));
        place.put_dir();
        assert!(matches!(place.open(), Err(Refusal::Damaged { .. })));
    }

    #[test]
    fn a_damaged_page_is_replaced_and_a_replaced_one_is_not_taken_back_unnoticed() {
        let place = place();
        let grant = place.give(place.incarnation);
        place.put(b"rubbish");
        assert!(
            grant.take_back().is_err(),
            "who mapped the old one still holds it"
        );
        place.give(place.incarnation);
        assert!(place.open().expect("mapped").check().is_ok());
        assert!(grant.take_back().is_err(), "another file");
        std::fs::remove_file(grant.path()).expect("removed");
        assert!(grant.take_back().is_err(), "no file");
    }
}
