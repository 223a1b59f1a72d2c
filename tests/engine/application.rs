//! An application of either engine that writes numbers and reads them back.
//!
//! SQLite's works in a process of its own, because its locks and our descriptors must never meet;
//! the native one appends from a thread of its own.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use wal::log::{Appender, Control, Kind, Options, Scanner};
use wal::{Engine, PartitionId};

use crate::worker::Worker;

/// What an attempt to write came to.
type Written = Result<(), String>;

pub struct Application {
    path: PathBuf,
    inner: Inner,
}

enum Inner {
    Sqlite(Box<Worker>),
    Native(Box<Log>),
}

struct Log {
    /// `None` when it could not be opened, or while a thread has it.
    appender: Option<Appender>,
    writing: Option<JoinHandle<(Option<Appender>, Written)>>,
}

impl Application {
    /// Makes the partition.
    pub fn new(engine: Engine, path: &Path) -> Application {
        let mut application = Application::open(engine, path);
        if let Inner::Sqlite(worker) = &mut application.inner {
            worker.script(&[
                "PRAGMA journal_mode=WAL",
                "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)",
            ]);
        }
        application
    }

    /// Opens one that is there; what can't be opened can't be written either.
    pub fn open(engine: Engine, path: &Path) -> Application {
        let inner = match engine {
            Engine::Sqlite => Inner::Sqlite(Box::new(Worker::bundled(path))),
            Engine::Native => Inner::Native(Box::new(Log {
                appender: appender(path),
                writing: None,
            })),
        };
        let path = path.to_owned();
        Application { path, inner }
    }

    /// Opens it anew, as an application does that was refused.
    pub fn reopen(&mut self) -> &mut Application {
        match &mut self.inner {
            Inner::Sqlite(worker) => **worker = Worker::bundled(&self.path),
            Inner::Native(log) => {
                log.appender = None;
                log.appender = appender(&self.path);
            }
        }
        self
    }

    /// Writes a number in a commit of its own; `Ok` once it is acknowledged.
    pub fn write(&mut self, value: u64) -> Written {
        self.begin(value);
        self.end()
    }

    /// Begins to write a number.
    pub fn begin(&mut self, value: u64) {
        match &mut self.inner {
            Inner::Sqlite(worker) => worker.send(&format!("x INSERT INTO t(v) VALUES ({value})")),
            Inner::Native(log) => {
                let appender = log.appender.take();
                log.writing = Some(std::thread::spawn(move || {
                    let written = match &appender {
                        Some(appender) => appender.append(Kind(1), &value.to_le_bytes()),
                        None => return (None, Err("it can't be opened".to_owned())),
                    };
                    (
                        appender,
                        written.map(drop).map_err(|error| error.to_string()),
                    )
                }));
            }
        }
    }

    /// How what was begun ended.
    pub fn end(&mut self) -> Written {
        match &mut self.inner {
            Inner::Sqlite(worker) => {
                let answer = worker.answer();
                answer
                    .map(drop)
                    .map_err(|code| format!("SQLite error {code}"))
            }
            Inner::Native(log) => {
                let thread = log.writing.take().expect("something was begun");
                let (back, written) = thread.join().expect("it ends");
                log.appender = back;
                written
            }
        }
    }

    /// All numbers in the order in which they were written.
    pub fn read(&mut self) -> Vec<u64> {
        match &mut self.inner {
            Inner::Sqlite(worker) => {
                let all = worker.run("SELECT group_concat(v) FROM (SELECT v FROM t ORDER BY id)");
                let numbers = all.split(',').map(|one| one.parse().expect("a number"));
                numbers.collect()
            }
            Inner::Native(_) => {
                let control = Control::open(&self.path).expect("a log");
                let mut scanner = Scanner::new(&control).expect("a reader");
                let mut numbers = Vec::new();
                while let Some(group) = scanner.next_group().expect("whole groups") {
                    numbers.extend(group.records().map(|record| {
                        let bytes = record.payload.try_into().expect("eight bytes");
                        u64::from_le_bytes(bytes)
                    }));
                }
                numbers
            }
        }
    }
}

fn appender(path: &Path) -> Option<Appender> {
    let options = Options {
        id: PartitionId(5),
        segment_bytes: 64 << 10,
        ..Options::default()
    };
    Appender::open(path, &options).ok()
}
