//! Databases at rest: who touches one is told, and what counts as a commit.

use foreshadow_io::engine::sqlite::Watch;
use foreshadow_io::engine::{Alerts, sibling};

use crate::source_tail::database;

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(300))";

#[test]
fn a_write_to_a_database_at_rest_is_told_of() {
    let (_one, quiet_path, _quiet_app) = database(4096);
    let (_other, path, mut app) = database(4096);
    let quiet = Watch::attach(&quiet_path).expect("attach");
    let mut watch = Watch::attach(&path).expect("attach");
    let mut alerts = Alerts::new().expect("inotify");
    alerts.add(1, &quiet.paths().wal).expect("watch");
    alerts.add(2, &watch.paths().wal).expect("watch");
    assert!(alerts.take().expect("read").is_empty());
    app.run(INSERT);
    assert!(watch.changed());
    assert_eq!(alerts.take().expect("read"), [2].into());
    watch.see();
    assert!(alerts.remove(2));
    assert!(!alerts.remove(2));
    app.run(INSERT);
    assert!(watch.changed() && alerts.take().expect("read").is_empty());
    std::fs::remove_file(sibling(&quiet_path, "-wal")).expect("remove");
    assert_eq!(alerts.take().expect("read"), [1].into());
}

#[test]
fn a_wal_that_was_only_emptied_is_no_commit() {
    let (_dir, path, mut app) = database(4096);
    app.run(INSERT);
    let mut watch = Watch::attach(&path).expect("attach");
    watch.see();
    app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    assert!(watch.changed() && !watch.committed());
    app.run(INSERT);
    assert!(watch.committed());
}
