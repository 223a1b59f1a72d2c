//! Models on disk, and the log of what was decided about them.
//!
//! A file is written beside its place, made durable and renamed: there is always a whole one. One
//! that is refused is set aside, told, and never tried again.

use std::fs::File;
use std::path::{Path, PathBuf};

use model::learned::Learned;

use crate::predict::contest::{Decision, What};
use crate::serve::models::LogEntry;

/// Which model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Champion,
    Challenger,
    Previous,
}

impl Role {
    fn file(self) -> &'static str {
        match self {
            Role::Champion => "champion.model",
            Role::Challenger => "challenger.model",
            Role::Previous => "previous.model",
        }
    }
}

/// The log is begun anew at this size, and the one before is kept.
const LOG_MAX: u64 = 1 << 20;

/// Names a model for people.
pub fn name_of(version: u64) -> String {
    match version {
        0 => "rules".to_owned(),
        version => format!("{version:016x}"),
    }
}

/// A decision as a line of the log.
pub fn entry(decision: &Decision) -> LogEntry {
    let (what, text) = told(&decision.what);
    LogEntry {
        at: decision.at,
        what: what.to_owned(),
        champion: name_of(decision.champion),
        text,
    }
}

fn told(what: &What) -> (&'static str, String) {
    let percent = |share: f64| format!("{:+.1} %", share * 100.0);
    let gained = |gain: f64, low: f64, high: f64| {
        let (gain, low, high) = (percent(gain), percent(low), percent(high));
        format!("loses {gain} less (95 % sure between {low} and {high})")
    };
    match *what {
        What::Challenged {
            challenger,
            examples,
        } => {
            let name = name_of(challenger);
            let text = format!("{name}, learned from {examples} examples, is on trial");
            ("challenged", text)
        }
        What::Promoted { gain, low, high } => (
            "promoted",
            format!("the challenger {}", gained(gain, low, high)),
        ),
        What::Dismissed { gain, low, high } => {
            let text = format!(
                "the challenger is not surely better: {}",
                gained(gain, low, high)
            );
            ("dismissed", text)
        }
        What::Deposed { worse } => {
            let text = format!("it lost {worse:.2} times as much as saying how often it happens");
            ("deposed", text)
        }
        What::RolledBack => ("rolled-back", "an operator went back".to_owned()),
    }
}

/// The directory of models.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    pub fn open(dir: &Path) -> std::io::Result<Store> {
        std::fs::create_dir_all(dir)?;
        Ok(Store {
            dir: dir.to_owned(),
        })
    }

    fn path(&self, role: Role) -> PathBuf {
        self.dir.join(role.file())
    }

    /// The model, if there is one that can be used.
    pub fn load(&self, role: Role) -> Option<Learned> {
        let path = self.path(role);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a model can't be read");
                return None;
            }
        };
        match Learned::from_bytes(&bytes) {
            Ok(learned) => Some(learned),
            Err(error) => {
                let aside = path.with_extension("refused");
                tracing::error!(
                    path = %path.display(), %error, aside = %aside.display(),
                    "a model is refused and set aside; the last good one speaks"
                );
                if let Err(error) = std::fs::rename(&path, &aside) {
                    tracing::warn!(%error, "it could not be set aside");
                }
                None
            }
        }
    }

    /// Keeps a model, or that there is none.
    pub fn keep(&self, role: Role, learned: Option<&Learned>) -> std::io::Result<()> {
        let path = self.path(role);
        let Some(learned) = learned else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let bytes = learned.to_bytes().map_err(std::io::Error::other)?;
        let beside = path.with_extension("new");
        std::fs::write(&beside, bytes)?;
        File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("decisions.jsonl")
    }

    /// Adds a line to the log.
    pub fn log(&self, entry: &LogEntry) -> std::io::Result<()> {
        let path = self.log_path();
        if std::fs::metadata(&path).is_ok_and(|file| file.len() > LOG_MAX) {
            std::fs::rename(&path, path.with_extension("jsonl.1"))?;
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let file = File::options().append(true).create(true).open(&path)?;
        std::io::Write::write_all(&mut &file, &line)?;
        file.sync_data()
    }

    /// The newest lines, the newest last. A line that can't be read is passed over.
    pub fn entries(&self, limit: usize) -> Vec<LogEntry> {
        let path = self.log_path();
        let mut entries = Vec::new();
        for path in [path.with_extension("jsonl.1"), path] {
            // There may be none yet.
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            entries.extend(lines);
        }
        entries.drain(..entries.len().saturating_sub(limit));
        entries
    }
}

#[cfg(test)]
mod tests {
    use model::learned::{Kind, Schema};

    use super::*;

    fn learned(examples: u64) -> Learned {
        let schema = Schema::new(300, 3600, &[900, 3600]).expect("a schema");
        Learned {
            examples,
            ..Learned::blank(Kind::Mix, schema)
        }
    }

    #[test]
    fn models_come_back_and_a_damaged_one_is_set_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("model")).expect("a store");
        assert!(store.load(Role::Champion).is_none());
        store.keep(Role::Champion, Some(&learned(7))).expect("kept");
        store.keep(Role::Champion, Some(&learned(8))).expect("kept");
        let back = store.load(Role::Champion).expect("a model");
        assert_eq!(back.examples, 8);
        let path = dir.path().join("model/champion.model");
        let mut bytes = std::fs::read(&path).expect("readable");
        *bytes.last_mut().expect("some") ^= 1;
        std::fs::write(&path, bytes).expect("written");
        assert!(store.load(Role::Champion).is_none());
        assert!(path.with_extension("refused").exists() && !path.exists());
        store.keep(Role::Champion, None).expect("there is none");
    }

    #[test]
    fn the_log_tells_the_newest_last_and_survives_a_torn_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        let line = |at| {
            entry(&Decision {
                at,
                what: What::Deposed { worse: 1.25 },
                champion: 0,
            })
        };
        store.log(&line(1)).expect("written");
        let torn = File::options()
            .append(true)
            .open(store.log_path())
            .expect("there");
        std::io::Write::write_all(&mut &torn, b"{\"at\":9,\n").expect("written");
        store.log(&line(2)).expect("written");
        assert_eq!(store.entries(10), [line(1), line(2)]);
        assert_eq!(store.entries(1), [line(2)]);
        assert!(line(1).text.contains("1.25 times") && line(1).champion == "rules");
    }
}
