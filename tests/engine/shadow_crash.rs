//! Crashes of a shadow at every step: what is found again is a transaction boundary, is a prefix of
//! what was applied, and with the journal behind it nothing acknowledged is missing.
//!
//! A crash is a copy of the directory. What was written but not synced may be there or not, page by
//! page: [`lose_unsynced`] takes each page of such a file from the older or the newer copy.

use std::path::Path;

use foreshadow_io::commit::CommitOptions;
use foreshadow_io::engine::shadow::{CheckpointStep, Found, Opened, Shadow};
use foreshadow_io::journal::Journal;
use wal::frame::Frame;
use wal::{Epoch, Position};

use crate::shadow_history::{
    FILE, History, PARTITION, copy_dir, image_content, paths, stock_content,
};

/// A small repeatable generator; the seed is printed by what fails.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn reopened(dir: &Path) -> (Shadow, Found) {
    match Shadow::open(&paths(dir)).expect("open") {
        Opened::Shadow(shadow, found) => (*shadow, found),
        Opened::Promoted(epoch) => panic!("promoted in {epoch}"),
    }
}

fn step_at(position: Position) -> usize {
    (position.lsn.0 - 1000) as usize
}

/// Takes each 512-byte block of `file` in `crashed` from `older` or leaves it as it is.
fn lose_unsynced(file: &str, older: &Path, crashed: &Path, dice: &mut Dice) {
    let path = crashed.join(file);
    let mut bytes = std::fs::read(&path).expect("read");
    let old = std::fs::read(older.join(file)).expect("read");
    for (at, block) in bytes.chunks_mut(512).enumerate() {
        if dice.roll(2) == 0 {
            let from = at * 512;
            for (offset, byte) in block.iter_mut().enumerate() {
                *byte = old.get(from + offset).copied().unwrap_or(0);
            }
        }
    }
    std::fs::write(&path, &bytes).expect("write");
}

/// Follows on from what recovery found, to the end, and compares.
fn goes_on(history: &History, dir: &Path, at_least: usize, what: &str) {
    let (mut shadow, found) = reopened(dir);
    let Found::At(position) = found else {
        panic!("{what}: {found:?}")
    };
    let step = step_at(position);
    assert!(
        step >= at_least,
        "{what}: at step {step}, {at_least} was durable"
    );
    history.assert_same(&shadow, step);
    for delta in history.deltas(step) {
        shadow
            .apply(&delta)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    history.assert_same(&shadow, history.last());
}

#[test]
fn a_checkpoint_may_be_cut_short_after_any_step() {
    let history = History::lively(1024);
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let (dir, before) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        let from = 1 + seed as usize * 2;
        let mut shadow = history.shadow(dir.path(), from);
        copy_dir(dir.path(), before.path());
        let steps = 1 + dice.roll(8) as usize;
        for delta in &history.deltas(from)[..steps] {
            shadow.apply(delta).expect("apply");
        }
        let task = shadow.checkpoint_task().expect("something to copy");
        let crashes = tempfile::tempdir().expect("dir");
        let mut crash = |step: CheckpointStep| {
            let crashed = crashes.path().join(format!("{step:?}"));
            copy_dir(dir.path(), &crashed);
            if matches!(step, CheckpointStep::Announced | CheckpointStep::Copied) {
                lose_unsynced(FILE, before.path(), &crashed, &mut dice);
            }
        };
        let done = task.run_watched(&mut crash);
        shadow.checkpoint_done(done).expect("done");
        copy_dir(dir.path(), &crashes.path().join("Restarted"));
        for (step, at_least) in [
            ("LogSynced", from),
            ("Announced", from + steps),
            ("Copied", from + steps),
            ("DatabaseSynced", from + steps),
            ("Finished", from + steps),
            ("Restarted", from + steps),
        ] {
            let what = format!("seed {seed}, after {step}");
            goes_on(&history, &crashes.path().join(step), at_least, &what);
        }
    }
}

#[test]
fn an_unsynced_log_may_be_lost_in_any_part() {
    let history = History::lively(1024);
    for seed in 0..10 {
        let mut dice = Dice(seed);
        let (dir, before) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        let mut shadow = history.shadow(dir.path(), 2);
        copy_dir(dir.path(), before.path());
        for delta in &history.deltas(2)[..6] {
            shadow.apply(delta).expect("apply");
        }
        let crashed = tempfile::tempdir().expect("dir");
        copy_dir(dir.path(), crashed.path());
        lose_unsynced(
            &format!("{FILE}-wal"),
            before.path(),
            crashed.path(),
            &mut dice,
        );
        goes_on(&history, crashed.path(), 2, &format!("seed {seed}"));
    }
}

#[test]
fn a_torn_landing_is_a_transaction_boundary() {
    let history = History::lively(1024);
    let dir = tempfile::tempdir().expect("dir");
    let mut shadow = history.shadow(dir.path(), 4);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    let synced = shadow.wal_bytes();
    for delta in &history.deltas(4)[..5] {
        shadow.apply(delta).expect("apply");
    }
    let (base, newest) = (history.position(4), history.digest(9));
    let log = paths(dir.path()).wal().to_owned();
    let whole = std::fs::read(&log).expect("read");
    let stride = ((shadow.wal_bytes() - synced) / 60) as usize + 1;
    let mut found_steps = Vec::new();
    for cut in (synced as usize..shadow.wal_bytes() as usize).step_by(stride) {
        let crashed = tempfile::tempdir().expect("dir");
        copy_dir(dir.path(), crashed.path());
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        std::fs::write(paths(crashed.path()).wal(), &torn).expect("tear");
        let (mut shadow, found) = reopened(crashed.path());
        let Found::Landing {
            epoch,
            base: found_base,
            digest,
        } = found
        else {
            panic!("cut at {cut}: {found:?}")
        };
        assert_eq!((epoch, found_base), (Epoch(2), base));
        let step = history
            .step_of(digest)
            .unwrap_or_else(|| panic!("no boundary at {cut}"));
        assert!(
            (4..9).contains(&step),
            "step {step} with the tail cut at {cut}"
        );
        found_steps.push(step);
        assert_eq!(shadow.abandon_landing().expect("abandon"), base);
        history.assert_same(&shadow, 4);
        drop(shadow);
        goes_on(
            &history,
            crashed.path(),
            4,
            &format!("abandoned, cut at {cut}"),
        );
    }
    found_steps.dedup();
    assert!(
        found_steps.is_sorted() && found_steps.len() > 2,
        "{found_steps:?}"
    );
    shadow.land_sync().expect("sync");
    let (shadow, found) = reopened(dir.path());
    assert_eq!(
        found,
        Found::Landing {
            epoch: Epoch(2),
            base,
            digest: newest
        }
    );
    drop(shadow);
    assert_eq!(stock_content(dir.path()), image_content(&history.images[9]));
}

/// A shadow with its journal, and what a peer was told.
struct Node {
    dir: tempfile::TempDir,
    journal: Journal,
    shadow: Shadow,
}

impl Node {
    fn options() -> CommitOptions {
        CommitOptions {
            segment_bytes: 256 << 10,
            bytes_max: 64 << 20,
            direct: true,
            realtime: false,
            ..CommitOptions::default()
        }
    }

    fn start(history: &History) -> Node {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join("gen")).expect("gen");
        let shadow = history.shadow(&dir.path().join("gen"), 0);
        let journal = Journal::open(&dir.path().join("journal"), &Node::options()).expect("open");
        Node {
            dir,
            journal,
            shadow,
        }
    }

    /// Everything on disk as a crash leaves it: unsynced parts of the -wal are lost at random.
    fn crash(&self, dice: &mut Dice) -> tempfile::TempDir {
        let crashed = tempfile::tempdir().expect("dir");
        for part in ["gen", "journal"] {
            copy_dir(&self.dir.path().join(part), &crashed.path().join(part));
        }
        let log = format!("{FILE}-wal");
        let empty = tempfile::tempdir().expect("dir");
        std::fs::write(empty.path().join(&log), b"").expect("write");
        if Shadow::stage(&paths(&crashed.path().join("gen")))
            .is_ok_and(|stage| matches!(stage, foreshadow_io::engine::shadow::Stage::At(_)))
        {
            lose_unsynced(&log, empty.path(), &crashed.path().join("gen"), dice);
        }
        crashed
    }

    fn recover(dir: tempfile::TempDir) -> Node {
        let journal = Journal::open(&dir.path().join("journal"), &Node::options()).expect("open");
        let (mut shadow, found) = reopened(&dir.path().join("gen"));
        assert!(matches!(found, Found::At(_)), "{found:?}");
        let sink = &mut |partition, frame: Frame| {
            assert_eq!(partition, PARTITION);
            shadow.apply(&frame).map(|_| ())
        };
        journal.replay(sink).expect("replay");
        Node {
            dir,
            journal,
            shadow,
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_over_many_crashes() {
    let history = History::lively(1024);
    for seed in 0..8 {
        let mut dice = Dice(0x5eed + seed);
        let mut node = Node::start(&history);
        let mut acknowledged = 0;
        while acknowledged < history.last() {
            match dice.roll(8) {
                0 => {
                    if let Some(task) = node.shadow.checkpoint_task() {
                        let done = node.shadow.checkpoint_done(task.run()).expect("done");
                        node.journal.release(PARTITION, done).expect("release");
                    }
                }
                1 => {
                    node = Node::recover(node.crash(&mut dice));
                    let position = node.shadow.position().expect("a position");
                    assert!(
                        step_at(position) >= acknowledged,
                        "seed {seed}: lost an answer"
                    );
                    acknowledged = step_at(position);
                    history.assert_same(&node.shadow, acknowledged);
                }
                _ => {
                    let delta = history.delta(acknowledged, acknowledged + 1);
                    node.journal.append(delta.clone()).expect("append");
                    node.shadow.apply(&delta).expect("apply");
                    node.journal
                        .wait()
                        .expect("answer")
                        .result
                        .expect("durable");
                    acknowledged += 1;
                }
            }
        }
        history.assert_same(&node.shadow, history.last());
    }
}

/// The limits of a child process come from `ulimit -f`, which makes writes beyond it fail.
#[test]
fn a_full_disk_is_a_clear_error_and_loses_nothing() {
    const CHILD: &str = "FORESHADOW_TEST_FULL_DISK";
    if let Ok(dir) = std::env::var(CHILD) {
        return full_disk_child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("dir");
    let (images, generation) = (dir.path().join("images"), dir.path().join("gen"));
    for path in [&images, &generation] {
        std::fs::create_dir(path).expect("create");
    }
    let mut steps = vec!["CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, b BLOB);".to_owned()];
    steps.extend((1..40).map(|id| format!("INSERT INTO t VALUES({id}, {id}, randomblob(7500));")));
    let history = History::of(1024, &steps);
    history.save(&images);
    let program = std::env::current_exe().expect("this test");
    let name = "shadow_crash::a_full_disk_is_a_clear_error_and_loses_nothing";
    // 512-byte units: no file may grow past 200 KiB. SIGXFSZ is ignored so that write(2) fails.
    let script = "trap '' XFSZ; ulimit -f 400; exec \"$0\" --exact \"$1\" --nocapture";
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(&program)
        .arg(name)
        .env(CHILD, dir.path())
        .output()
        .expect("run the child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "the child ran no test: {text}");
    // With room: the checkpoint that did not fit is finished, and following goes on.
    let (mut shadow, found) = reopened(&generation);
    let Found::At(position) = found else {
        panic!("{found:?}")
    };
    assert!(
        step_at(position) > 25,
        "the database was beyond the limit: {position}"
    );
    for delta in history.deltas(step_at(position)) {
        shadow.apply(&delta).expect("apply with room");
    }
    history.assert_same(&shadow, history.last());
}

/// Applies until the -wal is full, checkpoints, and applies until the database can't be.
fn full_disk_child(dir: &Path) {
    let history = History::load(1024, &dir.join("images"));
    let mut shadow = history.shadow(&dir.join("gen"), 0);
    let mut refusals = 0;
    let mut step = 0;
    while step < history.last() {
        match shadow.apply(&history.delta(step, step + 1)) {
            Ok(_) => step += 1,
            Err(error) => {
                assert_eq!(error.kind(), foreshadow_io::Kind::Full, "{error}");
                refusals += 1;
                history.assert_same(&shadow, step);
                let task = shadow.checkpoint_task().expect("something to copy");
                shadow.checkpoint_done(task.run()).expect("it fits as yet");
            }
        }
        history.assert_same(&shadow, step);
    }
    assert!(refusals > 0, "the -wal never reached the limit");
    for _ in 0..2 {
        let task = shadow.checkpoint_task().expect("something to copy");
        let error = shadow
            .checkpoint_done(task.run())
            .expect_err("the database does not fit");
        assert_eq!(error.kind(), foreshadow_io::Kind::Full, "{error}");
        assert_eq!(
            shadow.position(),
            Some(history.position(step)),
            "it still stands there"
        );
        history.assert_same(&shadow, step);
    }
}
