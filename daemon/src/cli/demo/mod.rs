//! `foreshadow demo`: the main job on this machine, in under a minute, with real processes, real
//! writers and a check of every acknowledged row at the end.
//!
//! | module | what it does |
//! |---|---|
//! | [`harness`] | cluster, tenants, writers, moves, kills, verdict; tests use it too |
//! | `story` | the order of events that the demo plays |
//! | `view` | the live view while it plays |
//! | `report` | the table and the JSON object at the end |
//! | `sampler` | lag and raw log, measured from outside |
//! | `writer`, writer.py | applications, in a process of our own and in Python |
//! | `create`, `verify` | the two other children that open databases |
//! | [`acks`], [`plan`] | what these processes leave for and tell each other |
//! | [`engine`] | what differs between engines: each of these parts has a module there |
//! | `sqlite` | tenants that are databases of SQLite |
//! | `native` | tenants that are native logs |
//!
//! Invariant: nothing but the children `create`, `writer` and `verify` links a call into SQLite,
//! and nothing outside this directory names it: the daemon itself holds no SQLite lock by accident.

pub mod acks;
mod clock;
mod create;
pub mod engine;
pub mod harness;
mod http;
mod native;
pub mod plan;
mod random;
mod report;
mod sampler;
mod sqlite;
mod story;
mod verify;
mod view;
mod writer;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::de::DeserializeOwned;

use engine::Engine;
use harness::Error;

const EXAMPLES: &str = "Examples:\n  foreshadow demo --seconds 30 --moves 20\n  \
                        foreshadow demo --engine native   # native logs instead of SQLite";

/// Show the main job on this machine: three nodes, real databases under load, moves, a kill, a
/// check.
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct DemoArgs {
    /// What tenants' data lies in: databases of SQLite, or native logs
    #[arg(long, value_enum, default_value_t = Engine::Sqlite)]
    pub engine: Engine,
    /// Nodes, each a daemon of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub nodes: u8,
    /// Tenant databases
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(3..=500))]
    pub tenants: u16,
    /// Seconds under load; starting, filling shadows and the check come on top
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(5..=3600))]
    pub seconds: u16,
    /// Moves under load, besides the one that is killed and the rollback
    #[arg(long, default_value_t = 12)]
    pub moves: u16,
    /// Transactions per second over all tenants
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    pub rate: u32,
    /// Load and choices follow from this number
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep all files and print where they are
    #[arg(long)]
    pub keep: bool,
    /// Where to put all files: an empty or new directory [default: a new one below TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    #[command(subcommand)]
    pub part: Option<Part>,
}

/// The children of a demo; not for people.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Part {
    /// Make tenant databases
    #[command(hide = true)]
    Create { plan: PathBuf },
    /// Write until standard input ends
    #[command(hide = true)]
    Writer { plan: PathBuf },
    /// Compare ack journals with databases
    #[command(hide = true)]
    Verify { plan: PathBuf },
    /// Become a program that dies with its parent
    #[command(hide = true)]
    Child {
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Plays the demo, or one of its children.
pub fn run(args: DemoArgs, json: bool) -> ExitCode {
    let result = match &args.part {
        None => return story::run(&args, json),
        Some(Part::Create { plan }) => read_plan(plan).and_then(|plan| create::run(&plan)),
        Some(Part::Writer { plan }) => read_plan(plan).and_then(|plan| writer::run(&plan)),
        Some(Part::Verify { plan }) => read_plan(plan).and_then(|plan| verify::run(&plan)),
        Some(Part::Child { command }) => Err(harness::become_child(command)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("foreshadow demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_plan<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let json = fs::read(path).map_err(|error| Error::at("read", path, error))?;
    let plan = serde_json::from_slice(&json);
    plan.map_err(|error| Error::new(format!("{}: {error}", path.display())))
}
