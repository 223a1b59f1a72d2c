//! Durable commits of one thread, 128 bytes each, nobody attached: what each engine makes of the
//! disk, against a bare 4 KiB pwrite with fdatasync.

use std::path::Path;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Error, percentile};
use wal::log::{Appender, Kind, Options};

use crate::application::Commit;
use crate::postgres::{Client, Server};
use crate::report::{Bar, Bound, Figure};
use crate::sqlite::{self, Plan, Work, Writer};
use crate::table::Table;
use crate::{Scene, bounds, clear, progress, wait};

const ROCKSDB: &str = include_str!("rocksdb.py");
const NATIVE: &str = "native log of Foreshadow";
/// Our commits, of those of each other engine with one thread.
const NATIVE_BAR: f64 = 1.5;
const SLICE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(60);

/// Somebody who commits for a while, and says how long each commit took, in milliseconds.
type Committer<'a> = Box<dyn FnMut(Duration) -> Result<Vec<f64>, Error> + 'a>;

/// One row: all that a further engine needs is an entry in [`contenders`].
struct Contender<'a> {
    name: &'static str,
    commit: Result<Committer<'a>, Error>,
    took_ms: Vec<f64>,
    rates: Vec<f64>,
}

pub fn measure(table: &mut Table, scene: &Scene<'_>) {
    let mut contenders = contenders(scene);
    for contender in &contenders {
        if let Err(error) = &contender.commit {
            table.fail(&format!("sync commits, {}: {error}", contender.name));
        }
    }
    let rounds = scene.pick(5, 2);
    // In turns, so that all meet the same disk.
    for round in 1..=rounds {
        progress(&format!("sync commits: round {round} of {rounds}"));
        for contender in &mut contenders {
            if let Err(error) = contender.round() {
                table.fail(&format!("sync commits, {}: {error}", contender.name));
            }
        }
    }
    let (floor, rest) = contenders
        .split_first_mut()
        .expect("the roofline is the first");
    let bound = Bound(percentile(&mut floor.rates, 0.5), floor.name);
    for contender in rest
        .iter_mut()
        .filter(|contender| !contender.rates.is_empty())
    {
        let rate = percentile(&mut contender.rates, 0.5);
        let name = format!("sync commits: {}", contender.name);
        table.against(&name, Figure(rate, "/s"), bound);
    }
    ours_against(table, &mut contenders);
    for contender in contenders
        .iter_mut()
        .filter(|contender| !contender.rates.is_empty())
    {
        let (rates, took) = (&mut contender.rates, &mut contender.took_ms);
        table.note(&format!(
            "{}: {:.0} commits/s, p50 {:.2} ms, p99 {:.2} ms",
            contender.name,
            percentile(rates, 0.5),
            percentile(took, 0.5),
            percentile(took, 0.99),
        ));
    }
}

/// The native log against every other engine.
fn ours_against(table: &mut Table, contenders: &mut [Contender<'_>]) {
    let mut ours = 0.0;
    for contender in contenders.iter_mut().skip(1) {
        let rate = percentile(&mut contender.rates, 0.5);
        if contender.name == NATIVE {
            ours = rate;
        } else if rate > 0.0 && ours > 0.0 {
            let case = format!("sync commits: native log beside {}", contender.name);
            let bar = Bar::AtLeast(NATIVE_BAR * rate);
            table.asked(&case, Figure(ours, "/s"), Bound(rate, contender.name), bar);
        }
    }
}

/// Everybody who commits; the first is the roofline, ours the second.
fn contenders<'a>(scene: &'a Scene<'a>) -> Vec<Contender<'a>> {
    let new = |name, commit| Contender {
        name,
        commit,
        took_ms: Vec::new(),
        rates: Vec::new(),
    };
    vec![
        new("pwrite and fdatasync, 4 KiB", Ok(bare(scene))),
        new(NATIVE, native(scene)),
        new("SQLite, WAL, synchronous=FULL", sqlite(scene)),
        new("RocksDB, sync", rocksdb(scene, false)),
        new("RocksDB, sync, recycled logs", rocksdb(scene, true)),
        new("PostgreSQL, synchronous_commit=on", postgres(scene)),
    ]
}

impl Contender<'_> {
    fn round(&mut self) -> Result<(), Error> {
        let Ok(commit) = &mut self.commit else {
            return Ok(());
        };
        let took = commit(SLICE)?;
        let seconds = took.iter().sum::<f64>() / 1e3;
        if took.is_empty() {
            return Err(Error::new("it committed nothing"));
        }
        self.rates.push(took.len() as f64 / seconds);
        self.took_ms.extend(took);
        Ok(())
    }
}

fn bare<'a>(scene: &'a Scene<'a>) -> Committer<'a> {
    Box::new(|time| {
        let begun = Instant::now();
        let mut took = Vec::new();
        while begun.elapsed() < time {
            let some = bounds::fdatasync(scene.stage.path(), 100);
            took.extend(some.into_iter().map(|us| us / 1e3));
        }
        Ok(took)
    })
}

/// Our own log, as an engine of one thread appends to it.
fn native<'a>(scene: &'a Scene<'a>) -> Result<Committer<'a>, Error> {
    let failed = |error: wal::log::Error| Error::new(error.to_string());
    let path = scene.stage.path().join("native.log");
    let options = Options {
        segment_bytes: 16 << 20,
        ..Options::default()
    };
    let appender = Appender::open(&path, &options).map_err(failed)?;
    // A slot that is filled with zeros once is not the point: a few are made before.
    for _ in 0..64 {
        appender
            .append(Kind(0), &vec![1; 1 << 20])
            .map_err(failed)?;
    }
    Ok(Box::new(move |time| {
        appender.release(appender.position()).map_err(failed)?;
        let begun = Instant::now();
        let mut took = Vec::new();
        while begun.elapsed() < time {
            let at = Instant::now();
            appender.append(Kind(1), &[7; 128]).map_err(failed)?;
            took.push(at.elapsed().as_secs_f64() * 1e3);
        }
        Ok(took)
    }))
}

fn sqlite<'a>(scene: &'a Scene<'a>) -> Result<Committer<'a>, Error> {
    let database = scene.stage.path().join("commits.db");
    sqlite::create(&database, 1)?;
    let plan = |log| Plan {
        database: database.clone(),
        work: Work::Insert,
        every_us: 0,
        count: 0,
        log: scene.stage.path().join(log),
    };
    // Keeps the WAL from being deleted between slices.
    let mut holder = Writer::start(&plan("commits-holder.log"))?;
    let plan = plan("commits.log");
    Ok(Box::new(move |time| {
        // It lives as long as who commits.
        let _ = &mut holder;
        Writer::run_for(&plan, time).map(|commits| took_ms(&commits))
    }))
}

fn rocksdb<'a>(scene: &'a Scene<'a>, recycled: bool) -> Result<Committer<'a>, Error> {
    let library = scene.peers.rocksdb()?.to_owned();
    let script = scene.stage.path().join("rocksdb.py");
    std::fs::write(&script, ROCKSDB).map_err(|error| Error::at("write", &script, error))?;
    let dir = scene.stage.path().join(format!("rocksdb-{recycled}"));
    Ok(Box::new(move |time| {
        let seconds = time.as_secs_f64().to_string();
        let recycled = if recycled { "4" } else { "0" };
        let said = python(&library, &script, &dir, [&seconds, recycled])?;
        let took = said
            .lines()
            .map(|line| line.parse().map(|ns: f64| ns / 1e6));
        let took = took.collect::<Result<Vec<f64>, _>>();
        took.map_err(|_| Error::new(wait::last_lines(&said)))
    }))
}

fn python(library: &Path, script: &Path, dir: &Path, rest: [&str; 2]) -> Result<String, Error> {
    let path = format!("PYTHONPATH={}", library.display());
    let (script, database) = (script.to_string_lossy(), dir.to_string_lossy());
    let command = [
        "env", &path, "python3", &script, &database, rest[0], rest[1],
    ];
    wait::run(&command, &dir.with_extension("log"), LIMIT)
}

fn postgres<'a>(scene: &'a Scene<'a>) -> Result<Committer<'a>, Error> {
    let dir = scene.dir("commits-postgres")?;
    let server = Server::create(scene.peers.postgres()?, &dir.join("a"))?;
    server.fill(1)?;
    let mut client = Client::open(&server.socket(), Work::Insert)?;
    let mut kept = Kept {
        _server: server,
        dir,
    };
    Ok(Box::new(move |time| {
        // It lives as long as its client.
        let _ = &mut kept;
        client.run_for(time).map(|commits| took_ms(&commits))
    }))
}

/// A server whose directory goes with it.
struct Kept {
    _server: Server,
    dir: std::path::PathBuf,
}

impl Drop for Kept {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

fn took_ms(commits: &[Commit]) -> Vec<f64> {
    let took = |commit: &Commit| (commit.end_ns - commit.start_ns) as f64 / 1e6;
    commits.iter().map(took).collect()
}
