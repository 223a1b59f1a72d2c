//! The control page of a log at rest: mapped, and no descriptor is kept for it.

use std::os::unix::fs::MetadataExt;

use map::Mapping;

use super::super::BLOCK;
use super::super::error::{Error, Result};
use super::{Control, WORD, Word};

/// Says where a log has come, and nothing else.
#[derive(Debug)]
pub struct Glance {
    page: Mapping,
}

impl Control {
    /// What is left to look at when the control page itself is let go.
    pub fn glance(&self) -> Result<Glance> {
        let page = Mapping::new(&self.file, 0, BLOCK);
        let page = page.map_err(|error| Error::system("map", &self.path, &error))?;
        Ok(Glance { page })
    }

    /// Device and inode of the log's file.
    pub fn place(&self) -> Result<(u64, u64)> {
        let meta = self.file.metadata();
        let meta = meta.map_err(|error| Error::system("stat", &self.path, &error))?;
        Ok((meta.dev(), meta.ino()))
    }
}

impl Glance {
    pub fn word(&self) -> Word {
        Word::decode(self.page.load_long(WORD))
    }
}
