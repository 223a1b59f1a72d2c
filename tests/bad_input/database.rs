//! Files in the configured directories that are no live database, or stop being the same one.

use std::fs;
use std::path::Path;

use foreshadow::cli::demo::harness::Outcome;
use rusqlite::Connection;

use crate::cluster::{LIMIT, moves_on, options, started, tenants, until};
use crate::command::ask_at;
use crate::{applications, goes_on, refusal, served};

/// A closed database with `rows` rows.
pub fn make(path: &Path, journal: &str, rows: u32) {
    let connection = Connection::open(path).expect("opens");
    connection
        .pragma_update(None, "journal_mode", journal)
        .expect("set");
    let sql = "CREATE TABLE t(v); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
               WHERE i < ROWS) INSERT INTO t SELECT randomblob(200) FROM n;";
    let sql = sql.replace("ROWS", &rows.to_string());
    connection.execute_batch(&sql).expect("filled");
    connection.close().expect("closed");
}

/// Rows as an application sees them.
pub fn rows(path: &Path) -> u32 {
    let connection = Connection::open(path).expect("opens");
    let count = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("checks");
    assert_eq!(check, "ok");
    count.expect("a table")
}

#[test]
fn a_file_that_is_no_database_is_refused_by_name_and_left_alone() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let live = cluster.node("node-a").expect("there").place.live();
    let text = "To be, or not to be. ".repeat(500);
    fs::write(live.join("text.db"), &text).expect("writes");
    fs::write(live.join("empty.db"), "").expect("writes");
    assert!(refusal(&cluster, "node-a", "text.db").contains("page 1 is not SQLite's"));
    assert!(refusal(&cluster, "node-a", "empty.db").contains("it is empty"));
    let status = ask_at(&cluster, "node-a", &["status"]).exits(0);
    assert!(status.out.contains("refused: text.db:"), "{status:#?}");
    ask_at(&cluster, "node-a", &["move", "text.db", "--to", "node-b"])
        .exits(3)
        .complains(&["text.db is not attached", "page 1 is not SQLite's"]);
    assert_eq!(
        fs::read_to_string(live.join("text.db")).expect("there"),
        text
    );
    assert!(!live.join("text.db-wal").exists() && !live.join("empty.db-shm").exists());
    goes_on(cluster, writers);
}

#[test]
fn a_database_with_a_rollback_journal_is_refused_until_it_uses_wal() {
    let tenants = tenants(1, 2);
    let mut cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let path = cluster
        .node("node-a")
        .expect("there")
        .place
        .live()
        .join("old.db");
    make(&path, "DELETE", 40);
    let reason = refusal(&cluster, "node-a", "old.db");
    assert!(reason.contains("journal_mode=WAL"), "{reason}");
    let connection = Connection::open(&path).expect("opens");
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .expect("set");
    connection.close().expect("closed");
    let path = path.to_str().expect("UTF-8");
    ask_at(&cluster, "node-a", &["add", path]).exits(0);
    served(&cluster, "node-a", "old.db");
    cluster
        .tenants
        .push(foreshadow::cli::demo::harness::Tenant {
            name: "old.db".to_owned(),
            ..tenants[0].clone()
        });
    moves_on(&mut cluster, "old.db");
    assert_eq!(rows(&cluster.routes().join("old.db")), 40);
    cluster.tenants.pop();
    goes_on(cluster, writers);
}

#[test]
fn a_database_replaced_while_it_is_watched_is_noticed_and_copied_anew() {
    replaced(false);
}

/// At rest only the WAL-index is held, which a rename over the database leaves as it was: once, the
/// old pages were taken for those of the new file.
#[test]
fn a_database_replaced_while_it_is_at_rest_is_noticed_and_copied_anew() {
    replaced(true);
}

fn replaced(at_rest: bool) {
    let tenants = tenants(1, 2);
    let mut cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let place = cluster.node("node-a").expect("there").place.clone();
    let path = place.live().join("swap.db");
    let staged = place.dir.join("staged.db");
    make(&staged, "WAL", 40);
    fs::rename(&staged, &path).expect("renamed");
    let before = until("it is served as the test wants it", || {
        let entry = served(&cluster, "node-a", "swap.db");
        (!at_rest || entry["tier"] == "cold").then_some(entry)
    });
    make(&staged, "WAL", 900);
    fs::rename(&staged, &path).expect("renamed over it");
    let after = until("the new file is served with a shadow", || {
        let after = served(&cluster, "node-a", "swap.db");
        (after["digest"] != before["digest"]).then_some(after)
    });
    assert!(after["pages"].as_u64() > before["pages"].as_u64());
    let events = ask_at(&cluster, "node-a", &["events"]).exits(0);
    assert!(
        events.out.contains("replaced while it was attached"),
        "{}",
        events.out
    );
    cluster
        .tenants
        .push(foreshadow::cli::demo::harness::Tenant {
            name: "swap.db".to_owned(),
            ..tenants[0].clone()
        });
    moves_on(&mut cluster, "swap.db");
    assert_eq!(rows(&cluster.routes().join("swap.db")), 900);
    cluster.tenants.pop();
    goes_on(cluster, writers);
}

#[test]
fn a_database_that_is_deleted_is_let_go_and_the_daemon_goes_on() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let path = cluster
        .node("node-a")
        .expect("there")
        .place
        .live()
        .join("gone.db");
    make(&path, "WAL", 40);
    served(&cluster, "node-a", "gone.db");
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        let removed = fs::remove_file(Path::new(&name));
        assert!(!suffix.is_empty() || removed.is_ok());
    }
    until("it is no longer served", || {
        let entry = crate::entry(&cluster, "node-a", "gone.db")?;
        (entry["role"] != "owner").then_some(())
    });
    assert!(!path.exists(), "nobody makes a new empty one");
    goes_on(cluster, writers);
}

#[test]
fn a_link_that_leads_out_of_the_directory_is_refused() {
    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let place = cluster.node("node-a").expect("there").place.clone();
    let outside = place.dir.join("outside.db");
    make(&outside, "WAL", 40);
    std::os::unix::fs::symlink(&outside, place.live().join("link.db")).expect("linked");
    let reason = refusal(&cluster, "node-a", "link.db");
    assert!(reason.contains("outside"), "{reason}");
    assert!(
        !place.dir.join("outside.db-shm").exists(),
        "it was not touched"
    );
    goes_on(cluster, writers);
}

#[test]
fn a_file_where_a_move_would_land_stops_the_move_before_the_pause() {
    let tenants = tenants(2, 2);
    let mut cluster = started(&options(2), &tenants);
    let writers = applications(&cluster);
    let place = cluster.node("node-b").expect("there").place.clone();
    let in_the_way = place.live().join("tenant01.db");
    make(&in_the_way, "WAL", 3);
    let report = cluster.move_partition("tenant01.db", "node-b", LIMIT);
    let report = report.expect("the move ends");
    let Outcome::Aborted(reason) = &report.outcome else {
        panic!("{report:?}")
    };
    assert!(reason.contains("/node-b/live/tenant01.db"), "{reason}");
    let frozen = report.steps.iter().any(|step| step.name == "freezing");
    assert!(!frozen, "{report:?}");
    assert_eq!(rows(&in_the_way), 3, "it is left alone");
    for suffix in ["", "-wal", "-shm"] {
        let path = place.live().join(format!("tenant01.db{suffix}"));
        assert!(fs::remove_file(path).is_ok() || !suffix.is_empty());
    }
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    moves_on(&mut cluster, "tenant01.db");
    goes_on(cluster, writers);
}
