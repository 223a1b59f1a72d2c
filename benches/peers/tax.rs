//! What a writer loses to its replicator: flat out, in turns with the replicator attached and
//! without one, both on the same disk as the replica.

use std::path::Path;
use std::time::Duration;

use foreshadow::cli::demo::harness::{Error, percentile};

use crate::application::Commit;
use crate::litestream::{Litestream, Tuning};
use crate::postgres::{Client, Server};
use crate::sqlite::{self, Plan, ROWS_PER_MEGABYTE, Work, Writer};
use crate::table::{Row, System, Table};
use crate::{Scene, clear, ours, progress};

const ROWS: u64 = 12 * ROWS_PER_MEGABYTE;
const NAME: &str = "tenant00.db";
/// Longer than Litestream's interval: no slice is without its work.
const SLICE: Duration = Duration::from_millis(1100);
/// The replica catches up and both sides begin in silence.
const REST: Duration = Duration::from_millis(200);

/// A row: its name, and its figure of one slice.
type Figure = (&'static str, fn(&Slice) -> f64);

/// Pairs of neighbouring slices, with a replicator and without: as the disk of a shared machine
/// changes from minute to minute, only neighbours can be compared.
struct Pairs(Vec<[Slice; 2]>);

/// One slice of a writer.
#[derive(Clone, Copy, Default)]
struct Slice {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub fn measure(table: &mut Table, scene: &Scene<'_>) {
    let seed = scene.stage.path().join("tax-seed.db");
    if table.take("tax", sqlite::create(&seed, ROWS)).is_none() {
        return;
    }
    let mut seen = Vec::new();
    for (system, name) in [
        (System::Ours, "ours"),
        (System::Litestream, "litestream"),
        (System::LitestreamTuned, "litestream, 50 ms"),
        (System::Postgres, "postgres"),
    ] {
        progress(&format!("tax: {name}"));
        let pairs = match system {
            System::Ours => of_ours(scene, &seed),
            System::Litestream => of_litestream(scene, &seed, Tuning::Default),
            System::LitestreamTuned => of_litestream(scene, &seed, Tuning::Fast),
            _ => of_postgres(scene),
        };
        if let Some(pairs) = table.take(&format!("tax, {name}"), pairs) {
            table.note(&format!("tax, {name}: {}", pairs.told()));
            seen.push((system, pairs));
        }
    }
    let figures: [Figure; 3] = [
        ("throughput", |slice| slice.rate),
        ("commit p50", |slice| slice.p50_ms),
        ("commit p99", |slice| slice.p99_ms),
    ];
    for (name, figure) in figures {
        let name = format!("writer flat out: {name}, of that with nobody attached");
        let cell = |row: Row, (system, pairs): &(System, Pairs)| {
            row.cell(*system, Some(pairs.ratio(figure, 0.5)))
        };
        table.row(seen.iter().fold(Row::new(&name, "x"), cell));
    }
}

impl Pairs {
    /// With, without, without, with: neither side always comes second.
    fn take(
        scene: &Scene<'_>,
        mut run: impl FnMut(usize) -> Result<Vec<Commit>, Error>,
    ) -> Result<Pairs, Error> {
        let mut pairs = Vec::new();
        for number in 0..scene.pick(20, 6) {
            let mut pair = [Slice::default(); 2];
            for turn in 0..2 {
                let side = (number + turn) % 2;
                pair[side] = Slice::of(&run(side)?)?;
                std::thread::sleep(REST);
            }
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }

    /// With, divided by without, in each pair; the value below which that share of them lies.
    fn ratio(&self, figure: fn(&Slice) -> f64, share: f64) -> f64 {
        let ratio = |[with, without]: &[Slice; 2]| figure(with) / figure(without);
        percentile(&mut self.0.iter().map(ratio).collect::<Vec<_>>(), share)
    }

    fn told(&self) -> String {
        let median = |side: usize, figure: fn(&Slice) -> f64| {
            let all = self.0.iter().map(|pair| figure(&pair[side]));
            percentile(&mut all.collect::<Vec<_>>(), 0.5)
        };
        let line = |side| {
            let (rate, p50) = (median(side, |it| it.rate), median(side, |it| it.p50_ms));
            let p99 = median(side, |it| it.p99_ms);
            format!("{rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms")
        };
        let quarters = [0.25, 0.75].map(|share| self.ratio(|it| it.rate, share));
        let [low, high] = quarters;
        let (with, without) = (line(0), line(1));
        format!("{with}; without: {without}; half of the ratios {low:.2} to {high:.2}")
    }
}

impl Slice {
    fn of(commits: &[Commit]) -> Result<Slice, Error> {
        let ends = commits.first().zip(commits.last());
        let (first, last) = ends.ok_or_else(|| Error::new("a slice without commits"))?;
        let took = commits
            .iter()
            .map(|it| (it.end_ns - it.start_ns) as f64 / 1e6);
        let mut took: Vec<f64> = took.collect();
        Ok(Slice {
            rate: commits.len() as f64 / ((last.end_ns - first.start_ns) as f64 / 1e9),
            p50_ms: percentile(&mut took, 0.5),
            p99_ms: percentile(&mut took, 0.99),
        })
    }
}

fn of_ours(scene: &Scene<'_>, seed: &Path) -> Result<Pairs, Error> {
    let mut cluster = ours::start_with(scene, "tax-ours", seed)?;
    let attached = cluster.routes().join(NAME);
    let pairs = sqlite_pairs(scene, seed, &attached)?;
    cluster.stop()?;
    Ok(pairs)
}

fn of_litestream(scene: &Scene<'_>, seed: &Path, tuning: Tuning) -> Result<Pairs, Error> {
    let dir = scene.dir(&format!("tax-{tuning:?}"))?;
    scene.dir(&format!("tax-{tuning:?}/live"))?;
    let program = scene.peers.litestream()?;
    let attached = dir.join("live").join(NAME);
    ours::put(seed, &attached)?;
    let litestream = Litestream::start(program, &dir, tuning)?;
    litestream.wait_for_replica(NAME)?;
    let pairs = sqlite_pairs(scene, seed, &attached)?;
    litestream.stop()?;
    clear(&dir);
    Ok(pairs)
}

fn sqlite_pairs(scene: &Scene<'_>, seed: &Path, attached: &Path) -> Result<Pairs, Error> {
    let dir = scene.dir("tax-alone")?;
    let alone = dir.join("alone.db");
    ours::put(seed, &alone)?;
    let plan = |database: &Path, log: &str| Plan {
        database: database.to_owned(),
        work: Work::Update(ROWS),
        every_us: 0,
        count: 0,
        log: scene.stage.path().join(log),
    };
    // As an application of many connections, and as the daemon and Litestream do beside the other:
    // else SQLite deletes the WAL after each slice, and a WAL that grows makes commits slower.
    let holder = Writer::start(&plan(&alone, "tax-holder.log"))?;
    let pairs = Pairs::take(scene, |side| {
        let database = if side == 0 { attached } else { &alone };
        Writer::run_for(&plan(database, "tax.log"), SLICE)
    });
    holder.stop()?;
    clear(&dir);
    pairs
}

/// One server has a standby, another of the same content has none.
fn of_postgres(scene: &Scene<'_>) -> Result<Pairs, Error> {
    let dir = scene.dir("tax-postgres")?;
    let programs = scene.peers.postgres()?;
    let (attached, alone) = (
        Server::create(programs, &dir.join("a"))?,
        Server::create(programs, &dir.join("b"))?,
    );
    attached.fill(ROWS)?;
    alone.fill(ROWS)?;
    let standby = attached.standby(&dir.join("s"))?;
    let work = Work::Update(ROWS);
    let mut clients = [
        Client::open(&attached.socket(), work)?,
        Client::open(&alone.socket(), work)?,
    ];
    let pairs = Pairs::take(scene, |side| clients[side].run_for(SLICE))?;
    drop(clients);
    attached.stop()?;
    alone.stop()?;
    standby.stop()?;
    clear(&dir);
    Ok(pairs)
}
