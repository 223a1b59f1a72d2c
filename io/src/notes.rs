//! A small durable list of notes: what a switchover or an owner must know after a crash.
//!
//! Each note is a [`Frame`] of kind Note with an opaque payload. An append returns once the note is
//! durable. The file is extended with zeros ahead of need, so that an append's fdatasync changes no
//! size. All notes are also in memory, so the file is rewritten as a whole when notes are dropped,
//! and when an append failed: after a failed fdatasync(2) the page cache no longer tells what is on
//! the disk, so nothing is appended behind such a place.
//!
//! Invariants: notes are read back in order of appending; a torn tail ends the list; a note whose
//! append returned Ok is there after any crash until [`NoteLog::retain`] drops it.

use std::fs::File;
use std::path::{Path, PathBuf};

use wal::frame::{Frame, FrameKind, Header, frame_len};
use wal::{Epoch, PartitionId};

use crate::durable::{self, Attributes};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// Bytes by which the file grows.
const STEP: u64 = 64 << 10;
/// Most bytes of notes: they are few and small, so more is a leak of the caller.
const BYTES_MAX: usize = 16 << 20;

/// The open list. One writer.
#[derive(Debug)]
pub struct NoteLog {
    path: PathBuf,
    file: File,
    notes: Vec<Frame>,
    /// Where the next note goes.
    tail: u64,
    /// Zeros are on disk up to here.
    room: u64,
    /// An append failed: the file is rewritten before the next one.
    broken: bool,
}

impl NoteLog {
    /// Opens or creates the list at `path`; a torn tail is cut off.
    pub fn open(path: &Path) -> Result<NoteLog> {
        let temp = temp_path(path);
        match std::fs::remove_file(&temp) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::at("remove", &temp, e));
            }
            _ => {}
        }
        if !path.exists() {
            return NoteLog::written(path, Vec::new());
        }
        let bytes = std::fs::read(path).map_err(|e| Error::at("read", path, e))?;
        let (notes, tail) = parse(&bytes);
        let file = durable::open_rw(path)?;
        let room = bytes.len() as u64;
        if bytes[tail..].iter().any(|byte| *byte != 0) {
            // What was torn must not be taken for a note once others precede it.
            durable::fill_zeros(&file, path, tail as u64, room)?;
        }
        durable::sync_data(&file, path)?;
        let path = path.to_owned();
        Ok(NoteLog {
            path,
            file,
            notes,
            tail: tail as u64,
            room,
            broken: false,
        })
    }

    /// The notes, oldest first.
    pub fn notes(&self) -> &[Frame] {
        &self.notes
    }

    /// Adds a note about `partition`; durable on return.
    pub fn note(&mut self, partition: PartitionId, epoch: Epoch, payload: &[u8]) -> Result<()> {
        self.append(Frame::seal(
            Header::plain(FrameKind::Note, partition, epoch),
            payload,
        ))
    }

    /// Adds `note`; durable on return. After an error it may or may not be there after a crash,
    /// but never in part; the next append begins by rewriting the list without it.
    pub fn append(&mut self, note: Frame) -> Result<()> {
        let held: usize = self.notes.iter().map(Frame::len).sum();
        if note.header().kind != FrameKind::Note || held + note.len() > BYTES_MAX {
            let reason = format!(
                "a {:?} of {} bytes after {held}",
                note.header().kind,
                note.len()
            );
            return Err(Error::new(Kind::Refused, "note in", self.subject(), reason));
        }
        if self.broken {
            *self = NoteLog::written(&self.path, self.notes.clone())?;
        }
        self.broken = true;
        failpoint::pass(Step::NoteBegun)?;
        self.make_room(note.len() as u64)?;
        durable::write_at(&self.file, &self.path, note.bytes(), self.tail)?;
        failpoint::pass(Step::NoteWritten)?;
        durable::sync_data(&self.file, &self.path)?;
        self.broken = false;
        self.tail += note.len() as u64;
        self.notes.push(note);
        Ok(())
    }

    /// Keeps only the notes that `keep` accepts; durable on return. Costs a rewrite when any goes.
    pub fn retain(&mut self, mut keep: impl FnMut(&Frame) -> bool) -> Result<()> {
        let kept: Vec<Frame> = self
            .notes
            .iter()
            .filter(|note| keep(note))
            .cloned()
            .collect();
        if kept.len() < self.notes.len() || self.broken {
            *self = NoteLog::written(&self.path, kept)?;
        }
        Ok(())
    }

    fn make_room(&mut self, len: u64) -> Result<()> {
        if self.tail + len > self.room {
            let room = (self.tail + len).next_multiple_of(STEP) + STEP;
            durable::fill_zeros(&self.file, &self.path, self.room, room)?;
            self.room = room;
        }
        Ok(())
    }

    /// Writes a whole list beside `path` and renames it there.
    fn written(path: &Path, notes: Vec<Frame>) -> Result<NoteLog> {
        let temp = temp_path(path);
        let dir = durable::parent(path);
        std::fs::create_dir_all(dir).map_err(|e| Error::at("create directory", dir, e))?;
        // Whatever is there is an earlier attempt that was never renamed.
        let _ = std::fs::remove_file(&temp);
        let file = durable::create_new(&temp, &Attributes::own(0o600))?;
        let mut tail = 0;
        for note in &notes {
            durable::write_at(&file, &temp, note.bytes(), tail)?;
            tail += note.len() as u64;
        }
        let room = tail.next_multiple_of(STEP) + STEP;
        durable::fill_zeros(&file, &temp, tail, room)?;
        durable::sync_data(&file, &temp)?;
        std::fs::rename(&temp, path).map_err(|e| Error::at("rename", &temp, e))?;
        durable::sync_dir(dir)?;
        Ok(NoteLog {
            path: path.to_owned(),
            file,
            notes,
            tail,
            room,
            broken: false,
        })
    }

    fn subject(&self) -> String {
        self.path.display().to_string()
    }
}

/// The valid notes at the beginning of `bytes`, and where they end.
fn parse(bytes: &[u8]) -> (Vec<Frame>, usize) {
    let mut notes = Vec::new();
    let mut at = 0;
    while let Ok(Some(len)) = frame_len(&bytes[at..]) {
        let Some(whole) = bytes.get(at..at + len) else {
            break;
        };
        let Ok(note) = Frame::parse(whole) else { break };
        notes.push(note);
        at += len;
    }
    (notes, at)
}

fn temp_path(path: &Path) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(".new");
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(log: &NoteLog) -> Vec<Vec<u8>> {
        log.notes()
            .iter()
            .map(|note| note.payload().to_vec())
            .collect()
    }

    fn filled(path: &Path, count: u8) -> NoteLog {
        let mut log = NoteLog::open(path).expect("open");
        for n in 0..count {
            log.note(PartitionId(7), Epoch(u64::from(n)), &[n; 100])
                .expect("note");
        }
        log
    }

    #[test]
    fn notes_are_read_back_in_order() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("state/notes");
        let log = filled(&path, 9);
        let again = NoteLog::open(&path).expect("reopen");
        assert_eq!(payloads(&again), payloads(&log));
        assert_eq!(again.notes()[8].header().epoch, Epoch(8));
    }

    #[test]
    fn a_torn_tail_ends_the_list_wherever_it_is_torn() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notes");
        let log = filled(&path, 3);
        let whole = std::fs::read(&path).expect("read");
        let (second_end, third_end) = (log.tail - 164, log.tail);
        for cut in second_end..third_end {
            let mut torn = whole.clone();
            torn[cut as usize..].fill(0);
            std::fs::write(&path, &torn).expect("tear");
            let mut again = NoteLog::open(&path).expect("reopen");
            // The last byte of a note may itself be zero; here payloads end in 2.
            assert_eq!(again.notes().len(), 2, "cut at {cut}");
            again
                .note(PartitionId(7), Epoch(9), b"next")
                .expect("note after the cut");
            assert_eq!(NoteLog::open(&path).expect("again").notes().len(), 3);
        }
    }

    #[test]
    fn a_damaged_note_hides_those_after_it_for_good() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notes");
        filled(&path, 3);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[164 + 80] ^= 1;
        std::fs::write(&path, &bytes).expect("damage the second");
        let mut log = NoteLog::open(&path).expect("reopen");
        assert_eq!(log.notes().len(), 1);
        log.note(PartitionId(7), Epoch(0), &[9; 100]).expect("note");
        let again = payloads(&NoteLog::open(&path).expect("again"));
        assert_eq!(
            again,
            vec![vec![0; 100], vec![9; 100]],
            "the third must not come back"
        );
    }

    #[test]
    fn dropped_notes_stay_dropped_and_kept_ones_stay() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notes");
        let mut log = filled(&path, 5);
        log.retain(|note| note.header().epoch.0 % 2 == 0)
            .expect("retain");
        log.note(PartitionId(7), Epoch(77), b"new").expect("note");
        let again = NoteLog::open(&path).expect("reopen");
        let epochs: Vec<u64> = again
            .notes()
            .iter()
            .map(|note| note.header().epoch.0)
            .collect();
        assert_eq!(epochs, [0, 2, 4, 77]);
    }

    #[test]
    fn a_rewrite_that_was_never_renamed_is_ignored() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notes");
        filled(&path, 2);
        std::fs::write(temp_path(&path), b"half a rewrite").expect("leave a temp file");
        assert_eq!(NoteLog::open(&path).expect("reopen").notes().len(), 2);
        assert!(!temp_path(&path).exists());
    }

    #[test]
    fn the_list_grows_past_its_first_room() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notes");
        let mut log = NoteLog::open(&path).expect("open");
        for n in 0..40 {
            log.note(PartitionId(1), Epoch(n), &[n as u8; 9000])
                .expect("note");
        }
        assert_eq!(NoteLog::open(&path).expect("reopen").notes().len(), 40);
    }

    #[test]
    fn only_notes_are_taken() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = NoteLog::open(&dir.path().join("notes")).expect("open");
        let delta = Frame::seal(
            Header::plain(FrameKind::Delta, PartitionId(1), Epoch(1)),
            b"x",
        );
        assert_eq!(
            log.append(delta).expect_err("a delta").kind(),
            Kind::Refused
        );
    }
}
