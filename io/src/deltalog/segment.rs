//! One file of a delta log: frames back to back.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::durable::{self, Attributes};
use crate::error::{Error, Result};

const SUFFIX: &str = ".deltas";

#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Segment {
    pub(super) fn create(dir: &Path, number: u64) -> Result<Segment> {
        let path = path_of(dir, number);
        let file = durable::create_new(&path, &Attributes::own(0o600))?;
        Ok(Segment {
            number,
            path,
            file,
            bytes: 0,
        })
    }

    pub(super) fn open(dir: &Path, number: u64) -> Result<Segment> {
        let path = path_of(dir, number);
        let file = durable::open_rw(&path)?;
        let bytes = file
            .metadata()
            .map_err(|e| Error::at("stat", &path, e))?
            .len();
        Ok(Segment {
            number,
            path,
            file,
            bytes,
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns this segment's number and where the bytes begin. What a failed write left is
    /// overwritten by the next one.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(u64, u64)> {
        let at = self.bytes;
        durable::write_at(&self.file, &self.path, bytes, at)?;
        self.bytes += bytes.len() as u64;
        Ok((self.number, at))
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        durable::read_at(&self.file, &self.path, &mut bytes, offset)?;
        Ok(bytes)
    }

    pub(super) fn cut(&mut self, bytes: u64) -> Result<()> {
        self.file
            .set_len(bytes)
            .map_err(|e| Error::at("cut", &self.path, e))?;
        self.bytes = bytes;
        Ok(())
    }

    pub(super) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| Error::at("remove", &self.path, e))
    }
}

/// The numbers of the segments in `dir`, in order.
pub(super) fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::at("list", dir, e))? {
        let name = entry.map_err(|e| Error::at("list", dir, e))?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(number) = stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}{SUFFIX}"))
}
