//! `foreshadow run`: the daemon, from its file to its last answer.

use std::path::Path;

use super::exit::Exit;
use super::logs;
use crate::config::Config;
use crate::control::{self, Seat};

/// Runs the shards until they are drained. An error is a sentence for people.
pub type Runtime = fn(Config, Seat) -> Result<(), String>;

/// Runs the daemon.
pub fn run(path: &Path, verbose: u8, runtime: Runtime) -> Exit {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Exit::Usage;
        }
    };
    let level = match verbose {
        0 => config.log.level.as_str(),
        1 => "debug",
        _ => "trace",
    };
    let set_level = logs::start(level);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let (control, seat) = match control::start(&config, set_level) {
        Ok(started) => started,
        Err(error) => {
            tracing::error!("{error}");
            return Exit::Error;
        }
    };
    let (node, cluster) = (config.node.name.clone(), config.node.cluster.clone());
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%node, %cluster, version, path = %path.display(), "foreshadow starts");
    let result = runtime(config, seat);
    control.stop();
    match result {
        Ok(()) => {
            tracing::info!(%node, "stopped");
            Exit::Ok
        }
        Err(error) => {
            tracing::error!(%node, "{error}");
            Exit::Error
        }
    }
}
