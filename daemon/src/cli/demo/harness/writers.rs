//! Writer processes: what they write, with which program, and how they are stopped or killed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::Process;
use super::{Cluster, Engine, Error, OneWriter, Pace, Tally, Tenant};
use crate::cli::demo::native;
use crate::cli::demo::plan::WriterPlan;
use crate::cli::demo::sqlite;

/// What every Python writer shares.
const PYTHON_WRITER: [(&str, &str); 2] = [
    ("writer.py", include_str!("../writer.py")),
    ("refusal.py", include_str!("../refusal.py")),
];

/// A writer that can't finish gives up after ten seconds; a process has a little longer.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What a process writes with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// A process of our own, with the bundled SQLite or the log's crate.
    Bundled,
    /// python3, with the machine's own SQLite or the log's library for C.
    Python,
}

/// Who writes what.
#[derive(Clone, Debug)]
pub struct Load {
    /// SQLite's word: FULL, NORMAL or OFF.
    pub synchronous: String,
    pub busy: Duration,
    pub processes: Vec<(Program, Vec<OneWriter>)>,
}

impl Load {
    /// No writers yet, in processes of these programs.
    pub fn new(programs: &[Program]) -> Load {
        let processes = programs
            .iter()
            .map(|program| (*program, Vec::new()))
            .collect();
        Load {
            synchronous: "FULL".to_owned(),
            busy: Duration::from_millis(5000),
            processes,
        }
    }

    /// Adds a writer of `tenant` to process `index` (counted round), or to the one that appends to
    /// its log.
    pub fn add(&mut self, index: usize, tenant: &Tenant, pace: Pace) {
        let writer = self
            .processes
            .iter()
            .map(|(_, writers)| writers.len() as u32)
            .sum::<u32>()
            + 1;
        let (number, file) = (tenant.number, tenant.name.clone());
        let accounts = tenant.accounts;
        let one = OneWriter {
            writer,
            tenant: number,
            file,
            accounts,
            pace,
        };
        let count = self.processes.len();
        let index = match tenant.engine.takes_one_process() {
            true => number as usize,
            false => index,
        };
        self.processes[index % count].1.push(one);
    }
}

/// The usual four of a move under load: two with the bundled SQLite, two with the machine's own
/// where there is one. Those of a native log share a process of our own.
pub fn four_writers(tenant: &Tenant, pace: Pace) -> Load {
    let other = match tenant.engine {
        Engine::Sqlite if python().is_some() => Program::Python,
        _ => Program::Bundled,
    };
    let mut load = Load::new(&[Program::Bundled, Program::Bundled, other, other]);
    (0..4).for_each(|index| load.add(index, tenant, pace));
    load
}

/// The Python that can write into databases of SQLite, if there is one.
pub fn python() -> Option<PathBuf> {
    sqlite::python()
}

/// Puts what Python writers of this engine run into a directory; returns what to start.
pub(in crate::cli::demo) fn python_script(engine: Engine, dir: &Path) -> Result<PathBuf, Error> {
    for (name, text) in PYTHON_WRITER.iter().chain(engine.modules()) {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| Error::at("write", &path, error))?;
    }
    Ok(dir.join("writer.py"))
}

/// Running writer processes.
#[derive(Debug)]
pub struct Writers {
    binary: PathBuf,
    log: PathBuf,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    program: PathBuf,
    arguments: Vec<OsString>,
    tally: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// The Python that can write into our tenants, if there is one.
    pub fn python(&self) -> Option<PathBuf> {
        self.engine.python(&self.binary)
    }

    /// Starts every process of the load.
    pub fn start_writers(&self, load: &Load) -> Result<Writers, Error> {
        let script = python_script(self.engine, &self.root().join("plans"))?;
        let mut slots = Vec::new();
        for (index, (program, writers)) in load.processes.iter().enumerate() {
            if writers.is_empty() {
                continue;
            }
            let tally = self.root().join(format!("plans/tally-{index}.json"));
            let plan = WriterPlan {
                engine: self.engine,
                routes: self.routes(),
                acks: self.acks(),
                tally: tally.clone(),
                library: native::library(&self.binary),
                seed: self.seed,
                busy_ms: load.busy.as_millis() as u64,
                synchronous: load.synchronous.clone(),
                writers: writers.clone(),
            };
            let plan = self
                .write_plan(&format!("writers-{index}.json"), &plan)?
                .into_os_string();
            let (program, arguments) = match program {
                Program::Bundled => (
                    self.binary.clone(),
                    vec!["demo".into(), "writer".into(), plan],
                ),
                Program::Python => {
                    let python = self
                        .python()
                        .ok_or_else(|| Error::new("no python3 that can write"))?;
                    (python, vec![script.clone().into_os_string(), plan])
                }
            };
            slots.push(Slot {
                program,
                arguments,
                tally,
                process: None,
            });
        }
        let log = self.root().join("plans/writers.log");
        let mut writers = Writers {
            binary: self.binary.clone(),
            log,
            slots,
        };
        (0..writers.slots.len()).try_for_each(|index| writers.restart(index))?;
        Ok(writers)
    }
}

impl Writers {
    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// kill -9 of one process.
    pub fn kill9(&mut self, index: usize) {
        self.slots[index].process = None;
    }

    /// Starts a process again if it was killed.
    pub fn restart_if_dead(&mut self, index: usize) -> Result<(), Error> {
        match self.slots[index].process {
            None => self.restart(index),
            Some(_) => Ok(()),
        }
    }

    /// Starts a process that is not running; its writers go on after their last acknowledgement.
    pub fn restart(&mut self, index: usize) -> Result<(), Error> {
        let slot = &mut self.slots[index];
        let process = Process::start(&self.binary, &slot.program, &slot.arguments, &self.log)?;
        slot.process = Some(process);
        Ok(())
    }

    /// A process that has ended by itself is a failure: writers end only when asked to.
    pub fn check(&mut self) -> Result<(), Error> {
        for slot in &mut self.slots {
            if let Some(status) = slot.process.as_mut().and_then(Process::ended) {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(Error::new(format!(
                    "a writer process ended ({status}): {said}"
                )));
            }
        }
        Ok(())
    }

    /// Lets every writer finish its transaction; returns what each process met.
    pub fn stop(mut self) -> Result<Vec<Tally>, Error> {
        self.check()?;
        for slot in &mut self.slots {
            drop(slot.process.as_mut().and_then(Process::take_input));
        }
        let mut tallies = Vec::new();
        for slot in &mut self.slots {
            let Some(process) = &mut slot.process else {
                continue;
            };
            process.wait(STOP_LIMIT)?;
            let json = fs::read(&slot.tally).map_err(|e| Error::at("read", &slot.tally, e))?;
            let tally = serde_json::from_slice(&json);
            tallies.push(tally.map_err(|error| Error::new(format!("tally: {error}")))?);
        }
        Ok(tallies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_writers_of_a_native_log_are_in_one_process() {
        for (engine, processes) in [(Engine::Sqlite, 4), (Engine::Native, 1)] {
            let tenant = Tenant::of(engine, 6, "node-a", 1.0);
            let load = four_writers(&tenant, Pace::ThinkUs(1));
            let used = load.processes.iter().filter(|(_, all)| !all.is_empty());
            assert_eq!(used.count(), processes, "{engine:?}");
        }
    }
}
