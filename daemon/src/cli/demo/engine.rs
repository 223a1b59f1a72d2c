//! The engines that the demo's tenants can be of, and where each does what only it can.
//!
//! Everything that opens a database is called by the children `create`, `writer` and `verify`
//! alone; [`Engine::probe`] only looks at what is mapped or readable by everybody.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::harness::Error;
use super::native;
use super::plan::{DatabasePlan, WriterPlan};
use super::sampler::{Probe, State};
use super::sqlite;
use super::verify::Found;
use super::writer::Book;

/// What a tenant's data lies in: a database of SQLite in WAL mode, or a native log.
#[derive(clap::ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    #[default]
    Sqlite,
    Native,
}

impl Engine {
    /// As the command line and the JSON object name it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Native => "native",
        }
    }

    /// What tenants' file names end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Engine::Sqlite => "db",
            Engine::Native => "log",
        }
    }

    /// Its section in the daemon's configuration.
    pub fn section(self) -> &'static str {
        match self {
            Engine::Sqlite => "[[engine.sqlite]]",
            Engine::Native => "[[engine.native]]",
        }
    }

    /// Makes a database that nobody knows yet, with nothing beside it.
    pub(super) fn create(self, path: &Path, plan: &DatabasePlan) -> Result<(), Error> {
        match self {
            Engine::Sqlite => sqlite::create::create(path, plan),
            Engine::Native => native::create::create(path, plan),
        }
    }

    /// What each writer of the plan writes into, in the plan's order.
    pub(super) fn books(self, plan: &WriterPlan) -> Vec<Box<dyn Book>> {
        match self {
            Engine::Sqlite => sqlite::writer::books(plan),
            Engine::Native => native::writer::books(plan),
        }
    }

    /// What the writers of an engine write with, for the table and the tally.
    pub(super) fn version(self) -> String {
        match self {
            Engine::Sqlite => sqlite::writer::version(),
            Engine::Native => native::writer::version(),
        }
    }

    /// Reads a database's rows; asks for everything that can be checked in it if it is `whole`.
    pub(super) fn read(self, database: &Path, scratch: &Path, whole: bool) -> Result<Found, Error> {
        match self {
            Engine::Sqlite => sqlite::verify::read(database, scratch, whole),
            Engine::Native => native::verify::read(database, whole),
        }
    }

    /// Looks at a database that is served now from outside.
    pub(super) fn probe(self, database: &Path, state: Option<&State>) -> Option<Box<dyn Probe>> {
        match self {
            Engine::Sqlite => sqlite::probe::open(database, state),
            Engine::Native => native::probe::open(database),
        }
    }

    /// What the table calls the writers' program, before its version.
    pub fn title(self) -> &'static str {
        match self {
            Engine::Sqlite => "SQLite",
            Engine::Native => "native",
        }
    }

    /// What the table calls the bytes that writers append.
    pub fn raw(self) -> &'static str {
        match self {
            Engine::Sqlite => "raw WAL",
            Engine::Native => "log",
        }
    }

    /// One process appends to a native log at a time; SQLite's databases take writers of many.
    pub fn takes_one_process(self) -> bool {
        self == Engine::Native
    }

    /// What a Python writer consists of: the engine's own modules beside writer.py.
    pub fn modules(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Engine::Sqlite => &[("book.py", include_str!("sqlite/book.py"))],
            Engine::Native => &[
                ("book.py", include_str!("native/book.py")),
                (
                    "append.py",
                    include_str!("../../../../io/c/examples/append.py"),
                ),
            ],
        }
    }

    /// The Python that can write with this engine, if there is one.
    pub fn python(self, binary: &Path) -> Option<PathBuf> {
        match self {
            Engine::Sqlite => sqlite::python(),
            Engine::Native => native::python(binary),
        }
    }
}
