//! The demo's parts with databases of SQLite. The fence is made by fence.py, which shares no code
//! with the daemon.

use std::fs;
use std::process::Command;

use rusqlite::Connection;

use super::*;
use crate::cli::demo::sqlite::python;

const SQLITE: Engine = Engine::Sqlite;

fn damage(ground: &Ground, sql: &str) {
    let connection = Connection::open(ground.database(OLD)).expect("opened");
    let changed = connection.execute(sql, []).expect(sql);
    assert!(changed > 0, "{sql} changed nothing");
}

/// Moves the tenant with a mover that fences first, or too late.
fn move_by_hand(ground: &Ground, when: &str) {
    let script = ground.path("fence.py");
    fs::write(&script, include_str!("../sqlite/fence.py")).expect("written");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .args([ground.database(OLD), ground.database(NEW)])
        .arg(when);
    let answer = command
        .output()
        .expect("python3 is there: ./tests/run installs it");
    assert!(
        answer.status.success(),
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    ground.route_to(NEW);
}

/// Writes with both SQLites while `rest` runs, which is told who writes.
fn write_while(ground: &Ground, rest: impl FnOnce(&[u32])) -> Vec<Tally> {
    let mut plan = ground.writers(&[3]);
    plan.tally = ground.path("python.json");
    let mut tallies = Vec::new();
    let bundled = run_while(&ground.writers(&[1, 2]), || {
        let writers: &[u32] = match python() {
            Some(_) => &[1, 2, 3],
            None => &[1, 2],
        };
        tallies.extend(ground.write_in_python(&plan, || rest(writers)));
    });
    tallies.push(bundled.expect("written"));
    tallies
}

#[test]
fn writers_with_open_connections_follow_the_route_past_a_fence_and_lose_nothing() {
    let ground = Ground::new(SQLITE);
    let mut before = 0;
    let tallies = write_while(&ground, |writers| {
        ground.wait_for_rows(writers);
        move_by_hand(&ground, "first");
        before = ground.acked();
        ground.wait_for_rows(writers);
    });
    let verdict = ground.verdict(NEW, &[OLD]);
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
    let ground = Ground::new(SQLITE);
    write_while(&ground, |writers| {
        ground.wait_for_rows(writers);
        move_by_hand(&ground, "late");
        ground.wait_for_rows(writers);
    });
    let verdict = ground.verdict(NEW, &[OLD]);
    assert!(verdict.lost > 0, "{verdict:#?}");
    assert!(verdict.accepted_after_fence >= verdict.lost, "{verdict:#?}");
}

#[test]
fn an_untouched_ledger_is_clean() {
    let verdict = Ground::written(SQLITE).verdict(OLD, &[]);
    assert!(verdict.is_clean() && verdict.acked > 10, "{verdict:#?}");
}

#[test]
fn a_missing_row_is_lost_and_its_amount_is_missed() {
    let ground = Ground::written(SQLITE);
    damage(
        &ground,
        "DELETE FROM ledger WHERE writer = 2 AND seq = 3 AND amount <> 0",
    );
    let verdict = ground.verdict(OLD, &[]);
    assert_eq!(
        (verdict.lost, verdict.integrity_failures),
        (1, 1),
        "{verdict:#?}"
    );
}

#[test]
fn a_row_applied_twice_is_duplicated() {
    let ground = Ground::written(SQLITE);
    damage(
        &ground,
        "INSERT INTO ledger(writer, seq, generation, account, amount)
         SELECT writer, seq, generation, account, 0 FROM ledger WHERE writer = 1 AND seq = 2",
    );
    let verdict = ground.verdict(OLD, &[]);
    assert_eq!(
        (verdict.duplicated, verdict.broken()),
        (1, 1),
        "{verdict:#?}"
    );
}

#[test]
fn a_row_nobody_tried_is_a_phantom() {
    let ground = Ground::written(SQLITE);
    let next = acks::read(&ground.path("acks/1.ack")).expect("read").len() as u64 + 1;
    let insert = |seq: u64| {
        damage(
            &ground,
            &format!("INSERT INTO ledger VALUES(NULL, 1, {seq}, 0, 1, 0)"),
        );
    };
    insert(next);
    let verdict = ground.verdict(OLD, &[]);
    assert!(
        verdict.is_clean(),
        "the next one may have been tried: {verdict:#?}"
    );
    insert(next + 1);
    assert_eq!(ground.verdict(OLD, &[]).phantom, 1);
}

#[test]
fn a_damaged_page_fails_the_check() {
    let ground = Ground::written(SQLITE);
    // Two writers that close together may both leave the log: what it holds hides the damage.
    let connection = Connection::open(ground.database(OLD)).expect("opened");
    let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    assert_eq!(emptied, Ok(0), "the log is in the file");
    drop(connection);
    let mut bytes = fs::read(ground.database(OLD)).expect("read");
    bytes[2 * 4096..2 * 4096 + 64].fill(0xff);
    fs::write(ground.database(OLD), bytes).expect("written");
    assert!(ground.verdict(OLD, &[]).integrity_failures > 0);
}

#[test]
fn a_killed_writer_goes_on_after_its_last_acknowledgement() {
    let ground = Ground::written(SQLITE);
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
