//! Logs in directories of their own, and what is in them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foreshadow_wal::log::group::Header;
use foreshadow_wal::log::{Appender, Control, Kind, Options, Result, Scanner};
use foreshadow_wal::{Lsn, PartitionId};

pub const SEGMENT: u32 = 64 << 10;

pub fn options() -> Options {
    Options {
        id: PartitionId(7),
        segment_bytes: SEGMENT,
        ..Options::default()
    }
}

pub fn open(dir: &Path) -> Appender {
    Appender::open(dir, &options()).expect("a log")
}

/// Position, kind and payload of every record.
pub type Records = Vec<(Lsn, u16, Vec<u8>)>;

pub fn read(control: &Control) -> Result<Records> {
    read_with(Scanner::new(control)?)
}

pub fn read_with(mut scanner: Scanner<&Control>) -> Result<Records> {
    let mut records = Records::new();
    while let Some(group) = scanner.next_group()? {
        let found = group.records();
        records.extend(found.map(|r| (r.lsn, r.kind.0, r.payload.to_vec())));
    }
    Ok(records)
}

/// Opens the log in `dir` as a reader and reads it whole.
pub fn read_dir(dir: &Path) -> Result<Records> {
    read(&Control::open(dir)?)
}

/// A copy of a log: other files, so that nothing of the live words counts, as after a power cut.
pub fn copy(from: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
    to.to_owned()
}

/// Appends `count` records of different lengths, one by one, and returns them as they should lie.
pub fn fill(appender: &Appender, count: u32) -> Records {
    let mut records = Records::new();
    for index in 0..count {
        let payload = payload(index);
        let kind = Kind(index as u16);
        let lsn = appender.append(kind, &payload).expect("appended");
        records.push((lsn, kind.0, payload));
    }
    records
}

/// Files of segments, in the order of the segments.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths
        .filter_map(|path| Some((base(&path)?, path)))
        .collect();
    paths.sort();
    paths.into_iter().map(|(_, path)| path).collect()
}

/// Where the segment in a file begins.
pub fn base(path: &Path) -> Option<u64> {
    let head = fs::read(path).ok()?;
    let is_segment = path.extension().is_some_and(|found| found == "segment");
    is_segment.then(|| u64::from_le_bytes(head[24..32].try_into().expect("eight bytes")))
}

/// A group's header lies at `at`.
pub fn lies_at(dir: &Path, at: Lsn) -> bool {
    let begin = at.0 / u64::from(SEGMENT) * u64::from(SEGMENT);
    let holds = |path: &PathBuf| base(path) == Some(begin);
    let Some(path) = segments(dir).into_iter().find(holds) else {
        return false;
    };
    let file = fs::File::open(path).expect("a segment");
    let mut head = [0; 4096];
    let read = file.read_exact_at(&mut head, at.0 % u64::from(SEGMENT));
    read.is_ok() && Header::read(&head).is_some_and(|header| header.lsn == at)
}

/// Bytes that tell which record they are.
pub fn payload(index: u32) -> Vec<u8> {
    let len = 8 + (index as usize * 37) % 700;
    let mut bytes = vec![index as u8; len];
    bytes[..4].copy_from_slice(&index.to_le_bytes());
    bytes
}

/// Both are the same records; says where they part, and not all of them.
pub fn assert_same(found: &[(Lsn, u16, Vec<u8>)], expected: &[(Lsn, u16, Vec<u8>)]) {
    let pairs = found.iter().zip(expected);
    for (index, (one, other)) in pairs.enumerate() {
        assert!(one == other, "record {index}: {one:?} instead of {other:?}");
    }
    assert_eq!(found.len(), expected.len(), "as many records");
}
