//! The first copy of a database of 256 MB: from when it is there until its copy elsewhere is
//! complete and synced, against cp and fsync of the same file.

use std::path::Path;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Error, percentile};

use crate::litestream::{Litestream, Tuning};
use crate::postgres::Server;
use crate::sqlite::{self, ROWS_PER_MEGABYTE};
use crate::table::{Row, System, Table};
use crate::wait::until;
use crate::{Scene, bounds, clear, ours, progress};

const MEGABYTES: u64 = 256;
const NAME: &str = "tenant00.db";
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

pub fn measure(table: &mut Table, scene: &Scene<'_>) {
    let rows = scene.pick(MEGABYTES, MEGABYTES / 4) * ROWS_PER_MEGABYTE;
    let seed = scene.stage.path().join("copy-seed.db");
    if table.take("copy", sqlite::create(&seed, rows)).is_none() {
        return;
    }
    let megabytes = std::fs::metadata(&seed).map_or(0.0, |meta| meta.len() as f64 / 1e6);
    let mut seen = Vec::new();
    let mut restores = Vec::new();
    for round in 0..scene.pick(3, 1) {
        progress(&format!("copy: round {}", round + 1));
        let dir = format!("copy-ours-{round}");
        let time = of_ours(scene, &dir, &seed);
        seen.push((System::Ours, table.take("copy, ours", time)));
        let times = table.take("copy, litestream", of_litestream(scene, &seed));
        seen.push((System::Litestream, times.map(|times| times.0 + times.1)));
        restores.extend(times.map(|times| times.1));
        let bare = megabytes / bounds::copy_rate(&seed);
        seen.push((System::Machine, Some(bare)));
    }
    progress("copy: postgres");
    let times = table.take("copy, postgres", of_postgres(scene, rows));
    let times = times.into_iter().flatten();
    seen.extend(times.map(|time| (System::Postgres, Some(time))));
    let mut row = Row::new(
        &format!("first copy of {megabytes:.0} MB, complete and synced"),
        "s",
    );
    for system in [
        System::Ours,
        System::Litestream,
        System::Postgres,
        System::Machine,
    ] {
        let times = seen.iter().filter(|(other, _)| *other == system);
        let mut times: Vec<f64> = times.filter_map(|(_, time)| *time).collect();
        let median = (!times.is_empty()).then(|| percentile(&mut times, 0.5));
        row = row.cell(system, median);
    }
    table.row(row);
    if !restores.is_empty() {
        let half = percentile(&mut restores, 0.5);
        table.note(&format!(
            "litestream: {half:.2} s of it is the restore, the rest the snapshot"
        ));
    }
}

fn of_ours(scene: &Scene<'_>, dir: &str, seed: &Path) -> Result<f64, Error> {
    let mut cluster = ours::start(scene, dir)?;
    let (part, live) = (ours::live(&cluster, "part"), ours::live(&cluster, NAME));
    std::fs::copy(seed, &part).map_err(|error| Error::at("copy", seed, error))?;
    settle(&part)?;
    let begun = Instant::now();
    std::fs::rename(&part, &live).map_err(|error| Error::at("rename", &part, error))?;
    ours::wait_for_shadow(&cluster, ours::OWNER, NAME)?;
    let seconds = begun.elapsed().as_secs_f64();
    cluster.stop()?;
    Ok(seconds)
}

/// Seconds until the replica has its snapshot, and for a restore from it.
fn of_litestream(scene: &Scene<'_>, seed: &Path) -> Result<(f64, f64), Error> {
    let dir = scene.dir("copy-litestream")?;
    scene.dir("copy-litestream/live")?;
    let live = dir.join("live").join(NAME);
    ours::put(seed, &live)?;
    settle(&live)?;
    let begun = Instant::now();
    let litestream = Litestream::start(scene.peers.litestream()?, &dir, Tuning::Default)?;
    until("litestream's snapshot", LIMIT, LOOK, || {
        Ok((litestream.newest(NAME) > 0).then_some(()))
    })?;
    let snapshot = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    litestream.restore(NAME, &dir.join("copy.db"))?;
    let restore = begun.elapsed().as_secs_f64();
    litestream.stop()?;
    clear(&dir);
    Ok((snapshot, restore))
}

fn of_postgres(scene: &Scene<'_>, rows: u64) -> Result<Vec<f64>, Error> {
    let dir = scene.dir("copy-postgres")?;
    let primary = Server::create(scene.peers.postgres()?, &dir.join("a"))?;
    primary.fill(rows)?;
    let mut times = Vec::new();
    for round in 0..scene.pick(3, 1) {
        let to = dir.join("a").join(format!("copy-{round}"));
        let begun = Instant::now();
        primary.backup(&to, &[])?;
        times.push(begun.elapsed().as_secs_f64());
        clear(&to);
    }
    primary.stop()?;
    clear(&dir);
    Ok(times)
}

/// What the bench itself has just written must not be synced in somebody's time.
fn settle(path: &Path) -> Result<(), Error> {
    let file = std::fs::File::open(path).map_err(|error| Error::at("open", path, error))?;
    file.sync_all()
        .map_err(|error| Error::at("sync", path, error))
}
