//! Foreshadow beside others that do a part of its job, measured on one disk in one run: Litestream,
//! a standby of PostgreSQL, RocksDB, and what the machine itself can do.
//!
//! `cargo bench -p foreshadow --bench peers -- --help` says what can be asked for. Every part
//! starts what it compares, measures, ends it by its number and adds rows to one table; a part that
//! fails is said and fails the run, and the others go on. What each row means: benches/README.md.

#[allow(dead_code, reason = "every bench uses a part of it")]
#[path = "../application.rs"]
mod application;
#[allow(dead_code, reason = "every bench uses a part of it")]
#[path = "../bounds.rs"]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
#[path = "../observer.rs"]
mod observer;
#[allow(dead_code, reason = "every bench uses a part of it")]
#[path = "../report.rs"]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
#[path = "../stage.rs"]
mod stage;

mod bytes;
mod commits;
mod copy;
mod fetch;
mod idle;
mod lag;
mod litestream;
mod moves;
mod ours;
mod postgres;
mod sqlite;
mod table;
mod tax;
mod wait;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use fetch::Peers;
use foreshadow::cli::demo::harness::Error;
use stage::Stage;
use table::Table;

const EXAMPLES: &str = "\
Examples:
  cargo bench -p foreshadow --bench peers                          everything
  cargo bench -p foreshadow --bench peers -- --quick               shorter; tails mean less
  cargo bench -p foreshadow --bench peers -- --only idle,bytes     two parts

Litestream and RocksDB come from PyPI and are kept below the target directory; PostgreSQL is
Debian's package, installed if this runs as root. FORESHADOW_BENCH_DIR says where databases are
put (default: where temporary files go); figures with fsync mean nothing on tmpfs.";

/// Foreshadow, Litestream, PostgreSQL and RocksDB side by side, measured in one run.
#[derive(Parser, Debug)]
#[command(name = "peers", after_help = EXAMPLES)]
struct Options {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// A third of the time or less
    #[arg(long)]
    quick: bool,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be compared.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// What a writer loses to its replicator
    Tax,
    /// From a commit until it is durable and visible elsewhere
    Lag,
    /// What is shipped for a small transaction
    Bytes,
    /// The cost of 1,000 databases that nobody writes to
    Idle,
    /// The longest gap that a writer sees while its database is moved
    Moves,
    /// The first copy of 256 MB
    Copy,
    /// Durable commits of one thread
    Commits,
}

/// What every part is given.
pub struct Scene<'a> {
    stage: &'a Stage,
    peers: &'a Peers,
    quick: bool,
}

impl Scene<'_> {
    /// A new directory for one system of one part.
    fn dir(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.stage.path().join(name);
        std::fs::create_dir_all(&path).map_err(|error| Error::at("create", &path, error))?;
        Ok(path)
    }

    /// The first in a whole run, the second in a quick one.
    fn pick<T>(&self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }
}

fn main() -> ExitCode {
    application::become_application();
    sqlite::become_child();
    let options = Options::parse();
    let chosen = |part: &Part| options.only.is_empty() || options.only.contains(part);
    let parts: Vec<Part> = Part::value_variants().to_vec();
    let parts: Vec<Part> = parts.into_iter().filter(chosen).collect();
    let stage = Stage::new("peers");
    let mut table = Table::new();
    table.note(&format!("on {}", stage.filesystem()));
    let peers = Peers::fetch(stage.path(), &needs(&parts));
    for line in peers.told() {
        table.note(&line);
    }
    let scene = Scene {
        stage: &stage,
        peers: &peers,
        quick: options.quick,
    };
    for part in parts {
        play(&mut table, &scene, part);
    }
    table.finish()
}

/// Who is needed for these parts.
fn needs(parts: &[Part]) -> Vec<fetch::Peer> {
    let any = |of: &[Part]| parts.iter().any(|part| of.contains(part));
    let mut needs = Vec::new();
    if parts.iter().any(|part| *part != Part::Commits) {
        needs.push(fetch::Peer::Litestream);
    }
    if parts.iter().any(|part| *part != Part::Idle) {
        needs.push(fetch::Peer::Postgres);
    }
    if any(&[Part::Commits]) {
        needs.push(fetch::Peer::Rocksdb);
    }
    needs
}

/// One part; whatever goes wrong in it fails the run and not the other parts.
fn play(table: &mut Table, scene: &Scene<'_>, part: Part) {
    let begun = Instant::now();
    println!("-- {part:?}");
    let measure = match part {
        Part::Tax => tax::measure,
        Part::Lag => lag::measure,
        Part::Bytes => bytes::measure,
        Part::Idle => idle::measure,
        Part::Moves => moves::measure,
        Part::Copy => copy::measure,
        Part::Commits => commits::measure,
    };
    let played = catch_unwind(AssertUnwindSafe(|| measure(table, scene)));
    if played.is_err() {
        table.fail(&format!("{part:?}: it panicked; the reason is above"));
    }
    println!("-- {part:?}: {:.0} s", begun.elapsed().as_secs_f64());
}

/// Says what is going on, for those who wait.
fn progress(line: &str) {
    println!("     {line}");
}

/// Removes a directory of a system that has ended: the disk is for the next one.
fn clear(dir: &Path) {
    // What can't be removed goes with the stage.
    let _ = std::fs::remove_dir_all(dir);
}
