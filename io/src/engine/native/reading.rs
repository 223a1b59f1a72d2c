//! Committed groups on their way to become a change: the pages that they touch.

use std::collections::BTreeMap;
use std::sync::Arc;

use wal::Lsn;
use wal::digest::PageHash;
use wal::log::segment::Slots;

use super::image::{Held, Image, PAGE};
use super::source::Change;
use crate::engine::change::Changed;
use crate::engine::table::Table;
use crate::error::{Error, Kind, Result};

/// Groups while they are read: the image that they make, and the pages that they change.
pub(super) struct Reading {
    image: Image,
    bytes: Vec<u8>,
    pages: BTreeMap<u32, usize>,
    commits: u64,
}

impl Reading {
    pub(super) fn new(image: Image) -> Reading {
        Reading {
            image,
            bytes: vec![0; PAGE],
            pages: BTreeMap::new(),
            commits: 0,
        }
    }

    /// Bytes that were read.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(
        &mut self,
        group: wal::log::scanner::Group<'_>,
        slots: &mut Slots,
    ) -> Result<()> {
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
    pub(super) fn release(&mut self, first: Lsn) {
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

    pub(super) fn finish(mut self, old: &Image, table: &Table) -> Change {
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
