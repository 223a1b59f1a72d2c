//! Deltas of real SQLite pages: how fast they are made and read, against memcpy and plain zstd, and
//! what a small transaction costs on the wire.

#[allow(dead_code, reason = "every bench uses a part of it")]
mod application;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::collections::HashMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use application::{Application, Plan, Work};
use bounds::megabytes;
use foreshadow::cli::demo::harness::percentile;
use io::engine::sqlite::{Adopted, Source, SourceOptions};
use report::{Bar, Bound, Figure, Report};
use stage::Stage;
use wal::compress::{RecordHead, Squeezer};
use wal::delta::{Decoder, DeltaHead, Encoder, PageEdit};
use wal::frame::{Flags, Frame};
use wal::lsn::{Epoch, Lsn};
use wal::{PartitionName, Position};

const ACCOUNTS: u64 = 100_000;
const PAGE: usize = 4096;
/// A page and its header in the WAL.
const WAL_FRAME: usize = PAGE + 24;
const TRANSACTIONS: usize = 2000;
/// Rounds of each contender, alternated.
const ROUNDS: usize = 15;
const LEVEL: i8 = 1;
/// How many times fewer bytes than plain zstd are asked of updates.
const FEWER: f64 = 20.0;

/// One page of one transaction.
struct Edit {
    page: u32,
    before: Option<Vec<u8>>,
    after: Vec<u8>,
}

/// A transaction, or several in one.
struct Delta {
    head: DeltaHead,
    edits: Vec<Edit>,
}

impl Delta {
    fn edits(&self) -> Vec<PageEdit<'_>> {
        let edits = self.edits.iter().map(|edit| PageEdit {
            page: edit.page,
            before: edit.before.as_deref(),
            after: &edit.after,
        });
        edits.collect()
    }
}

fn main() -> ExitCode {
    application::become_application();
    let stage = Stage::new("delta");
    let mut report = Report::new("delta");
    let updates = record(&stage, Work::Update, 1);
    let ledger = record(&stage, Work::Ledger, 1);
    let coalesced = record(&stage, Work::Ledger, 512);
    for (name, deltas, group) in [
        ("one-page updates", &updates, 16),
        ("pgbench-like", &ledger, 16),
        ("pgbench-like, coalesced", &coalesced, 64),
    ] {
        speed(&mut report, name, deltas, group);
    }
    for (name, deltas, bar) in [
        ("one-page update", &updates, Bar::AtMost(100.0)),
        ("pgbench-like", &ledger, Bar::None),
    ] {
        wire(&mut report, name, deltas, 1, bar);
        wire(&mut report, name, deltas, 8, Bar::None);
    }
    report.finish()
}

/// What a real writer did, as a source saw it: `frames` WAL frames at a time.
fn record(stage: &Stage, work: Work, frames: usize) -> Vec<Delta> {
    let database = stage.path().join(format!("{work:?}-{frames}.db"));
    application::create(&database, ACCOUNTS);
    let mut source = Source::attach(&database, &SourceOptions::default()).expect("attached");
    let task = source.scan().expect("a first scan is possible");
    let scan = task.run(&mut |_, _| std::ops::ControlFlow::Continue(()));
    let adopted = source.adopt(scan.expect("scanned")).expect("adopted");
    assert!(matches!(adopted, Adopted::Ready));
    let plan = Plan {
        database: database.clone(),
        accounts: ACCOUNTS,
        work,
        every_us: 0,
        synchronous: "OFF".to_owned(),
        log: stage.path().join("application.log"),
    };
    let partition = PartitionName::new("tenant00.db").expect("a valid name");
    let mut from = Position {
        epoch: Epoch(1),
        lsn: Lsn(1),
        digest: source.digest(),
    };
    let mut application = Application::start(&plan);
    application.go();
    std::thread::sleep(Duration::from_millis(500));
    let mut deltas = Vec::new();
    let until = Instant::now() + Duration::from_secs(10);
    while deltas.len() * frames < TRANSACTIONS * 4 && Instant::now() < until {
        let Some(change) = source.poll(frames).expect("polled") else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let to = Position {
            lsn: from.lsn.after(change.commits),
            digest: change.digest(),
            ..from
        };
        let edit = |edit: &PageEdit<'_>| Edit {
            page: edit.page,
            before: edit.before.map(<[u8]>::to_vec),
            after: edit.after.to_vec(),
        };
        deltas.push(Delta {
            head: DeltaHead {
                partition: partition.id(),
                from,
                to,
                page_size: PAGE as u32,
                page_count: change.page_count,
                flags: Flags::NONE,
            },
            edits: change.edits().iter().map(edit).collect(),
        });
        source.consume(&change);
        from = to;
        if frames == 1 && deltas.len() == TRANSACTIONS {
            break;
        }
    }
    application.stop();
    deltas
}

/// Rates of a contender, one per round, in MB/s of page bytes.
#[derive(Default)]
struct Rates(Vec<f64>);

impl Rates {
    fn time(&mut self, bytes: usize, work: impl FnOnce()) {
        let begun = Instant::now();
        work();
        self.0
            .push(megabytes(bytes) / begun.elapsed().as_secs_f64());
    }

    fn median(&mut self) -> f64 {
        percentile(&mut self.0, 0.5)
    }
}

fn speed(report: &mut Report, name: &str, deltas: &[Delta], group: usize) {
    let mut encoder = Encoder::new(LEVEL);
    let mut decoder = Decoder::new();
    let frames = encode(&mut encoder, deltas, group);
    let bytes: usize = deltas.iter().map(|delta| delta.edits.len() * PAGE).sum();
    let packed = zstd_pages(deltas);
    let wire: usize = frames.iter().map(Frame::len).sum();
    let plain: usize = packed.iter().map(Vec::len).sum();
    let [
        mut encoding,
        mut decoding,
        mut copying,
        mut zipping,
        mut unzipping,
    ] = std::array::from_fn(|_| Rates::default());
    for _ in 0..ROUNDS {
        encoding.time(bytes, || {
            drop(black_box(encode(&mut encoder, deltas, group)))
        });
        copying.time(bytes, || copy(deltas));
        zipping.time(bytes, || drop(black_box(zstd_pages(deltas))));
        decoding.time(bytes, || decode(&mut decoder, deltas, &frames));
        unzipping.time(bytes, || unzip(&packed));
    }
    let encoded = Figure(encoding.median(), "MB/s");
    let decoded = Figure(decoding.median(), "MB/s");
    let memcpy = Bound(copying.median(), "memcpy of the pages");
    let zstd = Bound(zipping.median(), "zstd-1 of each page");
    let unzstd = Bound(unzipping.median(), "unzstd of each page");
    report.case(&format!("encode {name}"), encoded, memcpy, Bar::None);
    report.case(
        &format!("encode {name}"),
        encoded,
        zstd,
        Bar::AtLeast(zstd.0),
    );
    report.case(&format!("decode {name}"), decoded, memcpy, Bar::None);
    report.case(&format!("decode {name}"), decoded, unzstd, Bar::None);
    report.case(
        &format!("bytes of {name}"),
        Figure(wire as f64 / 1e3, "kB"),
        Bound(plain as f64 / 1e3, "zstd-1 of each page"),
        Bar::None,
    );
}

/// Bytes of each transaction on a link, when it carries `batch` frames at a time.
fn wire(report: &mut Report, name: &str, deltas: &[Delta], batch: usize, bar: Bar) {
    let frames = encode(&mut Encoder::new(LEVEL), deltas, 16);
    let raw: usize = deltas
        .iter()
        .map(|delta| delta.edits.len() * WAL_FRAME)
        .sum();
    let mut squeezer = Squeezer::new();
    let mut sent = 0;
    for frames in frames.chunks(batch) {
        let mut record = Vec::new();
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).copied().collect();
        squeezer.squeeze(&bytes, &mut record).expect("squeezed");
        sent += RecordHead::LEN + record.len();
    }
    let count = deltas.len() as f64;
    report.case(
        &format!("wire bytes, {name}, {batch} at a time"),
        Figure(sent as f64 / count, "B"),
        Bound(raw as f64 / count, "its frames in the WAL"),
        bar,
    );
    let packed: usize = zstd_pages(deltas).iter().map(Vec::len).sum();
    let packed = packed as f64 / count;
    report.case(
        &format!("wire bytes, {name}, {batch} at a time"),
        Figure(sent as f64 / count, "B"),
        Bound(packed, "zstd-1 of each page"),
        Bar::AtMost(packed / FEWER),
    );
}

fn encode(encoder: &mut Encoder, deltas: &[Delta], group: usize) -> Vec<Frame> {
    let one = |delta: &Delta| {
        let frame = encoder.delta(&delta.head, &delta.edits(), group);
        frame.expect("encoded")
    };
    deltas.iter().map(one).collect()
}

/// As a receiver does: its own images as prefix, the new ones taken.
fn decode(decoder: &mut Decoder, deltas: &[Delta], frames: &[Frame]) {
    let mut taken = vec![0; PAGE];
    for (delta, frame) in deltas.iter().zip(frames) {
        let own: HashMap<u32, &[u8]> = delta
            .edits
            .iter()
            .filter_map(|edit| Some((edit.page, edit.before.as_deref()?)))
            .collect();
        let decoded = decoder.delta(
            frame,
            &mut |page, into| {
                if let Some(before) = own.get(&page) {
                    into.copy_from_slice(before);
                }
                Ok(())
            },
            &mut |_, after| {
                taken.copy_from_slice(after);
                Ok(())
            },
        );
        black_box(decoded.expect("decoded"));
    }
    black_box(&taken);
}

fn copy(deltas: &[Delta]) {
    let mut page = vec![0; PAGE];
    for edit in deltas.iter().flat_map(|delta| &delta.edits) {
        page.copy_from_slice(&edit.after);
        black_box(&page);
    }
}

fn zstd_pages(deltas: &[Delta]) -> Vec<Vec<u8>> {
    let mut context = zstd_safe::CCtx::create();
    let edits = deltas.iter().flat_map(|delta| &delta.edits);
    let pack = |edit: &Edit| {
        let mut packed = Vec::with_capacity(zstd_safe::compress_bound(PAGE));
        let done = context.compress(&mut packed, &edit.after, i32::from(LEVEL));
        done.expect("room enough");
        packed
    };
    edits.map(pack).collect()
}

fn unzip(packed: &[Vec<u8>]) {
    let mut context = zstd_safe::DCtx::create();
    let mut page = vec![0; PAGE];
    for bytes in packed {
        let done = context.decompress(&mut page[..], bytes);
        black_box(done.expect("it was packed here"));
    }
}
