//! The native log: commits against fio on the same file system, against SQLite, in groups; the
//! seal; a scan against memcpy. Contenders take turns within one run.

#[allow(dead_code, reason = "every bench uses a part of it")]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::percentile;
use report::{Bar, Bound, Figure, Report, median};
use rusqlite::Connection;
use serde_json::Value;
use wal::log::{Appender, Control, Kind, Options, Scanner};

const ROUNDS: usize = 9;
const SLICE: Duration = Duration::from_millis(700);
const RECORD: [u8; 128] = [0x5a; 128];
const BATCH: usize = 1024;
const FIO_BYTES: usize = 16 << 20;

fn main() -> ExitCode {
    let stage = stage::Stage::new("wal");
    let mut report = Report::new("wal");
    report.note(&format!("on {}", stage.filesystem()));
    let dir = stage.path();
    fs::write(dir.join("fio"), vec![1; FIO_BYTES]).expect("a file for fio");
    let realtime = std::thread::spawn(io::urgent::ask_realtime).join();
    match realtime.expect("asked") {
        true => one_thread(&mut report, dir, true),
        false => report.note("SCHED_RR is not allowed here: no row of it"),
    }
    one_thread(&mut report, dir, false);
    for threads in [4, 16] {
        many_threads(&mut report, dir, threads);
    }
    groups(&mut report, dir);
    sqlite(&mut report, dir);
    seal(&mut report, dir);
    scan(&mut report, dir);
    report.finish()
}

fn open(dir: &Path, name: &str, groups_in_flight: u32) -> Appender {
    let options = Options {
        segment_bytes: 16 << 20,
        groups_in_flight,
        ..Options::default()
    };
    let appender = Appender::open(&dir.join(name), &options).expect("a log");
    // Segments that this bench fills once are not the point: they are made and spared before.
    for _ in 0..48 {
        let longest = vec![1; 1 << 20];
        appender.append(Kind(0), &longest).expect("room");
    }
    let at = appender.position();
    appender.release(at).expect("spares");
    appender
}

/// Appends of `threads` until the slice is over: how many a second, and their microseconds.
fn appends(appender: &Appender, threads: usize, realtime: bool) -> (f64, Vec<f64>) {
    let begun = Instant::now();
    let samples = std::thread::scope(|scope| {
        let spawn = |_| {
            scope.spawn(|| {
                if realtime {
                    io::urgent::ask_realtime();
                }
                let mut samples = Vec::new();
                while begun.elapsed() < SLICE {
                    let at = Instant::now();
                    appender.append(Kind(1), &RECORD).expect("appended");
                    samples.push(at.elapsed().as_secs_f64() * 1e6);
                }
                samples
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        let samples = threads.into_iter().map(|t| t.join().expect("appended"));
        samples.flatten().collect::<Vec<_>>()
    });
    let rate = samples.len() as f64 / begun.elapsed().as_secs_f64();
    release(appender);
    (rate, samples)
}

fn release(appender: &Appender) {
    appender.release(appender.position()).expect("released");
}

/// Synced 4 KiB writes of fio a second, and the median and p99 of one in microseconds.
fn fio(dir: &Path, depth: usize, realtime: bool) -> (f64, f64, f64) {
    let mut command = match realtime {
        true => Command::new("chrt"),
        false => Command::new("fio"),
    };
    if realtime {
        command.args(["-r", "1", "fio"]);
    }
    let engine = if depth == 1 { "psync" } else { "io_uring" };
    command.args(["--name=bound", "--rw=write", "--bs=4k", "--direct=1"]);
    command.args(["--sync=dsync", "--overwrite=1", "--time_based", "--thread"]);
    command.args(["--output-format=json", "--runtime=700ms"]);
    command.args([format!("--ioengine={engine}"), format!("--iodepth={depth}")]);
    command.arg(format!("--size={FIO_BYTES}"));
    command.arg(format!("--filename={}", dir.join("fio").display()));
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.expect("fio is installed (apt-get install fio)");
    assert!(output.status.success(), "fio runs");
    let told: Value = serde_json::from_slice(&output.stdout).expect("fio tells JSON");
    let write = &told["jobs"][0]["write"];
    let time = |name: &str| {
        let nanos = &write["clat_ns"]["percentile"][name];
        nanos.as_f64().expect("a percentile of fio") / 1000.0
    };
    let rate = write["iops"].as_f64().expect("a rate of fio");
    (rate, time("50.000000"), time("99.000000"))
}

/// One thread, one commit at a time.
fn one_thread(report: &mut Report, dir: &Path, realtime: bool) {
    let appender = open(dir, "one", 1);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut times, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (rate, samples) = appends(&appender, 1, realtime);
        let (bound, _, tail) = fio(dir, 1, realtime);
        ours.push(rate);
        theirs.push(bound);
        times.extend(samples);
        tails.push(tail);
    }
    let class = if realtime { "SCHED_RR" } else { "normal" };
    let (ours, theirs) = (median(ours), median(theirs));
    let case = format!("commit, 1 thread, 128 B, {class}");
    let bar = match realtime {
        true => Bar::AtLeast(0.9 * theirs),
        false => Bar::None,
    };
    let bound = format!("fio 4 KiB O_DSYNC, depth 1, {class}");
    report.case(&case, Figure(ours, "1/s"), Bound(theirs, &bound), bar);
    let tail = percentile(&mut times, 0.99);
    let bound = Bound(median(tails), "p99 of fio");
    let case = format!("commit p99, 1 thread, {class}");
    report.case(&case, Figure(tail, "us"), bound, Bar::None);
}

/// Normal priority, as many threads as fio has writes under way.
fn many_threads(report: &mut Report, dir: &Path, threads: usize) {
    let appender = open(dir, "many", Options::default().groups_in_flight);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(appends(&appender, threads, false).0);
        theirs.push(fio(dir, threads, false).0);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let case = format!("commit, {threads} threads, 128 B, normal");
    let bound = format!("fio 4 KiB O_DSYNC, depth {threads}");
    let bar = Bar::AtLeast(0.9 * theirs);
    report.case(&case, Figure(ours, "1/s"), Bound(theirs, &bound), bar);
}

/// Batches of one thread: records a second.
fn groups(report: &mut Report, dir: &Path) {
    let appender = open(dir, "groups", 1);
    let batch = [(Kind(1), &RECORD[..]); BATCH];
    let bytes = wal::log::group::padded(64 + BATCH * (16 + RECORD.len()));
    let file = direct(&dir.join("fio"));
    let mut block = wal::log::group::Bytes::new();
    block.resize(bytes, 7);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let urgent = || {
        // Where it is not allowed both have normal priority.
        io::urgent::ask_realtime();
        for _ in 0..ROUNDS {
            ours.push(per_second(|| {
                let appended = appender.append_batch(&batch, |lsn| {
                    black_box(lsn);
                });
                appended.expect("appended");
            }));
            release(&appender);
            let mut at = 0;
            raw.push(per_second(|| {
                file.write_all_at(&block, at).expect("written");
                at = (at + bytes as u64) % (FIO_BYTES as u64 / 2);
            }));
        }
    };
    std::thread::scope(|scope| scope.spawn(urgent).join().expect("measured"));
    let records = BATCH as f64;
    let (ours, raw) = (median(ours) * records, median(raw) * records);
    let bound = Bound(raw, "the same bytes by pwrite, O_DSYNC");
    let figure = Figure(ours, "1/s");
    let bar = Bar::AtLeast(1e6);
    report.case("records of 128 B, batches of 1,024", figure, bound, bar);
}

fn direct(path: &Path) -> fs::File {
    use rustix::fs::OFlags;
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).custom_flags(flags).open(path);
    file.expect("a file for direct I/O")
}

/// How often `once` runs in a second, tried for one slice.
fn per_second(mut once: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < SLICE {
        once();
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// The same records, one a transaction, in SQLite with synchronous=FULL. It has one writer, so more
/// threads do not help it; its one thread is as close to the disk's own limit as ours.
fn sqlite(report: &mut Report, dir: &Path) {
    let appender = open(dir, "sqlite", Options::default().groups_in_flight);
    let database = Connection::open(dir.join("peer.db")).expect("a database");
    let prepare = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE records(id INTEGER PRIMARY KEY, payload BLOB);";
    database.execute_batch(prepare).expect("a table");
    let mut insert = database
        .prepare("INSERT INTO records(payload) VALUES(?1)")
        .expect("a statement");
    let (mut one, mut four, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(appends(&appender, 1, false).0);
        theirs.push(per_second(|| {
            insert.execute([&RECORD[..]]).expect("inserted");
        }));
        four.push(appends(&appender, 4, false).0);
    }
    let theirs = median(theirs);
    let bound = Bound(theirs, "SQLite, WAL, synchronous=FULL");
    for (threads, ours) in [("1 thread", one), ("4 threads", four)] {
        let case = format!("commit, {threads}, 128 B, beside SQLite");
        let bar = Bar::AtLeast(1.5 * theirs);
        report.case(&case, Figure(median(ours), "1/s"), bound, bar);
    }
}

/// A seal while four threads append: how long the compare-and-swap takes.
fn seal(report: &mut Report, dir: &Path) {
    let (mut times, mut swaps) = (Vec::new(), Vec::new());
    for round in 0..200 {
        let options = Options {
            segment_bytes: 64 << 10,
            ..Options::default()
        };
        let path = dir.join(format!("sealed-{round}"));
        let appender = Appender::open(&path, &options).expect("a log");
        let control = Control::open(&path).expect("a log");
        let running = AtomicBool::new(true);
        let count = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while appender.append(Kind(1), &RECORD).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    running.store(false, Ordering::Relaxed);
                });
            }
            while count.load(Ordering::Relaxed) < 10 {
                std::thread::yield_now();
            }
            // As in a move: the page was warmed, and an urgent thread does it.
            let sealer = scope.spawn(|| {
                io::urgent::ask_realtime();
                control.warm();
                let at = Instant::now();
                control.set_shipped(wal::Lsn(4096));
                let stored = at.elapsed();
                let at = Instant::now();
                control.seal();
                (at.elapsed(), stored)
            });
            let (sealed, stored) = sealer.join().expect("sealed");
            times.push(sealed.as_secs_f64() * 1e6);
            swaps.push(stored.as_secs_f64() * 1e6);
        });
        drop(appender);
        fs::remove_file(&path).expect("removed");
    }
    let store = percentile(&mut swaps, 0.99);
    let bound = Bound(store, "one store to the page, p99");
    let p50 = percentile(&mut times, 0.5);
    report.note(&format!("seal beside four writers, p50 {p50:.2} us"));
    let p99 = Figure(percentile(&mut times, 0.99), "us");
    report.case(
        "seal beside four writers, p99",
        p99,
        bound,
        Bar::AtMost(5.0),
    );
}

/// Reading and checking a log that lies in the page cache.
fn scan(report: &mut Report, dir: &Path) {
    let options = Options {
        segment_bytes: 16 << 20,
        ..Options::default()
    };
    let path = dir.join("scanned");
    let appender = Appender::open(&path, &options).expect("a log");
    let batch = [(Kind(1), &RECORD[..]); BATCH];
    for _ in 0..800 {
        appender.append_batch(&batch, |_| ()).expect("appended");
    }
    drop(appender);
    let control = Control::open(&path).expect("a log");
    let mut copies = (vec![1u8; 64 << 20], vec![0u8; 64 << 20]);
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let (mut bytes, mut records) = (0, 0);
        let mut scanner = Scanner::new(&control).expect("a reader");
        while let Some(group) = scanner.next_group().expect("whole") {
            bytes += group.bytes().len();
            records += group.records().filter(|r| r.kind == Kind(1)).count();
        }
        assert_eq!(records, 800 * BATCH);
        ours.push(bounds::megabytes(bytes) / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        copies.1.copy_from_slice(black_box(&copies.0));
        black_box(&copies.1);
        bound.push(bounds::megabytes(copies.0.len()) / begun.elapsed().as_secs_f64());
    }
    let bound = Bound(median(bound), "memcpy of 64 MiB");
    report.case(
        "scan, every record looked at",
        Figure(median(ours), "MB/s"),
        bound,
        Bar::None,
    );
}
