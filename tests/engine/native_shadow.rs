//! A native log and its shadow: filled, followed, landed, and appended to where it landed; crashed
//! and opened again at every step.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use foreshadow_io::engine::native::Source;
use foreshadow_io::engine::shadow::{Attributes, Found, Opened, Shadow, ShadowPaths, ShadowSpec};
use tempfile::{TempDir, tempdir};
use wal::delta::{DeltaHead, Encoder, PagesHead};
use wal::frame::{Flags, Frame};
use wal::log::{Appender, Control, Kind, Options, Scanner};
use wal::{Epoch, Lsn, PartitionId, Position};

const ID: PartitionId = PartitionId(5);
const PAGE: usize = 4096;
const NEXT: Epoch = Epoch(2);

fn open(path: &Path) -> Appender {
    let options = Options {
        id: ID,
        segment_bytes: 64 << 10,
        ..Options::default()
    };
    Appender::open(path, &options).expect("a log")
}

/// A log with its source, and a shadow of it.
struct Pair {
    dir: TempDir,
    appender: Appender,
    source: Source,
    shadow: Shadow,
    position: Position,
    encoder: Encoder,
    written: Vec<(Lsn, Vec<u8>)>,
}

impl Pair {
    fn new() -> Pair {
        let dir = tempdir().expect("a directory");
        let path = dir.path().join("log");
        let appender = open(&path);
        let mut source = Source::attach(&path).expect("attached");
        let task = source.scan().expect("a task");
        let scan = task.run(&mut |_, _| ControlFlow::Continue(()));
        source.adopt(scan.expect("scanned")).expect("adopted");
        let generation = dir.path().join("gen");
        fs::create_dir(&generation).expect("a directory");
        let spec = ShadowSpec {
            partition: ID,
            page_size: PAGE as u32,
            attributes: Attributes::own(0o600),
        };
        let paths = ShadowPaths::new(&generation, "log");
        let shadow = Shadow::create(&paths, &spec).expect("a shadow");
        let position = Position {
            epoch: Epoch(1),
            lsn: Lsn(1),
            digest: source.digest(),
        };
        let mut pair = Pair {
            dir,
            appender,
            source,
            shadow,
            position,
            encoder: Encoder::new(1),
            written: Vec::new(),
        };
        pair.append(30);
        pair.fill();
        pair
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("gen")
    }

    fn append(&mut self, count: usize) {
        for _ in 0..count {
            let index = self.written.len();
            let payload = vec![index as u8; 20 + index * 97 % 5000];
            let lsn = self.appender.append(Kind(1), &payload).expect("appended");
            self.written.push((lsn, payload));
        }
    }

    /// What was committed, as frames.
    fn deltas(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(change) = self.source.poll(8).expect("readable") {
            let to = Position {
                lsn: self.position.lsn.after(change.commits),
                digest: change.digest(),
                ..self.position
            };
            let head = DeltaHead {
                partition: ID,
                from: self.position,
                to,
                page_size: PAGE as u32,
                page_count: change.page_count,
                flags: Flags::NONE,
            };
            let frame = self.encoder.delta(&head, &change.edits(), 16);
            frames.push(frame.expect("a frame"));
            self.source.consume(&change);
            self.position = to;
        }
        frames
    }

    fn fill(&mut self) {
        self.deltas();
        let count = self.source.page_count();
        let mut pages: Vec<(u32, Vec<u8>)> = Vec::new();
        for page in 1..=count {
            let mut bytes = vec![0; PAGE];
            self.source.read_page(page, &mut bytes).expect("a page");
            pages.push((page, bytes));
        }
        for some in pages.chunks(64) {
            let head = PagesHead {
                partition: ID,
                at: self.position,
                page_size: PAGE as u32,
                page_count: count,
                flags: Flags::NONE,
            };
            let images: Vec<(u32, &[u8])> = some.iter().map(|(p, b)| (*p, &b[..])).collect();
            let frame = self.encoder.pages(&head, &images).expect("a frame");
            self.shadow.write_pages(&frame).expect("written");
        }
        self.shadow
            .complete(self.position, count)
            .expect("proven equal");
    }

    fn follow(&mut self) {
        for frame in self.deltas() {
            let at = self.shadow.apply(&frame).expect("applied");
            assert_eq!(at.lsn, frame.header().to);
        }
        assert_eq!(self.shadow.position(), Some(self.position));
    }

    /// The shadow that is landing, as the next start of a daemon finds it.
    fn found_after_a_restart(&self) -> Shadow {
        let opened = Shadow::open(&ShadowPaths::new(&self.path(), "log")).expect("opened");
        let Opened::Shadow(mut found, Found::Landing { .. }) = opened else {
            panic!("{opened:?}");
        };
        found.settle(self.position).expect("the -wal was synced");
        *found
    }

    /// The records of the log that landed.
    fn landed(&self) -> Vec<(Lsn, Vec<u8>)> {
        let control = Control::open(&self.path().join("log")).expect("a log");
        let mut scanner = Scanner::new(&control).expect("a reader");
        let mut found = Vec::new();
        while let Some(group) = scanner.next_group().expect("whole") {
            found.extend(group.records().map(|r| (r.lsn, r.payload.to_vec())));
        }
        found
    }
}

#[test]
fn a_shadow_follows_lands_and_is_appended_to() {
    let mut pair = Pair::new();
    for round in 0..10 {
        pair.append(round * 3);
        if round == 5 {
            let keep = pair.written[pair.written.len() / 2].0;
            let first = pair.appender.release(keep).expect("released");
            pair.written.retain(|(lsn, _)| *lsn >= first);
        }
        pair.follow();
        if round % 3 == 0
            && let Some(task) = pair.shadow.checkpoint_task()
        {
            let done = task.run();
            pair.shadow.checkpoint_done(done).expect("checkpointed");
        }
    }
    pair.shadow.prepare_landing(NEXT).expect("prepared");
    pair.append(40);
    pair.follow();
    pair.source.freeze().expect("frozen");
    pair.follow();
    assert_eq!(pair.shadow.land_sync().expect("synced"), pair.position);
    let end = pair.source.fence().expect("a task").run().expect("sealed");
    assert_eq!(pair.shadow.become_log(NEXT).expect("a log"), end);
    assert!(
        pair.landed() == pair.written,
        "what was acknowledged is there"
    );
    let next = open(&pair.path().join("log"));
    let lsn = next.append(Kind(2), b"goes on here").expect("appended");
    assert!(lsn > end);
    assert_eq!(
        pair.shadow.become_log(NEXT).expect("done before"),
        next.position()
    );
    pair.written.push((lsn, b"goes on here".to_vec()));
    assert!(pair.landed() == pair.written, "and is left alone");
}

#[test]
fn a_landing_that_a_crash_met_lands_again_with_everything() {
    for step in 0..3 {
        let mut pair = Pair::new();
        pair.shadow.prepare_landing(NEXT).expect("prepared");
        pair.append(25);
        pair.follow();
        pair.shadow.land_sync().expect("synced");
        if step > 0 {
            pair.shadow.become_log(NEXT).expect("a log");
        }
        if step > 1 {
            let next = open(&pair.path().join("log"));
            let lsn = next.append(Kind(2), b"x").expect("appended");
            pair.written.push((lsn, b"x".to_vec()));
        }
        let paths = ShadowPaths::new(&pair.path(), "log");
        let opened = Shadow::open(&paths).expect("opened");
        let Opened::Shadow(mut found, Found::Landing { epoch, .. }) = opened else {
            panic!("{opened:?}");
        };
        assert_eq!(epoch, NEXT);
        found.settle(pair.position).expect("it is what was synced");
        found.become_log(NEXT).expect("a log");
        assert!(
            pair.landed() == pair.written,
            "what was appended since, too"
        );
    }
}

/// All of a log is written before the one sync: a power cut may have left its page 1 alone.
#[test]
fn a_log_of_which_a_power_cut_left_only_its_first_page_is_made_again() {
    let mut pair = Pair::new();
    pair.shadow.prepare_landing(NEXT).expect("prepared");
    pair.append(25);
    pair.follow();
    pair.shadow.land_sync().expect("synced");
    let path = pair.path().join("log");
    let mut before = fs::read(&path).expect("the file at its base");
    pair.shadow.become_log(NEXT).expect("a log");
    let after = fs::read(&path).expect("a log");
    before[..PAGE].copy_from_slice(&after[..PAGE]);
    // A power cut ends a boot: its identity is another one.
    before[320] ^= 1;
    fs::write(&path, before).expect("written");
    let mut found = pair.found_after_a_restart();
    found.become_log(NEXT).expect("a log");
    assert!(
        pair.landed() == pair.written,
        "what was acknowledged is there"
    );
}

#[test]
fn a_log_that_may_be_open_is_not_made_again() {
    let mut pair = Pair::new();
    pair.shadow.prepare_landing(NEXT).expect("prepared");
    pair.append(25);
    pair.follow();
    pair.shadow.land_sync().expect("synced");
    pair.shadow.become_log(NEXT).expect("a log");
    let path = pair.path().join("log");
    let appender = Appender::open(&path, &Options::default()).expect("served");
    let before = fs::read(&path).expect("a log");
    // The daemon was killed after the exchange, before it noted it.
    let mut found = pair.found_after_a_restart();
    found.become_log(NEXT).expect("it is one");
    assert!(fs::read(&path).expect("a log") == before, "nothing changed");
    appender.append(Kind(1), b"on it goes").expect("appended");
    assert_eq!(pair.landed().len(), pair.written.len() + 1);
}

#[test]
fn a_landing_that_is_given_up_follows_on() {
    let mut pair = Pair::new();
    pair.shadow.prepare_landing(NEXT).expect("prepared");
    pair.append(25);
    pair.follow();
    pair.shadow
        .become_log(NEXT)
        .expect("a log, which nobody opened");
    pair.shadow.abandon_landing().expect("given up");
    pair.append(25);
    pair.follow();
    pair.shadow.prepare_landing(Epoch(3)).expect("prepared");
    pair.append(5);
    pair.follow();
    pair.shadow.become_log(Epoch(3)).expect("a log");
    assert!(pair.landed() == pair.written);
}
