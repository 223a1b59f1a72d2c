//! From the return of a COMMIT until the transaction is durable and until it is visible elsewhere,
//! under a paced writer.
//!
//! Ours: the positions that the daemons publish. Litestream: the WAL range in the header of each
//! LTX file that appears in the replica says which commits it holds, and the follower's txid file
//! what it has applied; no reader of the copy is needed, which would stall the follower.
//! PostgreSQL: what the standby says of itself, asked all the time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foreshadow::cli::demo::harness::{Error, percentile};
use wal::PartitionName;

use crate::application::{Commit, now_ns};
use crate::litestream::{Follower, Litestream, Tuning};
use crate::observer::{self, Observer, lags_ms};
use crate::postgres::{Client, Server, lsn};
use crate::sqlite::{self, Plan, ROWS_PER_MEGABYTE, Work, Writer};
use crate::table::{Row, System, Table};
use crate::{Scene, clear, ours, progress};

const ROWS: u64 = 12 * ROWS_PER_MEGABYTE;
const NAME: &str = "tenant00.db";
/// 100 a second: each is on its own.
const EVERY_US: u64 = 10_000;
/// Fewer frames than SQLite or Litestream checkpoint after (1,000): the WAL only grows.
const COUNT: u64 = 800;
const COUNT_QUICK: u64 = 300;
const LOOK: Duration = Duration::from_millis(1);
const WAL_FRAME: u64 = 4096 + 24;
/// How long the last commits get to arrive: two of Litestream's intervals and time to spare.
const TAIL: Duration = Duration::from_secs(5);

/// Milliseconds for each commit.
struct Lags {
    durable: Vec<f64>,
    visible: Vec<f64>,
}

pub fn measure(table: &mut Table, scene: &Scene<'_>) {
    let seed = scene.stage.path().join("lag-seed.db");
    if table.take("lag", sqlite::create(&seed, ROWS)).is_none() {
        return;
    }
    let mut seen = Vec::new();
    for (system, name) in [
        (System::Ours, "ours"),
        (System::Litestream, "litestream"),
        (System::LitestreamTuned, "litestream, 50 ms"),
        (System::Postgres, "postgres"),
    ] {
        progress(&format!("lag: {name}"));
        let lags = match system {
            System::Ours => of_ours(scene, &seed),
            System::Litestream => of_litestream(scene, &seed, Tuning::Default),
            System::LitestreamTuned => of_litestream(scene, &seed, Tuning::Fast),
            _ => of_postgres(scene),
        };
        let lags = lags.and_then(|lags| lags.complete(count(scene)));
        seen.extend(
            table
                .take(&format!("lag, {name}"), lags)
                .map(|lags| (system, lags)),
        );
    }
    for (what, share) in [("p50", 0.5), ("p99", 0.99)] {
        let durable = Row::new(&format!("commit to durable elsewhere, {what}"), "ms");
        let visible = Row::new(&format!("commit to visible elsewhere, {what}"), "ms");
        let (durable, visible) = seen.iter_mut().fold((durable, visible), |rows, seen| {
            let (system, lags) = seen;
            (
                rows.0
                    .cell(*system, Some(percentile(&mut lags.durable, share))),
                rows.1
                    .cell(*system, Some(percentile(&mut lags.visible, share))),
            )
        });
        table.row(durable);
        table.row(visible);
    }
}

impl Lags {
    /// Every commit must have arrived.
    fn complete(self, count: u64) -> Result<Lags, Error> {
        let (durable, visible) = (self.durable.len() as u64, self.visible.len() as u64);
        match durable == count && visible == count {
            true => Ok(self),
            false => Err(Error::new(format!(
                "of {count} commits {durable} became durable and {visible} visible"
            ))),
        }
    }
}

fn count(scene: &Scene<'_>) -> u64 {
    scene.pick(COUNT, COUNT_QUICK)
}

fn plan(scene: &Scene<'_>, database: &Path) -> Plan {
    Plan {
        database: database.to_owned(),
        work: Work::Update(ROWS),
        every_us: EVERY_US,
        count: count(scene),
        log: scene.stage.path().join("lag.log"),
    }
}

fn of_ours(scene: &Scene<'_>, seed: &Path) -> Result<Lags, Error> {
    let mut cluster = ours::start_with(scene, "lag-ours", seed)?;
    let plan = plan(scene, &cluster.routes().join(NAME));
    let states: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| node.place.state())
        .collect();
    // Wakes the database and its shadow up.
    Writer::run_for(&plan, Duration::from_millis(500))?;
    std::thread::sleep(Duration::from_millis(300));
    let id = PartitionName::new(NAME)
        .ok_or_else(|| Error::new("a name"))?
        .id();
    let mut writer = Writer::start(&plan)?;
    let (change, slot) = (
        observer::change_of(&plan.database),
        observer::slot(&states[0], id),
    );
    let observer = Observer::start(&states, id);
    writer.go()?;
    let commits = writer.finish()?;
    std::thread::sleep(Duration::from_secs(1));
    let seen = observer.stop();
    cluster.stop()?;
    let lsn = |index: usize| slot.change_offset.lsn(change + 1 + index as u32);
    let ends = commits.iter().enumerate();
    let ends: Vec<_> = ends
        .map(|(index, commit)| (commit.end_ns, lsn(index)))
        .collect();
    Ok(Lags {
        durable: lags_ms(ends.iter().copied(), &seen[1].durable),
        visible: lags_ms(ends.iter().copied(), &seen[1].applied),
    })
}

fn of_litestream(scene: &Scene<'_>, seed: &Path, tuning: Tuning) -> Result<Lags, Error> {
    let dir = scene.dir(&format!("lag-{tuning:?}"))?;
    scene.dir(&format!("lag-{tuning:?}/live"))?;
    let database = dir.join("live").join(NAME);
    ours::put(seed, &database)?;
    let litestream = Litestream::start(scene.peers.litestream()?, &dir, tuning)?;
    litestream.wait_for_replica(NAME)?;
    let follower = litestream.follow(NAME, &dir.join("copy.db"))?;
    follower.wait_for(litestream.sync(NAME)?)?;
    let mut writer = Writer::start(&plan(scene, &database))?;
    let log = PathBuf::from(format!("{}-wal", database.display()));
    let length = || std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let before = length();
    writer.go()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (commits, arrived) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&litestream, &follower, &stop));
        let commits = writer.finish();
        std::thread::sleep(TAIL);
        stop.store(true, Ordering::Relaxed);
        (commits, watching.join().expect("it only reads"))
    });
    let (commits, (files, applied)) = (commits?, arrived?);
    if length() != before + commits.len() as u64 * WAL_FRAME {
        return Err(Error::new(
            "not every commit is one frame at the end of the WAL",
        ));
    }
    follower.stop()?;
    litestream.stop()?;
    clear(&dir);
    let ends = commits.iter().zip(1..).map(|(commit, number)| {
        let end = before + number * WAL_FRAME;
        (commit.end_ns, end)
    });
    let (mut durable, mut visible) = (Vec::new(), Vec::new());
    for (end_ns, end) in ends {
        let Some((txid, (at_ns, _))) = files.iter().find(|(_, (_, until))| *until >= end) else {
            continue;
        };
        durable.push(at_ns.saturating_sub(end_ns) as f64 / 1e6);
        let shown = applied.range(txid..).next();
        visible.extend(shown.map(|(_, at_ns)| at_ns.saturating_sub(end_ns) as f64 / 1e6));
    }
    Ok(Lags { durable, visible })
}

/// When each LTX file was there, with the end of its part of the WAL, and when each was applied.
type Arrived = (BTreeMap<u64, (u64, u64)>, BTreeMap<u64, u64>);

fn watch(
    litestream: &Litestream,
    follower: &Follower,
    stop: &AtomicBool,
) -> Result<Arrived, Error> {
    let (mut files, mut applied) = (BTreeMap::new(), BTreeMap::new());
    let mut last = litestream.newest(NAME);
    while !stop.load(Ordering::Relaxed) {
        let newest = litestream.newest(NAME);
        let at_ns = now_ns();
        if newest > last {
            for (txid, ltx) in litestream.level_0(NAME)?.range(last + 1..) {
                files.insert(*txid, (at_ns, ltx.wal.1));
            }
            last = newest;
        }
        applied.entry(follower.txid()).or_insert_with(now_ns);
        std::thread::sleep(LOOK);
    }
    Ok((files, applied))
}

fn of_postgres(scene: &Scene<'_>) -> Result<Lags, Error> {
    let dir = scene.dir("lag-postgres")?;
    let primary = Server::create(scene.peers.postgres()?, &dir.join("a"))?;
    primary.fill(ROWS)?;
    let standby = primary.standby(&dir.join("s"))?;
    let mut client = Client::open(&primary.socket(), Work::Update(ROWS))?;
    client.run_for(Duration::from_millis(500))?;
    let stop = AtomicBool::new(false);
    let (commits, seen) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| sightings(&standby, &stop));
        let commits = write_paced(&mut client, count(scene));
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        (commits, watching.join().expect("it only asks"))
    });
    let (commits, seen) = (commits?, seen?);
    drop(client);
    primary.stop()?;
    standby.stop()?;
    clear(&dir);
    let lag = |which: fn(&(u64, u64, u64)) -> u64| {
        let lags = commits
            .iter()
            .filter_map(move |(commit, end)| (*commit, *end).into());
        let lags = lags.filter_map(|(commit, end): (Commit, u64)| {
            let first = seen.iter().find(|sighting| which(sighting) >= end)?;
            Some(first.0.saturating_sub(commit.end_ns) as f64 / 1e6)
        });
        lags.collect()
    };
    Ok(Lags {
        durable: lag(|sighting| sighting.1),
        visible: lag(|sighting| sighting.2),
    })
}

/// Each commit with the position of the log after it.
fn write_paced(client: &mut Client, count: u64) -> Result<Vec<(Commit, u64)>, Error> {
    let mut due = now_ns();
    let mut commits = Vec::new();
    for _ in 0..count {
        let commit = client.transact()?;
        let end = client
            .connection()
            .value("SELECT pg_current_wal_flush_lsn()")?;
        commits.push((commit, lsn(&end)?));
        due += EVERY_US * 1000;
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
    }
    Ok(commits)
}

/// When the standby said what it had received and synced, and replayed; only changes.
fn sightings(standby: &Server, stop: &AtomicBool) -> Result<Vec<(u64, u64, u64)>, Error> {
    let mut connection = standby.connect()?;
    let mut seen: Vec<(u64, u64, u64)> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let row = connection.query("SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()")?;
        let row = row.first().filter(|row| row.len() == 2);
        let row = row.ok_or_else(|| Error::new("a standby without positions"))?;
        let sighting = (now_ns(), lsn(&row[0])?, lsn(&row[1])?);
        let known = |last: &(u64, u64, u64)| (last.1, last.2) == (sighting.1, sighting.2);
        if !seen.last().is_some_and(known) {
            seen.push(sighting);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(seen)
}
