//! One node of the cluster: its directories, its configuration file and its daemon process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{Process, Threads};
use super::{Error, Options, pause};
use crate::cli::demo::http::{self, Answer};

/// A socket's path must fit in 108 bytes with its final zero (unix(7)).
const SOCKET_LEN_MAX: usize = 100;

/// How long one request may take; none of them waits for a move.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long a daemon may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Where free ports are looked for.
const PORTS_FROM: u16 = 20_000;
const PORTS: u16 = 12_000;

/// Sections of the configuration, each with its `key = value` lines.
pub type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Where a node lives.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub dir: PathBuf,
    pub port: u16,
}

impl Place {
    pub fn live(&self) -> PathBuf {
        self.dir.join("live")
    }

    pub fn generations(&self) -> PathBuf {
        self.dir.join("gen")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("fs.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("foreshadow.toml")
    }
}

/// A node with its daemon, which may be dead for a while.
#[derive(Debug)]
pub struct Node {
    pub place: Place,
    binary: PathBuf,
    process: Option<Process>,
    /// CPU seconds and bytes sent by incarnations that are gone.
    cpu_before: f64,
    bytes_before: u64,
    bytes_now: u64,
}

impl Node {
    /// Makes the directories and writes the configuration; nothing runs yet.
    pub fn prepare(
        root: &Path,
        place: &Place,
        all: &[Place],
        options: &Options,
    ) -> Result<Node, Error> {
        if place.socket().as_os_str().len() > SOCKET_LEN_MAX {
            let path = place.socket();
            return Err(Error::new(format!(
                "{}: too long for a socket",
                path.display()
            )));
        }
        for dir in [place.live(), place.generations(), place.state()] {
            fs::create_dir_all(&dir).map_err(|error| Error::at("create", &dir, error))?;
        }
        let text = config_text(root, place, all, options);
        let path = place.config();
        fs::write(&path, text).map_err(|error| Error::at("write", &path, error))?;
        Ok(Node {
            place: place.clone(),
            binary: options.binary.clone(),
            process: None,
            cpu_before: 0.0,
            bytes_before: 0,
            bytes_now: 0,
        })
    }

    /// Starts the daemon.
    pub fn start(&mut self) -> Result<(), Error> {
        let config = self.place.config();
        let arguments = ["run".into(), "--config".into(), config.into_os_string()];
        let log = self.place.log();
        self.process = Some(Process::start(
            &self.binary,
            &self.binary,
            &arguments,
            &log,
        )?);
        Ok(())
    }

    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.ended().is_none())
    }

    /// Waits until the daemon says that it is ready.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                return Err(Error::new(format!(
                    "{} ended ({status}); the end of {}:\n{}",
                    self.place.name,
                    self.place.log().display(),
                    last_lines(&self.place.log())
                )));
            }
            let ready = self
                .get("/v1/status")
                .is_ok_and(|body| body["ready"] == true);
            if ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = last_lines(&self.place.log());
                return Err(Error::new(format!(
                    "{} is not ready:\n{log}",
                    self.place.name
                )));
            }
            pause(20);
        }
    }

    /// One request; the status may be any.
    pub fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Answer, Error> {
        http::request(&self.place.socket(), method, target, body, REQUEST_LIMIT)
    }

    /// The body of a GET that must succeed.
    pub fn get(&self, target: &str) -> Result<Value, Error> {
        let answer = self.ask("GET", target, None)?;
        if answer.status != 200 {
            let (node, status, body) = (&self.place.name, answer.status, answer.body);
            return Err(Error::new(format!(
                "GET {target} at {node}: {status} {body}"
            )));
        }
        Ok(answer.body)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.bury();
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// kill -9 without a last question about bytes sent: for a moment that must be met.
    pub fn kill_at_once(&mut self) {
        self.bytes_before += self.bytes_now;
        self.bytes_now = 0;
        self.cpu_before = self.cpu_seconds();
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, then waits; a daemon that does not end is killed and reported.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.bury();
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.terminate();
        process.wait(END_LIMIT).map(|_| ())
    }

    /// Stops the process where it stands, or lets it go on (SIGSTOP, SIGCONT).
    pub fn suspend(&mut self, suspended: bool) {
        if let Some(process) = &mut self.process {
            process.suspend(suspended);
        }
    }

    /// The number of the daemon's process, while there is one.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// CPU seconds of all incarnations.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_before + self.process.as_ref().map_or(0.0, Process::cpu_seconds)
    }

    /// The threads of this incarnation.
    pub fn threads(&self) -> Threads {
        self.process
            .as_ref()
            .map(Process::threads)
            .unwrap_or_default()
    }

    /// Bytes sent to peers by all incarnations, as far as was ever seen.
    pub fn bytes_out(&mut self) -> u64 {
        if let Ok(Value::Array(peers)) = self.get("/v1/peers") {
            let now: u64 = peers
                .iter()
                .filter_map(|peer| peer["bytes_out"].as_u64())
                .sum();
            self.bytes_now = self.bytes_now.max(now);
        }
        self.bytes_before + self.bytes_now
    }

    /// Remembers what dies with this incarnation.
    fn bury(&mut self) {
        self.bytes_before = self.bytes_out();
        self.bytes_now = 0;
        self.cpu_before = self.cpu_seconds();
    }
}

/// A port that was free a moment ago. Below those that the kernel gives to outgoing connections
/// (32768 and up, ip(7)), one of which could take it before the daemon does.
pub fn free_port() -> Result<u16, Error> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..PORTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes that run at once begin far from one another.
        let begin = std::process::id().wrapping_mul(97) as u16;
        let port = PORTS_FROM + begin.wrapping_add(number) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new(format!(
        "no free port from {PORTS_FROM} to {}",
        PORTS_FROM + PORTS - 1
    )))
}

fn config_text(root: &Path, place: &Place, all: &[Place], options: &Options) -> String {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let mut sections = Sections::new();
    let mut set = |section: &str, key: &str, value: String| {
        sections
            .entry(section.to_owned())
            .or_default()
            .insert(key.to_owned(), value);
    };
    set("[node]", "name", format!("{:?}", place.name));
    set("[node]", "cluster", "\"demo\"".to_owned());
    set("[node]", "state_dir", quoted(&place.state()));
    set("[node]", "socket", quoted(&place.socket()));
    set("[node]", "listen", format!("\"127.0.0.1:{}\"", place.port));
    set("[node]", "shards", "1".to_owned());
    let (section, suffix) = (options.engine.section(), options.engine.suffix());
    set(section, "dir", quoted(&place.live()));
    set(section, "generations", quoted(&place.generations()));
    set(section, "pattern", format!("\"*.{suffix}\""));
    set(section, "watch", "true".to_owned());
    set("[coordinator]", "kind", "\"embedded\"".to_owned());
    set("[coordinator]", "dir", quoted(&root.join("coordinator")));
    set("[routing]", "dir", quoted(&root.join("routes")));
    for (section, lines) in &options.tweaks {
        for (key, value) in lines {
            set(section, key, value.clone());
        }
    }
    let mut text = String::new();
    for (section, lines) in &sections {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{section}");
        for (key, value) in lines {
            let _ = writeln!(text, "{key} = {value}");
        }
        text.push('\n');
    }
    for peer in all.iter().filter(|peer| peer.name != place.name) {
        let (name, port) = (&peer.name, peer.port);
        let _ = writeln!(
            text,
            "[[peer]]\nname = {name:?}\naddress = \"127.0.0.1:{port}\"\n"
        );
    }
    text
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::harness::Engine;

    #[test]
    fn a_tweak_replaces_a_line_and_every_peer_but_oneself_is_named() {
        let place = |name: &str, port| Place {
            name: name.into(),
            dir: "/r".into(),
            port,
        };
        let all = [place("node-a", 1), place("node-b", 2)];
        let shards = BTreeMap::from([("shards".to_owned(), "2".to_owned())]);
        let options = Options {
            engine: Engine::Native,
            tweaks: Sections::from([("[node]".to_owned(), shards)]),
            ..Options::default()
        };
        let text = config_text(Path::new("/r"), &all[0], &all, &options);
        assert!(
            text.contains("shards = 2\n") && !text.contains("shards = 1\n"),
            "{text}"
        );
        assert!(
            text.contains("address = \"127.0.0.1:2\"") && !text.contains("127.0.0.1:1\"\n\n[[")
        );
        assert_eq!(text.matches("[[peer]]").count(), 1);
        assert!(text.contains("[[engine.native]]\n") && text.contains("pattern = \"*.log\"\n"));
        assert!(!text.contains("sqlite"), "{text}");
    }
}
