//! What a shadow would be: pages that only changes touch, compared with the source's own files.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foreshadow_io::engine::sibling;
use foreshadow_io::engine::sqlite::{Adopted, Change, Source, SourceOptions};
use wal::Digest;
use wal::digest::PageHash;
use wal::sqlite::{WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, lock_page};

/// A scanned source and the replica that follows it.
pub struct Replica {
    pub path: PathBuf,
    pub source: Source,
    pages: BTreeMap<u32, Vec<u8>>,
    pub commits: u64,
    pub changes: usize,
    pub befores: usize,
}

impl Replica {
    /// Attaches to `path`, scans it and copies every page.
    pub fn new(path: &Path) -> Replica {
        Replica::with(path, &SourceOptions::default())
    }

    pub fn with(path: &Path, options: &SourceOptions) -> Replica {
        let mut source = Source::attach(path, options).expect("attach");
        assert!(matches!(scan(&mut source), Adopted::Ready));
        Replica::of(path, source)
    }

    /// Goes on from a source that has its table.
    pub fn of(path: &Path, source: Source) -> Replica {
        let lock = lock_page(source.page_size());
        let mut pages = BTreeMap::new();
        for page in (1..=source.page_count()).filter(|page| Some(*page) != lock) {
            let mut image = vec![0; source.page_size() as usize];
            source.read_page(page, &mut image).expect("read");
            pages.insert(page, image);
        }
        let (commits, changes, befores) = (0, 0, 0);
        Replica {
            path: path.to_owned(),
            source,
            pages,
            commits,
            changes,
            befores,
        }
    }

    /// Applies all that can be read now, a few frames at a time.
    pub fn follow(&mut self) {
        while let Some(change) = self.source.poll(64).expect("poll") {
            self.apply(&change);
        }
    }

    /// Applies one change, checking the images before it and the digest after it.
    pub fn apply(&mut self, change: &Change) {
        for edit in change.edits() {
            if let Some(before) = edit.before {
                assert_eq!(Some(before), self.pages.get(&edit.page).map(Vec::as_slice));
                self.befores += 1;
            }
            self.pages.insert(edit.page, edit.after.to_vec());
        }
        self.pages.retain(|page, _| *page <= change.page_count);
        self.commits += change.commits;
        self.changes += 1;
        self.source.consume(change);
        assert_eq!(self.digest(), change.digest());
        assert_eq!(self.source.digest(), change.digest());
        assert_eq!(self.source.page_count(), change.page_count);
    }

    /// The digest of the replica's own pages.
    pub fn digest(&self) -> Digest {
        let hash = |(page, image): (&u32, &Vec<u8>)| PageHash::of(*page, image);
        self.pages
            .iter()
            .map(hash)
            .fold(Digest(0), |d, h| d.replace(PageHash::ABSENT, h))
    }

    /// Asserts that the replica is what the source's files say at the consumed frame, read without
    /// any of the code under test.
    pub fn assert_whole(&self) {
        let mark = self.source.mark();
        let page_size = self.source.page_size() as usize;
        let db = std::fs::File::open(&self.path).expect("open");
        let log = std::fs::read(sibling(&self.path, "-wal")).expect("read");
        let mut newest = BTreeMap::new();
        for frame in 0..mark.frame as usize {
            let at = WAL_HEADER_LEN + frame * (WAL_FRAME_HEADER_LEN + page_size);
            let page = u32::from_be_bytes(log[at..at + 4].try_into().expect("four bytes"));
            newest.insert(page, at + WAL_FRAME_HEADER_LEN);
        }
        let count = self.source.page_count();
        let lock = lock_page(page_size as u32);
        for page in (1..=count).filter(|page| Some(*page) != lock) {
            let mut image = vec![0; page_size];
            match newest.get(&page) {
                Some(at) => image.copy_from_slice(&log[*at..at + page_size]),
                None => {
                    let offset = u64::from(page - 1) * page_size as u64;
                    // A page beyond the file's end is zeros to SQLite.
                    let _ = db.read_exact_at(&mut image, offset);
                }
            }
            if page == 1 {
                image[18..20].fill(2);
            }
            assert_eq!(
                self.pages.get(&page),
                Some(&image),
                "page {page} of {count}"
            );
        }
        assert_eq!(
            self.pages.len() as u32,
            count - u32::from(lock.is_some_and(|l| l <= count))
        );
    }

    /// Writes the replica to `path` as a database.
    pub fn write_to(&self, path: &Path) {
        let file = std::fs::File::create_new(path).expect("create");
        for (page, image) in &self.pages {
            let offset = u64::from(page - 1) * image.len() as u64;
            file.write_all_at(image, offset).expect("write");
        }
    }
}

/// Runs a scan to its end and adopts it.
pub fn scan(source: &mut Source) -> Adopted {
    let task = source.scan().expect("scan");
    let result = task
        .run(&mut |_, _| ControlFlow::Continue(()))
        .expect("run");
    source.adopt(result).expect("adopt")
}

/// A source with its table.
pub fn attach_scanned(path: &Path) -> Source {
    let mut source = Source::attach(path, &SourceOptions::default()).expect("attach");
    assert!(matches!(scan(&mut source), Adopted::Ready));
    source
}
