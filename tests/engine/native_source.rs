//! A native log through its source: every commit once, the image equal page by page, the freeze and
//! the seal, and that an image is a log again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use foreshadow_io::Kind as ErrorKind;
use foreshadow_io::engine::native::{Adopted, Image, Source};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::tempdir;
use wal::digest::PageHash;
use wal::log::control::Creation;
use wal::log::{Appender, Control, Error, Kind, Options, Scanner};
use wal::{Digest, Epoch, Lsn, PartitionId};

const SEGMENT: u32 = 64 << 10;
const PAGE: usize = 4096;

pub fn open(path: &Path) -> Appender {
    let options = Options {
        id: PartitionId(5),
        segment_bytes: SEGMENT,
        ..Options::default()
    };
    Appender::open(path, &options).expect("a log")
}

pub fn attach(path: &Path) -> Source {
    let mut source = Source::attach(path).expect("attached");
    scan(&mut source);
    source
}

fn scan(source: &mut Source) -> Adopted {
    assert!(source.wants_scan().is_some());
    let task = source.scan().expect("a task");
    let done = task.run(&mut |_, _| ControlFlow::Continue(()));
    source.adopt(done.expect("scanned")).expect("adopted")
}

/// What a peer has: pages.
#[derive(Default)]
struct Replica {
    pages: BTreeMap<u32, Vec<u8>>,
    commits: u64,
}

impl Replica {
    /// Every page of the source, as a fill would send them.
    fn fill(source: &Source) -> Replica {
        let mut replica = Replica::default();
        for page in 1..=source.page_count() {
            let mut bytes = vec![0; PAGE];
            source.read_page(page, &mut bytes).expect("a page");
            replica.pages.insert(page, bytes);
        }
        replica.check(source);
        replica
    }

    /// Everything that was committed, in changes of at most `limit` pages.
    fn follow(&mut self, source: &mut Source, limit: usize) {
        while let Some(change) = source.poll(limit).expect("readable") {
            for edit in change.edits() {
                if let Some(before) = edit.before {
                    assert_eq!(self.pages.get(&edit.page).map(Vec::as_slice), Some(before));
                }
                self.pages.insert(edit.page, edit.after.to_vec());
            }
            self.pages.retain(|page, _| *page <= change.page_count);
            source.consume(&change);
            self.commits += change.commits;
        }
        self.check(source);
    }

    fn digest(&self) -> Digest {
        let hash = |(page, bytes): (&u32, &Vec<u8>)| PageHash::of(*page, bytes);
        let hashes: Vec<_> = self.pages.iter().map(hash).collect();
        Digest::of(&hashes)
    }

    fn check(&self, source: &Source) {
        assert_eq!(self.pages.len() as u32, source.page_count());
        assert_eq!(self.digest(), source.digest());
        let mut bytes = vec![0; PAGE];
        for (page, held) in &self.pages {
            source.read_page(*page, &mut bytes).expect("a page");
            assert!(
                *held == bytes,
                "page {page} differs from what a fill would send"
            );
        }
    }

    /// The pages as a file, made a log of this node.
    fn land(&self, path: &Path) -> Control {
        let state = Image::parse_state(&self.pages[&1]).expect("page 1 says what it is");
        let (segment_bytes, id, first, lsn) = state;
        let creation = Creation {
            id,
            segment_bytes,
            epoch: Epoch(1),
            first,
            lsn,
            sealed: true,
        };
        let mut file = creation.page();
        for (page, bytes) in &self.pages {
            let at = (*page as usize - 1) * PAGE;
            file.resize(file.len().max(at + PAGE), 0);
            if *page != 1 {
                file[at..at + PAGE].copy_from_slice(bytes);
            }
        }
        std::fs::write(path, file).expect("written");
        Control::open(path).expect("a log")
    }
}

fn records(control: &Control, from: Lsn) -> Vec<(Lsn, Vec<u8>)> {
    let mut scanner = Scanner::from(control, from).expect("a reader");
    let mut found = Vec::new();
    while let Some(group) = scanner.next_group().expect("whole") {
        found.extend(group.records().map(|r| (r.lsn, r.payload.to_vec())));
    }
    found
}

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<usize>),
    /// Everything but this many of the newest records is released.
    Release(usize),
    Follow(usize),
    Reattach,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => prop::collection::vec(0usize..9000, 1..6).prop_map(Act::Append),
        1 => (0usize..20).prop_map(Act::Release),
        4 => (1usize..40).prop_map(Act::Follow),
        1 => Just(Act::Reattach),
    ];
    prop::collection::vec(act, 1..40)
}

#[test]
fn a_replica_of_the_changes_is_the_log_at_every_position() {
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(300)
    };
    let run = TestRunner::new(config).run(&acts(), |acts| {
        let dir = tempdir().expect("a directory");
        let path = dir.path().join("log");
        let appender = open(&path);
        let mut source = attach(&path);
        let mut replica = Replica::fill(&source);
        let mut written: Vec<(Lsn, Vec<u8>)> = Vec::new();
        for act in acts {
            match act {
                Act::Append(lens) => {
                    let payloads: Vec<_> = lens.iter().map(|len| vec![*len as u8; *len]).collect();
                    let batch: Vec<_> = payloads.iter().map(|p| (Kind(1), &p[..])).collect();
                    let mut places = Vec::new();
                    let appended = appender.append_batch(&batch, |lsn| places.push(lsn));
                    appended.expect("appended");
                    written.extend(places.into_iter().zip(payloads));
                }
                Act::Release(keep) => {
                    let at = written.len().saturating_sub(keep + 1);
                    if let Some((lsn, _)) = written.get(at) {
                        appender.release(*lsn).expect("released");
                    }
                }
                Act::Follow(limit) => replica.follow(&mut source, limit),
                Act::Reattach => {
                    drop(source);
                    source = attach(&path);
                    replica = Replica::fill(&source);
                }
            }
        }
        replica.follow(&mut source, 1000);
        let landed = replica.land(&dir.path().join("landed"));
        let first = Scanner::new(appender.control())
            .expect("a reader")
            .position();
        written.retain(|(lsn, _)| *lsn >= first);
        let (_, _, shipped_first, _) = Image::parse_state(&replica.pages[&1]).expect("a state");
        prop_assert_eq!(shipped_first, first);
        prop_assert!(records(&landed, first) == written, "the copy is the log");
        Ok(())
    });
    run.expect("a prefix at every position");
}

#[test]
fn an_idle_log_has_nothing_to_read_and_a_commit_is_one_group() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("log");
    let appender = open(&path);
    let mut source = attach(&path);
    assert!(!source.changed() && source.poll(10).expect("readable").is_none());
    appender.append(Kind(1), b"one").expect("appended");
    assert!(source.changed());
    let change = source.poll(10).expect("readable").expect("a change");
    assert_eq!(
        (change.commits, change.pages()),
        (1, 2),
        "page 1 and the group's"
    );
    let again = source
        .poll(10)
        .expect("readable")
        .expect("not consumed yet");
    assert_eq!(again.digest(), change.digest());
    source.consume(&again);
    assert!(!source.changed());
}

#[test]
fn one_sidecar_per_log() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("log");
    drop(open(&path));
    let first = attach(&path);
    let second = Source::attach(&path).expect_err("it is tailed");
    assert_eq!(second.kind(), ErrorKind::Refused);
    drop(first);
    attach(&path);
}

#[test]
fn what_was_used_again_unread_is_found_by_a_scan() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("log");
    let appender = open(&path);
    let mut source = attach(&path);
    // A sidecar that is stopped for long, and whose hold an operator took away.
    source.control().set_hold(Lsn(0));
    for _ in 0..200 {
        appender.append(Kind(1), &[1; 3000]).expect("appended");
        appender.release(appender.position()).expect("released");
    }
    assert!(source.poll(10).expect("readable").is_none());
    assert!(
        source
            .wants_scan()
            .is_some_and(|why| why.contains("before they were read"))
    );
    assert!(matches!(scan(&mut source), Adopted::Replaced { pages, .. } if pages > 0));
    let mut replica = Replica::fill(&source);
    appender.append(Kind(1), b"on").expect("appended");
    replica.follow(&mut source, 10);
}

#[test]
fn a_freeze_keeps_the_position_and_the_seal_ends_the_log_there() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("log");
    let appender = open(&path);
    let mut source = attach(&path);
    let mut replica = Replica::fill(&source);
    appender.append(Kind(1), b"before").expect("appended");
    source.freeze().expect("frozen");
    replica.follow(&mut source, 100);
    assert_eq!(replica.commits, 1);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| appender.append(Kind(1), b"waits"));
        source.thaw();
        waits
            .join()
            .expect("it ends")
            .expect("the abort is invisible");
    });
    source.freeze().expect("frozen");
    replica.follow(&mut source, 100);
    let position = source.lsn();
    let refused = std::thread::scope(|scope| {
        let waits = scope.spawn(|| appender.append(Kind(1), b"refused"));
        let sealed = source.fence().expect("a task").run().expect("sealed");
        assert_eq!(sealed, position);
        waits.join().expect("it ends")
    });
    assert!(matches!(refused, Err(Error::Sealed { .. })), "{refused:?}");
    assert!(source.is_fenced() && !source.changed());
    source.lift_fence().run().expect("taken back");
    drop(appender);
    open(&path)
        .append(Kind(1), b"served again")
        .expect("appended");
    replica.follow(&mut source, 100);
}
