//! A disk as it was after so many entries of its log, kept in memory as far as it is not zero.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::cuts::Dice;
use crate::log::{Entry, Log};

const CHUNK: usize = 64 << 10;
/// What a disk writes as a whole, at the most: larger writes may be torn between two of these.
const BLOCK: usize = 4096;

/// The disk.
#[derive(Clone, Debug)]
pub struct Image {
    chunks: Vec<Option<Box<[u8]>>>,
    /// So many entries of the log were applied.
    pub applied: usize,
}

impl Image {
    /// As it was before the log began.
    pub fn read(path: &Path) -> Result<Image, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let keep = |chunk: &[u8]| chunk.iter().any(|byte| *byte != 0).then(|| chunk.into());
        assert!(bytes.len().is_multiple_of(CHUNK), "whole chunks");
        let chunks = bytes.chunks(CHUNK).map(keep).collect();
        Ok(Image { chunks, applied: 0 })
    }

    /// Applies entries until `end` of them are.
    pub fn forward(&mut self, log: &Log, end: usize) -> Result<(), String> {
        while self.applied < end {
            match &log.entries[self.applied] {
                Entry::Write { to, len, at, .. } => self.write(*to, &log.bytes(*at, *len)?),
                Entry::Discard { to, len } => self.write(*to, &vec![0; *len as usize]),
                Entry::Flush | Entry::Mark(_) => {}
            }
            self.applied += 1;
        }
        Ok(())
    }

    /// Applies some blocks of the entries until `end`: what a disk may have written by itself
    /// when the flush that ends there never came.
    pub fn partly(&mut self, log: &Log, end: usize, dice: &mut Dice) -> Result<(), String> {
        for entry in &log.entries[self.applied..end] {
            let Entry::Write { to, len, at, .. } = entry else {
                continue;
            };
            let bytes = log.bytes(*at, *len)?;
            for (index, block) in bytes.chunks(BLOCK).enumerate() {
                if dice.below(2) == 0 {
                    self.write(to + (index * BLOCK) as u64, block);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, to: u64, bytes: &[u8]) {
        let mut at = to as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (chunk, from) = (at / CHUNK, at % CHUNK);
            let len = rest.len().min(CHUNK - from);
            let nothing = || rest[..len].iter().all(|byte| *byte == 0);
            // Most zeros fill room ahead of need, where there was nothing else.
            if self.chunks[chunk].is_some() || !nothing() {
                let into = self.chunks[chunk].get_or_insert_with(|| vec![0; CHUNK].into());
                into[from..from + len].copy_from_slice(&rest[..len]);
            }
            (at, rest) = (at + len, &rest[len..]);
        }
    }

    /// The first byte in which two disks of one size differ.
    pub fn first_difference(&self, other: &Image) -> Option<usize> {
        let zeros = [0; CHUNK];
        let pairs = self.chunks.iter().zip(&other.chunks);
        pairs.enumerate().find_map(|(index, (ours, theirs))| {
            let ours = ours.as_deref().unwrap_or(&zeros);
            let theirs = theirs.as_deref().unwrap_or(&zeros);
            let at = ours.iter().zip(theirs).position(|(one, two)| one != two)?;
            Some(index * CHUNK + at)
        })
    }

    /// Writes the disk into a fresh sparse file.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = File::create(path).map_err(failed)?;
        file.set_len((self.chunks.len() * CHUNK) as u64)
            .map_err(failed)?;
        for (index, chunk) in self.chunks.iter().enumerate() {
            if let Some(bytes) = chunk {
                file.write_all_at(bytes, (index * CHUNK) as u64)
                    .map_err(failed)?;
            }
        }
        Ok(())
    }
}
