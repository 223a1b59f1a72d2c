//! Keys and values in a native log: the log is the database, a directory in memory says where.
//!
//! | module | what it does |
//! |---|---|
//! | [`record`] | the payload of a record, byte by byte |
//! | [`place`] | position and length of a record in eight bytes |
//! | [`directory`] | every key and its place |
//! | [`order`] | changes that are placed in the log and not acknowledged |
//! | [`append`] | changes into the log and then into the directory |
//! | [`files`] | single records by position |
//! | [`hint`] | what an open reads instead of whole segments |
//! | [`load`] | the directory rebuilt |
//! | [`compact`] | live records moved, segments given back |
//! | [`keeper`] | the thread that does the last three while the store is used |
//!
//! Invariants:
//! - what returned is visible to every later [`Store::get`], and survives a power cut;
//! - of one key the last record in the log counts, whatever threads and compaction do;
//! - a value is handed out only if its record's checksum is right and its key is the one asked
//!   for; otherwise there is an error that names the position.
//!
//! A batch is in the log whole or not at all. A reader that asks while it is being acknowledged may
//! meet some keys of it before others: a store has no snapshots.

pub mod append;
pub mod compact;
pub mod directory;
pub mod files;
pub mod hint;
pub mod keeper;
pub mod load;
pub mod order;
pub mod place;
pub mod record;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wal::Lsn;
use wal::log::group::record_len;
use wal::log::saved::Run;
use wal::log::segment::Layout;
use wal::log::{Appender, Control, Options, Word};

use crate::throttle::Rate;
use compact::Progress;
use directory::Directory;
use files::Files;
use keeper::{Bell, Keeper};
use order::Order;
use record::Change;

pub use compact::Compacted;
pub use load::Loaded;
pub use wal::log::{Error, Kind, Result};

/// A record is at most this part of a segment, so that segments can be filled well.
const RECORD_PART: usize = 4;

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOptions {
    pub log: Options,
    /// Compaction keeps the log within this many times the live records, and four segments: 2 or
    /// more. With 2, a record is moved about once for each that is written, at worst.
    pub space_factor: u32,
    /// Bytes a second that compaction moves at most; 0 is unlimited.
    pub compact_rate: Rate,
    /// A thread of the store writes hints and compacts. Without it only [`Store::write_hints`] and
    /// [`Store::compact_once`] do.
    pub keeper: bool,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            log: Options::default(),
            space_factor: 2,
            compact_rate: Rate(0),
            keeper: true,
        }
    }
}

/// Changes that are made together or not at all; of one key the last one counts.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    records: Vec<(Kind, Vec<u8>)>,
    /// The longest key, which may be too long.
    key_len_max: usize,
}

impl Batch {
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.push(record::PUT, key, value);
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.push(record::DELETE, key, &[]);
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn push(&mut self, kind: Kind, key: &[u8], value: &[u8]) {
        self.key_len_max = self.key_len_max.max(key.len());
        // One that is too long is refused before anything of the batch is looked at.
        let key = &key[..key.len().min(record::KEY_MAX)];
        self.records.push((kind, record::payload(key, value)));
    }
}

/// How large a store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    pub keys: u64,
    /// Bytes of live records.
    pub live_bytes: u64,
    /// Segments that the log spans.
    pub segments: u64,
    /// Segments beyond which compaction begins.
    pub segments_max: u64,
    pub first: Lsn,
    pub end: Lsn,
}

/// An open store, for any number of threads.
#[derive(Debug)]
pub struct Store {
    // Dropped first: the thread uses the rest.
    keeper: Option<Keeper>,
    core: Arc<Core>,
    loaded: Loaded,
}

/// What the threads of a store share.
#[derive(Debug)]
pub struct Core {
    appender: Appender,
    layout: Layout,
    directory: Directory,
    order: Mutex<Order>,
    files: Files,
    options: StoreOptions,
    progress: Mutex<Progress>,
    hinted: Mutex<BTreeSet<u64>>,
    bell: Bell,
    /// The newest segment that the thread was told of.
    told: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Store {
    /// Opens the store at `path`, or makes it. A log that is sealed is refused: ask the route.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Store> {
        let appender = Appender::open(path, &options.log)?;
        let control = appender.control();
        let directory = Directory::new(control.segment_bytes());
        let loaded = load::load(control, &directory)?;
        let layout = control.layout();
        hint::sweep(&layout, layout.number(control.saved::<Run>()?.first));
        let files = Files::new(control)?;
        let core = Arc::new(Core {
            told: AtomicU64::new(layout.number(appender.position())),
            appender,
            directory,
            order: Mutex::default(),
            files,
            layout,
            options: *options,
            progress: Mutex::default(),
            hinted: Mutex::new(loaded.hinted.clone()),
            bell: Bell::default(),
            failure: Mutex::default(),
        });
        let keeper = options.keeper.then(|| Keeper::start(&core)).transpose()?;
        Ok(Store {
            keeper,
            core,
            loaded,
        })
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut tried = None;
        loop {
            let Some(place) = self.core.directory.get(key) else {
                return Ok(None);
            };
            let last = tried == Some(place);
            tried = Some(place);
            let at = place.lsn();
            let why = match self.core.files.record(place) {
                Ok(Some(found)) => match Change::read(found.kind, found.payload()) {
                    Some(Change::Put { key: of, value }) if of == key => {
                        return Ok(Some(value.to_vec()));
                    }
                    _ => "the record is not of the key that the store knows here",
                },
                Ok(None) => "the record's checksum is wrong",
                Err(error) if last => return Err(error),
                Err(_) => continue,
            };
            // Compaction may have moved it meanwhile: then it is looked up elsewhere now.
            if last {
                return Err(Error::Damaged { at, why });
            }
        }
    }

    /// Gives a key a value. Returns the position from which on it is seen, once it is durable.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let mut batch = Batch::default();
        batch.put(key, value);
        self.write(&batch)
    }

    /// Takes a key's value away, whether it has one or not.
    pub fn delete(&self, key: &[u8]) -> Result<Lsn> {
        let mut batch = Batch::default();
        batch.delete(key);
        self.write(&batch)
    }

    /// Makes the changes of a batch together.
    pub fn write(&self, batch: &Batch) -> Result<Lsn> {
        let record_max = self.core.layout.group_max() / RECORD_PART;
        let longest = batch.records.iter().map(|(_, payload)| payload.len()).max();
        let refused = |len: usize, max: usize| Err(Error::TooLong { len, max });
        if batch.key_len_max > record::KEY_MAX {
            return refused(batch.key_len_max, record::KEY_MAX);
        }
        if let Some(len) = longest.filter(|len| record_len(*len) > record_max) {
            return refused(len, record_max);
        }
        if batch.is_empty() {
            return Ok(self.position());
        }
        let records: Vec<append::New> = batch.records.iter().map(|(k, p)| (*k, &p[..])).collect();
        self.core.append(self.core.lock_order(), &records)
    }

    /// All keys, in no order; each was there at some time during the call.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.core.directory.keys()
    }

    pub fn len(&self) -> usize {
        self.core.directory.count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the record lies that has a key's value now.
    pub fn locate(&self, key: &[u8]) -> Option<Lsn> {
        self.core.directory.get(key).map(|place| place.lsn())
    }

    /// Everything below is acknowledged.
    pub fn position(&self) -> Lsn {
        self.core.appender.position()
    }

    pub fn control(&self) -> &Control {
        self.core.appender.control()
    }

    /// The word of the log if it is sealed: nothing can be changed, everything can be read, up to
    /// the position in it. The route says where to open the store again.
    pub fn sealed(&self) -> Option<Word> {
        Some(self.control().word()).filter(|word| word.sealed)
    }

    pub fn usage(&self) -> Result<Usage> {
        let layout = &self.core.layout;
        let (first, end) = (self.control().saved::<Run>()?.first, self.position());
        Ok(Usage {
            keys: self.len() as u64,
            live_bytes: self.core.directory.live(),
            segments: layout.number(end) - layout.number(first) + 1,
            segments_max: self.core.segments_max(),
            first,
            end,
        })
    }

    /// How the directory was rebuilt when the store was opened.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Compacts the oldest segment, whether it is worth it or not; `None` if it is still written
    /// into, or if what was compacted before is held.
    pub fn compact_once(&self) -> Result<Option<Compacted>> {
        self.core.compact(|_| true)
    }

    /// Compacts as far as the thread of the store would, without a pause.
    pub fn compact(&self) -> Result<()> {
        self.core.compact_all(|_| true)
    }

    /// Writes the hints of finished segments that have none; how many.
    pub fn write_hints(&self) -> Result<u64> {
        self.core.write_hints()
    }

    /// Why the thread of the store could not do its work, when it tried last.
    pub fn failure(&self) -> Option<Error> {
        let failure = self.core.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops the thread of the store; what it is in the middle of is finished or given up.
    pub fn stop_keeper(&mut self) {
        self.keeper = None;
    }
}

impl Core {
    /// Tells the thread when a segment was finished.
    fn nudge_if_finished(&self) {
        let number = self.layout.number(self.appender.position());
        if self.told.fetch_max(number, Ordering::Relaxed) < number {
            self.bell.nudge();
        }
    }
}

/// The system refused something.
pub(super) fn system(op: &'static str, path: &Path, error: &std::io::Error) -> Error {
    Error::System {
        op,
        path: path.to_owned(),
        code: error.raw_os_error().unwrap_or(0),
    }
}
