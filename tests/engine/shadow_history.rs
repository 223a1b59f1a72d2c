//! A history of real SQLite transactions as a source would ship it: an image of the database after
//! each step, and the delta that leads there.

use std::path::Path;

use foreshadow_io::engine::shadow::{Attributes, Shadow, ShadowPaths, ShadowSpec};
use wal::delta::{DeltaHead, Encoder, PageEdit, PagesHead};
use wal::digest::PageHash;
use wal::frame::{Flags, Frame};
use wal::{Digest, Epoch, Lsn, PartitionId, Position};

pub const PARTITION: PartitionId = PartitionId(42);
pub const FILE: &str = "tenant.db";

/// Images of one database, oldest first.
pub struct History {
    pub page_size: u32,
    pub images: Vec<Vec<u8>>,
}

impl History {
    /// Runs each batch of statements as one step on a fresh database in WAL mode.
    pub fn of(page_size: u32, steps: &[String]) -> History {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("source.db");
        let db = rusqlite::Connection::open(&path).expect("open");
        db.execute_batch(&format!(
            "PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
        ))
        .expect("set up");
        let mut images = Vec::new();
        for step in steps {
            db.execute_batch(step)
                .unwrap_or_else(|e| panic!("{step}: {e}"));
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .expect("checkpoint");
            images.push(std::fs::read(&path).expect("read"));
        }
        History { page_size, images }
    }

    /// Inserts, updates, deletes and two VACUUMs: the database grows and shrinks.
    pub fn lively(page_size: u32) -> History {
        let fill = |from: u32, to: u32, len: u32| {
            format!(
                "WITH RECURSIVE n(i) AS (VALUES({from}) UNION ALL SELECT i+1 FROM n WHERE i<{to}) \
                 INSERT INTO t SELECT i, i*7, randomblob({len}) FROM n;"
            )
        };
        let mut steps = vec!["CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, b BLOB);".to_owned()];
        steps.push(fill(1, 200, 300));
        steps.extend((1..12).map(|k| format!("UPDATE t SET n=n+1 WHERE id%12={k};")));
        steps.push(fill(201, 500, 900));
        steps.push("CREATE INDEX i ON t(n);".to_owned());
        steps.push("DELETE FROM t WHERE id>150;".to_owned());
        steps.push("VACUUM;".to_owned());
        steps.extend((1..6).map(|k| format!("UPDATE t SET b=randomblob(250) WHERE id%6={k};")));
        steps.push(fill(501, 700, 400));
        steps.push("DELETE FROM t WHERE id%2=0;".to_owned());
        steps.push("VACUUM;".to_owned());
        steps.push("UPDATE t SET n=0;".to_owned());
        History::of(page_size, &steps)
    }

    /// Writes the images into `dir`, for another process.
    pub fn save(&self, dir: &Path) {
        for (step, image) in self.images.iter().enumerate() {
            std::fs::write(dir.join(format!("{step:04}")), image).expect("save");
        }
    }

    /// Reads what [`History::save`] wrote.
    pub fn load(page_size: u32, dir: &Path) -> History {
        let entries = std::fs::read_dir(dir).expect("list");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("list").path()).collect();
        files.sort();
        let images = files
            .iter()
            .map(|file| std::fs::read(file).expect("load"))
            .collect();
        History { page_size, images }
    }

    pub fn last(&self) -> usize {
        self.images.len() - 1
    }

    pub fn page_count(&self, step: usize) -> u32 {
        (self.images[step].len() / self.page_size as usize) as u32
    }

    pub fn page(&self, step: usize, page: u32) -> &[u8] {
        let size = self.page_size as usize;
        &self.images[step][(page as usize - 1) * size..page as usize * size]
    }

    pub fn digest(&self, step: usize) -> Digest {
        let pages = 1..=self.page_count(step);
        let hashes: Vec<PageHash> = pages
            .map(|page| PageHash::of(page, self.page(step, page)))
            .collect();
        Digest::of(&hashes)
    }

    pub fn position(&self, step: usize) -> Position {
        let digest = self.digest(step);
        Position {
            epoch: Epoch(1),
            lsn: Lsn(1000 + step as u64),
            digest,
        }
    }

    /// The step that has this digest.
    pub fn step_of(&self, digest: Digest) -> Option<usize> {
        (0..self.images.len())
            .rev()
            .find(|step| self.digest(*step) == digest)
    }

    /// The delta between two steps.
    pub fn delta(&self, from: usize, to: usize) -> Frame {
        self.delta_claiming(from, to, self.position(to))
    }

    /// The same, claiming to end at `position`.
    pub fn delta_claiming(&self, from: usize, to: usize, position: Position) -> Frame {
        let head = DeltaHead {
            partition: PARTITION,
            from: self.position(from),
            to: position,
            page_size: self.page_size,
            page_count: self.page_count(to),
            flags: Flags::NONE,
        };
        let before = |page: u32| (page <= self.page_count(from)).then(|| self.page(from, page));
        let edits: Vec<PageEdit<'_>> = (1..=self.page_count(to))
            .filter(|page| before(*page) != Some(self.page(to, *page)))
            .map(|page| PageEdit {
                page,
                before: before(page),
                after: self.page(to, page),
            })
            .collect();
        Encoder::new(1).delta(&head, &edits, 16).expect("encode")
    }

    /// The deltas after `from`, one for each step.
    pub fn deltas(&self, from: usize) -> Vec<Frame> {
        (from..self.last())
            .map(|step| self.delta(step, step + 1))
            .collect()
    }

    /// Frames of the pages at `step` whose hash is not in `have`; the last says LAST.
    pub fn pages(&self, step: usize, have: &[PageHash]) -> Vec<Frame> {
        let differs = |page: &u32| {
            let hash = PageHash::of(*page, self.page(step, *page));
            have.get(*page as usize - 1) != Some(&hash)
        };
        let wanted: Vec<(u32, &[u8])> = (1..=self.page_count(step))
            .filter(differs)
            .map(|page| (page, self.page(step, page)))
            .collect();
        let chunks: Vec<_> = wanted.chunks(7).collect();
        let (at, page_count) = (self.position(step), self.page_count(step));
        let head = |flags| PagesHead {
            partition: PARTITION,
            at,
            page_size: self.page_size,
            page_count,
            flags,
        };
        let mut encoder = Encoder::new(1);
        let mut frames: Vec<Frame> = chunks
            .iter()
            .map(|chunk| encoder.pages(&head(Flags::NONE), chunk).expect("encode"))
            .collect();
        frames.push(encoder.pages(&head(Flags::LAST), &[]).expect("encode"));
        frames
    }

    pub fn spec(&self) -> ShadowSpec {
        let attributes = Attributes::own(0o640);
        ShadowSpec {
            partition: PARTITION,
            page_size: self.page_size,
            attributes,
        }
    }

    /// A shadow in `dir` that follows from `step`.
    pub fn shadow(&self, dir: &Path, step: usize) -> Shadow {
        let mut shadow = Shadow::create(&paths(dir), &self.spec()).expect("create");
        self.fill(&mut shadow, step);
        shadow
    }

    /// Sends what `shadow` lacks of `step`, and completes it.
    pub fn fill(&self, shadow: &mut Shadow, step: usize) {
        for frame in self.pages(step, shadow.hashes()) {
            let head = shadow.write_pages(&frame).expect("write pages");
            if head.flags.has(Flags::LAST) {
                shadow.complete(head.at, head.page_count).expect("complete");
            }
        }
    }

    /// Every page of `shadow` is that of `step`.
    pub fn assert_same(&self, shadow: &Shadow, step: usize) {
        assert_eq!(
            shadow.page_count(),
            self.page_count(step),
            "pages at step {step}"
        );
        assert_eq!(shadow.digest(), self.digest(step), "digest at step {step}");
        let mut image = vec![0; self.page_size as usize];
        for page in 1..=self.page_count(step) {
            shadow.read_page(page, &mut image).expect("read");
            assert!(image == self.page(step, page), "page {page} at step {step}");
        }
    }
}

pub fn paths(dir: &Path) -> ShadowPaths {
    ShadowPaths::new(dir, FILE)
}

/// What would be on the disk now, if everything written were.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("list");
        // A file may go while it is listed: journal slots are finished by a rename.
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("copy: {e}"),
            _ => {}
        }
    }
}

/// Opens a copy of `dir` with stock SQLite and returns the content of its table, after an
/// integrity check.
pub fn stock_content(dir: &Path) -> Vec<(i64, i64, Vec<u8>)> {
    let scratch = tempfile::tempdir().expect("tempdir");
    copy_dir(dir, scratch.path());
    content(&scratch.path().join(FILE))
}

/// The same of one database file as it was at some step.
pub fn image_content(image: &[u8]) -> Vec<(i64, i64, Vec<u8>)> {
    let scratch = tempfile::tempdir().expect("tempdir");
    let path = scratch.path().join(FILE);
    std::fs::write(&path, image).expect("write");
    content(&path)
}

fn content(path: &Path) -> Vec<(i64, i64, Vec<u8>)> {
    let db = rusqlite::Connection::open(path).expect("open");
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("integrity check");
    assert_eq!(check, "ok");
    let mut rows = db
        .prepare("SELECT id, n, b FROM t ORDER BY id")
        .expect("prepare");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.expect("query").map(|row| row.expect("row")).collect()
}
