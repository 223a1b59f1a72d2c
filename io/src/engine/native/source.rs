//! A live native log at its owner: what was committed as changed pages, the freeze, the seal.
//!
//! Invariants: nothing above the commit word is read; a change ends where a group ends; what was
//! not consumed is held, so it can be read again and a fill can read any page of the position.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal::delta::PageEdit;
use wal::digest::PageHash;
use wal::log::control::boottime;
use wal::log::saved::Run;
use wal::log::segment::Slots;
use wal::log::{Control, Scanner, Word};
use wal::{Digest, Lsn};

use super::image::{Held, Image, PAGE};
use super::scan::{Scan, ScanTask};
use crate::engine::change::{self, Changed};
use crate::engine::table::Table;
use crate::error::{Error, Kind, Result};

/// A freeze ends by itself after this, should we be stopped; if we die it ends at once.
const FREEZE_MAX: Duration = Duration::from_secs(30);
/// How long an attachment waits for the one before.
const TAIL_MAX: Duration = Duration::from_millis(500);

/// A log that is attached.
#[derive(Debug)]
pub struct Source {
    control: Arc<Control>,
    scanner: Scanner<Arc<Control>>,
    slots: Slots,
    image: Image,
    table: Option<Table>,
    /// Why a scan must come before anything more can be read.
    lost: Option<String>,
    scanning: bool,
    frozen: Option<Word>,
    /// Locked while we tail.
    _tail: File,
}

/// Groups that were read and are yet to be consumed.
#[derive(Debug)]
pub struct Change {
    /// How many; what the position's Lsn grows by. At least 1.
    pub commits: u64,
    pub page_count: u32,
    image: Image,
    digest: Digest,
    /// Where the images of pages lie; the first one is of zeros.
    bytes: Vec<u8>,
    pages: Vec<Changed>,
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
        let control = Arc::new(Control::open(path)?);
        let tail = take_tail(&control)?;
        // Held before it is looked at, so that nothing of it is used again in between.
        control.set_hold(control.saved::<Run>()?.first);
        let mut slots = control.slots()?;
        let image = at_present(&control, &mut slots)?;
        let scanner = Scanner::from(Arc::clone(&control), image.lsn)?;
        Ok(Source {
            control,
            scanner,
            slots,
            image,
            table: None,
            lost: None,
            scanning: false,
            frozen: None,
            _tail: tail,
        })
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
        self.scanner = Scanner::from(Arc::clone(&self.control), self.image.lsn)?;
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
        if self.scanner.position() != self.image.lsn {
            self.scanner = Scanner::from(Arc::clone(&self.control), self.image.lsn)?;
        }
        let mut reading = Reading::new(self.image.clone());
        while reading.bytes.len() <= limit.max(1) * PAGE {
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
        Ok(Some(reading.finish(&self.image, table)))
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
    }

    fn set_image(&mut self, image: Image) {
        self.control.set_hold(image.first);
        self.image = image;
    }

    /// Makes appends wait, for as long as we live and at most [`FREEZE_MAX`].
    pub fn freeze(&mut self) -> Result<()> {
        match self.control.freeze(boottime() + FREEZE_MAX) {
            Ok(frozen) => self.frozen = Some(frozen),
            Err(_) => return Err(self.refused("freeze", "it is sealed")),
        }
        // The page is written to while nobody waits for it.
        self.control.warm();
        Ok(())
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Lets appends go on as if nothing had been.
    pub fn thaw(&mut self) {
        if self.frozen.take().is_some() {
            self.control.thaw();
        }
    }

    /// The seal; run it on a thread that may wait for the disk.
    pub fn fence(&mut self) -> Result<FenceTask> {
        let frozen = self.frozen.take();
        let frozen = frozen.ok_or_else(|| self.refused("seal", "it is not frozen"))?;
        let control = Arc::clone(&self.control);
        Ok(FenceTask { control, frozen })
    }

    /// Takes back a seal that nobody was told of.
    pub fn lift_fence(&mut self) -> Result<()> {
        self.frozen = None;
        self.control.unseal()?;
        Ok(())
    }

    pub fn is_fenced(&self) -> bool {
        self.control.word().sealed
    }

    fn refused(&self, op: &'static str, reason: &str) -> Error {
        let subject = self.control.path().display().to_string();
        Error::new(Kind::Refused, op, subject, reason)
    }
}

/// The seal of a frozen log.
#[derive(Debug)]
pub struct FenceTask {
    control: Arc<Control>,
    frozen: Word,
}

impl FenceTask {
    /// Seals exactly what was frozen, durably. `Retry`: the freeze had ended before; nothing was
    /// done.
    pub fn run(self) -> Result<Lsn> {
        if self.control.seal_at(self.frozen).is_err() {
            let subject = self.control.path().display().to_string();
            let reason = "the freeze was over: somebody appended meanwhile";
            return Err(Error::new(Kind::Retry, "seal", subject, reason));
        }
        Ok(self.control.save_seal()?.lsn)
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

/// Groups while they are read: the image that they make, and the pages that they change.
struct Reading {
    image: Image,
    bytes: Vec<u8>,
    pages: BTreeMap<u32, usize>,
    commits: u64,
}

impl Reading {
    fn new(image: Image) -> Reading {
        Reading {
            image,
            bytes: vec![0; PAGE],
            pages: BTreeMap::new(),
            commits: 0,
        }
    }

    fn take(&mut self, group: wal::log::scanner::Group<'_>, slots: &mut Slots) -> Result<()> {
        let (header, layout) = (group.header, &self.image.layout);
        let number = layout.number(header.lsn);
        if !self.image.segments.contains_key(&number) {
            self.enter(number, header.after, slots)?;
        }
        let Some(first) = self.image.page_at(header.lsn) else {
            unreachable!("its segment was entered");
        };
        let at = self.bytes.len();
        self.bytes.extend_from_slice(group.bytes());
        self.bytes
            .resize(self.bytes.len().next_multiple_of(PAGE), 0);
        for (index, at) in (at..self.bytes.len()).step_by(PAGE).enumerate() {
            self.pages.insert(first + index as u32, at);
        }
        self.image.lsn = header.end();
        let segments = Arc::make_mut(&mut self.image.segments);
        if let Some(held) = segments.get_mut(&number) {
            held.end = header.end();
        }
        self.commits += 1;
        Ok(())
    }

    /// The log goes on in a segment of its own slot, whose other pages are zeros.
    fn enter(&mut self, number: u64, after: Lsn, slots: &mut Slots) -> Result<()> {
        let Some(slot) = slots.find(number)? else {
            let subject = self.image.layout.path.display().to_string();
            let reason = format!("segment {number} is missing in it");
            return Err(Error::new(Kind::Corrupt, "read", subject, reason));
        };
        let segments = Arc::make_mut(&mut self.image.segments);
        if let Some(held) = segments.get_mut(&(number - 1)) {
            held.end = after;
        }
        // What the slot held before was released; it is not read any more.
        segments.retain(|_, held| held.slot != slot);
        segments.insert(number, Held { slot, end: after });
        for page in self.image.pages_of(slot) {
            self.pages.insert(page, 0);
        }
        let head = self.bytes.len();
        self.bytes
            .extend_from_slice(&self.image.layout.head(number));
        self.pages.insert(self.image.page_of(slot, 0), head);
        Ok(())
    }

    /// Segments below `first` are not kept any more: their pages are zeros.
    fn release(&mut self, first: Lsn) {
        let first = first.min(self.image.lsn);
        if first <= self.image.first {
            return;
        }
        self.image.first = first;
        let keep = self.image.layout.number(first);
        let gone: Vec<Held> = self.image.segments.range(..keep).map(|(_, h)| *h).collect();
        Arc::make_mut(&mut self.image.segments).retain(|number, _| *number >= keep);
        for held in gone {
            for page in self.image.pages_of(held.slot) {
                self.pages.insert(page, 0);
            }
        }
    }

    fn finish(mut self, old: &Image, table: &Table) -> Change {
        let page_count = self.image.page_count();
        for page in table.page_count() + 1..=page_count {
            self.pages.entry(page).or_insert(0);
        }
        let (before, after) = (self.bytes.len(), self.bytes.len() + PAGE);
        self.bytes.extend_from_slice(&old.state_page());
        self.bytes.extend_from_slice(&self.image.state_page());
        self.pages.insert(1, after);
        self.pages.remove(&Image::gap());
        drop(self.pages.split_off(&(page_count + 1)));
        let mut digest = table.digest();
        for page in page_count + 1..=table.page_count() {
            digest = digest.replace(table.get(page), PageHash::ABSENT);
        }
        let mut pages = Vec::with_capacity(self.pages.len());
        for (page, at) in self.pages {
            let hash = PageHash::of(page, &self.bytes[at..at + PAGE]);
            if at == 0 && table.get(page) == hash {
                continue;
            }
            digest = digest.replace(table.get(page), hash);
            pages.push(Changed {
                page,
                hash,
                before: (page == 1).then_some(before),
                after: at,
            });
        }
        Change {
            commits: self.commits.max(1),
            page_count,
            image: self.image,
            digest,
            bytes: self.bytes,
            pages,
        }
    }
}
