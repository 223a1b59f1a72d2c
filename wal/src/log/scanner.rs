//! Reads a log in order, to the commit position and no further.
//!
//! Invariant: a group that is handed out lies below the commit word that was looked at before it
//! was read, so what a crashed or fenced writer left above it is never seen.

use std::ops::Deref;
use std::sync::Arc;

use super::control::Control;
use super::error::{Error, Result};
use super::group::{self, Header, Records};
use super::recent::Recent;
use super::recover;
use super::saved::Run;
use super::segment::Reader;
use crate::lsn::Lsn;

/// Bytes read at once.
const AHEAD: usize = 256 << 10;

/// A reader of one log; any number of them, in any process. It borrows or owns the control page.
#[derive(Debug)]
pub struct Scanner<C> {
    control: C,
    reader: Reader,
    at: Lsn,
}

/// One group, and the bytes of its records.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    pub header: Header,
    bytes: &'a [u8],
}

impl<'a> Group<'a> {
    pub fn records(&self) -> Records<'a> {
        group::records(&self.header, self.bytes)
    }

    /// Header and records as they lie in the file, without padding.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<C: Deref<Target = Control>> Scanner<C> {
    /// Reads from the oldest group that is kept.
    pub fn new(control: C) -> Result<Scanner<C>> {
        let first = control.saved::<Run>()?.first;
        Scanner::from(control, first)
    }

    /// Reads from `at`, where a group begins or will begin.
    pub fn from(control: C, at: Lsn) -> Result<Scanner<C>> {
        let reader = control.reader(AHEAD)?;
        Ok(Scanner {
            control,
            reader,
            at,
        })
    }

    /// Reads the newest groups from memory that is shared with the appender, where they are there.
    pub fn set_recent(&mut self, recent: Arc<Recent>) {
        self.reader.set_recent(recent);
    }

    /// Where the next group begins, or will.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// The next committed group; `None` at the end, where it can be asked again later.
    pub fn next_group(&mut self) -> Result<Option<Group<'_>>> {
        let end = self.control.word().lsn;
        if self.at >= end {
            return Ok(None);
        }
        let Some(header) = recover::next(&mut self.reader, self.at, end)? else {
            return Err(self.missing());
        };
        self.at = header.end();
        let bytes = self.reader.bytes(header.lsn, header.len as usize);
        Ok(Some(Group { header, bytes }))
    }

    fn missing(&self) -> Error {
        let at = self.at;
        let kept = self.control.saved::<Run>();
        match kept.is_ok_and(|run| at < run.first) {
            true => Error::Gone { at },
            false => Error::Damaged {
                at,
                why: "no whole group",
            },
        }
    }
}
