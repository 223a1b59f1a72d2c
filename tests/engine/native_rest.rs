//! Logs at rest: who appends is told of, nothing is missed, and what is held for it is little.

use std::path::Path;

use foreshadow_io::Kind as ErrorKind;
use foreshadow_io::engine::{Alerts, Options, Source, Sweeper, Watch};
use tempfile::tempdir;
use wal::log::{Appender, Kind};

use crate::native_source::{attach, open};

fn at_rest(path: &Path) -> Watch {
    Source::from(attach(path)).cool().expect("cool")
}

fn append(appender: &Appender) {
    appender.append(Kind(1), b"a record").expect("appended");
}

fn descriptors() -> usize {
    // Tests of other threads open files, too: only those of this directory count.
    let all = std::fs::read_dir("/proc/self/fd").expect("listed");
    let paths = all.map(|entry| std::fs::read_link(entry.expect("listed").path()));
    let ours = |path: &Path| path.to_string_lossy().contains("at-rest.log");
    paths.filter(|path| path.as_deref().is_ok_and(ours)).count()
}

#[test]
fn an_append_to_a_log_at_rest_is_told_of_and_read_where_it_was_left() {
    let dir = tempdir().expect("a directory");
    let paths = ["a.log", "b.log"].map(|name| dir.path().join(name));
    let appenders = paths.each_ref().map(|path| open(path));
    append(&appenders[1]);
    let watches = paths.each_ref().map(|path| at_rest(path));
    let (mut alerts, mut sweeper) = (Alerts::new().expect("inotify"), Sweeper::default());
    for (key, watch) in (0..).zip(&watches) {
        alerts.add(key, watch.touched()).expect("watched");
        sweeper.add(key, watch);
    }
    let swept = |sweeper: &mut Sweeper| {
        let mut hit = Vec::new();
        sweeper.sweep(|key| hit.push(key));
        hit
    };
    assert!(alerts.take().expect("read").is_empty());
    assert_eq!(swept(&mut sweeper), [0; 0]);
    // Blocks are written past the cache, which the kernel tells of as of any write.
    append(&appenders[1]);
    assert_eq!(alerts.take().expect("read"), [1].into());
    assert_eq!(swept(&mut sweeper), [1]);
    assert_eq!(swept(&mut sweeper), [0; 0]);
    let [quiet, other] = watches;
    assert!(!quiet.committed() && other.committed());
    let mut source = other.upgrade(&Options::default()).expect("attached");
    assert!(source.wants_scan().is_none(), "nothing was missed");
    let change = source.poll(64).expect("readable").expect("a change");
    assert_eq!(change.commits(), 1);
}

#[test]
fn a_log_at_rest_holds_one_descriptor() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("at-rest.log");
    drop(open(&path));
    assert_eq!(descriptors(), 0);
    let watch = at_rest(&path);
    assert_eq!(descriptors(), 1);
    drop(watch);
    assert_eq!(descriptors(), 0);
}

#[test]
fn a_log_that_was_replaced_at_rest_is_not_taken_for_the_old_one() {
    let dir = tempdir().expect("a directory");
    let [path, other] = ["a.log", "b.log"].map(|name| dir.path().join(name));
    drop((open(&path), open(&other)));
    let watch = at_rest(&path);
    watch.verify_names().expect("the same");
    std::fs::rename(&other, &path).expect("renamed over it");
    let error = watch.verify_names().expect_err("another file");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    let error = watch
        .upgrade(&Options::default())
        .expect_err("another file");
    assert_eq!(error.kind(), ErrorKind::Fatal);
}
