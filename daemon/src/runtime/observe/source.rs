//! One source of access events: its lines are read and counted, and none of them stops it.

use std::time::{Duration, Instant};

use crate::config::Format;
use crate::observe::access::{Access, lines};
use crate::observe::{Observatory, Tally};

/// Malformed lines are told this often, with one of them as an example.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Characters of a malformed line that are told.
const SHOWN_MAX: usize = 200;
/// Longest line; longer ones are malformed.
pub const LINE_LEN_MAX: usize = 64 << 10;

/// Where events come from, and what came.
#[derive(Debug)]
pub struct Source {
    name: String,
    format: Format,
    tally: Tally,
    told_at: Option<Instant>,
    /// Malformed lines that were told of.
    told: u64,
}

impl Source {
    pub fn new(name: impl Into<String>, format: Format) -> Source {
        Source {
            name: name.into(),
            format,
            tally: Tally::default(),
            told_at: None,
            told: 0,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes in every line of `bytes`.
    pub fn take_all(&mut self, now: i64, bytes: &[u8], to: &mut Observatory) {
        for line in lines(bytes) {
            self.take(now, line, to);
        }
    }

    /// Takes in one line.
    pub fn take(&mut self, now: i64, line: &[u8], to: &mut Observatory) {
        let read = match &self.format {
            Format::Json => Access::read(line).map(Some),
            Format::Haproxy(rules) => rules.read(line),
        };
        match read {
            Ok(Some(access)) => to.access(now, &access, &mut self.tally),
            Ok(None) => self.tally.passed_over += 1,
            Err(why) => self.refuse(line, &why.to_string()),
        }
    }

    /// Counts a line that is no event.
    pub fn refuse(&mut self, line: &[u8], why: &str) {
        self.tally.malformed += 1;
        if self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        let text = String::from_utf8_lossy(line);
        let shown: String = text.chars().take(SHOWN_MAX).collect();
        let count = self.tally.malformed - self.told;
        let source = self.name.as_str();
        tracing::warn!(%source, count, why, line = ?shown, "malformed access events");
        (self.told_at, self.told) = (Some(Instant::now()), self.tally.malformed);
    }
}
