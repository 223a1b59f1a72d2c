//! A live native log at its owner: what was committed as changed pages, the freeze, the seal.
//!
//! Invariants: nothing above the commit word is read; a change ends where a group ends; what was
//! not consumed is held, so it can be read again and a fill can read any page of the position.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal::delta::PageEdit;
use wal::digest::PageHash;
use wal::log::recent::Recent;
use wal::log::saved::{Ownership, Run};
use wal::log::segment::Slots;
use wal::log::{Control, Scanner, Word};
use wal::{Digest, Lsn};

use super::image::{Image, PAGE};
use super::reading::Reading;
use super::scan::{Scan, ScanTask};
use crate::engine::change::{self, Changed};
use crate::engine::names::{self, Identity};
use crate::engine::table::Table;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// How long an attachment waits for the one before.
const TAIL_MAX: Duration = Duration::from_millis(500);

/// A log that is attached.
#[derive(Debug)]
pub struct Source {
    pub(super) control: Arc<Control>,
    scanner: Scanner<Arc<Control>>,
    /// The newest groups, once the log is written to.
    recent: Option<Arc<Recent>>,
    /// That was tried.
    shares: bool,
    slots: Slots,
    pub(super) image: Image,
    pub(super) table: Option<Table>,
    /// Why a scan must come before anything more can be read.
    lost: Option<String>,
    scanning: bool,
    pub(super) frozen: Option<Word>,
    pub(super) name: Name,
    /// Locked while we tail.
    pub(super) tail: File,
}

/// The name that was attached, and the file it led to.
#[derive(Debug)]
pub(super) struct Name {
    given: PathBuf,
    identity: Identity,
}

impl Name {
    fn of(path: &Path) -> Result<Name> {
        let meta = std::fs::metadata(path).map_err(|error| Error::at("stat", path, error))?;
        Ok(Name {
            given: path.to_owned(),
            identity: names::identity(&meta),
        })
    }

    /// `Fatal` if the name leads elsewhere by now.
    pub(super) fn verify(&self) -> Result<()> {
        names::same(&self.given, self.identity)
    }

    /// `Fatal` if what was opened by the name is another file.
    pub(super) fn verify_is(&self, opened: Identity) -> Result<()> {
        if opened == self.identity {
            return Ok(());
        }
        let (kind, subject) = (Kind::Fatal, self.given.display().to_string());
        Err(Error::new(kind, "keep", subject, names::REPLACED))
    }
}

/// Groups that were read and are yet to be consumed.
#[derive(Debug)]
pub struct Change {
    /// How many; what the position's Lsn grows by. At least 1.
    pub commits: u64,
    pub page_count: u32,
    pub(super) image: Image,
    pub(super) digest: Digest,
    /// Where the images of pages lie; the first one is of zeros.
    pub(super) bytes: Vec<u8>,
    pub(super) pages: Vec<Changed>,
}

impl Change {
    /// The changed pages in ascending order.
    pub fn edits(&self) -> Vec<PageEdit<'_>> {
        change::edits(&self.pages, &self.bytes, PAGE)
    }

    /// The digest of the whole partition after this change.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn pages(&self) -> usize {
        self.pages.len()
    }
}

/// What a scan meant.
#[derive(Debug)]
pub enum Adopted {
    /// The first table: changes can be read from now on.
    Ready,
    /// Something was missed: `pages` pages of each shadow must be filled anew.
    Replaced { pages: usize, commits: u64 },
}

impl Source {
    /// Joins the log at `path` as the one who tails it.
    pub fn attach(path: &Path) -> Result<Source> {
        let name = Name::of(path)?;
        let control = Arc::new(Control::open(path)?);
        let tail = take_tail(&control)?;
        failpoint::pass(Step::TailAttach)?;
        // A sidecar that died between the two stores of a seal is no reason to take it back, and
        // what others are told of a seal has to be true after a power cut as well.
        if control.word().sealed && !control.saved::<Ownership>()?.sealed {
            control.save_seal()?;
        }
        // Held before it is looked at, so that nothing of it is used again in between.
        control.set_hold(control.saved::<Run>()?.first);
        let image = at_present(&control, &mut control.slots()?)?;
        Source::resume(control, name, image, None, tail)
    }

    /// Goes on where the log is held.
    pub(super) fn resume(
        control: Arc<Control>,
        name: Name,
        image: Image,
        table: Option<Table>,
        tail: File,
    ) -> Result<Source> {
        let scanner = Scanner::from(Arc::clone(&control), image.lsn)?;
        Ok(Source {
            recent: None,
            shares: false,
            slots: control.slots()?,
            control,
            scanner,
            image,
            table,
            lost: None,
            scanning: false,
            frozen: None,
            name,
            tail,
        })
    }

    /// Attaches to a shadow that has just landed and held the log from `first` to `lsn`; its pages
    /// have `hashes`. What was appended since is read like any other change. `Retry` if that is not
    /// the log any more: only a scan helps.
    pub fn attach_known(
        path: &Path,
        hashes: Vec<PageHash>,
        (first, lsn): (Lsn, Lsn),
    ) -> Result<Source> {
        let mut source = Source::attach(path)?;
        let image = Image::read(&mut source.slots, first, lsn)?;
        let state = PageHash::of(1, &image.state_page());
        // Page 1 says where the log begins and ends: what it holds in between follows.
        if hashes.first() != Some(&state) || source.control.saved::<Run>()?.first > first {
            let subject = source.control.path().display().to_string();
            let reason = "it does not go on from the position of the shadow";
            return Err(Error::new(Kind::Retry, "attach to", subject, reason));
        }
        source.set_image(image);
        source.begin_here()?;
        source.table = Some(Table::new(hashes));
        Ok(source)
    }

    /// Whether the name that was attached still leads to this log; `Fatal` if not.
    pub fn verify_names(&self) -> Result<()> {
        self.name.verify()
    }

    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// The consumed position in the log.
    pub fn lsn(&self) -> Lsn {
        self.image.lsn
    }

    pub fn page_size(&self) -> u32 {
        PAGE as u32
    }

    /// Pages at the consumed position; 0 before the first scan.
    pub fn page_count(&self) -> u32 {
        self.table.as_ref().map_or(0, Table::page_count)
    }

    /// The digest at the consumed position; that of no page before the first scan.
    pub fn digest(&self) -> Digest {
        self.table.as_ref().map_or(Digest::default(), Table::digest)
    }

    /// The hash of each page at the consumed position; empty before the first scan.
    pub fn hashes(&self) -> &[PageHash] {
        self.table.as_ref().map_or(&[], Table::hashes)
    }

    /// Whether there may be something to read: two loads from mapped memory.
    pub fn changed(&self) -> bool {
        self.control.word().lsn != self.image.lsn
    }

    /// Reads a page as of the consumed position.
    pub fn read_page(&self, page: u32, into: &mut [u8]) -> Result<()> {
        self.image.read_page(self.slots.file(), page, into)
    }

    /// Whether a scan must come before anything more can be read, and why.
    pub fn wants_scan(&self) -> Option<&str> {
        match (&self.lost, &self.table) {
            _ if self.scanning => None,
            (Some(reason), _) => Some(reason),
            (None, None) => Some("it was attached just now"),
            (None, Some(_)) => None,
        }
    }

    /// Hashing everything at the present position, for another thread.
    pub fn scan(&mut self) -> Result<ScanTask> {
        self.control.set_hold(self.control.saved::<Run>()?.first);
        let image = at_present(&self.control, &mut self.slots)?;
        self.scanning = true;
        Ok(ScanTask {
            control: Arc::clone(&self.control),
            image,
        })
    }

    /// A scan that was begun will not be adopted.
    pub fn scan_lost(&mut self) {
        self.scanning = false;
    }

    /// Takes the result of a scan as what was consumed.
    pub fn adopt(&mut self, scan: Scan) -> Result<Adopted> {
        let old = self.table.replace(Table::new(scan.hashes));
        self.scanning = false;
        self.lost = None;
        self.set_image(scan.image);
        self.begin_here()?;
        Ok(match old {
            None => Adopted::Ready,
            Some(old) => Adopted::Replaced {
                pages: differing(old.hashes(), self.hashes()),
                commits: 1,
            },
        })
    }

    /// Reads what was committed, at most `limit` pages but always a whole group; `None` when there
    /// is nothing, or when a scan must come first. Nothing is consumed yet.
    pub fn poll(&mut self, limit: usize) -> Result<Option<Change>> {
        if self.table.is_none() || self.lost.is_some() || self.scanning {
            return Ok(None);
        }
        let released = self.control.saved::<Run>()?.first;
        if !self.changed() && released == self.image.first {
            return Ok(None);
        }
        if !std::mem::replace(&mut self.shares, true) {
            self.share_recent();
        }
        if self.scanner.position() != self.image.lsn {
            self.begin_here()?;
        }
        let mut reading = Reading::new(self.image.clone());
        while reading.len() <= limit.max(1) * PAGE {
            match self.scanner.next_group() {
                Ok(Some(group)) => reading.take(group, &mut self.slots)?,
                Ok(None) => break,
                Err(wal::log::Error::Gone { .. }) => {
                    self.lost = Some("segments were used again before they were read".to_owned());
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        reading.release(released);
        let Some(table) = &self.table else {
            unreachable!("looked at above");
        };
        let change = reading.finish(&self.image, table);
        failpoint::pass(Step::TailRead)?;
        Ok(Some(change))
    }

    /// Takes `change`, the last that was polled, as done: the position moves behind it.
    pub fn consume(&mut self, change: &Change) {
        let Some(table) = &mut self.table else {
            unreachable!("a change is only made with a table");
        };
        table.resize(change.page_count);
        for changed in &change.pages {
            table.set(changed.page, changed.hash);
        }
        assert_eq!(
            table.digest(),
            change.digest,
            "the change said what the digest would be"
        );
        self.set_image(change.image.clone());
        failpoint::reach(Step::TailConsumed);
    }

    /// Asks the appender for the newest groups, so that they are not read from the disk.
    fn share_recent(&mut self) {
        match Recent::share(&self.control) {
            Ok(recent) => {
                let recent = Arc::new(recent);
                self.scanner.set_recent(Arc::clone(&recent));
                self.recent = Some(recent);
            }
            Err(error) => tracing::debug!(%error, "the newest groups are read from the disk"),
        }
    }

    /// Reads on from the consumed position.
    fn begin_here(&mut self) -> Result<()> {
        self.scanner = Scanner::from(Arc::clone(&self.control), self.image.lsn)?;
        if let Some(recent) = &self.recent {
            self.scanner.set_recent(Arc::clone(recent));
        }
        Ok(())
    }

    fn set_image(&mut self, image: Image) {
        self.control.set_hold(image.first);
        self.image = image;
    }

    pub(super) fn refused(&self, op: &'static str, reason: &str) -> Error {
        let subject = self.control.path().display().to_string();
        Error::new(Kind::Refused, op, subject, reason)
    }
}

/// Becomes the one who tails; waits a moment for who did before, or for a child that he was just
/// starting and that has not let go of his files yet.
fn take_tail(control: &Control) -> Result<File> {
    let until = Instant::now() + TAIL_MAX;
    loop {
        if let Some(tail) = control.tail()? {
            return Ok(tail);
        }
        if Instant::now() >= until {
            let subject = control.path().display().to_string();
            let reason = "another process tails it; one sidecar per log";
            return Err(Error::new(Kind::Refused, "attach to", subject, reason));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn at_present(control: &Control, slots: &mut Slots) -> Result<Image> {
    let lsn = control.word().lsn;
    let first = control.saved::<Run>()?.first;
    Image::read(slots, first, lsn.max(first))
}

/// Pages that are not the same in both.
fn differing(one: &[PageHash], other: &[PageHash]) -> usize {
    let both = one.iter().zip(other).filter(|(a, b)| a != b).count();
    both + one.len().abs_diff(other.len())
}
