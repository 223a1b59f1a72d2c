//! Where the log ends, when the live words can't say: after a power cut, or in a copy.
//!
//! A seal that is durable says it. Otherwise the log ends before the first group that is not whole,
//! counted from a position that is known to be good. A group that was acknowledged was on stable
//! storage, so all of them are found; what was not acknowledged may be found or not. Every group
//! says what was committed when it was written: a later group that knows the missing one as
//! committed proves damage, which is told and never passed over.

use super::BLOCK;
use super::control::{Control, Word};
use super::error::{Error, Result};
use super::group::Header;
use super::saved::{Ownership, Run};
use super::segment::{Layout, Reader, Slots};
use crate::lsn::Lsn;

/// Bytes read at once.
const AHEAD: usize = 1 << 20;
/// Nothing is being written.
const ANYWHERE: Lsn = Lsn(u64::MAX);

impl Control {
    /// A reader of the log's file, reading at least `ahead` bytes at once.
    pub(super) fn reader(&self, ahead: usize) -> Result<Reader> {
        Ok(Reader::new(self.slots()?, ahead))
    }

    /// The slots of the log's file.
    pub fn slots(&self) -> Result<Slots> {
        Ok(Slots::new(self.layout(), self.file()?))
    }

    pub fn layout(&self) -> Layout {
        Layout {
            path: self.path().to_owned(),
            id: self.id(),
            segment_bytes: self.segment_bytes(),
        }
    }
}

/// The end of the log, and the newest run found in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub lsn: Lsn,
    pub run: u32,
}

/// Finds the end; `seen` is the commit word as it came to the disk, some time before.
pub(super) fn end(control: &Control, ownership: &Ownership, run: &Run, seen: Word) -> Result<End> {
    if ownership.sealed || run.epoch != ownership.epoch {
        let lsn = ownership.lsn;
        return Ok(End { lsn, run: run.run });
    }
    let mut reader = control.reader(AHEAD)?;
    let mut end = End {
        lsn: run.lsn.max(ownership.lsn),
        run: run.run,
    };
    while let Some(group) = next(&mut reader, end.lsn, ANYWHERE)? {
        if group.epoch > run.epoch {
            let (at, why) = (group.lsn, "the control page is older than the log");
            return Err(Error::Damaged { at, why });
        }
        // Runs only grow: what follows under an earlier one was left behind by it.
        if group.epoch < run.epoch || group.run < end.run {
            break;
        }
        end = End {
            lsn: group.end(),
            run: group.run,
        };
    }
    refuse_damage(&mut reader, &end, ownership, seen)?;
    Ok(end)
}

/// Looks for signs that what ends at `end` went on: the commit word, and what is behind it.
fn refuse_damage(reader: &mut Reader, end: &End, ownership: &Ownership, seen: Word) -> Result<()> {
    let at = end.lsn;
    let damaged = |why| Err(Error::Damaged { at, why });
    let layout = reader.layout().clone();
    let expected = Word::new(ownership.epoch, false, seen.lsn);
    let plausible = seen.epoch == expected.epoch && !seen.sealed;
    // A position at the very end of a segment is that segment's.
    let there = layout.number(Lsn(seen.lsn.0.saturating_sub(1)));
    if plausible && seen.lsn > at && reader.slots().find(there)?.is_some() {
        return damaged("the commit word on the disk lies behind it");
    }
    let knows = |group: Option<Header>| {
        group.is_some_and(|group| group.epoch == ownership.epoch && group.committed > at)
    };
    let near = layout.number(at) + 1;
    let mut here = Lsn(at.0.next_multiple_of(BLOCK as u64));
    while here < layout.begin(near + 1) {
        if knows(reader.group_at(here, ANYWHERE)?) {
            return damaged("a later group says that it was acknowledged");
        }
        here = here.after(BLOCK as u64);
    }
    let far: Vec<u64> = reader
        .slots()
        .look()?
        .range(near + 1..)
        .map(|(n, _)| *n)
        .collect();
    for far in far {
        if knows(reader.group_at(layout.begin(far), ANYWHERE)?) {
            return damaged("a later segment says that it was acknowledged");
        }
    }
    Ok(())
}

/// The group that follows what ended at `at`: there, or at the start of the next segment.
pub(super) fn next(reader: &mut Reader, at: Lsn, until: Lsn) -> Result<Option<Header>> {
    let layout = reader.layout();
    let (offset, number) = (layout.offset(at), layout.number(at));
    let begin = layout.begin(number);
    // What came before the oldest segment that is kept can't be looked up.
    let follows = |group: &Header| {
        group.after == at || at == begin && group.after.0 <= begin.0 - BLOCK as u64
    };
    if offset != 0 {
        let here = reader.group_at(at, until)?.filter(follows);
        if here.is_some() {
            return Ok(here);
        }
    }
    let next = if offset == 0 { number } else { number + 1 };
    let there = reader.layout().begin(next);
    Ok(reader.group_at(there, until)?.filter(follows))
}
