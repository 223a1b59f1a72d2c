//! What the log keeps, drops and refuses.

use super::*;
use wal::delta::{DeltaHead, Encoder, PageEdit};
use wal::digest::Digest;
use wal::frame::Flags;
use wal::{Epoch, PartitionId};

fn position(lsn: u64) -> Position {
    Position {
        epoch: Epoch(1),
        lsn: Lsn(lsn),
        digest: Digest(lsn * 1_000_003),
    }
}

/// A delta from `from` to `to`, with a page of noise so that it has some size.
fn delta(from: u64, to: u64) -> Frame {
    let head = DeltaHead {
        partition: PartitionId(1),
        from: position(from),
        to: position(to),
        page_size: 4096,
        page_count: 1,
        flags: Flags::NONE,
    };
    let mut word = to;
    let after: Vec<u8> = (0..4096)
        .map(|_| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (word >> 33) as u8
        })
        .collect();
    let edit = PageEdit {
        page: 1,
        before: None,
        after: &after,
    };
    Encoder::new(1).delta(&head, &[edit], 16).expect("encode")
}

fn limits(disk_bytes: u64, memory_bytes: usize) -> DeltaLogLimits {
    DeltaLogLimits {
        disk_bytes,
        memory_bytes,
    }
}

fn filled(dir: &Path, limits: DeltaLogLimits, count: u64) -> DeltaLog {
    let mut log = DeltaLog::open(dir, limits).expect("open");
    for n in 0..count {
        log.append(&delta(100 + n, 101 + n)).expect("append");
    }
    log
}

fn ends(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.header().to.0).collect()
}

#[test]
fn a_peer_continues_from_any_boundary() {
    let dir = tempfile::tempdir().expect("tempdir");
    let log = filled(dir.path(), limits(64 << 20, 10_000), 9);
    let again = DeltaLog::open(dir.path(), limits(64 << 20, 10_000)).expect("reopen");
    for log in [&log, &again] {
        let frames = log
            .frames_after(Lsn(104), usize::MAX)
            .expect("read")
            .expect("a boundary");
        assert_eq!(ends(&frames), [105, 106, 107, 108, 109]);
        assert_eq!(log.frames_after(Lsn(109), 1).expect("read"), Some(vec![]));
        assert_eq!(log.frames_after(Lsn(110), 1).expect("read"), None);
        assert_eq!(log.frames_after(Lsn(99), 1).expect("read"), None);
        assert_eq!(log.position_at(Lsn(100)), Some(position(100)));
        assert_eq!(log.position_at(Lsn(106)), Some(position(106)));
        assert_eq!(log.position_at(Lsn(110)), None);
    }
}

#[test]
fn reading_stops_at_the_byte_limit_but_gives_at_least_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let log = filled(dir.path(), DeltaLogLimits::default(), 5);
    assert_eq!(
        ends(&log.frames_after(Lsn(100), 1).expect("read").expect("some")),
        [101]
    );
    let two = log.bytes_after(Lsn(103)).expect("a boundary") as usize;
    let frames = log
        .frames_after(Lsn(100), two)
        .expect("read")
        .expect("some");
    assert_eq!(ends(&frames), [101, 102]);
}

#[test]
fn a_delta_that_does_not_continue_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = filled(dir.path(), DeltaLogLimits::default(), 2);
    assert_eq!(
        log.append(&delta(103, 104)).expect_err("a gap").kind(),
        Kind::Refused
    );
    assert_eq!(log.newest(), Some(position(102)));
}

#[test]
fn the_oldest_go_above_the_cap_and_the_base_moves() {
    let dir = tempfile::tempdir().expect("tempdir");
    let cap = 256 << 10;
    let log = filled(dir.path(), limits(cap, 10_000), 200);
    let base = log.oldest().expect("not empty");
    assert!(
        base.lsn > Lsn(100),
        "200 deltas of 4 KiB do not fit {cap} bytes"
    );
    assert_eq!(log.position_at(Lsn(100)), None);
    assert_eq!(log.frames_after(Lsn(100), 1).expect("read"), None);
    let rest = log
        .frames_after(base.lsn, usize::MAX)
        .expect("read")
        .expect("a boundary");
    assert_eq!(rest.len() as u64, 300 - base.lsn.0);
    let again = DeltaLog::open(dir.path(), limits(cap, 10_000)).expect("reopen");
    assert_eq!(
        (again.oldest(), again.newest()),
        (Some(base), Some(position(300)))
    );
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let dir = tempfile::tempdir().expect("tempdir");
    filled(dir.path(), DeltaLogLimits::default(), 3);
    let path = dir.path().join("0000000000000001.deltas");
    let whole = std::fs::read(&path).expect("read");
    let last = whole.len() - delta(102, 103).len();
    for cut in (last..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..cut]).expect("tear");
        let mut log = DeltaLog::open(dir.path(), DeltaLogLimits::default()).expect("reopen");
        assert_eq!(log.newest(), Some(position(102)), "cut at {cut}");
        log.append(&delta(102, 107)).expect("append behind the cut");
        let again = DeltaLog::open(dir.path(), DeltaLogLimits::default()).expect("again");
        assert_eq!(again.newest(), Some(position(107)));
    }
}

#[test]
fn what_follows_a_damaged_delta_is_dropped() {
    let dir = tempfile::tempdir().expect("tempdir");
    filled(dir.path(), limits(256 << 10, 10_000), 40);
    let path = dir.path().join("0000000000000001.deltas");
    let mut bytes = std::fs::read(&path).expect("read");
    let second = delta(100, 101).len() + 200;
    bytes[second] ^= 1;
    std::fs::write(&path, &bytes).expect("damage");
    let log = DeltaLog::open(dir.path(), limits(256 << 10, 10_000)).expect("reopen");
    assert_eq!(log.newest(), Some(position(101)));
    assert_eq!(
        segment::numbers(dir.path()).expect("list"),
        [1],
        "later segments are gone"
    );
}

#[test]
fn a_reset_forgets_and_begins_elsewhere() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = filled(dir.path(), DeltaLogLimits::default(), 3);
    log.reset(Some(position(500))).expect("reset");
    assert_eq!(log.newest(), Some(position(500)));
    assert_eq!(
        log.append(&delta(103, 104)).expect_err("elsewhere").kind(),
        Kind::Refused
    );
    log.append(&delta(500, 501)).expect("append");
    let again = DeltaLog::open(dir.path(), DeltaLogLimits::default()).expect("reopen");
    assert_eq!(
        (again.oldest(), again.newest()),
        (Some(position(500)), Some(position(501)))
    );
}

#[test]
fn memory_holds_no_more_than_its_limit() {
    let dir = tempfile::tempdir().expect("tempdir");
    let log = filled(dir.path(), limits(64 << 20, 20_000), 50);
    assert!(log.memory_bytes <= 20_000);
    let held = log
        .entries
        .iter()
        .filter(|entry| entry.frame.is_some())
        .count();
    assert_eq!(held, log.cached);
    assert!(log.entries.back().expect("not empty").frame.is_some());
}
