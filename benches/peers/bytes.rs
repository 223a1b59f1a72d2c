//! What is shipped for a small transaction: one integer of one row of JSON, 2,000 times, 200 a
//! second; rows all over the database, and the same hundred rows over and over.

use std::path::Path;
use std::time::Duration;

use foreshadow::cli::demo::harness::Error;

use crate::application::now_ns;
use crate::litestream::{Litestream, Tuning};
use crate::postgres::{Client, Server, lsn};
use crate::sqlite::{self, Plan, ROWS_PER_MEGABYTE, Work, Writer};
use crate::table::{Row, System, Table};
use crate::wait::until;
use crate::{Scene, clear, ours, progress};

const ROWS: u64 = 32 * ROWS_PER_MEGABYTE;
const HOT_ROWS: u64 = 100;
const NAME: &str = "tenant00.db";
const EVERY_US: u64 = 5000;
const COUNT: u64 = 2000;
const COUNT_QUICK: u64 = 500;
/// Ours must ship at most this share of Litestream's bytes.
const BAR: f64 = 0.1;

/// Bytes per transaction shipped, and of SQLite's own log.
struct Shipped {
    bytes: f64,
    log: Option<f64>,
}

pub fn measure(table: &mut Table, scene: &Scene<'_>) {
    let seed = scene.stage.path().join("bytes-seed.db");
    if table.take("bytes", sqlite::create(&seed, ROWS)).is_none() {
        return;
    }
    for (rows, what, has_bar) in [
        (ROWS, "rows all over 32 MB", true),
        (HOT_ROWS, "the same 100 rows", false),
    ] {
        let name = format!("bytes per small transaction, {what}");
        let mut row = Row::new(&name, "B");
        let mut log = None;
        for (system, who) in [
            (System::Ours, "ours"),
            (System::Litestream, "litestream"),
            (System::LitestreamTuned, "litestream, 50 ms"),
            (System::Postgres, "postgres"),
        ] {
            progress(&format!("{name}: {who}"));
            let shipped = match system {
                System::Ours => of_ours(table, scene, &seed, rows),
                System::Litestream => of_litestream(scene, &seed, rows, Tuning::Default),
                System::LitestreamTuned => of_litestream(scene, &seed, rows, Tuning::Fast),
                _ => of_postgres(table, scene, rows),
            };
            let shipped = table.take(&format!("bytes, {who}"), shipped);
            row = row.cell(system, shipped.as_ref().map(|shipped| shipped.bytes));
            log = log.or(shipped.and_then(|shipped| shipped.log));
        }
        row = row.cell(System::Machine, log);
        if has_bar {
            row = row.bar(System::Litestream, BAR);
        }
        table.row(row);
    }
    table.note("the machine: the WAL of SQLite itself, as Litestream read it");
}

fn count(scene: &Scene<'_>) -> u64 {
    scene.pick(COUNT, COUNT_QUICK)
}

fn write(scene: &Scene<'_>, database: &Path, rows: u64) -> Result<(), Error> {
    let plan = Plan {
        database: database.to_owned(),
        work: Work::Update(rows),
        every_us: EVERY_US,
        count: count(scene),
        log: scene.stage.path().join("bytes.log"),
    };
    let mut writer = Writer::start(&plan)?;
    writer.go()?;
    writer.finish().map(|_| ())
}

fn of_ours(table: &Table, scene: &Scene<'_>, seed: &Path, rows: u64) -> Result<Shipped, Error> {
    let mut cluster = ours::start_with(scene, &format!("bytes-ours-{rows}"), seed)?;
    let database = cluster.routes().join(NAME);
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<u64> = cluster
        .nodes
        .iter_mut()
        .map(|node| node.bytes_out())
        .collect();
    write(scene, &database, rows)?;
    std::thread::sleep(Duration::from_secs(1));
    let after: Vec<u64> = cluster
        .nodes
        .iter_mut()
        .map(|node| node.bytes_out())
        .collect();
    cluster.stop()?;
    let per = |node: usize| (after[node] - before[node]) as f64 / count(scene) as f64;
    table.note(&format!(
        "ours: and {:.1} B back, in acknowledgements",
        per(1)
    ));
    Ok(Shipped {
        bytes: per(0),
        log: None,
    })
}

fn of_litestream(
    scene: &Scene<'_>,
    seed: &Path,
    rows: u64,
    tuning: Tuning,
) -> Result<Shipped, Error> {
    let name = format!("bytes-{tuning:?}-{rows}");
    let dir = scene.dir(&name)?;
    scene.dir(&format!("{name}/live"))?;
    let database = dir.join("live").join(NAME);
    ours::put(seed, &database)?;
    let litestream = Litestream::start(scene.peers.litestream()?, &dir, tuning)?;
    litestream.wait_for_replica(NAME)?;
    let before = litestream.sync(NAME)?;
    write(scene, &database, rows)?;
    let after = litestream.sync(NAME)?;
    let files = litestream.level_0(NAME)?;
    litestream.stop()?;
    clear(&dir);
    let new: Vec<_> = files.range(before + 1..).map(|(_, ltx)| *ltx).collect();
    if new.len() as u64 != after - before {
        return Err(Error::new(
            "files of level 0 are gone before they were counted",
        ));
    }
    let per = |bytes: u64| bytes as f64 / count(scene) as f64;
    let log = new.iter().map(|ltx| ltx.wal.1 - ltx.wal.0).sum();
    Ok(Shipped {
        bytes: per(new.iter().map(|ltx| ltx.bytes).sum()),
        log: Some(per(log)),
    })
}

/// WAL streamed to a standby. Right after a checkpoint each page goes whole once, which is said
/// apart; the figure is without these images, which no setting of PostgreSQL can go below.
fn of_postgres(table: &Table, scene: &Scene<'_>, rows: u64) -> Result<Shipped, Error> {
    let dir = scene.dir(&format!("bytes-postgres-{rows}"))?;
    let primary = Server::create(scene.peers.postgres()?, &dir.join("a"))?;
    primary.fill(ROWS)?;
    let standby = primary.standby(&dir.join("s"))?;
    let mut client = Client::open(&primary.socket(), Work::Update(rows))?;
    client.connection().query("CHECKPOINT")?;
    let count = count(scene);
    let first = postgres_bytes(&mut client, count)?;
    client
        .connection()
        .query("ALTER SYSTEM SET full_page_writes = off")?;
    client.connection().query("SELECT pg_reload_conf()")?;
    client.connection().query("CHECKPOINT")?;
    let steady = postgres_bytes(&mut client, count)?;
    drop(client);
    primary.stop()?;
    standby.stop()?;
    clear(&dir);
    table.note(&format!("postgres: {first:.0} B right after a checkpoint"));
    Ok(Shipped {
        bytes: steady,
        log: None,
    })
}

fn postgres_bytes(client: &mut Client, count: u64) -> Result<f64, Error> {
    let before = streamed(client)?;
    let mut due = now_ns();
    for _ in 0..count {
        client.transact()?;
        due += EVERY_US * 1000;
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
    }
    Ok((streamed(client)? - before) as f64 / count as f64)
}

/// How much was sent to the standby, once all is.
fn streamed(client: &mut Client) -> Result<u64, Error> {
    let limit = Duration::from_secs(30);
    until(
        "the standby has all",
        limit,
        Duration::from_millis(20),
        || {
            let connection = client.connection();
            let current = lsn(&connection.value("SELECT pg_current_wal_flush_lsn()")?)?;
            let sent = lsn(&connection.value("SELECT max(sent_lsn) FROM pg_stat_replication")?)?;
            Ok((sent >= current).then_some(sent))
        },
    )
}
