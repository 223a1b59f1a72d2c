//! What was seen, on disk: after a restart it is walked through again, so that nothing has to be
//! learned anew that was known.
//!
//! A directory of files, each named after the first bin in it. A record is the length and the
//! CRC-32 of its body, and the body: one bin, an rkyv archive run through zstd. A file is begun at
//! each start; the oldest ones go when all are larger than they may be. A torn end is passed over.

use std::fs::File;
use std::path::{Path, PathBuf};

use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

use crate::predict::Seen;
use crate::predict::target::{Kind, Target, Written, subject};

/// Files that the bytes are spread over: one of them is what goes at once.
const FILES: u64 = 8;
/// No bin is larger.
const BODY_MAX: usize = 256 << 20;
const HEADER: usize = 8;
const LEVEL: i32 = 3;

#[derive(Archive, Serialize, Deserialize)]
struct Stored {
    begin: i64,
    seconds: u32,
    missed: u32,
    /// Object, kind, region, number.
    numbers: Vec<(String, u8, Option<String>, f32)>,
}

/// The directory.
#[derive(Debug)]
pub struct Replay {
    dir: PathBuf,
    bytes_max: u64,
    /// Name and length of each file, oldest first; the last one is written to.
    files: Vec<(PathBuf, u64)>,
    open: Option<File>,
}

/// What a file of the directory holds.
#[derive(Default, Debug)]
pub struct Read {
    pub bins: Vec<Seen>,
    /// Bytes at its end that are no record.
    pub torn: u64,
}

impl Replay {
    /// Opens or makes the directory.
    pub fn open(dir: &Path, bytes_max: u64) -> std::io::Result<Replay> {
        std::fs::create_dir_all(dir)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "bins")
            {
                files.push((path, entry.metadata()?.len()));
            }
        }
        files.sort();
        Ok(Replay {
            dir: dir.to_owned(),
            bytes_max,
            files,
            open: None,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum()
    }

    /// The files that are there, oldest first.
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Appends a bin. What could not be written is lost, and no more than that.
    pub fn append(&mut self, seen: &Seen) -> std::io::Result<()> {
        let body = encode(seen)?;
        let record = HEADER as u64 + body.len() as u64;
        let is_full = |(_, length): &(PathBuf, u64)| length + record > self.bytes_max / FILES;
        if self.open.is_none() || self.files.last().is_some_and(is_full) {
            self.begin(seen.begin)?;
        }
        let (Some(file), Some((_, length))) = (&self.open, self.files.last_mut()) else {
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(&body);
        let written = std::os::unix::fs::FileExt::write_all_at(file, &bytes, *length);
        // A record that is cut short is written over by the next one.
        if written.is_ok() {
            *length += record;
        }
        written
    }

    fn begin(&mut self, first: i64) -> std::io::Result<()> {
        if let Some(file) = self.open.take() {
            file.sync_data()?;
        }
        // After a clock that was put back names still have to go up.
        let name = |number: i64| self.dir.join(format!("{number:016x}.bins"));
        let newest = self.files.last().map(|(path, _)| path.clone());
        let after = newest
            .and_then(|path| number_of(&path))
            .map_or(first, |last| last + 1);
        let path = name(first.max(after));
        let file = File::options().write(true).create_new(true).open(&path)?;
        self.files.push((path, 0));
        self.open = Some(file);
        while self.files.len() > 1 && self.bytes() > self.bytes_max / FILES * (FILES - 1) {
            let (oldest, _) = self.files.remove(0);
            std::fs::remove_file(oldest)?;
        }
        Ok(())
    }
}

fn number_of(path: &Path) -> Option<i64> {
    i64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

/// Reads a file, up to the first record that is not whole.
pub fn read(path: &Path) -> std::io::Result<Read> {
    let bytes = std::fs::read(path)?;
    let (mut read, mut at) = (Read::default(), 0);
    while let Some((seen, length)) = record(&bytes[at..]) {
        read.bins.push(seen);
        at += length;
    }
    read.torn = (bytes.len() - at) as u64;
    Ok(read)
}

fn record(bytes: &[u8]) -> Option<(Seen, usize)> {
    let header = bytes.get(..HEADER)?;
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let length = number(0) as usize;
    let body = bytes.get(HEADER..HEADER.checked_add(length)?)?;
    if crc32fast::hash(body) != number(4) {
        return None;
    }
    Some((decode(body)?, HEADER + length))
}

fn encode(seen: &Seen) -> std::io::Result<Vec<u8>> {
    let number = |(target, value): (&Target, &f32)| {
        let object = Written(&target.subject).to_string();
        let kind = Kind::ALL.iter().position(|kind| *kind == target.kind);
        let region = target.region.as_deref().map(str::to_owned);
        (object, kind.unwrap_or(0) as u8, region, *value)
    };
    let stored = Stored {
        begin: seen.begin,
        seconds: seen.seconds,
        missed: seen.missed,
        numbers: seen.numbers.iter().map(number).collect(),
    };
    let bytes = rkyv::to_bytes::<rancor::Error>(&stored).map_err(std::io::Error::other)?;
    zstd::bulk::compress(&bytes, LEVEL)
}

fn decode(body: &[u8]) -> Option<Seen> {
    let bytes = zstd::bulk::decompress(body, BODY_MAX).ok()?;
    let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(&bytes);
    let stored = rkyv::from_bytes::<Stored, rancor::Error>(&aligned).ok()?;
    let numbers = stored
        .numbers
        .into_iter()
        .filter_map(|(object, kind, region, value)| {
            let target = Target {
                subject: subject(&object)?,
                kind: *Kind::ALL.get(usize::from(kind))?,
                region: region.map(Into::into),
            };
            Some((target, value))
        });
    Some(Seen {
        begin: stored.begin,
        seconds: stored.seconds,
        missed: stored.missed,
        numbers: numbers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(begin: i64, objects: usize) -> Seen {
        let target = |number: usize| Target {
            subject: subject(&format!("a.db#key:{number}")).expect("an object"),
            kind: Kind::Access,
            region: (number == 1).then(|| "eu".into()),
        };
        Seen {
            begin,
            seconds: 300,
            missed: 0,
            numbers: (0..objects).map(|n| (target(n), n as f32)).collect(),
        }
    }

    fn all(dir: &Path) -> Vec<Seen> {
        let replay = Replay::open(dir, 1 << 20).expect("a directory");
        let read = replay
            .files()
            .into_iter()
            .map(|path| read(&path).expect("readable"));
        read.flat_map(|read| read.bins).collect()
    }

    #[test]
    fn what_was_seen_comes_back_after_a_restart_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        for start in [0, 10] {
            let mut replay = Replay::open(dir.path(), 1 << 20).expect("a directory");
            for bin in start..start + 10 {
                replay.append(&seen(bin * 300, 3)).expect("written");
            }
        }
        let expected: Vec<Seen> = (0..20).map(|bin| seen(bin * 300, 3)).collect();
        assert_eq!(all(dir.path()), expected);
    }

    #[test]
    fn a_torn_or_damaged_end_costs_what_is_there_and_no_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut replay = Replay::open(dir.path(), 1 << 20).expect("a directory");
        for bin in 0..5 {
            replay.append(&seen(bin, 50)).expect("written");
        }
        let path = replay.files().remove(0);
        let whole = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &whole[..whole.len() - 7]).expect("cut");
        let cut = read(&path).expect("readable");
        assert_eq!(cut.bins.len(), 4);
        assert!(cut.torn > 0);
        let mut damaged = whole;
        damaged[HEADER + 3] ^= 1;
        std::fs::write(&path, damaged).expect("written");
        assert!(read(&path).expect("readable").bins.is_empty());
    }

    #[test]
    fn the_oldest_goes_when_all_is_too_much_even_if_the_clock_goes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut replay = Replay::open(dir.path(), 64 << 10).expect("a directory");
        for bin in 0..2_000_i64 {
            replay
                .append(&seen(if bin < 1_000 { bin } else { -bin }, 40))
                .expect("written");
            assert!(replay.bytes() <= 64 << 10);
        }
        assert!(replay.bytes() > 32 << 10, "{}", replay.bytes());
        let kept = all(dir.path());
        assert_eq!(kept.last().map(|seen| seen.begin), Some(-1_999));
    }
}
