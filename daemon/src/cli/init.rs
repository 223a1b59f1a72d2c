//! `foreshadow init` and `foreshadow check-config`: a file to start from, and whether it is right.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use wal::Engine;

use super::exit::Exit;
use crate::config::Config;

/// The commented example, which is also what packages install.
pub const STARTER: &str = include_str!("../../../systemd/foreshadow.toml");

/// Writes the starter configuration, never over anything.
pub fn init(path: &Path) -> Exit {
    match write_new(path) {
        Ok(()) => {
            println!(
                "wrote {}: set node.name and engine.sqlite.dir in it, then",
                path.display()
            );
            println!("  foreshadow check-config --config {}", path.display());
            Exit::Ok
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            eprintln!(
                "foreshadow init: {} is there already and is left as it is; name another file \
                 with --config",
                path.display()
            );
            Exit::Precondition
        }
        Err(error) => {
            eprintln!(
                "foreshadow init: {} can't be written: {error}",
                path.display()
            );
            Exit::Error
        }
    }
}

fn write_new(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(STARTER.as_bytes())
}

/// Reads a configuration as the daemon would, and says what it is or what is wrong.
pub fn check(path: &Path, json: bool) -> Exit {
    match Config::load(path) {
        Ok(config) => {
            for warning in config.warnings() {
                eprintln!("foreshadow: warning: {warning}");
            }
            if json {
                let value = serde_json::json!({ "ok": true, "node": config.node.name.as_str() });
                println!("{value}");
            } else {
                print!("{}", summary(&config));
            }
            Exit::Ok
        }
        Err(errors) => {
            eprintln!("{errors}");
            Exit::Usage
        }
    }
}

fn summary(config: &Config) -> String {
    let mut out = format!(
        "{} is right: node {} of cluster {}, {} shards, peers on {}\n",
        config.path.display(),
        config.node.name,
        config.node.cluster,
        config.node.shards,
        config.node.listen
    );
    for engine in &config.engines {
        let deep = if engine.recursive { " and below" } else { "" };
        let what = match engine.engine {
            Engine::Sqlite => "databases",
            Engine::Native => "native logs",
        };
        out += &format!(
            "  {what}: {}/{}{deep}\n",
            engine.dir.display(),
            engine.pattern
        );
    }
    for peer in &config.peers {
        out += &format!("  peer: {} at {}\n", peer.name, peer.address);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_writes_a_new_file_and_never_over_an_old_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("etc/foreshadow.toml");
        assert_eq!(init(&path), Exit::Ok);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), STARTER);
        std::fs::write(&path, "mine").expect("writes");
        assert_eq!(init(&path), Exit::Precondition);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
    }
}
