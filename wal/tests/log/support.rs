//! Logs in directories of their own, and what is in them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foreshadow_wal::log::group::Header;
use foreshadow_wal::log::{Appender, Control, Kind, Options, Result, Scanner};
use foreshadow_wal::{Lsn, PartitionId};

pub const SEGMENT: u32 = 64 << 10;

/// The log of a test's directory.
pub fn log(dir: &Path) -> PathBuf {
    dir.join("log")
}

pub fn options() -> Options {
    Options {
        id: PartitionId(7),
        segment_bytes: SEGMENT,
        ..Options::default()
    }
}

pub fn open(dir: &Path) -> Appender {
    Appender::open(&log(dir), &options()).expect("a log")
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
    read(&Control::open(&log(dir))?)
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

/// Where a position lies in the file of the log in `dir`; slots are short and without a gap here.
pub fn place(dir: &Path, at: Lsn) -> Option<u64> {
    let file = fs::read(log(dir)).expect("a log");
    let (begin, within) = (at.0 / u64::from(SEGMENT), at.0 % u64::from(SEGMENT));
    let bases = (0..slots(dir)).map(|slot| 4096 + slot * u64::from(SEGMENT));
    let holds = |base: &u64| {
        let head = &file[*base as usize + 24..][..8];
        head == (begin * u64::from(SEGMENT)).to_le_bytes()
    };
    bases.into_iter().find(holds).map(|base| base + within)
}

/// How many slots the file has.
pub fn slots(dir: &Path) -> u64 {
    let len = fs::metadata(log(dir)).expect("a log").len();
    (len - 4096) / u64::from(SEGMENT)
}

/// A group's header lies at `at`.
pub fn lies_at(dir: &Path, at: Lsn) -> bool {
    let Some(place) = place(dir, at) else {
        return false;
    };
    let file = fs::File::open(log(dir)).expect("a log");
    let mut head = [0; 4096];
    let read = file.read_exact_at(&mut head, place);
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
