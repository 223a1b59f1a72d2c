//! Writers, ledger and verifier against plain SQLite files: what the demo claims must be able to
//! fail. The fence is made by fence.py, which shares no code with the daemon.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;

use super::acks;
use super::create;
use super::harness::python;
use super::plan::{
    CreatePlan, DatabasePlan, OneWriter, Pace, Tally, Verdict, VerifyPlan, VerifyTenant, WriterPlan,
};
use super::verify::judge;
use super::writer::run_while;

const NAME: &str = "tenant.db";

/// One tenant on plain files, with a route.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Ground {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for part in ["routes", "acks"] {
            fs::create_dir(dir.path().join(part)).expect("made");
        }
        let ground = Ground { dir };
        let database = DatabasePlan {
            path: ground.path("old.db"),
            page_size: 4096,
            accounts: 500,
        };
        let plan = CreatePlan {
            stage: ground.path("stage"),
            databases: vec![database],
        };
        create::run(&plan).expect("made");
        ground.route_to("old.db");
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn route_to(&self, name: &str) {
        let new = self.path("route.new");
        std::os::unix::fs::symlink(self.path(name), &new).expect("linked");
        fs::rename(new, self.path("routes").join(NAME)).expect("renamed");
    }

    fn writers(&self, numbers: &[u32]) -> WriterPlan {
        let one = |writer: &u32| OneWriter {
            writer: *writer,
            tenant: 7,
            file: NAME.to_owned(),
            accounts: 500,
            pace: Pace::ThinkUs(500),
        };
        WriterPlan {
            routes: self.path("routes"),
            acks: self.path("acks"),
            tally: self.path("tally.json"),
            seed: 1,
            busy_ms: 5000,
            synchronous: "NORMAL".to_owned(),
            writers: numbers.iter().map(one).collect(),
        }
    }

    /// Some rows by two writers, and nothing else.
    fn written() -> Ground {
        let ground = Ground::new();
        let rest = || std::thread::sleep(Duration::from_millis(100));
        run_while(&ground.writers(&[1, 2]), rest).expect("written");
        ground
    }

    fn verdict(&self, database: &str, evidence: &[&str]) -> Verdict {
        let tenant = VerifyTenant {
            tenant: 7,
            name: NAME.to_owned(),
            database: self.path(database),
            evidence: evidence.iter().map(|name| self.path(name)).collect(),
            copies: Vec::new(),
        };
        let plan = VerifyPlan {
            acks: self.path("acks"),
            scratch: self.path("scratch"),
            verdict: self.path("verdict.json"),
            tenants: vec![tenant],
        };
        judge(&plan).expect("judged")
    }

    fn damage(&self, sql: &str) {
        let connection = Connection::open(self.path("old.db")).expect("opened");
        let changed = connection.execute(sql, []).expect(sql);
        assert!(changed > 0, "{sql} changed nothing");
    }

    /// Moves the tenant to new.db with a mover that fences first, or too late.
    fn move_by_hand(&self, when: &str) {
        let script = self.path("fence.py");
        fs::write(&script, include_str!("fence.py")).expect("written");
        let mut command = Command::new("python3");
        command
            .arg(script)
            .args([self.path("old.db"), self.path("new.db")])
            .arg(when);
        let answer = command
            .output()
            .expect("python3 is there: ./tests/run installs it");
        assert!(
            answer.status.success(),
            "{}",
            String::from_utf8_lossy(&answer.stderr)
        );
        self.route_to("new.db");
    }
}

/// Writes with both SQLites while `rest` runs.
fn write_while(ground: &Ground, rest: impl FnOnce()) -> Vec<Tally> {
    let mut plan = ground.writers(&[3]);
    plan.tally = ground.path("python.json");
    let (file, script) = (ground.path("python.plan"), ground.path("writer.py"));
    fs::write(&file, serde_json::to_vec(&plan).expect("json")).expect("written");
    fs::write(&script, include_str!("writer.py")).expect("written");
    let child = python().map(|python| {
        let command = &mut Command::new(python);
        let child = command
            .arg(&script)
            .arg(&file)
            .stdin(Stdio::piped())
            .spawn();
        child.expect("python starts")
    });
    let has_python = child.is_some();
    let bundled = run_while(&ground.writers(&[1, 2]), || {
        let journal = ground.path("acks/3.ack");
        while has_python && acks::read(&journal).expect("read").is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        rest();
    });
    let mut tallies = vec![bundled.expect("written")];
    if let Some(mut child) = child {
        child.stdin.take().expect("piped").flush().expect("flushed");
        assert!(child.wait().expect("waited").success());
        let json = fs::read(&plan.tally).expect("a tally");
        tallies.push(serde_json::from_slice(&json).expect("json"));
    }
    tallies
}

#[test]
fn writers_with_open_connections_follow_the_route_past_a_fence_and_lose_nothing() {
    let ground = Ground::new();
    let mut before = 0;
    let tallies = write_while(&ground, || {
        std::thread::sleep(Duration::from_millis(150));
        ground.move_by_hand("first");
        before = acks::counts(&ground.path("acks")).values().sum();
        std::thread::sleep(Duration::from_millis(150));
    });
    let verdict = ground.verdict("new.db", &["old.db"]);
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert!(
        verdict.acked > before,
        "nobody wrote after the move: {verdict:#?}"
    );
    assert_eq!(verdict.copies_read, 1);
    for tally in tallies {
        assert!(tally.reopened > 0, "nobody met the fence: {tally:?}");
        assert_eq!(tally.strange + tally.stuck, 0, "{tally:?}");
    }
}

#[test]
fn a_move_that_copies_before_it_fences_is_caught() {
    let ground = Ground::new();
    write_while(&ground, || {
        std::thread::sleep(Duration::from_millis(100));
        ground.move_by_hand("late");
        std::thread::sleep(Duration::from_millis(100));
    });
    let verdict = ground.verdict("new.db", &["old.db"]);
    assert!(verdict.lost > 0, "{verdict:#?}");
    assert!(verdict.accepted_after_fence >= verdict.lost, "{verdict:#?}");
}

#[test]
fn an_untouched_ledger_is_clean() {
    let verdict = Ground::written().verdict("old.db", &[]);
    assert!(verdict.is_clean() && verdict.acked > 10, "{verdict:#?}");
}

#[test]
fn a_missing_row_is_lost_and_its_amount_is_missed() {
    let ground = Ground::written();
    ground.damage("DELETE FROM ledger WHERE writer = 2 AND seq = 3 AND amount <> 0");
    let verdict = ground.verdict("old.db", &[]);
    assert_eq!(
        (verdict.lost, verdict.integrity_failures),
        (1, 1),
        "{verdict:#?}"
    );
}

#[test]
fn a_row_applied_twice_is_duplicated() {
    let ground = Ground::written();
    ground.damage(
        "INSERT INTO ledger(writer, seq, generation, account, amount)
         SELECT writer, seq, generation, account, 0 FROM ledger WHERE writer = 1 AND seq = 2",
    );
    let verdict = ground.verdict("old.db", &[]);
    assert_eq!(
        (verdict.duplicated, verdict.broken()),
        (1, 1),
        "{verdict:#?}"
    );
}

#[test]
fn a_row_nobody_tried_is_a_phantom() {
    let ground = Ground::written();
    let next = acks::read(&ground.path("acks/1.ack")).expect("read").len() as u64 + 1;
    let insert = |seq: u64| {
        ground.damage(&format!(
            "INSERT INTO ledger VALUES(NULL, 1, {seq}, 0, 1, 0)"
        ));
    };
    insert(next);
    let verdict = ground.verdict("old.db", &[]);
    assert!(
        verdict.is_clean(),
        "the next one may have been tried: {verdict:#?}"
    );
    insert(next + 1);
    assert_eq!(ground.verdict("old.db", &[]).phantom, 1);
}

#[test]
fn a_damaged_page_fails_the_check() {
    let ground = Ground::written();
    // Two writers that close together may both leave the log: what it holds hides the damage.
    let connection = Connection::open(ground.path("old.db")).expect("opened");
    let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    assert_eq!(emptied, Ok(0), "the log is in the file");
    drop(connection);
    let mut bytes = fs::read(ground.path("old.db")).expect("read");
    bytes[2 * 4096..2 * 4096 + 64].fill(0xff);
    fs::write(ground.path("old.db"), bytes).expect("written");
    assert!(ground.verdict("old.db", &[]).integrity_failures > 0);
}

#[test]
fn a_killed_writer_goes_on_after_its_last_acknowledgement() {
    let ground = Ground::written();
    let journal = ground.path("acks/1.ack");
    let whole = fs::read(&journal).expect("read");
    // As if the kill had come after COMMIT, within the write of the last record.
    fs::write(&journal, &whole[..whole.len() - 3]).expect("written");
    let rest = || std::thread::sleep(Duration::from_millis(50));
    let tally = run_while(&ground.writers(&[1, 2]), rest).expect("written");
    assert_eq!(
        tally.doubtful, 1,
        "the row in doubt is found, not written again: {tally:?}"
    );
    let verdict = ground.verdict("old.db", &[]);
    assert!(verdict.is_clean(), "{verdict:#?}");
}
