//! Two appenders, no space, no lease, newer formats: refused with the reason, nothing lost.

use std::fs;
use std::process::Command;
use std::time::Duration;

use foreshadow_wal::log::control::boottime;
use foreshadow_wal::log::{Appender, Control, Error, Kind};
use tempfile::tempdir;

use crate::support::{assert_same, fill, log, open, options, read, read_dir};

#[test]
fn the_second_appender_is_told_who_the_first_one_is() {
    let dir = tempdir().expect("a directory");
    let first = open(dir.path());
    let error = Appender::open(&log(dir.path()), &options()).err();
    match &error {
        Some(Error::InUse { pid, .. }) => assert_eq!(*pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    assert!(error.is_some_and(|error| error.to_string().contains("one at a time")));
    first.append(Kind(1), b"goes on").expect("appended");
    drop(first);
    open(dir.path());
}

#[test]
fn nobody_acknowledges_after_the_lease_and_a_new_one_lets_him_go_on() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let mut kept = fill(&appender, 3);
    let control = Control::open(&log(dir.path())).expect("a log");
    control.set_lease(boottime() + Duration::from_millis(200));
    let mut last = Duration::ZERO;
    while let Ok(lsn) = appender.append(Kind(5), b"in time") {
        last = boottime();
        kept.push((lsn, 5, b"in time".to_vec()));
    }
    let error = appender.append(Kind(5), b"late");
    assert!(matches!(error, Err(Error::LeaseOver)), "{error:?}");
    assert!(last > Duration::ZERO, "some came in time");
    control.set_lease(boottime() + Duration::from_secs(3600));
    let lsn = appender.append(Kind(6), b"again").expect("a new lease");
    kept.push((lsn, 6, b"again".to_vec()));
    // One that was committed as the lease ended may be there though it was refused.
    let mut records = read(&control).expect("readable");
    records.retain(|record| kept.contains(record) || record.2 != b"in time");
    assert_same(&records, &kept);
}

#[test]
fn a_lease_that_ends_while_groups_are_written_lets_none_of_them_through() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let control = Control::open(&log(dir.path())).expect("a log");
    for _ in 0..20 {
        let deadline = boottime() + Duration::from_millis(5);
        control.set_lease(deadline);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // A full log of tries, so that some run into the deadline at every step.
                    for _ in 0..10_000 {
                        let began = boottime();
                        match appender.append(Kind(1), b"x") {
                            Ok(_) => assert!(began < deadline),
                            Err(Error::LeaseOver) => return,
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
        });
    }
    control.set_lease(Duration::from_secs(u64::MAX / 2_000_000_000));
    appender.append(Kind(2), b"and on").expect("appended");
    read(&control).expect("no hole was left behind");
}

#[test]
fn a_newer_format_is_refused_by_number() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    fill(&appender, 3);
    drop(appender);
    let path = log(dir.path());
    let whole = fs::read(&path).expect("a file");
    for version in [8, 4096 + 8] {
        let mut newer = whole.clone();
        newer[version] = 2;
        fs::write(&path, &newer).expect("written");
        let error = read_dir(dir.path()).expect_err("it can't be read");
        let said = error.to_string();
        let expected = "format version 2, this program knows 1";
        assert!(said.contains(expected), "{said}");
        fs::write(&path, &whole).expect("written");
    }
    assert_eq!(read_dir(dir.path()).expect("readable").len(), 3);
}

/// A small file system in memory over a directory, as root; gone when dropped.
struct Mount<'a>(&'a std::path::Path);

impl<'a> Mount<'a> {
    fn over(path: &'a std::path::Path, kibibytes: u32) -> Option<Mount<'a>> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a full disk needs root, to mount a small file system");
            return None;
        }
        let options = format!("size={kibibytes}k");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path);
        assert!(mount.status().expect("mount runs").success());
        Some(Mount(path))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg(self.0).status();
        assert!(ended.is_ok_and(|status| status.success()), "unmounted");
    }
}

#[test]
fn a_full_disk_refuses_and_space_lets_it_go_on() {
    let dir = tempdir().expect("a directory");
    let Some(mount) = Mount::over(dir.path(), 420) else {
        return;
    };
    let appender = open(dir.path());
    let kept = std::sync::Mutex::new(Vec::new());
    let count = |upto: u32| {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (appender, kept) = (&appender, &kept);
                scope.spawn(move || {
                    for index in 0..upto {
                        let bytes = (thread * upto + index).to_le_bytes().repeat(300);
                        match appender.append(Kind(1), &bytes) {
                            Ok(lsn) => kept.lock().expect("a list").push((lsn, 1, bytes)),
                            Err(error) => {
                                assert!(error.is_no_space(), "{error}");
                                return false;
                            }
                        }
                    }
                    true
                });
            }
        });
    };
    count(1000);
    let full = appender
        .append(Kind(1), &[1; 60_000])
        .expect_err("it is full");
    assert!(
        full.is_no_space() && full.to_string().contains("No space"),
        "{full}"
    );
    let records = |appender: &Appender| read(appender.control()).expect("readable");
    let mut acknowledged = kept.lock().expect("a list").clone();
    acknowledged.sort();
    assert_same(&records(&appender), &acknowledged);
    let middle = acknowledged[acknowledged.len() / 2].0;
    let first = appender.release(middle).expect("released");
    let lsn = appender
        .append(Kind(2), b"on")
        .expect("there is room again");
    acknowledged.retain(|(lsn, _, _)| *lsn >= first);
    acknowledged.push((lsn, 2, b"on".to_vec()));
    assert_same(&records(&appender), &acknowledged);
    drop(appender);
    assert_same(&records(&open(dir.path())), &acknowledged);
    drop(mount);
}
