//! The switch journal of a node: which notes are kept, and what they mean after a restart.
//!
//! Per partition the newest note of a switchover counts, and per peer the newest wish for a shadow.
//! The list is shared by all shards; a note is durable when [`Notes::record`] returns, so it is
//! called on a helper thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use io::notes::NoteLog;
use rkyv::rancor;
use wal::frame::Frame;
use wal::lsn::Epoch;
use wal::{NodeId, PartitionId};

use crate::effect::Note;

/// The list is rewritten without what no longer counts when it is this much longer than needed.
const SLACK: usize = 512;

/// The switch journal.
#[derive(Debug)]
pub struct Notes(Mutex<NoteLog>);

/// What a note replaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Switch(PartitionId),
    Shadow(PartitionId, NodeId),
}

impl Notes {
    pub fn open(path: &Path) -> io::Result<Notes> {
        Ok(Notes(Mutex::new(NoteLog::open(path)?)))
    }

    /// Durable on return.
    pub fn record(&self, partition: PartitionId, note: Note) -> io::Result<()> {
        let bytes =
            rkyv::to_bytes::<rancor::Error>(&note).expect("a note of plain values always archives");
        let mut log = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        log.note(partition, Epoch(0), &bytes)?;
        let newest = newest(log.notes());
        if log.notes().len() > newest.len() + SLACK {
            let keep: Vec<Frame> = newest.into_values().map(|(_, frame)| frame).collect();
            log.retain(|frame| keep.iter().any(|kept| kept.bytes() == frame.bytes()))?;
        }
        Ok(())
    }

    /// The notes that count, by partition.
    pub fn all(&self) -> Vec<(PartitionId, Note)> {
        let log = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let newest = newest(log.notes());
        newest
            .into_values()
            .map(|(note, frame)| (frame.header().partition, note))
            .collect()
    }
}

fn newest(frames: &[Frame]) -> BTreeMap<Subject, (Note, Frame)> {
    let mut newest = BTreeMap::new();
    for frame in frames {
        let Some(note) = read(frame) else {
            tracing::warn!("a note of the switch journal is of no known kind; it is ignored");
            continue;
        };
        let partition = frame.header().partition;
        let subject = match note {
            Note::Shadow { node, .. } => Subject::Shadow(partition, node),
            _ => Subject::Switch(partition),
        };
        // Helper threads write notes in any order: of one history the later epoch counts.
        let older = newest.get(&subject).is_some_and(|(held, _): &(Note, Frame)| {
            matches!((epoch_of(note), epoch_of(*held)), (Some(new), Some(held)) if new < held)
        });
        if !older {
            newest.insert(subject, (note, frame.clone()));
        }
    }
    newest
}

/// Of a switchover; wishes have none.
pub(super) fn epoch_of(note: Note) -> Option<Epoch> {
    match note {
        Note::Intent { epoch, .. }
        | Note::Released { epoch, .. }
        | Note::Prepared { epoch, .. }
        | Note::Abandoned { epoch }
        | Note::Landed { epoch, .. }
        | Note::Seized { epoch, .. } => Some(epoch),
        Note::Shadow { .. } => None,
    }
}

fn read(frame: &Frame) -> Option<Note> {
    let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(frame.payload().len());
    aligned.extend_from_slice(frame.payload());
    rkyv::from_bytes::<Note, rancor::Error>(&aligned).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_note_of_a_partition_survives_a_reopening() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notes");
        let (one, two) = (PartitionId(1), PartitionId(2));
        let intent = Note::Intent {
            epoch: Epoch(2),
            to: NodeId(7),
        };
        let released = Note::Released {
            epoch: Epoch(2),
            to: NodeId(7),
        };
        let wish = Note::Shadow {
            node: NodeId(7),
            wanted: true,
        };
        let notes = Notes::open(&path).expect("opens");
        for (partition, note) in [(one, intent), (two, intent), (one, wish), (one, released)] {
            notes.record(partition, note).expect("records");
        }
        drop(notes);
        let mut all = Notes::open(&path).expect("reopens").all();
        all.sort_by_key(|(partition, note)| (*partition, matches!(note, Note::Shadow { .. })));
        assert_eq!(all, vec![(one, released), (one, wish), (two, intent)]);
    }

    #[test]
    fn the_list_does_not_grow_with_the_number_of_moves() {
        let dir = tempfile::tempdir().expect("a directory");
        let notes = Notes::open(&dir.path().join("notes")).expect("opens");
        for epoch in 0..2 * SLACK as u64 {
            let note = Note::Abandoned {
                epoch: Epoch(epoch),
            };
            notes.record(PartitionId(1), note).expect("records");
        }
        let log = notes.0.lock().expect("not poisoned");
        assert!(
            log.notes().len() <= SLACK + 2,
            "{} notes are kept",
            log.notes().len()
        );
    }
}
