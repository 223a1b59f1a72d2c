//! The files of a journal: slots that are filled with zeros once and then used again and again.
//!
//! A slot's name says nothing about its content: the number of the segment it holds is in its
//! groups. So recycling renames nothing and syncs no directory. A slot is recycled only when all
//! its records are released, and its first group is wiped then, so that a start reads no more than
//! what is needed. Old groups behind it carry an older segment's number, or another run's sequence.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::MmapMut;

use super::SegmentNumber;
use super::group::{BLOCK, GroupHead, read_group};
use crate::durable::{self, Attributes};
use crate::error::{Error, Result};

const PREFIX: &str = "slot-";
/// A file that is being filled with zeros.
const UNFINISHED: &str = "unfinished";

/// Which file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SlotIndex(pub u32);

/// A file that can hold a segment.
#[derive(Debug)]
pub(crate) struct Slot {
    pub index: SlotIndex,
    pub path: PathBuf,
    pub bytes: u64,
    /// Its records are needed.
    pub used: bool,
}

impl Slot {
    /// Makes a file of zeros, durable with its name.
    pub(super) fn create(dir: &Path, index: SlotIndex, bytes: u64) -> Result<Slot> {
        let temp = dir.join(format!("{UNFINISHED}-{}", index.0));
        // Whatever is there was never finished.
        let _ = std::fs::remove_file(&temp);
        let filled = durable::create_new(&temp, &Attributes::own(0o600)).and_then(|file| {
            durable::fill_zeros(&file, &temp, 0, bytes)?;
            file.sync_all().map_err(|e| Error::at("fsync", &temp, e))
        });
        if let Err(error) = filled {
            // The space is what is missing; give it back.
            let _ = std::fs::remove_file(&temp);
            return Err(error);
        }
        let path = dir.join(format!("{PREFIX}{}", index.0));
        std::fs::rename(&temp, &path).map_err(|e| Error::at("rename", &temp, e))?;
        durable::sync_dir(dir)?;
        Ok(Slot {
            index,
            path,
            bytes,
            used: false,
        })
    }

    /// Opens for writing groups. The second says whether writes are direct and synchronous.
    pub(super) fn open(&self, direct: bool) -> Result<(File, bool)> {
        if direct {
            let flags = libc::O_DIRECT | libc::O_DSYNC;
            match OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&self.path)
            {
                Ok(file) => return Ok((file, true)),
                // open(2): the filesystem does not support O_DIRECT.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => return Err(Error::at("open", &self.path, e)),
            }
        }
        let file = OpenOptions::new().write(true).open(&self.path);
        Ok((file.map_err(|e| Error::at("open", &self.path, e))?, false))
    }

    /// Overwrites the first group: the next start finds nothing here. The records were released, so
    /// where this fails they are only read once more.
    pub(super) fn wipe(&self, direct: bool) -> Result<()> {
        let zeros = MmapMut::map_anon(BLOCK).map_err(|e| Error::at("wipe", &self.path, e))?;
        let (file, _) = self.open(direct)?;
        let wiped = file.write_all_at(&zeros, 0);
        wiped.map_err(|e| Error::at("wipe", &self.path, e))
    }

    /// Reads the valid groups of the segment in this slot, in order; `None` when there is none.
    pub(crate) fn read(&self) -> Result<Option<(SegmentNumber, Vec<Group>)>> {
        let bytes = std::fs::read(&self.path).map_err(|e| Error::at("read", &self.path, e))?;
        let groups = groups_of(&bytes);
        Ok(groups
            .first()
            .map(|first| first.head.segment)
            .map(|segment| (segment, groups)))
    }
}

/// One group that was read.
#[derive(Debug)]
pub struct Group {
    pub head: GroupHead,
    pub frames: Vec<wal::frame::Frame>,
}

/// The valid groups of a segment, in order. They end where one is torn, or left from an earlier use
/// of the file: nothing behind that was ever acknowledged.
pub fn groups_of(bytes: &[u8]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut at = 0;
    while let Some((head, frames)) = bytes.get(at..).and_then(read_group) {
        let follows = groups.last().is_none_or(|group| {
            let next = group.head.sequence.wrapping_add(1);
            group.head.segment == head.segment && head.sequence == next
        });
        if !follows {
            break;
        }
        groups.push(Group { head, frames });
        at += head.disk_len();
    }
    groups
}

/// Removes what a stop left unfinished; before anybody fills slots.
pub(crate) fn clean_slots(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::at("list", dir, e))? {
        let entry = entry.map_err(|e| Error::at("list", dir, e))?;
        let (name, path) = (entry.file_name(), entry.path());
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(UNFINISHED))
        {
            std::fs::remove_file(&path).map_err(|e| Error::at("remove", &path, e))?;
        }
    }
    Ok(())
}

/// The finished slots in `dir`, in no order.
pub(crate) fn scan_slots(dir: &Path) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::at("list", dir, e))? {
        let entry = entry.map_err(|e| Error::at("list", dir, e))?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        let index = name.strip_prefix(PREFIX).and_then(|rest| rest.parse().ok());
        if let Some(index) = index {
            let bytes = entry
                .metadata()
                .map_err(|e| Error::at("stat", &path, e))?
                .len();
            let bytes = bytes - bytes % BLOCK as u64;
            slots.push(Slot {
                index: SlotIndex(index),
                path,
                bytes,
                used: false,
            });
        }
    }
    Ok(slots)
}
