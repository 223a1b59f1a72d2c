//! One generation of a log as a view has it: the control page, and which segments are mapped where.
//!
//! A segment lies in the region at its number, modulo how many fit: the same position has the same
//! address in every generation, whatever slot it lies in there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use map::{Piece, Region};
use wal::log::saved::{Ownership, Run};
use wal::log::segment::{Layout, Slots};
use wal::log::{Control, Error, Result, Word};
use wal::{Epoch, Lsn};

use super::super::store::system;

/// Which file a path leads to: device and inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity(u64, u64);

/// What `path` leads to now.
pub fn identity(path: &Path) -> Result<Identity> {
    let found = fs::metadata(path).map_err(|error| system("find", path, &error))?;
    Ok(Identity(found.dev(), found.ino()))
}

/// A generation that is being read.
#[derive(Debug)]
pub struct Generation {
    pub number: u64,
    pub identity: Identity,
    pub control: Control,
    pub layout: Layout,
    slots: Mutex<Slots>,
    epoch: Epoch,
    /// The segment that is mapped at each place.
    held: Vec<Option<u64>>,
}

/// A generation that is about to be: open, and the newest segments mapped elsewhere.
#[derive(Debug)]
pub struct Next {
    pub control: Control,
    pub pieces: Vec<(u64, Piece)>,
    identity: Identity,
    layout: Layout,
    slots: Slots,
    epoch: Epoch,
    places: usize,
}

impl Next {
    /// Opens what `path` leads to and brings the newest `prefault` bytes in.
    pub fn open(path: &Path, window: usize, prefault: usize) -> Result<Next> {
        // Resolved once: what is opened below is of one generation.
        let file = path
            .canonicalize()
            .map_err(|error| system("find", path, &error))?;
        let identity = identity(&file)?;
        let control = Control::open(&file)?;
        let layout = control.layout();
        let places = window / layout.segment_bytes as usize;
        if places == 0 {
            return Err(Error::NotALog {
                path: file,
                why: "a segment is longer than the addresses that the view reserves",
            });
        }
        let mut next = Next {
            identity,
            epoch: control.saved::<Ownership>()?.epoch,
            slots: control.slots()?,
            pieces: Vec::new(),
            layout,
            control,
            places,
        };
        next.bring_in(prefault)?;
        Ok(next)
    }

    fn bring_in(&mut self, prefault: usize) -> Result<()> {
        let first = self.control.saved::<Run>()?.first;
        let end = self.control.word().lsn;
        let segment = self.layout.segment_bytes as usize;
        let last = self.layout.number(Lsn(end.0.saturating_sub(1)));
        let numbers = (self.layout.number(first)..=last).rev();
        for number in numbers.take((prefault / segment).clamp(1, self.places)) {
            let Some(piece) = map_segment(&mut self.slots, number)? else {
                continue;
            };
            let written = end.0 - (number * segment as u64).min(end.0);
            piece.prefault(segment.min(written as usize));
            self.pieces.push((number, piece));
        }
        Ok(())
    }

    /// The generation, with nothing mapped yet.
    pub fn become_generation(self, number: u64) -> Generation {
        Generation {
            number,
            identity: self.identity,
            held: vec![None; self.places],
            control: self.control,
            layout: self.layout,
            slots: Mutex::new(self.slots),
            epoch: self.epoch,
        }
    }
}

impl Generation {
    /// Where the byte at `at` is in the region, if its segment is mapped.
    pub fn place(&self, region: &Region, at: Lsn) -> Option<usize> {
        let number = self.layout.number(at);
        let place = self.index(number) * self.stride() + self.layout.offset(at) as usize;
        debug_assert!(place < region.len());
        self.holds(number).then_some(place)
    }

    pub fn holds(&self, number: u64) -> bool {
        self.held[self.index(number)] == Some(number)
    }

    /// Maps a segment elsewhere; `None` if no slot holds it.
    pub fn piece(&self, number: u64) -> Result<Option<Piece>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        map_segment(&mut slots, number)
    }

    /// Lets a segment take over its place in the region.
    pub fn hold(&mut self, region: &Region, number: u64, piece: Piece) -> Result<()> {
        let index = self.index(number);
        self.held[index] = None;
        let placed = region.place(index * self.stride(), piece);
        placed.map_err(|error| system("map", &self.layout.path, &error))?;
        self.held[index] = Some(number);
        Ok(())
    }

    /// Where segments are mapped that `new`, which follows, has not taken over.
    pub fn leftovers(&self, new: &Generation) -> Vec<(usize, usize)> {
        let stride = self.stride();
        let places = (0..self.held.len()).filter(|index| self.held[*index].is_some());
        let places = places.map(|index| index * stride);
        let is_taken = |at: &usize| {
            let mut through = at / new.stride()..=(at + stride - 1) / new.stride();
            through.any(|index| new.held.get(index).is_some_and(Option::is_some))
        };
        let left = places.filter(|at| !is_taken(at));
        left.map(|at| (at, stride)).collect()
    }

    /// The whole epoch, of which the word has the lower half of a half.
    pub fn epoch(&self, word: Word) -> Result<Epoch> {
        match self.epoch.0 as u16 == word.epoch {
            true => Ok(self.epoch),
            false => Ok(self.control.saved::<Ownership>()?.epoch),
        }
    }

    fn stride(&self) -> usize {
        self.layout.segment_bytes as usize
    }

    fn index(&self, number: u64) -> usize {
        (number % self.held.len() as u64) as usize
    }
}

fn map_segment(slots: &mut Slots, number: u64) -> Result<Option<Piece>> {
    let Some(slot) = slots.find(number)? else {
        return Ok(None);
    };
    let layout = slots.layout();
    let (at, len) = (layout.slot_at(slot), layout.segment_bytes as usize);
    let mapped = Piece::map(slots.file(), at, len);
    Ok(Some(mapped.map_err(|error| layout.failed("map", &error))?))
}
