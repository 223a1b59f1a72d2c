//! The node's page, as the daemon writes it: who vouches, and until when.
//!
//! A page is renewed by one store, by one thread. An incarnation that let its deadline pass is
//! over, and so is one whose grants can't be taken back one by one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use map::Mapping;

use crate::{
    BOOT_AT, DEADLINE_AT, Error, INCARNATION_AT, LENGTH_AT, NODE_FILE, NODE_MAGIC, PAGE, VERSION,
    VERSION_AT, boot, open_page, put_page,
};

/// The page of one node.
#[derive(Debug)]
pub struct NodePage {
    path: PathBuf,
    map: Mapping,
    length: u64,
}

impl NodePage {
    /// The page in `dir`, under no incarnation, with leases of `length` nanoseconds. Those who have
    /// the page of an earlier daemon mapped see this one's.
    pub fn open(dir: &Path, length: u64) -> Result<NodePage, Error> {
        let path = dir.join(NODE_FILE);
        let map = match usable(&path) {
            Ok(map) => map,
            Err(_) => {
                put_page(&path, &blank())?;
                usable(&path)?
            }
        };
        let page = NodePage { path, map, length };
        page.end();
        let [low, high] = boot().map_err(|error| Error::at("know the boot for", dir, error))?;
        page.map.store_long(BOOT_AT, low);
        page.map.store_long(BOOT_AT + 8, high);
        page.map.store_long(LENGTH_AT, length);
        Ok(page)
    }

    /// Where it is, for the pages of databases.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every grant given so far is void from here on.
    pub fn begin(&self, incarnation: u64) {
        assert_ne!(incarnation, 0, "0 is nobody's");
        self.map.store_long(INCARNATION_AT, incarnation);
    }

    /// Vouches from `seen`, when everything was known to be well, for the length of a lease.
    pub fn renew(&self, seen: u64) {
        self.map.store_long(DEADLINE_AT, seen + self.length);
    }

    /// When the lease ends; `None` before it was renewed for the first time.
    pub fn deadline(&self) -> Option<u64> {
        Some(self.map.load_long(DEADLINE_AT)).filter(|deadline| *deadline != 0)
    }

    /// Nobody vouches any more.
    pub fn end(&self) {
        self.map.store_long(INCARNATION_AT, 0);
        self.map.store_long(DEADLINE_AT, 0);
    }
}

/// A number that no daemon had before.
pub fn new_incarnation() -> std::io::Result<u64> {
    let mut source = File::open("/dev/urandom")?;
    let mut bytes = [0; 8];
    while bytes == [0; 8] {
        source.read_exact(&mut bytes)?;
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// Maps what is there, if it is a page of ours in this version.
fn usable(path: &Path) -> Result<Mapping, Error> {
    let file = open_page(path)?;
    let map = Mapping::new(&file, 0, PAGE).map_err(|error| Error::at("map", path, error))?;
    let mut head = [0; 16];
    map.copy_out(0, &mut head);
    if head == blank()[..16] {
        return Ok(map);
    }
    let reason = std::io::Error::other("another format");
    Err(Error::at("use", path, reason))
}

fn blank() -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    bytes[..8].copy_from_slice(&NODE_MAGIC);
    bytes[VERSION_AT..VERSION_AT + 4].copy_from_slice(&VERSION.to_ne_bytes());
    bytes
}
