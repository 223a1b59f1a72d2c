//! The engines that the demo's tenants can be of, and where each does what only it can.
//!
//! Everything that opens a database is called by the children `create`, `writer` and `verify`
//! alone; [`Engine::probe`] only looks at what is mapped or readable by everybody.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::harness::Error;
use super::plan::{DatabasePlan, WriterPlan};
use super::sampler::{Probe, State};
use super::sqlite;
use super::verify::Found;
use super::writer::Book;

/// What a tenant's data lies in.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Databases of SQLite in WAL mode.
    #[default]
    Sqlite,
}

impl Engine {
    /// As the command line and the JSON object name it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
        }
    }

    /// What tenants' file names end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Engine::Sqlite => "db",
        }
    }

    /// Makes a database that nobody knows yet, with nothing beside it.
    pub(super) fn create(self, path: &Path, plan: &DatabasePlan) -> Result<(), Error> {
        match self {
            Engine::Sqlite => sqlite::create::create(path, plan),
        }
    }

    /// What each writer of the plan writes into, in the plan's order.
    pub(super) fn books(self, plan: &WriterPlan) -> Vec<Box<dyn Book>> {
        match self {
            Engine::Sqlite => sqlite::writer::books(plan),
        }
    }

    /// What the writers of an engine write with, for the table and the tally.
    pub(super) fn version(self) -> String {
        match self {
            Engine::Sqlite => sqlite::writer::version(),
        }
    }

    /// Reads a database's rows; asks for everything that can be checked in it if it is `whole`.
    pub(super) fn read(self, database: &Path, scratch: &Path, whole: bool) -> Result<Found, Error> {
        match self {
            Engine::Sqlite => sqlite::verify::read(database, scratch, whole),
        }
    }

    /// Looks at a database that is served now from outside.
    pub(super) fn probe(self, database: &Path, state: Option<&State>) -> Option<Box<dyn Probe>> {
        match self {
            Engine::Sqlite => sqlite::probe::open(database, state),
        }
    }

    /// What a Python writer consists of: the engine's own modules beside writer.py.
    pub fn modules(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Engine::Sqlite => &[("book.py", include_str!("sqlite/book.py"))],
        }
    }

    /// The Python that can write with this engine, if there is one.
    pub fn python(self) -> Option<PathBuf> {
        match self {
            Engine::Sqlite => sqlite::python(),
        }
    }
}
