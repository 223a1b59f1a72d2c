//! Checks moments one after the other, two at a time, until the time is over; counts and keeps what
//! was wrong.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use crate::cuts::{Cut, Dice};
use crate::disk::text;
use crate::image::Image;
use crate::record::{DISKS, Recording};
use crate::{files, recovery};

/// More lines about one scenario help nobody.
const LINES_MAX: usize = 12;
/// Broken moments whose disks are kept for whoever wants to look.
const KEPT_MAX: u64 = 3;
/// Where the host sees it.
const KEEP: &str = "/vm/out";
/// One waits while the other computes.
const WORKERS: usize = 2;
/// So many are checked even if recording took all of the time: less would prove nothing.
const MOMENTS_MIN: usize = 8;
/// In this order every first, second, .. of eight moments is checked, so that the end of the time
/// leaves an even sample.
const TURNS: [usize; 8] = [0, 4, 2, 6, 1, 5, 3, 7];

/// By what a moment is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Files,
    Daemons,
}

/// A recording, and what it takes to check it.
pub struct Checks<'a> {
    pub recording: &'a Recording,
    pub binary: PathBuf,
    pub seed: u64,
    /// Times count from here.
    pub began: Instant,
}

/// What became of the checks of one kind.
#[derive(Debug)]
pub struct Outcome {
    kind: Kind,
    wanted: usize,
    moments: u64,
    torn: u64,
    moving: u64,
    /// Databases that took writes, rows that were owed, shadows that were compared.
    open: u64,
    rows: u64,
    promises: u64,
    broken: u64,
    lines: Vec<String>,
}

/// What one check found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub wrong: Vec<String>,
    pub open: u64,
    pub rows: u64,
    pub promises: u64,
}

impl Checks<'_> {
    /// Checks these moments until so long after the beginning.
    pub fn run(&self, cuts: &[Cut], until: Duration, kind: Kind) -> Outcome {
        let turns = TURNS
            .iter()
            .flat_map(|turn| cuts.iter().skip(*turn).step_by(TURNS.len()));
        let order: Vec<&Cut> = turns.collect();
        let next = AtomicUsize::new(0);
        let outcome = Mutex::new(Outcome::new(kind, cuts.len()));
        scope(|threads| {
            for _ in 0..WORKERS {
                threads.spawn(|| {
                    let mut images = self.recording.bases.clone();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= MOMENTS_MIN && self.began.elapsed() > until {
                            break;
                        }
                        let Some(cut) = order.get(number) else { break };
                        let found = self.moment(number, cut, kind, &mut images);
                        let mut outcome = outcome.lock().expect("no check panics");
                        if !found.wrong.is_empty() && outcome.broken < KEPT_MAX {
                            keep(number, kind, &images);
                        }
                        outcome.add(cut, found);
                    }
                });
            }
        });
        outcome.into_inner().expect("no check panics")
    }

    fn moment(&self, number: usize, cut: &Cut, kind: Kind, images: &mut Vec<Image>) -> Found {
        let root = self.recording.dir.join(format!("check-{kind:?}-{number}"));
        fs::create_dir_all(&root).expect("made");
        if images
            .iter()
            .zip(&cut.ends)
            .any(|(image, end)| image.applied > *end)
        {
            images.clone_from(&self.recording.bases);
        }
        let found = match self.disks(number, cut, kind, images, &root) {
            Err(error) => Found {
                wrong: vec![error],
                ..Found::default()
            },
            Ok(paths) => match kind {
                Kind::Files => files::check(self.recording, cut, &paths, &root),
                Kind::Daemons => recovery::check(self.recording, cut, &paths, &root, &self.binary),
            },
        };
        fs::remove_dir_all(&root).expect("removed");
        found
    }

    /// Makes the disks of a moment; their paths.
    fn disks(
        &self,
        number: usize,
        cut: &Cut,
        kind: Kind,
        images: &mut [Image],
        root: &Path,
    ) -> Result<Vec<String>, String> {
        // Applications alone have no use for the coordinator's disk.
        let count = if kind == Kind::Files { 2 } else { DISKS.len() };
        let mut paths = Vec::new();
        for (disk, image) in images.iter_mut().enumerate() {
            let log = &self.recording.logs[disk];
            image.forward(log, cut.ends[disk])?;
            if disk >= count {
                continue;
            }
            let path = root.join(format!("{}.img", DISKS[disk]));
            match cut.torn {
                Some((torn, end)) if torn == disk => {
                    let mut image = image.clone();
                    let mut dice = Dice(self.seed.wrapping_mul(1 << 32) + number as u64);
                    image.partly(log, end, &mut dice)?;
                    image.save(&path)?;
                }
                _ => image.save(&path)?,
            }
            paths.push(text(&path).to_owned());
        }
        Ok(paths)
    }
}

fn keep(number: usize, kind: Kind, images: &[Image]) {
    for (disk, image) in DISKS.iter().zip(images) {
        let path = Path::new(KEEP).join(format!("{kind:?}-{number}-{disk}.img"));
        if let Err(error) = image.save(&path) {
            println!("not kept: {error}");
        }
    }
}

impl Outcome {
    fn new(kind: Kind, wanted: usize) -> Outcome {
        Outcome {
            kind,
            wanted,
            moments: 0,
            torn: 0,
            moving: 0,
            open: 0,
            rows: 0,
            promises: 0,
            broken: 0,
            lines: Vec::new(),
        }
    }

    fn add(&mut self, cut: &Cut, found: Found) {
        self.moments += 1;
        self.torn += u64::from(cut.torn.is_some());
        self.moving += u64::from(cut.moving);
        self.open += found.open;
        self.rows += found.rows;
        self.promises += found.promises;
        if found.wrong.is_empty() {
            return;
        }
        self.broken += 1;
        if self.lines.len() < LINES_MAX {
            let wrong = found.wrong.join("\n    ");
            self.lines.push(format!("{cut:?}:\n    {wrong}"));
        }
    }

    /// No promise was broken, and some were there to be kept.
    pub fn is_good(&self) -> bool {
        self.broken == 0 && self.rows > 0 && self.moving > 0 && self.open > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            kind,
            wanted,
            moments,
            torn,
            moving,
            open,
            rows,
            promises,
            broken,
            ..
        } = self;
        write!(
            to,
            "by {kind:?}: {moments} of {wanted} power cuts ({torn} torn, {moving} in moves): \
             {open} databases took writes, {rows} rows were owed, {promises} shadows compared; \
             {broken} cuts broke a promise"
        )?;
        for line in &self.lines {
            write!(to, "\n  {line}")?;
        }
        if !self.is_good() && *broken == 0 {
            write!(to, "\n  that proves nothing: too few moments were checked")?;
        }
        Ok(())
    }
}
