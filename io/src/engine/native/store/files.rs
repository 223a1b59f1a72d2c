//! Single records by position: one read, and the record's checksum.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError, RwLock};

use wal::log::group::{self, RECORD_HEAD};
use wal::log::segment::{Layout, Slots};
use wal::log::{Control, Kind, Result};

use super::place::Place;

/// The segments of a log, for reading.
#[derive(Debug)]
pub struct Files {
    layout: Layout,
    file: File,
    slots: Mutex<Slots>,
    /// Where segments begin in the file.
    begins: RwLock<HashMap<u64, u64>>,
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
    pub fn new(control: &Control) -> Result<Files> {
        let layout = control.layout();
        let file = File::open(&layout.path).map_err(|error| layout.failed("open", &error))?;
        Ok(Files {
            slots: Mutex::new(control.slots()?),
            layout,
            file,
            begins: RwLock::default(),
        })
    }

    /// The record at `place`; `None` if no whole one lies there, and then its slot is looked up
    /// again next time: the slot may have been used again.
    pub fn record(&self, place: Place) -> Result<Option<Found>> {
        let number = self.layout.number(place.lsn());
        let Some(begin) = self.begin(number)? else {
            return Ok(None);
        };
        let found = self.read(begin, place)?;
        if found.is_none() {
            let mut begins = self.begins.write().unwrap_or_else(PoisonError::into_inner);
            begins.remove(&number);
        }
        Ok(found)
    }

    /// Lets segments below `number` go.
    pub fn forget_below(&self, number: u64) {
        let mut begins = self.begins.write().unwrap_or_else(PoisonError::into_inner);
        begins.retain(|kept, _| *kept >= number);
    }

    fn read(&self, begin: u64, place: Place) -> Result<Option<Found>> {
        let lsn = place.lsn();
        let most = place.len_max().min(self.layout.rest(lsn));
        let mut bytes = vec![0; most];
        let at = begin + self.layout.offset(lsn);
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| self.layout.failed("read", &error))?;
        let Some(head) = bytes.first_chunk::<RECORD_HEAD>() else {
            return Ok(None);
        };
        let (len, kind) = group::record_head(head);
        let len = len as usize;
        let payload = bytes[RECORD_HEAD..].get(..len);
        let is_whole = payload.is_some_and(|found| group::record_is_whole(head, lsn, found));
        Ok(is_whole.then_some(Found { bytes, len, kind }))
    }

    fn begin(&self, number: u64) -> Result<Option<u64>> {
        let begins = self.begins.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(begin) = begins.get(&number) {
            return Ok(Some(*begin));
        }
        drop(begins);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.find(number)? else {
            return Ok(None);
        };
        drop(slots);
        let begin = self.layout.slot_at(slot);
        let mut begins = self.begins.write().unwrap_or_else(PoisonError::into_inner);
        begins.insert(number, begin);
        Ok(Some(begin))
    }
}
