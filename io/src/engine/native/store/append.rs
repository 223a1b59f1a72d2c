//! Changes on their way into the log and, once they are acknowledged, into the key directory.

use std::sync::{MutexGuard, PoisonError};

use wal::Lsn;
use wal::log::group::Record;
use wal::log::saved::Run;
use wal::log::{Error, Kind, Result};

use super::order::Order;
use super::record::Change;
use super::{Core, load};

/// A record to append: its kind and its payload.
pub type New<'a> = (Kind, &'a [u8]);

impl Core {
    pub fn lock_order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records as one batch, in the order that `order` is the lock of, and lets it go as
    /// soon as the log has placed them. When this returns the directory knows what came of them.
    pub fn append(&self, order: MutexGuard<'_, Order>, records: &[New]) -> Result<Lsn> {
        let mut order = Some(order);
        let mut places = Vec::with_capacity(records.len());
        let mut ticket = None;
        let appended = self.appender.append_batch(records, |lsn| {
            places.push(lsn);
            if places.len() == records.len()
                && let Some(mut order) = order.take()
            {
                ticket = Some(order.enter(places[0], keys(records)));
            }
        });
        drop(order);
        let Some(ticket) = ticket else {
            return appended;
        };
        if self.is_in_log(&appended, records, &places) {
            self.apply(records, &places);
        }
        self.lock_order().leave(ticket);
        self.nudge_if_finished();
        appended
    }

    fn apply(&self, records: &[New], places: &[Lsn]) {
        let oldest = self.lock_order().oldest();
        for ((kind, payload), lsn) in records.iter().zip(places) {
            let (lsn, kind) = (*lsn, *kind);
            if let Some(change) = Change::read(kind, payload) {
                let record = Record { lsn, kind, payload };
                load::apply(&self.directory, &record, &change, oldest);
            }
        }
    }

    /// An append may fail although its records are in the log: then the directory has to know them.
    fn is_in_log(&self, appended: &Result<Lsn>, records: &[New], places: &[Lsn]) -> bool {
        match appended {
            // It is durable here, and a scan will find it.
            Ok(_) | Err(Error::NotMirrored { .. }) => true,
            // The lease ended before the group was acknowledged, or just behind that.
            Err(Error::LeaseOver) => self.lies_at(places[0], records[0]).unwrap_or(false),
            Err(_) => false,
        }
    }

    /// The record is one of the log, and not one that was left behind above its end.
    fn lies_at(&self, lsn: Lsn, (kind, payload): New) -> Result<bool> {
        let control = self.appender.control();
        let begin = self.layout.begin(self.layout.number(lsn));
        let from = control.saved::<Run>()?.first.max(begin);
        let mut found = false;
        load::scan(control, from, |record, _| {
            found |= record.lsn == lsn && record.kind == kind && record.payload == payload;
            Ok(())
        })?;
        Ok(found)
    }
}

fn keys<'a>(records: &[New<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let changes = records
        .iter()
        .filter_map(|(kind, payload)| Change::read(*kind, payload));
    changes.map(|change| change.key())
}
