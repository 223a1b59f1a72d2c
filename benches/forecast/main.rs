//! What a forecast costs: the LSTM's step against burn's own layer, PyTorch, ONNX Runtime and the
//! core's peak; a million items; and what training does to a shard's wake-ups.
//!
//! Contenders take turns within one run, on one core each.

#[allow(dead_code, reason = "every bench uses a part of it")]
#[path = "../report.rs"]
mod report;

#[path = "../../model/tests/fixture/burns.rs"]
mod burns;
mod million;
mod peak;
mod peers;
mod step;
mod waking;

use std::process::ExitCode;

use report::Report;

fn main() -> ExitCode {
    if std::env::args().any(|word| word == million::ARGUMENT) {
        return million::child();
    }
    let mut report = Report::new("forecast");
    step::run(&mut report);
    million::run(&mut report);
    waking::run(&mut report);
    report.finish()
}
