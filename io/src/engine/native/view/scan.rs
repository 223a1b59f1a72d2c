//! Groups in order out of mapped segments, to the commit position, across switchovers.
//!
//! A position is the same in every generation of a log, so a scan goes on where it was. Groups are
//! copied out whole, by memory reads alone, and verified as records are.

use wal::Lsn;
use wal::log::group::{self, HEADER_LEN, Header, Records};
use wal::log::{BLOCK, Error, Result};

use super::generation::Generation;
use super::{Look, Stamp, View};

/// Reads the groups of a view in order.
#[derive(Debug)]
pub struct Scan<'v> {
    view: &'v View,
    at: Lsn,
    bytes: Vec<u8>,
}

/// One group and where it is from.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    pub stamp: Stamp,
    pub header: Header,
    bytes: &'a [u8],
}

impl<'a> Group<'a> {
    pub fn records(&self) -> Records<'a> {
        group::records(&self.header, self.bytes)
    }
}

impl<'v> Scan<'v> {
    pub(super) fn new(view: &'v View, at: Lsn) -> Scan<'v> {
        Scan {
            view,
            at,
            bytes: Vec::new(),
        }
    }

    /// Where the next group begins, or will.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// The next group; `None` at the end, where it can be asked again later.
    pub fn next_group(&mut self) -> Result<Option<Group<'_>>> {
        let (at, bytes) = (self.at, &mut self.bytes);
        let view = self.view;
        let found = view.look(|current| next(view, current, at, bytes))?;
        let Some((stamp, header)) = found else {
            return Ok(None);
        };
        self.at = header.end();
        Ok(Some(Group {
            stamp,
            header,
            bytes: &self.bytes,
        }))
    }
}

/// The group that follows what ended at `at`, into `bytes`.
fn next(
    view: &View,
    current: &Generation,
    at: Lsn,
    bytes: &mut Vec<u8>,
) -> Result<Look<Option<(Stamp, Header)>>> {
    let word = current.control.word();
    if at >= word.lsn {
        return Ok(Look::Answer(None));
    }
    let layout = &current.layout;
    let (number, begin) = (layout.number(at), layout.begin(layout.number(at)));
    let rolled = match layout.offset(at) {
        0 => begin,
        _ => layout.begin(number + 1),
    };
    for from in [at, rolled] {
        if layout.offset(from) == 0 || from >= word.lsn {
            continue;
        }
        let Some(place) = current.place(view.region(), from) else {
            return Ok(Look::Map(layout.number(from)));
        };
        let room = layout.rest(from).min((word.lsn.0 - from.0) as usize);
        let header = copy_group(view, place, from, room, bytes);
        // What came before the oldest segment that is kept can't be looked up.
        let follows = |group: &Header| {
            group.after == at || at == begin && group.after.0 <= begin.0 - BLOCK as u64
        };
        if let Some(header) = header.filter(follows) {
            if from < current.first()? {
                return Err(Error::Gone { at });
            }
            return Ok(Look::Answer(Some((current.stamp(word)?, header))));
        }
    }
    let why = "no whole group";
    Err(match at < current.first()? {
        true => Error::Gone { at },
        false => Error::Damaged { at, why },
    })
}

/// Copies the group at `from` out, if a whole one lies there within `room` bytes.
fn copy_group(
    view: &View,
    place: usize,
    from: Lsn,
    room: usize,
    bytes: &mut Vec<u8>,
) -> Option<Header> {
    if room < HEADER_LEN {
        return None;
    }
    let mut head = [0; HEADER_LEN];
    view.region().copy_out(place, &mut head);
    let header = Header::read(&head)?;
    let len = header.len as usize;
    if header.lsn != from || group::padded(len) > room {
        return None;
    }
    bytes.resize(len, 0);
    view.region().copy_out(place, bytes);
    // The header is read again: it is the one that the checksum is of.
    let header = Header::read(bytes).filter(|header| header.lsn == from)?;
    (header.len as usize == len && group::is_whole(bytes)).then_some(header)
}
