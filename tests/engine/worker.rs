//! An application in a process of its own: real SQLite, told what to do line by line.
//!
//! SQLite's POSIX locks and our descriptors must never meet in one process, so the test binary
//! starts itself again as a worker (SQLite as bundled), or Python (SQLite as the system has it).
//!
//! | command | what the worker does |
//! |---|---|
//! | `x SQL` | runs one statement, answers the first column of its first row |
//! | `loop N SQL` | runs it N times |
//! | `flood MS SQL` | runs it for so many milliseconds, answers how often |

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const DATABASE: &str = "FORESHADOW_TEST_WORKER";

/// Which SQLite runs the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sqlite {
    Bundled,
    Python,
}

/// A running application; killed when dropped.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What a statement answered: its value, or SQLite's extended error code.
pub type Answer = Result<String, i32>;

impl Worker {
    pub fn start(sqlite: Sqlite, path: &Path) -> Worker {
        let mut command = match sqlite {
            Sqlite::Bundled => {
                let mut command = Command::new(std::env::current_exe().expect("own path"));
                command.args([
                    "--exact",
                    "worker::a_worker_serves_its_parent",
                    "--nocapture",
                ]);
                command
            }
            Sqlite::Python => {
                let mut command = Command::new("python3");
                command.args(["-u", "-c", include_str!("worker.py")]);
                command
            }
        };
        command
            .env(DATABASE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a worker process");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut worker = Worker {
            child,
            input,
            output,
        };
        worker.answer().expect("ready");
        worker
    }

    pub fn bundled(path: &Path) -> Worker {
        Worker::start(Sqlite::Bundled, path)
    }

    /// Sends a command without waiting for its answer.
    pub fn send(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the worker reads");
    }

    /// Waits for the answer to the oldest command.
    pub fn answer(&mut self) -> Answer {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("the worker writes");
            assert!(read > 0, "the worker ended without an answer");
            if let Some(value) = line.strip_prefix("@ok ") {
                return Ok(value.trim_end().to_owned());
            }
            if let Some(code) = line.strip_prefix("@err ") {
                return Err(code.trim().parse().expect("a number"));
            }
        }
    }

    pub fn try_run(&mut self, sql: &str) -> Answer {
        self.send(&format!("x {sql}"));
        self.answer()
    }

    pub fn run(&mut self, sql: &str) -> String {
        self.try_run(sql)
            .unwrap_or_else(|code| panic!("SQLite error {code} for {sql}"))
    }

    /// Runs statements one after the other.
    pub fn script(&mut self, statements: &[&str]) {
        for sql in statements {
            self.run(sql);
        }
    }

    pub fn repeat(&mut self, times: u32, sql: &str) {
        self.send(&format!("loop {times} {sql}"));
        self.answer().expect("all of them");
    }

    /// Kills it at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Lets it close its connection and end.
    pub fn close(mut self) {
        self.send("close");
        self.answer().expect("closed");
        self.child.wait().expect("wait");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's side; does nothing in an ordinary run of the tests.
#[test]
fn a_worker_serves_its_parent() {
    let Some(path) = std::env::var_os(DATABASE) else {
        return;
    };
    let connection = rusqlite::Connection::open(path).expect("open");
    connection
        .busy_timeout(Duration::from_secs(5))
        .expect("timeout");
    println!("\n@ok ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("a command");
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match verb {
            "x" => run(&connection, rest),
            "loop" => many(&connection, rest, false),
            "flood" => many(&connection, rest, true),
            _ => break,
        };
        match answer {
            Ok(value) => println!("@ok {value}"),
            Err(rusqlite::Error::SqliteFailure(error, _)) => {
                println!("@err {}", error.extended_code)
            }
            Err(_) => println!("@err -1"),
        }
    }
    drop(connection);
    println!("@ok closed");
}

fn run(connection: &rusqlite::Connection, sql: &str) -> rusqlite::Result<String> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut first = None;
    while let Some(row) = rows.next()? {
        first.get_or_insert(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(value) => value.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        });
    }
    Ok(first.unwrap_or_default())
}

fn many(connection: &rusqlite::Connection, rest: &str, timed: bool) -> rusqlite::Result<String> {
    let (limit, sql) = rest.split_once(' ').expect("a limit and a statement");
    let limit: u64 = limit.parse().expect("a number");
    let begin = Instant::now();
    let mut count = 0;
    loop {
        let spent = begin.elapsed().as_millis() as u64;
        if if timed {
            spent >= limit
        } else {
            count == limit
        } {
            return Ok(count.to_string());
        }
        run(connection, sql)?;
        count += 1;
    }
}
