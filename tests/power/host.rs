//! The host's part: finds the kit that makes virtual machines, hands it both programs, and shows
//! what the guest says.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use crate::{Asked, skipped};

/// Building the image the first time takes some minutes, later nothing.
const IMAGE_SECONDS: &str = "600";
/// Booting, recording and the end, beside the checks.
const MORE_SECONDS: u64 = 360;
const CPUS: &str = "2";
/// The disks of the nodes, their logs and copies are all in the guest's memory.
const MEMORY_MB: &str = "6144";

pub fn run(asked: &Asked) -> ExitCode {
    let kit = kit();
    if let Err(reason) = prepared(&kit) {
        return skipped(&reason);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (inside, out) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir_all(&inside).expect("made");
    fs::create_dir_all(&out).expect("made");
    let own = env::current_exe().expect("the path of this program");
    hand_over(
        Path::new(env!("CARGO_BIN_EXE_foreshadow")),
        &inside.join("foreshadow"),
    );
    hand_over(&own, &inside.join("power"));
    let mut machine = Command::new(kit.join("run-vm"));
    machine.arg("--in").arg(&inside).arg("--out").arg(&out);
    machine.args(["--cpus", CPUS, "--mem", MEMORY_MB, "--timeout"]);
    machine.arg((asked.seconds + MORE_SECONDS).to_string());
    machine.args(["--", "/vm/in/power", "guest", "--seconds"]);
    machine.args([
        asked.seconds.to_string(),
        "--seed".into(),
        asked.seed.to_string(),
    ]);
    if let Some(only) = &asked.only {
        machine.args(["--only", only]);
    }
    // An emulated timer on a busy host is too slow for the kernel's check of it, which panics.
    machine.env("VM_APPEND", "no_timer_check");
    let status = machine
        .stdin(Stdio::null())
        .status()
        .expect("run-vm starts");
    if !status.success() {
        println!("the virtual machine ended with {status}");
        println!(
            "its console, and disks of broken moments: {}",
            dir.keep().join("out").display()
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// `FORESHADOW_VM`, else the folder `shared/vm` beside the repository.
fn kit() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vm");
    env::var_os("FORESHADOW_VM").map_or(beside, PathBuf::from)
}

/// Whether a machine can be made here at all; the words are for a person.
fn prepared(kit: &Path) -> Result<(), String> {
    let build = kit.join("build-image");
    if !build.is_file() || !kit.join("run-vm").is_file() {
        let place = kit.display();
        return Err(format!(
            "no virtual machines: {place} has no run-vm (FORESHADOW_VM)"
        ));
    }
    let mut image = Command::new("timeout");
    image.arg(IMAGE_SECONDS).arg(&build).stdin(Stdio::null());
    let built = image
        .output()
        .map_err(|error| format!("timeout: {error}"))?;
    if built.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&built.stderr);
    let last = said.lines().last().unwrap_or("it said nothing");
    Err(format!(
        "no image for a virtual machine ({}): {last}",
        built.status
    ))
}

/// A copy without its symbols: the guest reads it over a slow path.
fn hand_over(program: &Path, to: &Path) {
    let strip = Command::new("strip")
        .arg("-o")
        .arg(to)
        .arg(program)
        .status();
    if !strip.is_ok_and(|status| status.success()) {
        fs::copy(program, to).expect("copied");
    }
}
