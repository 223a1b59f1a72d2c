//! A process of its own that appends and says on its standard error what was acknowledged.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use foreshadow_wal::Lsn;
use foreshadow_wal::log::{Appender, Error, Kind, Options};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;

use crate::support::{log, options, read};

const DIR: &str = "FORESHADOW_TEST_LOG";
const NAME: &str = "child::threads_append_until_the_log_is_sealed";
const THREADS: u64 = 4;

/// A record's payload: who wrote it and which of his it is.
fn payload(thread: u64, index: u64) -> Vec<u8> {
    let mut bytes = [thread.to_le_bytes(), index.to_le_bytes()].concat();
    bytes.resize(16 + (index as usize * 13) % 200, index as u8);
    bytes
}

/// Appends from several threads until the log is sealed, or `most` each; tells every
/// acknowledgement as (position, thread, index).
fn append_until_sealed(appender: &Appender, most: u64, told: impl Fn([u64; 3]) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let told = &told;
            scope.spawn(move || {
                for index in 0..most {
                    match appender.append(Kind(1), &payload(thread, index)) {
                        Ok(lsn) => told([lsn.0, thread, index]),
                        Err(Error::Sealed { .. } | Error::LeaseOver) => return,
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
}

#[test]
fn threads_append_until_the_log_is_sealed() {
    if let Some(dir) = std::env::var_os(DIR) {
        let groups_in_flight = 1 + std::process::id() % 4;
        let options = Options {
            groups_in_flight,
            ..options()
        };
        let appender = match Appender::open(&log(Path::new(&dir)), &options) {
            Err(Error::Sealed { .. }) => return,
            other => other.expect("a log"),
        };
        append_until_sealed(&appender, u64::MAX, |words| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            std::io::stderr().write_all(&bytes).expect("a pipe");
        });
        return;
    }
    let dir = tempdir().expect("a directory");
    let appender = Appender::open(&log(dir.path()), &options()).expect("a log");
    let told = Mutex::new(Vec::new());
    append_until_sealed(&appender, 20, |words| {
        told.lock().expect("a list").push(words);
    });
    appender.control().seal();
    append_until_sealed(&appender, 20, |words| panic!("{words:?} after the seal"));
    let records = read(appender.control()).expect("readable");
    assert_eq!(records.len() as u64, THREADS * 20);
    check(&told.into_inner().expect("a list"), &records);
}

/// Every acknowledgement is of a record that is there.
pub fn check(told: &[[u64; 3]], records: &crate::support::Records) {
    let by_place: std::collections::BTreeMap<_, _> = records
        .iter()
        .map(|(lsn, _, bytes)| (lsn.0, bytes))
        .collect();
    for [lsn, thread, index] in told {
        let found = by_place.get(lsn);
        let found = found.unwrap_or_else(|| panic!("acknowledged and lost: {lsn}"));
        assert_eq!(**found, payload(*thread, *index), "at {lsn}");
    }
}

/// The process, and what it has said so far.
pub struct Writer {
    child: Child,
    pid: Pid,
    count: Arc<AtomicUsize>,
    listener: Option<JoinHandle<Vec<[u64; 3]>>>,
}

impl Writer {
    pub fn start(dir: &Path) -> Writer {
        let exe = std::env::current_exe().expect("this test");
        let mut command = Command::new(exe);
        command.args([NAME, "--exact", "--nocapture"]).env(DIR, dir);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("a process");
        let mut said = child.stderr.take().expect("a pipe");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let listener = std::thread::spawn(move || {
            let mut told = Vec::new();
            let mut bytes = [0; 24];
            while said.read_exact(&mut bytes).is_ok() {
                let words = bytes.as_chunks::<8>().0;
                told.push([0, 1, 2].map(|at| u64::from_le_bytes(words[at])));
                counted.fetch_add(1, Ordering::SeqCst);
            }
            told
        });
        let pid = Pid::from_child(&child);
        Writer {
            child,
            pid,
            count,
            listener: Some(listener),
        }
    }

    /// Waits until so many appends were acknowledged.
    pub fn wait_for(&self, count: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.count.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < until, "it appends");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("it is there");
    }

    /// Stops it and returns once none of its threads runs.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/stat", self.child.id());
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let stat = std::fs::read_to_string(&status).expect("it is there");
            let state = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.chars().next());
            if state == Some('T') {
                return;
            }
            assert!(Instant::now() < until, "it stops");
        }
    }

    /// Waits for its end; what it said, and whether it ended by itself.
    pub fn finish(mut self) -> (Vec<[u64; 3]>, bool) {
        let status = self.child.wait().expect("it ends");
        let listener = self.listener.take().expect("once");
        (listener.join().expect("it listens"), status.success())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.listener.is_some() {
            // Only of a failing test: nothing of it shall stay behind.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where the last acknowledged record begins.
pub fn highest(told: &[[u64; 3]]) -> Lsn {
    Lsn(told.iter().map(|[lsn, _, _]| *lsn).max().unwrap_or(0))
}
