//! Inside the virtual machine: each scenario is recorded, then its moments are checked one after
//! the other, first by files, then by daemons, within the time that was given.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::Asked;
use crate::check::{Checks, Kind, Outcome};
use crate::cuts::{self, Cut};
use crate::disk::{Care, tool};
use crate::record::{DISKS, Recording, Scenario, record};

const BINARY: &str = "/vm/in/foreshadow";
const PLACE: &str = "/run/power";
/// Moments of one scenario that are checked by files; those by daemons end with the time.
const FILES_MAX: usize = 200;
const DAEMONS_MAX: usize = 400;
/// Recordings of a scenario whose logs are not in order.
const RECORDINGS_MAX: usize = 4;
/// Of the time of a scenario, until when files are checked; recording takes a part of it.
const FILES_SHARE: f64 = 0.55;

use Care::{KeepsAll, Usual};

const THERE_AND_BACK: &[&str] = &["tenant00.db", "tenant00.db", "tenant01.db", "tenant00.db"];
const SHORT: &[&str] = &["tenant00.db", "tenant01.db", "tenant00.db"];

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "both-lose-power",
        kind: "ext4",
        megabytes: 64,
        care: [Usual, Usual, Usual],
        moves: THERE_AND_BACK,
    },
    Scenario {
        name: "node-a-loses-power",
        kind: "ext4",
        megabytes: 64,
        care: [Usual, KeepsAll, KeepsAll],
        moves: SHORT,
    },
    Scenario {
        name: "node-b-loses-power",
        kind: "ext4",
        megabytes: 64,
        care: [KeepsAll, Usual, KeepsAll],
        moves: SHORT,
    },
    Scenario {
        name: "both-lose-power-xfs",
        kind: "xfs",
        megabytes: 320,
        care: [Usual, Usual, Usual],
        moves: SHORT,
    },
];

/// Totals in the words of the test harness.
#[derive(Default)]
struct Sum {
    passed: u32,
    failed: u32,
}

impl Sum {
    fn add(&mut self, name: &str, outcome: &Outcome) {
        println!("{name}, {outcome}");
        self.passed += u32::from(outcome.is_good());
        self.failed += u32::from(!outcome.is_good());
    }
}

pub fn run(asked: &Asked) -> ExitCode {
    let began = Instant::now();
    let mut sum = Sum::default();
    if let Err(error) = prepare() {
        println!("the guest can't be used: {error}");
        return ExitCode::FAILURE;
    }
    let wanted = |one: &&Scenario| asked.only.as_deref().is_none_or(|only| only == one.name);
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(wanted).collect();
    for (index, scenario) in chosen.iter().enumerate() {
        let left = Duration::from_secs(asked.seconds).saturating_sub(began.elapsed());
        let share = left / (chosen.len() - index) as u32;
        one(scenario, asked.seed, share, &mut sum);
    }
    let word = if sum.failed == 0 { "ok" } else { "FAILED" };
    let (passed, failed) = (sum.passed, sum.failed);
    println!(
        "test result: {word}. {passed} passed; {failed} failed; {:.0?}",
        began.elapsed()
    );
    ExitCode::from(u8::from(sum.failed > 0 || sum.passed == 0))
}

fn prepare() -> Result<(), String> {
    fs::create_dir_all(PLACE).map_err(|error| error.to_string())?;
    tool("mount", &["-t", "tmpfs", "-o", "size=90%", "power", PLACE])?;
    for module in ["loop", "dm-log-writes", "xfs"] {
        tool("modprobe", &[module])?;
    }
    let binary = Path::new(PLACE).join("foreshadow");
    fs::copy(BINARY, binary).map_err(|error| error.to_string())?;
    Ok(())
}

/// Records a scenario until its logs lead to its disks: what was logged in another order than it
/// was written proves nothing about any daemon.
fn in_order(scenario: &Scenario, binary: &Path, dir: &Path) -> Result<Recording, String> {
    let mut reason = String::new();
    for _ in 0..RECORDINGS_MAX {
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let recording = record(scenario, binary, dir)?;
        let Some(disorder) = &recording.disorder else {
            return Ok(recording);
        };
        println!("{}: recorded again: {disorder}", scenario.name);
        reason.clone_from(disorder);
        fs::remove_dir_all(dir).map_err(|error| error.to_string())?;
    }
    Err(reason)
}

/// Records a scenario and checks it; each kind of check counts as a test.
fn one(scenario: &Scenario, seed: u64, share: Duration, sum: &mut Sum) {
    let began = Instant::now();
    let (name, dir) = (scenario.name, Path::new(PLACE).join(scenario.name));
    let binary = Path::new(PLACE).join("foreshadow");
    let recording = match in_order(scenario, &binary, &dir) {
        Ok(recording) => recording,
        Err(error) => {
            sum.failed += 1;
            println!("{name}: not recorded: {error}");
            return logs(&dir.join("root"));
        }
    };
    let cuts = cuts::exact(&recording);
    tell(name, &recording, &cuts, began.elapsed());
    let checks = Checks {
        recording: &recording,
        binary,
        seed,
        began,
    };
    let some = cuts::sample(&cuts, FILES_MAX);
    sum.add(
        name,
        &checks.run(&some, share.mul_f64(FILES_SHARE), Kind::Files),
    );
    let some = cuts::sample(&cuts, DAEMONS_MAX);
    sum.add(name, &checks.run(&some, share, Kind::Daemons));
    // The memory is needed by the next one.
    fs::remove_dir_all(&dir).expect("removed");
}

fn tell(name: &str, recording: &Recording, cuts: &[Cut], took: Duration) {
    let entries: Vec<usize> = recording.logs.iter().map(|log| log.entries.len()).collect();
    let rows: usize = recording.acks.iter().map(Vec::len).sum();
    let moving = cuts.iter().filter(|cut| cut.moving).count();
    println!(
        "{name}: recorded in {took:.0?}: {} moves, {rows} rows, {} promises of shadows, {} ticks, \
         {entries:?} entries, {} exact moments, {moving} of them in moves",
        recording.moves.len(),
        recording.promises.len(),
        recording.ticks.len(),
        cuts.len()
    );
}

/// What the daemons of a failed recording said last.
fn logs(root: &Path) {
    for disk in DISKS {
        let said = fs::read_to_string(root.join(disk).join("log")).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        println!(
            "{disk}:\n{}",
            lines[lines.len().saturating_sub(20)..].join("\n")
        );
    }
}
