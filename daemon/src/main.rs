//! The `foreshadow` program: the command line, and the runtime it may start.

use std::process::ExitCode;

use foreshadow::{cli, runtime};

fn main() -> ExitCode {
    io::heap::keep_freed_frames();
    cli::main(|config, seat| runtime::run(config, seat).map_err(|error| error.to_string()))
}
