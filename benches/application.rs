//! An unmodified application: the bench starts itself again as `application <plan>`, and that
//! process writes with real SQLite as fast or as paced as the plan says.
//!
//! It opens the database and gives every balance the same size, waits for one byte on standard
//! input, writes until input ends, and leaves when each transaction began and when its COMMIT had
//! returned
//! (CLOCK_MONOTONIC ns, 16 bytes each). In a process of its own, because SQLite's POSIX locks and
//! our reads of the same file must not meet in one.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

use foreshadow::cli::demo::engine::Engine;
use foreshadow::cli::demo::harness::Process;
use foreshadow::cli::demo::plan::{CreatePlan, DatabasePlan};
use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The binary that makes databases and starts children that die with us.
pub const BINARY: &str = env!("CARGO_BIN_EXE_foreshadow");

const VERB: &str = "application";
const LIMIT: Duration = Duration::from_secs(30);
/// Gives every balance four bytes, so that a later update changes one page and moves nothing in it.
const PREPARE: &str = "UPDATE accounts SET balance = 1000000000 WHERE balance < 500000000";
const UPDATE: &str = "UPDATE accounts SET balance = balance + ?1 WHERE id = ?2";
const INSERT: &str =
    "INSERT INTO ledger(writer, seq, generation, account, amount) VALUES(1, ?1, 0, ?2, ?3)";

/// What one transaction does.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub enum Work {
    /// One integer of one row: one page.
    Update,
    /// An update, an insert and its index: four pages or so, as in pgbench.
    Ledger,
}

/// What an application process is told.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Plan {
    pub database: PathBuf,
    pub accounts: u64,
    pub work: Work,
    /// From the begin of one transaction to the begin of the next; 0 = flat out.
    pub every_us: u64,
    /// SQLite's word: FULL, NORMAL or OFF.
    pub synchronous: String,
    pub log: PathBuf,
}

/// One committed transaction.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub start_ns: u64,
    pub end_ns: u64,
}

/// A running application.
pub struct Application {
    process: Process,
    input: ChildStdin,
    log: PathBuf,
}

impl Application {
    /// Starts one; it waits for [`Application::go`].
    pub fn start(plan: &Plan) -> Application {
        let told = plan.log.with_extension("plan");
        let json = serde_json::to_vec(plan).expect("plain values");
        fs::write(&told, json).expect("a plan can be written");
        let exe = std::env::current_exe().expect("a process knows its program");
        let arguments = [VERB.into(), told.into_os_string()];
        let output = plan.log.with_extension("output");
        let started = Process::start(Path::new(BINARY), &exe, &arguments, &output);
        let mut process = started.expect("a child can be started");
        let input = process.take_input().expect("its input is a pipe");
        Application {
            process,
            input,
            log: plan.log.clone(),
        }
    }

    pub fn go(&mut self) {
        self.input.write_all(b"g").expect("the application reads");
    }

    /// Lets it finish its transaction; returns all that it committed.
    pub fn stop(mut self) -> Vec<Commit> {
        drop(self.input);
        let status = self.process.wait(LIMIT).expect("the application ends");
        let output = fs::read_to_string(self.log.with_extension("output"));
        assert!(status.success(), "the application failed: {output:?}");
        let bytes = fs::read(&self.log).expect("the application leaves its log");
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        let commit = |record: &[u8]| Commit {
            start_ns: word(&record[..8]),
            end_ns: word(&record[8..]),
        };
        bytes.chunks_exact(16).map(commit).collect()
    }

    /// Runs one for a while.
    pub fn run_for(plan: &Plan, time: Duration) -> Vec<Commit> {
        let mut application = Application::start(plan);
        std::thread::sleep(Duration::from_millis(50));
        application.go();
        std::thread::sleep(time);
        application.stop()
    }
}

/// Nanoseconds on the axis that all processes share.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Makes a database of the demo's schema, in WAL mode, prepared and closed.
pub fn create(path: &Path, accounts: u64) {
    let stage = path.with_extension("stage");
    let database = DatabasePlan {
        path: path.to_owned(),
        page_size: 4096,
        accounts,
    };
    let plan = CreatePlan {
        engine: Engine::Sqlite,
        stage: stage.clone(),
        databases: vec![database],
    };
    let told = path.with_extension("create");
    let plan = serde_json::to_vec(&plan).expect("a plan is JSON");
    fs::write(&told, plan).expect("a plan can be written");
    let mut command = std::process::Command::new(BINARY);
    let status = command.args(["demo", "create"]).arg(&told).status();
    assert!(status.expect("the binary runs").success(), "demo create");
    fs::remove_file(&told).expect("the plan is there");
    fs::remove_dir_all(&stage).expect("the stage is there");
    prepare(path, accounts, path.with_extension("log"));
}

/// Starts an application and ends it before its first transaction.
pub fn prepare(database: &Path, accounts: u64, log: PathBuf) {
    let plan = Plan {
        database: database.to_owned(),
        accounts,
        work: Work::Update,
        every_us: 0,
        synchronous: "OFF".to_owned(),
        log,
    };
    assert!(
        Application::start(&plan).stop().is_empty(),
        "it wrote unasked"
    );
}

/// To be called first: becomes an application if that is what this process was started for.
pub fn become_application() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == VERB) {
        let told = arguments.next().expect("a plan");
        let json = fs::read(told).expect("a readable plan");
        let plan: Plan = serde_json::from_slice(&json).expect("a plan");
        write(&plan).expect("SQLite does what it is asked to");
        std::process::exit(0);
    }
}

fn write(plan: &Plan) -> rusqlite::Result<()> {
    // The default slack of 50 us would make every paced transaction late by as much.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
    let connection = Connection::open(&plan.database)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "synchronous", &plan.synchronous)?;
    connection.execute(PREPARE, [])?;
    let mut log = Vec::new();
    let mut random = now_ns() | 1;
    let mut sum = 0;
    if !wait_for_byte() {
        fs::write(&plan.log, "").expect("the log can be written");
        return Ok(());
    }
    let ended = ended_input();
    let mut due = now_ns();
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        sum += 1;
        // xorshift64: any spread over the accounts will do.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let account = (random % plan.accounts) as i64 + 1;
        let start_ns = now_ns();
        transact(&connection, plan.work, account, sum % 100 + 1)?;
        log.extend([start_ns.to_le_bytes(), now_ns().to_le_bytes()]);
        due += plan.every_us * 1000;
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
    }
    fs::write(&plan.log, log.concat()).expect("the log can be written");
    Ok(())
}

fn transact(connection: &Connection, work: Work, account: i64, sum: i64) -> rusqlite::Result<()> {
    if work == Work::Update {
        return connection
            .prepare_cached(UPDATE)?
            .execute((sum, account))
            .map(|_| ());
    }
    let transaction = connection.unchecked_transaction()?;
    transaction
        .prepare_cached(INSERT)?
        .execute((sum, account, 7))?;
    transaction.prepare_cached(UPDATE)?.execute((7, account))?;
    transaction.commit()
}

/// False at the end of input.
fn wait_for_byte() -> bool {
    matches!(std::io::stdin().read(&mut [0]), Ok(1))
}

fn ended_input() -> &'static std::sync::atomic::AtomicBool {
    static ENDED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    std::thread::spawn(|| {
        wait_for_byte();
        ENDED.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    &ENDED
}
