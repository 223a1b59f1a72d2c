//! Bounded waits: whatever is waited for has a name and a limit.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Error, Process};

use crate::application::BINARY;

/// How often a command is looked at: programs of some milliseconds are measured with it.
const LOOK: Duration = Duration::from_millis(1);

/// Looks every `pace` until there is something.
pub fn until<T>(
    what: &str,
    limit: Duration,
    pace: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            return Err(Error::new(format!("waited {limit:?} in vain: {what}")));
        }
        std::thread::sleep(pace);
    }
}

/// Runs a command to its end; returns what it printed, which is also its error if it failed.
pub fn run(command: &[&str], log: &Path, limit: Duration) -> Result<String, Error> {
    // A log of an earlier command would be taken for this one's.
    let _ = fs::remove_file(log);
    let arguments: Vec<OsString> = command[1..].iter().map(OsString::from).collect();
    let program = Path::new(command[0]);
    let mut process = Process::start(Path::new(BINARY), program, &arguments, log)?;
    let status = until(&command.join(" "), limit, LOOK, || Ok(process.ended()));
    let said = fs::read_to_string(log).unwrap_or_default();
    match status {
        Ok(status) if status.success() => Ok(said),
        Ok(status) => Err(Error::new(format!(
            "{} ({status}): {}",
            command.join(" "),
            last_lines(&said)
        ))),
        Err(error) => Err(Error::new(format!("{error}: {}", last_lines(&said)))),
    }
}

/// The end of what somebody said, for an error.
pub fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
