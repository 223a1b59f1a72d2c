//! Everything that opens a SQLite database, in processes of its own: the bench starts itself again
//! as `sqlite <task>`, for the reason that application.rs gives.
//!
//! A writer waits for one byte on its input and writes until input ends; each transaction's begin
//! and end go to its log (CLOCK_MONOTONIC ns, 16 bytes). `h` on its input makes it hold after its
//! transaction and say so in a file; `r` makes it open the database again and go on. When a write
//! is refused it opens the database again, as an application beside Foreshadow must.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Error, Process};
use rusqlite::{Connection, ErrorCode};
use serde::{Deserialize, Serialize};

use crate::application::{BINARY, Commit, now_ns};
use crate::wait::until;

const VERB: &str = "sqlite";
const LIMIT: Duration = Duration::from_secs(120);
/// How long a writer looks for a database that takes its write.
const REFUSED_LIMIT: Duration = Duration::from_secs(30);
const REFUSED_PAUSE: Duration = Duration::from_micros(500);
/// What `n` begins with: four bytes as long as a bench counts, so that an update changes one page.
pub const N_AT_FIRST: u64 = 1_000_000_000;
/// Rows of JSON in a megabyte, about.
pub const ROWS_PER_MEGABYTE: u64 = 4_150;
const SCHEMA: &str = "
    PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
    CREATE TABLE docs(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, doc TEXT NOT NULL);
    CREATE TABLE log(id INTEGER PRIMARY KEY, body BLOB NOT NULL);";
const FILL: &str = "
    WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < ?1)
    INSERT INTO docs SELECT i, ?2, json_object(
        'name', 'customer ' || i, 'email', lower(hex(randomblob(5))) || '@example.org',
        'address', json_object('street', 'Main Street ' || (i % 997), 'city', 'Springfield'),
        'balance', abs(random() % 1000000), 'active', json('true'),
        'token', lower(hex(randomblob(16))), 'tags', json_array('new', 'monthly', i % 7)) FROM s";
const UPDATE: &str = "UPDATE docs SET n = n + 1 WHERE id = ?1";
const INSERT: &str = "INSERT INTO log(body) VALUES(?1)";
/// What a commit of the row `sync commits` writes.
pub const BODY: usize = 128;

/// What a child is asked for.
#[derive(Serialize, Deserialize, Clone, Debug)]
enum Task {
    Create { path: PathBuf, rows: u64 },
    Count { path: PathBuf, answer: PathBuf },
    Write(Plan),
}

/// What one transaction does.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// One integer of one of the first so many rows.
    Update(u64),
    /// A new row of 128 bytes.
    Insert,
}

/// What a writer is told.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Plan {
    /// The database, or a symlink that leads to where it is served.
    pub database: PathBuf,
    pub work: Work,
    /// From the begin of one transaction to the begin of the next; 0 = flat out.
    pub every_us: u64,
    /// It ends by itself after so many; 0 = never.
    pub count: u64,
    pub log: PathBuf,
}

/// A running writer.
pub struct Writer {
    process: Process,
    input: ChildStdin,
    plan: Plan,
}

impl Writer {
    pub fn start(plan: &Plan) -> Result<Writer, Error> {
        let mut process = child(&Task::Write(plan.clone()), &plan.log)?;
        let input = process.take_input();
        let input = input.ok_or_else(|| Error::new("a writer without input"))?;
        let plan = plan.clone();
        let mut writer = Writer {
            process,
            input,
            plan,
        };
        writer.wait_for("ready")?;
        Ok(writer)
    }

    pub fn go(&mut self) -> Result<(), Error> {
        self.tell(b"g")
    }

    /// Returns once it holds: its last transaction is committed and it begins no other.
    pub fn hold(&mut self) -> Result<(), Error> {
        self.tell(b"h")?;
        self.wait_for("held")
    }

    pub fn resume(&mut self) -> Result<(), Error> {
        self.tell(b"r")
    }

    /// Waits for the end that its plan has.
    pub fn finish(mut self) -> Result<Vec<Commit>, Error> {
        let status = self.process.wait(LIMIT)?;
        self.commits(status.success())
    }

    /// Lets it end after its transaction.
    pub fn stop(mut self) -> Result<Vec<Commit>, Error> {
        self.tell(b"e")?;
        let status = self.process.wait(LIMIT)?;
        self.commits(status.success())
    }

    /// Runs one for a while.
    pub fn run_for(plan: &Plan, time: Duration) -> Result<Vec<Commit>, Error> {
        let mut writer = Writer::start(plan)?;
        writer.go()?;
        std::thread::sleep(time);
        writer.stop()
    }

    fn tell(&mut self, byte: &[u8]) -> Result<(), Error> {
        let told = self.input.write_all(byte);
        told.map_err(|error| Error::at("tell the writer of", &self.plan.database, error))
    }

    fn wait_for(&mut self, sign: &str) -> Result<(), Error> {
        let path = self.plan.log.with_extension(sign);
        until(sign, REFUSED_LIMIT, Duration::from_micros(100), || {
            if self.process.ended().is_some() {
                return Err(failed(&self.plan.log));
            }
            Ok(path.exists().then_some(()))
        })?;
        fs::remove_file(&path).map_err(|error| Error::at("remove", &path, error))
    }

    fn commits(&self, good: bool) -> Result<Vec<Commit>, Error> {
        let log = &self.plan.log;
        if !good {
            return Err(failed(log));
        }
        let bytes = fs::read(log).map_err(|error| Error::at("read", log, error))?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        let commit = |record: &[u8]| Commit {
            start_ns: word(&record[..8]),
            end_ns: word(&record[8..]),
        };
        Ok(bytes.chunks_exact(16).map(commit).collect())
    }
}

/// Makes a database of `rows` rows of JSON, in WAL mode, closed.
pub fn create(path: &Path, rows: u64) -> Result<(), Error> {
    let path = path.to_owned();
    let log = path.with_extension("create");
    to_end(&Task::Create { path, rows }, &log)
}

/// How many updates the database at `path` has seen; the answer passes through files beside `log`.
pub fn updates(path: &Path, log: &Path) -> Result<u64, Error> {
    let (path, answer) = (path.to_owned(), log.with_extension("answer"));
    let task = Task::Count {
        path,
        answer: answer.clone(),
    };
    to_end(&task, log)?;
    let text = fs::read_to_string(&answer).map_err(|error| Error::at("read", &answer, error))?;
    text.parse().map_err(|_| Error::new("no count"))
}

/// To be called first: becomes a child if that is what this process was started for.
pub fn become_child() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|verb| verb != VERB) {
        return;
    }
    let told = arguments.next().expect("a task");
    let json = fs::read(told).expect("a readable task");
    match serde_json::from_slice(&json).expect("a task") {
        Task::Create { path, rows } => fill(&path, rows).expect("SQLite makes it"),
        Task::Count { path, answer } => {
            let counted = count(&path).expect("SQLite counts");
            fs::write(answer, counted.to_string()).expect("an answer can be written");
        }
        Task::Write(plan) => write(&plan),
    }
    std::process::exit(0);
}

fn child(task: &Task, log: &Path) -> Result<Process, Error> {
    let told = log.with_extension("task");
    let json = serde_json::to_vec(task).map_err(|error| Error::new(error.to_string()))?;
    fs::write(&told, json).map_err(|error| Error::at("write", &told, error))?;
    let exe = std::env::current_exe().map_err(|error| Error::new(error.to_string()))?;
    let output = log.with_extension("output");
    let arguments = [VERB.into(), told.into_os_string()];
    Process::start(Path::new(BINARY), &exe, &arguments, &output)
}

fn to_end(task: &Task, log: &Path) -> Result<(), Error> {
    let status = child(task, log)?.wait(LIMIT)?;
    status.success().then_some(()).ok_or_else(|| failed(log))
}

fn failed(log: &Path) -> Error {
    let said = fs::read_to_string(log.with_extension("output")).unwrap_or_default();
    Error::new(format!(
        "a child failed: {}",
        crate::wait::last_lines(&said)
    ))
}

fn fill(path: &Path, rows: u64) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch(SCHEMA)?;
    connection.execute(FILL, (rows as i64, N_AT_FIRST as i64))?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
}

fn count(path: &Path) -> rusqlite::Result<u64> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let sum = "SELECT sum(n - ?1) FROM docs";
    let sum: i64 = connection.query_row(sum, [N_AT_FIRST as i64], |row| row.get(0))?;
    Ok(sum as u64)
}

fn open(plan: &Plan) -> rusqlite::Result<Connection> {
    let connection = Connection::open(&plan.database)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn write(plan: &Plan) {
    // The default slack of 50 us would make every paced transaction late by as much.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
    let sign = |name| fs::write(plan.log.with_extension(name), "").expect("a sign can be written");
    let mut connection = open(plan).expect("a database");
    // Has the WAL open from here on: a writer that is never told to go keeps it in being.
    let one = connection.query_row("SELECT 1 FROM docs LIMIT 1", [], |row| row.get(0));
    assert_eq!(one, Ok(1), "a database with rows");
    let told = told();
    sign("ready");
    while told.load(Ordering::Acquire) == 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    let (mut log, mut left) = (Vec::new(), Vec::new());
    let mut random = now_ns() | 1;
    let mut due = now_ns();
    let mut done = 0;
    while told.load(Ordering::Acquire) != b'e' && (plan.count == 0 || done < plan.count) {
        if told.load(Ordering::Acquire) == b'h' {
            sign("held");
            while told.load(Ordering::Acquire) == b'h' {
                std::thread::sleep(Duration::from_micros(100));
            }
            // The old connection is closed when nobody waits for it any more.
            left.push(std::mem::replace(&mut connection, again(plan)));
        }
        // xorshift64: any spread over the rows will do.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let start_ns = now_ns();
        while let Err(error) = transact(&connection, plan.work, random) {
            assert!(is_refusal(&error), "{error}");
            let waited = Duration::from_nanos(now_ns() - start_ns);
            assert!(waited < REFUSED_LIMIT, "{error}, for {waited:?}");
            std::thread::sleep(REFUSED_PAUSE);
            connection = again(plan);
        }
        done += 1;
        log.extend([start_ns.to_le_bytes(), now_ns().to_le_bytes()]);
        due = (due + plan.every_us * 1000).max(start_ns);
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
    }
    fs::write(&plan.log, log.concat()).expect("the log can be written");
}

fn again(plan: &Plan) -> Connection {
    let begun = Instant::now();
    loop {
        match open(plan) {
            Ok(connection) => return connection,
            Err(error) => assert!(begun.elapsed() < REFUSED_LIMIT, "{error}"),
        }
        std::thread::sleep(REFUSED_PAUSE);
    }
}

fn transact(connection: &Connection, work: Work, random: u64) -> rusqlite::Result<()> {
    let changed = match work {
        Work::Update(rows) => {
            let mut statement = connection.prepare_cached(UPDATE)?;
            statement.execute([(random % rows) as i64 + 1])?
        }
        Work::Insert => {
            let mut body = [0; BODY];
            body[..8].copy_from_slice(&random.to_le_bytes());
            connection.prepare_cached(INSERT)?.execute([&body[..]])?
        }
    };
    assert_eq!(changed, 1, "a row is there");
    Ok(())
}

/// What tells an application to look at its route again.
fn is_refusal(error: &rusqlite::Error) -> bool {
    let refusals = [
        ErrorCode::ReadOnly,
        ErrorCode::CannotOpen,
        ErrorCode::NotADatabase,
    ];
    error
        .sqlite_error_code()
        .is_some_and(|code| refusals.contains(&code))
}

/// The last byte of input; `e` at its end, 0 before the first.
fn told() -> &'static AtomicU8 {
    static TOLD: AtomicU8 = AtomicU8::new(0);
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {
            TOLD.store(byte[0], Ordering::Release);
        }
        TOLD.store(b'e', Ordering::Release);
    });
    &TOLD
}
