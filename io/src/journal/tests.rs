//! What survives, what is recycled, and what a full or damaged journal does.

use super::*;
use crate::error::Kind;
use std::time::Instant;
use wal::frame::{FrameKind, Header};

const SEGMENT: u64 = 64 << 10;

fn options(bytes_max: u64) -> CommitOptions {
    CommitOptions {
        segment_bytes: SEGMENT,
        bytes_max,
        direct: true,
        realtime: true,
        ..CommitOptions::default()
    }
}

fn frame(partition: u64, lsn: u64, len: usize) -> Frame {
    let header = Header {
        from: Lsn(lsn - 1),
        to: Lsn(lsn),
        ..Header::plain(FrameKind::Delta, PartitionId(partition), Epoch(1))
    };
    Frame::seal(header, &vec![(lsn % 251) as u8 + 1; len])
}

fn at(lsn: u64) -> Position {
    Position {
        epoch: Epoch(1),
        lsn: Lsn(lsn),
        ..Position::default()
    }
}

/// Appends and waits for each answer.
fn put(journal: &mut Journal, partition: u64, lsns: std::ops::RangeInclusive<u64>, len: usize) {
    for lsn in lsns {
        journal.append(frame(partition, lsn, len)).expect("append");
        journal.wait().expect("answer").result.expect("durable");
    }
}

fn replayed(journal: &Journal) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let sink = &mut |partition: PartitionId, frame: Frame| {
        found.push((partition.0, frame.header().to.0));
        Ok(())
    };
    journal.replay(sink).expect("replay");
    found
}

fn slots(dir: &Path) -> usize {
    scan_slots(dir).expect("scan").len()
}

#[test]
fn restarts_neither_grow_the_journal_nor_repeat_what_was_released() {
    let dir = tempfile::tempdir().expect("a directory");
    for start in 0..12 {
        let mut journal = Journal::open(dir.path(), &options(32 * SEGMENT)).expect("opens");
        let again = replayed(&journal).len();
        assert!(again <= 6, "start {start} repeats {again} records");
        for partition in journal.partitions() {
            journal.forget(partition).expect("forgets");
        }
        put(&mut journal, 7, 1..=3, 100);
        drop(journal);
        let held = slots(dir.path());
        assert!(held <= 4, "{held} slots after start {start}");
    }
}

/// Segments are numbered from one again when a start finds none that is needed: what an earlier run
/// wrote further behind in the same file must not follow what this one wrote.
#[test]
fn a_run_is_not_continued_by_what_an_earlier_one_left_behind_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(8 * SEGMENT);
    let mut journal = Journal::open(dir.path(), &options).expect("opens");
    put(&mut journal, 7, 1..=8, 100);
    drop(journal);
    // As a start does: what was replayed is needed no more, and the next one finds no segment.
    let mut journal = Journal::open(dir.path(), &options).expect("opens");
    journal.forget(PartitionId(7)).expect("forgets");
    drop(journal);
    let mut journal = Journal::open(dir.path(), &options).expect("opens");
    assert_eq!(replayed(&journal), vec![]);
    put(&mut journal, 7, 101..=103, 100);
    drop(journal);
    let journal = Journal::open(dir.path(), &options).expect("opens");
    assert_eq!(replayed(&journal), vec![(7, 101), (7, 102), (7, 103)]);
}

#[test]
fn a_journal_of_one_segment_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..3 {
        let mut journal = Journal::open(dir.path(), &options(SEGMENT)).expect("opens");
        for partition in journal.partitions() {
            journal.forget(partition).expect("forgets");
        }
        put(&mut journal, 7, 1..=3, 100);
    }
}

#[test]
fn a_replay_leaves_alone_what_is_being_filled() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path(), &options(8 * SEGMENT)).expect("opens");
    let filling = dir.path().join("unfinished-99");
    std::fs::write(&filling, "zeros to come").expect("written");
    replayed(&journal);
    assert!(filling.exists(), "another thread is filling it");
    drop(journal);
    drop(Journal::open(dir.path(), &options(8 * SEGMENT)).expect("opens"));
    assert!(!filling.exists(), "a start removes it");
}

#[test]
fn an_answer_that_comes_after_its_partition_was_forgotten_holds_no_segment() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
    journal.append(frame(7, 2, 100)).expect("append");
    journal.append(frame(8, 2, 100)).expect("append");
    journal.forget(PartitionId(7)).expect("forget");
    for _ in 0..2 {
        journal.wait().expect("answer").result.expect("durable");
    }
    assert_eq!(journal.partitions(), [PartitionId(8)]);
}

#[test]
fn what_was_answered_is_replayed_in_order() {
    for direct in [true, false] {
        let dir = tempfile::tempdir().expect("tempdir");
        let options = CommitOptions {
            direct,
            ..options(1 << 20)
        };
        let mut journal = Journal::open(dir.path(), &options).expect("open");
        for lsn in 1..=40 {
            journal.append(frame(lsn % 3, lsn, 3000)).expect("append");
        }
        for ticket in 1..=40 {
            let answer = journal.wait().expect("answer");
            assert_eq!(
                (answer.ticket, answer.result.is_ok()),
                (Ticket(ticket), true)
            );
        }
        drop(journal);
        let again = Journal::open(dir.path(), &options).expect("reopen");
        let expected: Vec<(u64, u64)> = (1..=40).map(|lsn| (lsn % 3, lsn)).collect();
        assert_eq!(replayed(&again), expected);
    }
}

#[test]
fn appends_after_a_reopen_follow_those_before() {
    let dir = tempfile::tempdir().expect("tempdir");
    for round in 0..5 {
        let mut journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
        put(&mut journal, 1, round * 3 + 1..=round * 3 + 3, 500);
    }
    let journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
    let lsns: Vec<u64> = replayed(&journal).into_iter().map(|(_, lsn)| lsn).collect();
    assert_eq!(lsns, (1..=15).collect::<Vec<u64>>());
}

#[test]
fn released_segments_are_used_again_and_their_old_records_stay_away() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut journal = Journal::open(dir.path(), &options(8 * SEGMENT)).expect("open");
    for lsn in 1..=200 {
        put(&mut journal, 1, lsn..=lsn, 10_000);
        journal.release(PartitionId(1), at(lsn)).expect("release");
    }
    assert!(
        slots(dir.path()) <= 4,
        "{} slots for one segment's worth",
        slots(dir.path())
    );
    drop(journal);
    let again = Journal::open(dir.path(), &options(8 * SEGMENT)).expect("reopen");
    let lsns: Vec<u64> = replayed(&again).into_iter().map(|(_, lsn)| lsn).collect();
    assert_eq!(lsns.last(), Some(&200));
    assert!(lsns.is_sorted(), "{lsns:?}");
}

#[test]
fn a_partition_that_does_not_release_holds_only_its_own_segments() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut journal = Journal::open(dir.path(), &options(16 * SEGMENT)).expect("open");
    put(&mut journal, 7, 1..=1, 100);
    for lsn in 1..=100 {
        put(&mut journal, 1, lsn..=lsn, 10_000);
        journal.release(PartitionId(1), at(lsn)).expect("release");
    }
    assert!(journal.bytes() <= 3 * SEGMENT, "{} bytes", journal.bytes());
    assert!(replayed(&journal).contains(&(7, 1)));
    journal.forget(PartitionId(7)).expect("forget");
    assert!(!journal.partitions().contains(&PartitionId(7)));
}

#[test]
fn a_full_journal_says_who_holds_it_and_goes_on_after_a_release() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut journal = Journal::open(dir.path(), &options(4 * SEGMENT)).expect("open");
    assert!(journal.holders().is_empty());
    let mut lsn = 0;
    let error = loop {
        lsn += 1;
        assert!(lsn < 100, "never full");
        journal.append(frame(5, lsn, 10_000)).expect("append");
        if let Err(error) = journal.wait().expect("answer").result {
            break error;
        }
    };
    assert_eq!(error.kind(), Kind::Full);
    assert_eq!(journal.holders(), [PartitionId(5)]);
    journal
        .release(PartitionId(5), at(lsn - 1))
        .expect("release");
    assert!(journal.holders().is_empty());
    put(&mut journal, 5, lsn..=lsn + 3, 10_000);
    drop(journal);
    let again = Journal::open(dir.path(), &options(4 * SEGMENT)).expect("reopen");
    let kept: Vec<u64> = replayed(&again).into_iter().map(|(_, lsn)| lsn).collect();
    assert!(
        kept.ends_with(&[lsn, lsn + 1, lsn + 2, lsn + 3]),
        "{kept:?}"
    );
}

#[test]
fn a_frame_larger_than_a_segment_gets_one_made_to_measure() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut journal = Journal::open(dir.path(), &options(8 << 20)).expect("open");
    put(&mut journal, 1, 1..=1, 100);
    put(&mut journal, 1, 2..=2, 3 << 20);
    put(&mut journal, 1, 3..=3, 100);
    drop(journal);
    let again = Journal::open(dir.path(), &options(8 << 20)).expect("reopen");
    assert_eq!(replayed(&again), [(1, 1), (1, 2), (1, 3)]);
}

#[test]
fn a_torn_group_ends_the_scan_and_nothing_older_is_lost() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
    put(&mut journal, 1, 1..=5, 6000);
    drop(journal);
    let slot = scan_slots(dir.path()).expect("scan");
    let used = slot
        .iter()
        .find(|slot| slot.read().expect("read").is_some())
        .expect("a segment");
    let whole = std::fs::read(&used.path).expect("read");
    // Each group is 8 KiB here; the fifth is torn block by block and byte by byte.
    for cut in [4 * 8192, 4 * 8192 + 16, 4 * 8192 + 4096, 4 * 8192 + 6000] {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        std::fs::write(&used.path, &torn).expect("tear");
        let copy = tempfile::tempdir().expect("tempdir");
        std::fs::copy(&used.path, copy.path().join("slot-0")).expect("copy");
        let mut again = Journal::open(copy.path(), &options(1 << 20)).expect("reopen");
        assert_eq!(
            replayed(&again),
            (1..=4).map(|lsn| (1, lsn)).collect::<Vec<_>>(),
            "at {cut}"
        );
        put(&mut again, 1, 5..=6, 6000);
        drop(again);
        let third = Journal::open(copy.path(), &options(1 << 20)).expect("reopen");
        assert_eq!(replayed(&third).len(), 6, "at {cut}");
    }
}

/// A group that is missing or torn was never acknowledged, and so was nothing behind it in its
/// segment, however whole it is.
#[test]
fn a_whole_group_behind_a_missing_one_is_not_replayed() {
    const GROUP: usize = 8 << 10;
    let dir = tempfile::tempdir().expect("tempdir");
    let mut journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
    put(&mut journal, 1, 1..=5, 6000);
    drop(journal);
    let slots = scan_slots(dir.path()).expect("scan");
    let used = |slot: &&Slot| slot.read().expect("read").is_some();
    let used = slots.iter().find(used).expect("a segment");
    let whole = std::fs::read(&used.path).expect("read");
    for (from, to) in [(0, GROUP), (0, 4096), (4096, GROUP), (6000, 6001)] {
        let mut holed = whole.clone();
        holed[2 * GROUP + from..2 * GROUP + to].fill(0xee);
        std::fs::write(&used.path, &holed).expect("tear");
        let behind = crate::commit::groups_of(&holed[3 * GROUP..]);
        assert_eq!(behind.len(), 2, "those behind the hole are whole");
        let again = Journal::open(dir.path(), &options(1 << 20)).expect("reopen");
        assert_eq!(replayed(&again), [(1, 1), (1, 2)], "from {from} to {to}");
    }
}

#[test]
fn an_unfinished_slot_is_removed() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::write(dir.path().join("unfinished-3"), [0; 100]).expect("write");
    let journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
    assert!(!dir.path().join("unfinished-3").exists());
    assert!(replayed(&journal).is_empty());
}

#[test]
fn waiting_submissions_share_a_write() {
    let dir = tempfile::tempdir().expect("tempdir");
    let options = CommitOptions {
        segment_bytes: 4 << 20,
        ..options(64 << 20)
    };
    let mut journal = Journal::open(dir.path(), &options).expect("open");
    let started = Instant::now();
    for lsn in 1..=2000 {
        journal.append(frame(1, lsn, 128)).expect("append");
    }
    for _ in 1..=2000 {
        journal.wait().expect("answer").result.expect("durable");
    }
    let took = started.elapsed();
    let slots = scan_slots(dir.path()).expect("scan");
    let read = slots.iter().filter_map(|slot| slot.read().expect("read"));
    let groups: usize = read.map(|(_, groups)| groups.len()).sum();
    println!(
        "2000 records in {groups} writes, {took:?}, {:?}",
        journal.mode()
    );
    assert!(groups < 1000, "{groups} writes for 2000 waiting records");
}

#[test]
fn the_eventfd_rings_for_answers_and_falls_silent() {
    use std::os::fd::AsRawFd;
    let dir = tempfile::tempdir().expect("tempdir");
    let mut journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
    let readable = |journal: &Journal, wait_ms: i32| {
        let fd = journal.wake_fd().as_raw_fd();
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: poll(2) reads and writes the one entry, which outlives the call.
        let count = unsafe { libc::poll(&mut poll, 1, wait_ms) };
        count == 1
    };
    assert!(!readable(&journal, 0));
    journal.append(frame(1, 1, 100)).expect("append");
    assert!(readable(&journal, 10_000));
    journal.clear_wake();
    assert!(journal.poll().expect("an answer").result.is_ok());
    assert!(!readable(&journal, 0));
}

/// No file may grow past `bytes` in this process.
fn limit_files(bytes: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: signal(2) with SIG_IGN installs no code of ours; setrlimit(2) reads one struct.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

/// Limits hold for a whole process, so this test runs itself again as a child.
#[test]
fn a_disk_without_room_is_answered_and_appends_succeed_once_there_is_some() {
    const CHILD: &str = "FORESHADOW_TEST_NO_ROOM";
    const NAME: &str =
        "journal::tests::a_disk_without_room_is_answered_and_appends_succeed_once_there_is_some";
    if std::env::var(CHILD).is_err() {
        let program = std::env::current_exe().expect("this test");
        let mut child = std::process::Command::new(program);
        let output = child
            .args(["--exact", NAME])
            .env(CHILD, "1")
            .output()
            .expect("run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    limit_files(SEGMENT / 2);
    let mut journal = Journal::open(dir.path(), &options(1 << 20)).expect("open without room");
    for lsn in 1..=3 {
        journal.append(frame(1, lsn, 100)).expect("append");
        let error = journal.wait().expect("answer").result.expect_err("no room");
        assert_eq!(error.kind(), Kind::Full, "{error}");
    }
    assert_eq!(slots(dir.path()), 0, "half-made slots give their room back");
    limit_files(libc::RLIM_INFINITY);
    put(&mut journal, 1, 1..=3, 100);
    drop(journal);
    let again = Journal::open(dir.path(), &options(1 << 20)).expect("reopen");
    assert_eq!(replayed(&again), [(1, 1), (1, 2), (1, 3)]);
}

#[test]
fn a_journal_in_memory_works_whether_or_not_writes_can_be_direct() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return; // No tmpfs to try.
    };
    let mut journal = Journal::open(dir.path(), &options(1 << 20)).expect("open");
    println!("tmpfs: {:?}", journal.mode());
    put(&mut journal, 1, 1..=30, 5000);
    drop(journal);
    let again = Journal::open(dir.path(), &options(1 << 20)).expect("reopen");
    assert_eq!(replayed(&again).len(), 30);
}
