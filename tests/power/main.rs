//! Power loss: what was durable when the power went must be enough, whatever else was lost.
//!
//! `./tests/run vm`, or `cargo test --release -p foreshadow --test power -- vm [--seconds S]
//! [--seed N] [--only SCENARIO]`. In a virtual machine two daemons of the released binary move
//! databases to and fro under real writers, each node on a disk of its own whose every write and
//! flush is logged (dm-log-writes). Then each logged moment is made again from what had been
//! flushed until then, and the nodes must come up as if nothing had happened.
//!
//! | file | what it does |
//! |---|---|
//! | `host` | finds the machine, hands it both programs, shows what it says |
//! | `guest` | the order of a run inside: scenarios, checks, the sum |
//! | `disk` | loop devices, the log target, file systems, by the system's own tools |
//! | `ioctls` | marks in the log, and the end of a file system |
//! | `record` | a scenario under load: moves, writers, ticks |
//! | `log` | the format of dm-log-writes |
//! | `image` | a disk as it was after so many entries of its log |
//! | `cuts` | which moments are exact over several disks, and which of them are checked |
//! | `check` | moments one after the other, and the count |
//! | `ledger` | what a moment owes the writers |
//! | `files` | the check of a moment by its files alone, as applications find them |
//! | `recovery` | the check by the daemons: one owner, all rows, shadows as acknowledged |
//!
//! Without the word `vm` nothing runs: a run takes minutes.

mod check;
mod cuts;
mod disk;
mod files;
mod guest;
mod host;
mod image;
mod ioctls;
mod ledger;
mod log;
mod record;
mod recovery;

use std::process::ExitCode;

/// What a person may ask for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Seconds that all checks may take together.
    pub seconds: u64,
    pub seed: u64,
    pub only: Option<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((place, rest)) = words.split_first() else {
        return skipped("power loss takes minutes in a virtual machine; run ./tests/run vm");
    };
    if place != "vm" && place != "guest" {
        return skipped("power loss runs by ./tests/run vm alone");
    }
    match read(rest) {
        Ok(asked) if place == "vm" => host::run(&asked),
        Ok(asked) => guest::run(&asked),
        Err(reason) => {
            eprintln!("power: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Says why nothing was proven; that is no failure, and nothing that passed.
pub fn skipped(reason: &str) -> ExitCode {
    println!("skipped: {reason}");
    ExitCode::SUCCESS
}

fn read(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        seconds: 720,
        seed: 1,
        only: None,
    };
    for pair in words.chunks(2) {
        let [key, value] = pair else {
            return Err(format!("{} wants a value", pair[0]));
        };
        let number = || value.parse().map_err(|_| format!("{value} is no number"));
        match key.as_str() {
            "--seconds" => asked.seconds = number()?,
            "--seed" => asked.seed = number()?,
            "--only" => asked.only = Some(value.clone()),
            other => return Err(format!("{other} is unknown")),
        }
    }
    Ok(asked)
}
