//! A million items: how long one step and what the head says of them takes, and the memory of a
//! process that does nothing else.
//!
//! States stay; inputs and what is said of them are of a thousand items at a time, as a daemon
//! makes and uses them.

use std::process::{Command, ExitCode};
use std::time::Instant;

use foreshadow::cli::demo::harness::percentile;
use model::cell::{Cell, States};
use model::lstm::fresh;
use rustix::time::{ClockId, clock_gettime};

use crate::peak;
use crate::report::{Bar, Bound, Figure, Report};
use crate::step::{HIDDEN, INPUTS, inputs, operations};

/// This program is started again with it, so that nothing else is in its memory.
pub const ARGUMENT: &str = "--million";
const ITEMS: usize = 1_000_000;
const CHUNK: usize = 1_000;
const PASSES: usize = 9;
const RUNS: usize = 3;
const SECONDS_MAX: f64 = 0.25;
const MEGABYTES_MAX: f64 = 300.0;

pub fn run(report: &mut Report) {
    let (mut seconds, mut processor) = (Vec::new(), Vec::new());
    let (mut megabytes, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        peaks.push(peak::flops());
        match measured() {
            Ok(Measured { passes, most }) => {
                seconds.extend(passes.iter().map(|pass| pass[0]));
                processor.extend(passes.iter().map(|pass| pass[1]));
                megabytes.push(most);
            }
            Err(error) => return report.fail(format!("{ARGUMENT}: {error}")),
        }
    }
    let title = "step and head of 1 M items";
    let limit = operations(HIDDEN) * ITEMS as f64 / percentile(&mut peaks, 1.0);
    let figure = Figure(percentile(&mut seconds, 0.5), "s");
    let bound = Bound(limit, "its products at the FMA peak");
    report.case(title, figure, bound, Bar::AtMost(SECONDS_MAX));
    let figure = Figure(percentile(&mut processor, 0.5), "s");
    let bound = Bound(limit, "the same, in processor time");
    report.case(title, figure, bound, Bar::None);
    let limit = (ITEMS * HIDDEN * 2 * size_of::<f32>()) as f64 / 1e6;
    let figure = Figure(percentile(&mut megabytes, 1.0), "MB");
    let bound = Bound(limit, "the states alone");
    report.case(
        "resident at most, whole process",
        figure,
        bound,
        Bar::AtMost(MEGABYTES_MAX),
    );
}

struct Measured {
    /// Seconds by the clock and of the processor.
    passes: Vec<[f64; 2]>,
    /// Megabytes.
    most: f64,
}

fn measured() -> Result<Measured, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let said = Command::new(program).arg(ARGUMENT).output();
    let said = said.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let numbers = said.split_whitespace().map(str::parse);
    let numbers: Vec<f64> = numbers
        .collect::<Result<_, _>>()
        .map_err(|_| said.clone())?;
    match numbers.as_chunks::<2>() {
        (passes, [most]) if passes.len() == PASSES => Ok(Measured {
            passes: passes.to_vec(),
            most: *most,
        }),
        _ => Err(format!("it said {said}")),
    }
}

/// Seconds that this thread had a processor; what others took of it is not in them.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The process that is measured: prints the two times of each pass, then its largest memory in MB.
pub fn child() -> ExitCode {
    let cell = Cell::new(&fresh(INPUTS, HIDDEN, 1, 1)).expect("they fit");
    let mut all: Vec<States> = (0..ITEMS / CHUNK).map(|_| cell.begin(CHUNK)).collect();
    let given = inputs(CHUNK);
    let mut said = vec![0.0; CHUNK];
    let mut sum = 0.0;
    for pass in 0..=PASSES {
        let (begun, before) = (Instant::now(), processor_seconds());
        for states in &mut all {
            cell.step(&given, states);
            cell.say(states, &mut said);
            sum += said[0];
        }
        // The first one gets its memory from the kernel.
        if pass > 0 {
            let spent = processor_seconds() - before;
            println!("{} {spent}", begun.elapsed().as_secs_f64());
        }
    }
    assert!(sum.is_finite());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    println!("{}", kilobytes.unwrap_or(f64::NAN) * 1024.0 / 1e6);
    ExitCode::SUCCESS
}
