//! Single records by position: segments that stay open, one read, and the record's checksum.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use wal::log::group::{self, RECORD_HEAD};
use wal::log::segment::{Layout, Slots};
use wal::log::{Kind, Result};

use super::place::Place;
use super::system;

/// Segments kept open.
const OPEN_MAX: usize = 256;

/// The segments of a log, for reading.
#[derive(Debug)]
pub struct Files {
    layout: Layout,
    slots: Mutex<Slots>,
    open: RwLock<HashMap<u64, Arc<File>>>,
}

/// A record, head included.
#[derive(Debug)]
pub struct Found {
    bytes: Vec<u8>,
    len: usize,
    pub kind: Kind,
}

impl Found {
    pub fn payload(&self) -> &[u8] {
        &self.bytes[RECORD_HEAD..RECORD_HEAD + self.len]
    }
}

impl Files {
    pub fn new(layout: Layout) -> Files {
        Files {
            slots: Mutex::new(Slots::new(layout.clone())),
            layout,
            open: RwLock::default(),
        }
    }

    /// The record at `place`; `None` if no whole one lies there, and then its file is looked up
    /// again next time: the slot may have been used again.
    pub fn record(&self, place: Place) -> Result<Option<Found>> {
        let number = self.layout.number(place.lsn());
        let Some(file) = self.file(number)? else {
            return Ok(None);
        };
        let found = self.read(&file, place)?;
        if found.is_none() {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            open.remove(&number);
        }
        Ok(found)
    }

    /// Lets segments below `number` go.
    pub fn forget_below(&self, number: u64) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|kept, _| *kept >= number);
    }

    fn read(&self, file: &File, place: Place) -> Result<Option<Found>> {
        let lsn = place.lsn();
        let most = place.len_max().min(self.layout.rest(lsn));
        let mut bytes = vec![0; most];
        let read = file.read_exact_at(&mut bytes, self.layout.offset(lsn));
        read.map_err(|error| system("read", &self.layout.dir, &error))?;
        let Some(head) = bytes.first_chunk::<RECORD_HEAD>() else {
            return Ok(None);
        };
        let (len, kind) = group::record_head(head);
        let len = len as usize;
        let payload = bytes[RECORD_HEAD..].get(..len);
        let is_whole = payload.is_some_and(|found| group::record_is_whole(head, lsn, found));
        Ok(is_whole.then_some(Found { bytes, len, kind }))
    }

    fn file(&self, number: u64) -> Result<Option<Arc<File>>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&number) {
            return Ok(Some(Arc::clone(file)));
        }
        drop(open);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, file)) = slots.open(number)? else {
            return Ok(None);
        };
        drop(slots);
        let file = Arc::new(file);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_MAX {
            // Which one goes does not matter: it is opened again when it is asked for.
            let any = open.keys().next().copied();
            any.map(|any| open.remove(&any));
        }
        open.insert(number, Arc::clone(&file));
        Ok(Some(file))
    }
}
