//! What a shard read of its partitions' logs, gathered on the shard and handed over once a second.
//!
//! Nothing is done, and no turn is asked for, while nothing changes. A full queue of the observer
//! costs what was gathered, never the shard's time.

use std::collections::BTreeMap;

use wal::delta::PageEdit;
use wal::{PartitionId, Span, Time};

use super::super::host::Host;
use super::Mail;
use crate::observe::change::{Summary, pages_per_segment};

/// How long changes gather.
const EVERY: Span = Span::secs(1);
/// Partitions and segments gathered; with more of them it is handed over sooner.
const PARTITIONS_MAX: usize = 4096;
const SEGMENTS_MAX: usize = 8192;

/// What was read since it was handed over last.
#[derive(Default, Debug)]
pub struct Gathered {
    partitions: BTreeMap<PartitionId, Summary>,
    segments: usize,
    due: Option<Time>,
}

impl Gathered {
    pub fn deadline(&self) -> Option<Time> {
        self.due
    }
}

impl Host {
    /// Counts commits that were read, with their pages and the bytes of their delta.
    pub fn saw_change(
        &mut self,
        id: PartitionId,
        commits: u64,
        bytes: u64,
        page_size: u32,
        edits: &[PageEdit<'_>],
    ) {
        let per_segment = match self.setup.config.observe.segments {
            true => pages_per_segment(page_size),
            false => 0,
        };
        let pages = edits.iter().map(|edit| edit.page);
        let summary = self.gathered.partitions.entry(id).or_default();
        let before = summary.segments.len();
        summary.add(commits, bytes, pages, per_segment);
        self.gathered.segments += summary.segments.len() - before;
        let full = self.gathered.partitions.len() >= PARTITIONS_MAX
            || self.gathered.segments >= SEGMENTS_MAX;
        let due = if full { self.now } else { self.now + EVERY };
        self.gathered.due = Some(self.gathered.due.map_or(due, |set| set.min(due)));
    }

    /// Hands over what gathered, when it is due.
    pub fn tell_changes(&mut self) {
        if self.gathered.due.is_none_or(|due| due > self.now) {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered).partitions;
        let named = gathered
            .into_iter()
            .filter_map(|(id, summary)| Some((self.name_of(id)?, summary)));
        let named = named.collect();
        // What was dropped is counted there.
        let _ = self.setup.observer.post(Mail::Changed(named));
    }
}
