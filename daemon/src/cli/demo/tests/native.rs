//! The demo's parts with native logs, moved by hand with the log's own seal, a copy, and a grant.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use wal::log::control::boottime;
use wal::log::saved::Ownership;
use wal::log::{Appender, Control, Kind, Options, Scanner};
use wal::{Epoch, Lsn};

use super::*;
use crate::cli::demo::native::record::{self, Entry, ROW};
use crate::cli::demo::native::verify::read;
use crate::cli::demo::writer::Row;

const NATIVE: Engine = Engine::Native;

/// All of a log, as it was appended.
type Records = Vec<(Kind, Vec<u8>)>;

/// Where the program and the library would lie that are built like this test.
pub(super) fn binary() -> PathBuf {
    let exe = std::env::current_exe().expect("this test");
    let profile = exe.ancestors().nth(2).expect("a directory of the profile");
    profile.join("foreshadow")
}

pub(super) fn library() -> Option<PathBuf> {
    crate::cli::demo::native::library(&binary())
}

fn control(ground: &Ground, place: &str) -> Control {
    Control::open(&ground.database(place)).expect("opened")
}

/// A copy of the log, granted as a sidecar at the other node does.
fn copy_and_grant(ground: &Ground) {
    fs::copy(ground.database(OLD), ground.database(NEW)).expect("copied");
    grant(ground);
}

fn grant(ground: &Ground) {
    let copy = control(ground, NEW);
    copy.grant(Epoch(2), copy.word().lsn).expect("granted");
}

fn seal(ground: &Ground) {
    let old = control(ground, OLD);
    old.seal();
    old.save_seal().expect("saved");
}

/// A copy of what was acknowledged so far, while the writers stand still for a moment.
fn copy_too_early(ground: &Ground) {
    let old = control(ground, OLD);
    let tail = old.tail().expect("asked");
    assert!(tail.is_some(), "a freeze ends if nobody tails");
    old.freeze(boottime() + Duration::from_secs(5))
        .expect("not sealed");
    fs::copy(ground.database(OLD), ground.database(NEW)).expect("copied");
    old.thaw();
}

/// Time for a writer to do what it must not.
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

/// A row of writer 1 right behind what it was told.
fn next_row(ground: &Ground) -> Row {
    let told = acks::read(&ground.path("acks/1.ack")).expect("read");
    Row {
        writer: 1,
        seq: told.len() as u64 + 1,
        generation: 0,
        account: 1,
        amount: 0,
    }
}

fn append(log: &Path, kind: Kind, payload: &[u8]) -> Lsn {
    let appender = Appender::open(log, &Options::default()).expect("opened");
    appender.append(kind, payload).expect("appended")
}

/// Every record of the log, as it was.
fn records(log: &Path) -> Records {
    let control = Control::open(log).expect("opened");
    let mut scanner = Scanner::new(&control).expect("scanned");
    let mut records = Vec::new();
    while let Some(group) = scanner.next_group().expect("whole") {
        let all = group.records();
        records.extend(all.map(|record| (record.kind, record.payload.to_vec())));
    }
    records
}

/// Writes the log anew with other records; its checksums are right.
fn rewrite(ground: &Ground, change: impl FnOnce(&mut Records)) {
    let log = ground.database(OLD);
    let mut records = records(&log);
    let before = records.clone();
    change(&mut records);
    assert_ne!(before, records, "nothing was changed");
    fs::remove_file(&log).expect("removed");
    let appender = Appender::open(&log, &Options::default()).expect("made");
    for some in records.chunks(100) {
        let some: Vec<(Kind, &[u8])> = some.iter().map(|(k, p)| (*k, &p[..])).collect();
        appender.append_batch(&some, |_| ()).expect("appended");
    }
}

/// Where in the list of records writer 2's row `seq` is.
fn place_of(records: &Records, seq: u64) -> usize {
    let is_it = |(kind, payload): &(Kind, Vec<u8>)| {
        matches!(record::decode(*kind, payload),
            Some(Entry::Row(row)) if (row.writer, row.seq) == (2, seq))
    };
    records.iter().position(is_it).expect("it is there")
}

fn follows_the_route(tally: &Tally) {
    assert!(tally.reopened > 0, "nobody met the seal: {tally:?}");
    assert!(tally.errors.contains_key("Sealed"), "{tally:?}");
    assert_eq!(tally.strange + tally.stuck, 0, "{tally:?}");
}

#[test]
fn writers_with_an_open_log_follow_the_route_past_a_seal_and_lose_nothing() {
    let ground = Ground::new(NATIVE);
    let tally = run_while(&ground.writers(&[1, 2, 3]), || {
        ground.wait_for_rows(&[1, 2, 3]);
        seal(&ground);
        // The route leads to what is sealed, then to nothing.
        pause();
        fs::create_dir(ground.path("nowhere")).expect("made");
        ground.route_to("nowhere");
        pause();
        copy_and_grant(&ground);
        ground.route_to(NEW);
        ground.wait_for_rows(&[1, 2, 3]);
    });
    follows_the_route(&tally.expect("written"));
    let made = fs::read_dir(ground.path("nowhere"))
        .expect("listed")
        .count();
    assert_eq!(made, 0, "a writer made a log where there was none");
    let verdict = ground.verdict(NEW, &[OLD]);
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!(verdict.copies_read, 1);
}

#[test]
fn writers_through_the_library_for_c_do_the_same() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--profile", "test"]);
    let built = build.args(["-p", "foreshadow-wal-c"]).status();
    assert!(built.expect("cargo runs").success());
    let ground = Ground::new(NATIVE);
    let mut plan = ground.writers(&[1, 2]);
    plan.tally = ground.path("python.json");
    let tally = ground.write_in_python(&plan, || {
        ground.wait_for_rows(&[1, 2]);
        seal(&ground);
        pause();
        copy_and_grant(&ground);
        ground.route_to(NEW);
        ground.wait_for_rows(&[1, 2]);
    });
    follows_the_route(&tally.expect("python3 is there: ./tests/run installs it"));
    let verdict = ground.verdict(NEW, &[OLD]);
    assert!(verdict.is_clean(), "{verdict:#?}");
    ground.cut_last_acknowledgement();
    let rest = || ground.wait_for_rows(&[1, 2]);
    let tally = ground.write_in_python(&plan, rest).expect("as before");
    assert_eq!(tally.doubtful, 1, "{tally:?}");
    let verdict = ground.verdict(NEW, &[OLD]);
    assert!(verdict.is_clean(), "{verdict:#?}");
}

#[test]
fn nothing_is_acknowledged_while_the_lease_is_over_not_even_what_is_in_the_log() {
    let ground = Ground::written(NATIVE);
    ground.cut_last_acknowledgement();
    let control = control(&ground, OLD);
    control.set_lease(Duration::from_nanos(1));
    let before = ground.acked();
    let tally = run_while(&ground.writers(&[1, 2]), || {
        pause();
        assert_eq!(ground.acked(), before, "acknowledged without a lease");
        control.set_lease(Duration::ZERO);
        ground.wait_for_rows(&[1, 2]);
    });
    let tally = tally.expect("written");
    assert!(tally.busy > 0 && tally.reopened == 0, "{tally:?}");
    assert_eq!(tally.doubtful, 1, "{tally:?}");
    let verdict = ground.verdict(OLD, &[]);
    assert!(verdict.is_clean(), "{verdict:#?}");
}

#[test]
fn a_move_that_copies_before_it_seals_is_caught() {
    let ground = Ground::new(NATIVE);
    let tally = run_while(&ground.writers(&[1, 2]), || {
        ground.wait_for_rows(&[1, 2]);
        copy_too_early(&ground);
        ground.wait_for_rows(&[1, 2]);
        seal(&ground);
        grant(&ground);
        ground.route_to(NEW);
        ground.wait_for_rows(&[1, 2]);
    });
    tally.expect("written");
    let verdict = ground.verdict(NEW, &[OLD]);
    assert!(verdict.lost > 0, "{verdict:#?}");
    assert!(verdict.accepted_after_fence >= verdict.lost, "{verdict:#?}");
}

#[test]
fn what_is_acknowledged_above_a_durable_seal_is_caught_though_it_was_retried() {
    let ground = Ground::written(NATIVE);
    copy_and_grant(&ground);
    let row = record::row(&next_row(&ground));
    let late = Appender::open(&ground.database(OLD), &Options::default()).expect("opened");
    // The seal is only on the disk: the commit word, which is what an appender looks at, is not.
    let end = late.position();
    let sealed = late.control().save(|ownership: &mut Ownership| {
        ownership.number += 1;
        (ownership.sealed, ownership.lsn) = (true, end);
    });
    sealed.expect("saved");
    assert!(ground.verdict(NEW, &[OLD]).is_clean());
    late.append(ROW, &row).expect("acknowledged");
    append(&ground.database(NEW), ROW, &row);
    let verdict = ground.verdict(NEW, &[OLD]);
    let broken = (verdict.accepted_after_fence, verdict.broken());
    assert_eq!(broken, (1, 1), "{verdict:#?}");
}

#[test]
fn an_untouched_log_is_clean_and_has_its_digest() {
    let ground = Ground::written(NATIVE);
    let digest = read(&ground.database(OLD), true).expect("read").digest;
    let digest = digest.expect("the whole was read");
    let verdict = ground.verdict_with(OLD, &[], Some(&digest));
    assert!(verdict.is_clean() && verdict.acked > 10, "{verdict:#?}");
    let verdict = ground.verdict_with(OLD, &[], Some("0000000000000001"));
    let broken = (verdict.digest_failures, verdict.broken());
    assert_eq!(broken, (1, 1), "{verdict:#?}");
}

#[test]
fn a_missing_record_is_lost() {
    let ground = Ground::written(NATIVE);
    rewrite(&ground, |records| {
        let place = place_of(records, 3);
        records.remove(place);
    });
    let verdict = ground.verdict(OLD, &[]);
    assert_eq!((verdict.lost, verdict.broken()), (1, 1), "{verdict:#?}");
}

#[test]
fn a_record_appended_twice_is_duplicated() {
    let ground = Ground::written(NATIVE);
    let records = records(&ground.database(OLD));
    let (kind, payload) = &records[place_of(&records, 2)];
    append(&ground.database(OLD), *kind, payload);
    let verdict = ground.verdict(OLD, &[]);
    assert_eq!(
        (verdict.duplicated, verdict.broken()),
        (1, 1),
        "{verdict:#?}"
    );
}

#[test]
fn a_record_nobody_tried_is_a_phantom() {
    let ground = Ground::written(NATIVE);
    let mut row = next_row(&ground);
    append(&ground.database(OLD), ROW, &record::row(&row));
    let verdict = ground.verdict(OLD, &[]);
    assert!(
        verdict.is_clean(),
        "the next one may have been tried: {verdict:#?}"
    );
    row.seq += 1;
    append(&ground.database(OLD), ROW, &record::row(&row));
    let verdict = ground.verdict(OLD, &[]);
    assert_eq!((verdict.phantom, verdict.broken()), (1, 1), "{verdict:#?}");
}

#[test]
fn what_no_writer_writes_fails_the_check() {
    let changes: [fn(&mut Records); 5] = [
        |records| records.push((Kind(9), b"foreign".to_vec())),
        |records| drop(records.remove(1)),
        |records| drop(records.remove(0)),
        |records| records.push(records[1].clone()),
        |records| {
            let places = (place_of(records, 4), place_of(records, 5));
            records.swap(places.0, places.1);
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let ground = Ground::written(NATIVE);
        rewrite(&ground, change);
        let verdict = ground.verdict(OLD, &[]);
        let broken = (verdict.integrity_failures, verdict.broken());
        assert_eq!(broken, (1, 1), "change {number}: {verdict:#?}");
    }
}

#[test]
fn a_flipped_byte_fails_the_check_at_the_owner_and_in_old_logs() {
    let ground = Ground::written(NATIVE);
    copy_and_grant(&ground);
    // A log of the demo begins in its first slot, behind the control page.
    let row = append(&ground.database(OLD), ROW, &record::row(&next_row(&ground)));
    let at = wal::log::BLOCK as u64 + row.0 + 20;
    let log = OpenOptions::new()
        .read(true)
        .write(true)
        .open(ground.database(OLD))
        .expect("opened");
    let mut byte = [0];
    log.read_exact_at(&mut byte, at).expect("read");
    log.write_all_at(&[byte[0] ^ 1], at).expect("written");
    assert_eq!(ground.verdict(OLD, &[]).integrity_failures, 1);
    let verdict = ground.verdict(NEW, &[OLD]);
    assert_eq!(verdict.integrity_failures, 1, "{verdict:#?}");
}

#[test]
fn a_killed_writer_goes_on_after_its_last_acknowledgement() {
    let ground = Ground::written(NATIVE);
    ground.cut_last_acknowledgement();
    let rest = || ground.wait_for_rows(&[1, 2]);
    let tally = run_while(&ground.writers(&[1, 2]), rest).expect("written");
    assert_eq!(
        tally.doubtful, 1,
        "the row in doubt is found, not written again: {tally:?}"
    );
    let verdict = ground.verdict(OLD, &[]);
    assert!(verdict.is_clean(), "{verdict:#?}");
}
