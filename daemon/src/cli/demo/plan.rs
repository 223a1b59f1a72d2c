//! What the demo's child processes are told, as JSON files: the databases to make, the writers to
//! run, the ledger to check; and what they answer. writer.py reads the same writer plan.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::engine::Engine;

/// Databases to be made before anyone else knows them.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct CreatePlan {
    pub engine: Engine,
    /// A directory on the same filesystem, where a database is made before it is renamed.
    pub stage: PathBuf,
    pub databases: Vec<DatabasePlan>,
}

/// One tenant's database.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct DatabasePlan {
    pub path: PathBuf,
    pub page_size: u32,
    pub accounts: u64,
}

/// One writer process: several writers, each with a connection and an ack journal of its own.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct WriterPlan {
    pub engine: Engine,
    /// Directory of the routes that the daemons republish.
    pub routes: PathBuf,
    /// Directory of the ack journals, `<writer>.ack`.
    pub acks: PathBuf,
    /// Where the process leaves its tally when it ends.
    pub tally: PathBuf,
    /// The library for C, for who appends to native logs through it.
    pub library: Option<PathBuf>,
    pub seed: u64,
    /// SQLite's timeout.
    pub busy_ms: u64,
    /// SQLite's own word: FULL, NORMAL or OFF.
    pub synchronous: String,
    pub writers: Vec<OneWriter>,
}

/// One writer of one tenant.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct OneWriter {
    pub writer: u32,
    pub tenant: u32,
    /// File name below the routes, also the partition's name.
    pub file: String,
    pub accounts: u64,
    pub pace: Pace,
}

/// When a writer begins its next transaction.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Open loop: arrivals per second, whether or not the last one is done.
    Rate(f64),
    /// Closed loop: so many microseconds after the last acknowledgement.
    ThinkUs(u64),
}

/// What a writer process met.
#[derive(Serialize, Deserialize, Clone, Default, Debug)]
pub struct Tally {
    /// Version of SQLite it wrote with, or the language that appended.
    #[serde(default)]
    pub version: String,
    /// Connections dropped and reopened after an error that a fence or a move gives.
    pub reopened: u64,
    /// SQLITE_BUSY or SQLITE_LOCKED after the whole busy timeout; a native log's lease was over.
    pub busy: u64,
    /// Transactions that failed but which were found committed after reopening.
    pub doubtful: u64,
    /// Errors that no move gives, as from an empty database under the route: never expected.
    pub strange: u64,
    /// Transactions given up at the end.
    pub stuck: u64,
    /// How often each error that led to a reopening came.
    pub errors: BTreeMap<String, u64>,
}

/// What the verifier is to check, once nobody writes.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct VerifyPlan {
    pub engine: Engine,
    pub acks: PathBuf,
    /// A directory for copies.
    pub scratch: PathBuf,
    /// Where the verdict goes.
    pub verdict: PathBuf,
    pub tenants: Vec<VerifyTenant>,
}

/// One tenant's files.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct VerifyTenant {
    pub tenant: u32,
    pub name: String,
    /// The database at the owner.
    pub database: PathBuf,
    /// What the owner's daemon said its digest is, if all agreed.
    pub digest: Option<String>,
    /// Links to what earlier owners served, made before each move: each must be readable.
    pub evidence: Vec<PathBuf>,
    /// Every other copy found on the nodes: shadows and old generations, read where readable.
    pub copies: Vec<PathBuf>,
}

/// What was found.
#[derive(Serialize, Deserialize, Clone, Default, Debug)]
pub struct Verdict {
    /// Databases checked, and transactions that writers were told had been committed.
    pub databases: u64,
    pub acked: u64,
    /// Acknowledged but not at the owner.
    pub lost: u64,
    /// At the owner more than once.
    pub duplicated: u64,
    /// At the owner though never attempted.
    pub phantom: u64,
    /// In a generation that was fenced, but not at the owner, or above its seal: accepted where it
    /// no longer counted.
    pub accepted_after_fence: u64,
    /// integrity_check or the balance of the books failed, a log is not what its writers append, or
    /// a file could not be read.
    pub integrity_failures: u64,
    /// A shadow whose position or digest differs from the owner's, or an owner whose digest is not
    /// that of its file.
    pub digest_failures: u64,
    /// Old generations and shadows read beside the owners' files.
    pub copies_read: u64,
    /// What exactly, a line each, at most [`NOTES_MAX`].
    pub notes: Vec<String>,
}

/// More lines than this help nobody.
pub const NOTES_MAX: usize = 40;

impl Verdict {
    /// Whether everything that was promised was kept.
    pub fn is_clean(&self) -> bool {
        self.broken() == 0
    }

    /// How many promises were broken.
    pub fn broken(&self) -> u64 {
        self.lost
            + self.duplicated
            + self.phantom
            + self.accepted_after_fence
            + self.integrity_failures
            + self.digest_failures
    }

    pub fn note(&mut self, line: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(line);
        }
    }
}
