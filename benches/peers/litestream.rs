//! Litestream as its operator would run it: `replicate` over a watched directory into a file
//! replica, `restore -f` as follower, and its control socket.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow::cli::demo::harness::{Error, Process};
use serde_json::{Value, json};

use crate::application::BINARY;
use crate::wait::{last_lines, until};

const START_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(60);
const SYNC_LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(1);
/// An LTX file's header (superfly/ltx, version 3), big endian: the part of the WAL that it holds.
const LTX_HEADER: usize = 100;
const WAL_OFFSET_AT: usize = 48;
const WAL_SIZE_AT: usize = 56;

/// How often it looks, syncs and follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tuning {
    /// Every second, each.
    Default,
    /// Every 50 ms, each: the shortest that earlier measurements found worth its cost.
    Fast,
}

/// A replicating daemon and its replica.
pub struct Litestream {
    program: PathBuf,
    process: Process,
    dir: PathBuf,
    tuning: Tuning,
}

/// An LTX file of level 0 in the replica.
#[derive(Clone, Copy, Debug)]
pub struct Ltx {
    pub bytes: u64,
    /// Where in the WAL it begins and ends.
    pub wal: (u64, u64),
}

impl Litestream {
    /// Replicates the databases of `dir`/live to `dir`/replica.
    pub fn start(program: &Path, dir: &Path, tuning: Tuning) -> Result<Litestream, Error> {
        let (config, log) = (dir.join("litestream.yml"), dir.join("litestream.log"));
        let (database, replica) = match tuning {
            Tuning::Default => ("", ""),
            Tuning::Fast => (
                "    monitor-interval: 50ms\n",
                "      sync-interval: 50ms\n",
            ),
        };
        let text = format!(
            "socket:\n  enabled: true\n  path: {dir}/socket\ndbs:\n  - dir: {dir}/live\n    \
             pattern: \"*.db\"\n    watch: true\n{database}    replica:\n      type: file\n      \
             path: {dir}/replica\n{replica}",
            dir = dir.display(),
        );
        fs::write(&config, text).map_err(|error| Error::at("write", &config, error))?;
        let arguments = ["replicate".into(), "-config".into(), config.into()];
        let process = Process::start(Path::new(BINARY), program, &arguments, &log)?;
        let mut started = Litestream {
            program: program.to_owned(),
            process,
            dir: dir.to_owned(),
            tuning,
        };
        until("litestream's socket", START_LIMIT, LOOK, || {
            started.alive()?;
            Ok(started.ask("GET", "/info", &json!({})).ok())
        })?;
        Ok(started)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn live(&self, name: &str) -> PathBuf {
        self.dir.join("live").join(name)
    }

    pub fn replica(&self, name: &str) -> PathBuf {
        self.dir.join("replica").join(name)
    }

    /// Waits until the replica has the first files of the database.
    pub fn wait_for_replica(&self, name: &str) -> Result<(), Error> {
        until("litestream's first files", START_LIMIT, LOOK, || {
            Ok((!self.level_0(name)?.is_empty()).then_some(()))
        })
    }

    /// What `litestream sync -wait` does, without starting a program for it; returns the txid that
    /// the replica has.
    pub fn sync(&self, name: &str) -> Result<u64, Error> {
        let path = self.live(name);
        let body = json!({"path": path, "wait": true, "timeout": SYNC_LIMIT.as_secs()});
        synced(&self.ask("POST", "/sync", &body)?)
    }

    /// `litestream sync -wait`, as an operator's script would say it.
    pub fn sync_by_command(&self, name: &str) -> Result<u64, Error> {
        let (socket, path) = (self.dir.join("socket"), self.live(name));
        let (socket, path) = (socket.to_string_lossy(), path.to_string_lossy());
        let program = self.program.to_string_lossy();
        let words = ["sync", "-wait", "-json", "-socket", &socket, &path];
        let command = [&[&*program][..], &words].concat();
        let said = crate::wait::run(&command, &self.dir.join("sync.log"), SYNC_LIMIT)?;
        let answer = serde_json::from_str(&said);
        synced(&answer.map_err(|error| Error::new(format!("litestream sync: {error}: {said}")))?)
    }

    /// Level 0 of the replica: what was shipped, before anything is compacted.
    pub fn level_0(&self, name: &str) -> Result<BTreeMap<u64, Ltx>, Error> {
        let dir = self.replica(name).join("ltx/0");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let range = name
                .strip_suffix(".ltx")
                .and_then(|name| name.split_once('-'));
            let Some(Ok(txid)) = range.map(|(_, max)| u64::from_str_radix(max, 16)) else {
                continue;
            };
            files.insert(txid, read_ltx(&entry.path())?);
        }
        Ok(files)
    }

    /// Names of level 0 only: cheap enough to be asked for all the time.
    pub fn newest(&self, name: &str) -> u64 {
        let dir = self.replica(name).join("ltx/0");
        let names = fs::read_dir(&dir).into_iter().flatten().flatten();
        let txids = names.filter_map(|entry| {
            let name = entry.file_name();
            let range = name.to_str()?.strip_suffix(".ltx")?.split_once('-')?;
            u64::from_str_radix(range.1, 16).ok()
        });
        txids.max().unwrap_or(0)
    }

    /// Starts a follower that keeps `to` like the database.
    pub fn follow(&self, name: &str, to: &Path) -> Result<Follower, Error> {
        let url = format!("file://{}", self.replica(name).display());
        let interval = match self.tuning {
            Tuning::Default => "1s",
            Tuning::Fast => "50ms",
        };
        let words = ["restore", "-f", "-follow-interval", interval, "-o"];
        let mut arguments: Vec<_> = words.iter().map(Into::into).collect();
        arguments.extend([to.into(), url.into()]);
        let log = self.dir.join("follow.log");
        let process = Process::start(Path::new(BINARY), &self.program, &arguments, &log)?;
        let to = to.to_owned();
        Ok(Follower { process, to })
    }

    /// Restores the replica of the database to `to`.
    pub fn restore(&self, name: &str, to: &Path) -> Result<(), Error> {
        let url = format!("file://{}", self.replica(name).display());
        let log = self.dir.join("restore.log");
        let program = self.program.to_string_lossy();
        let to = to.to_string_lossy();
        crate::wait::run(&[&program, "restore", "-o", &to, &url], &log, END_LIMIT)?;
        Ok(())
    }

    /// SIGTERM, after which it syncs once more.
    pub fn stop(mut self) -> Result<(), Error> {
        self.process.terminate();
        self.process.wait(END_LIMIT).map(|_| ())
    }

    fn alive(&mut self) -> Result<(), Error> {
        if self.process.ended().is_none() {
            return Ok(());
        }
        let said = fs::read_to_string(self.dir.join("litestream.log")).unwrap_or_default();
        Err(Error::new(format!(
            "litestream ended: {}",
            last_lines(&said)
        )))
    }

    /// One request over the control socket; the body of an answer that is good.
    fn ask(&self, method: &str, target: &str, body: &Value) -> Result<Value, Error> {
        let socket = self.dir.join("socket");
        let failed = |error| Error::at("ask", &socket, error);
        let mut stream = UnixStream::connect(&socket).map_err(failed)?;
        stream.set_read_timeout(Some(SYNC_LIMIT)).map_err(failed)?;
        let body = body.to_string();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        let good = answer.split_whitespace().nth(1) == Some("200");
        let (_, said) = answer.split_once("\r\n\r\n").unwrap_or_default();
        match serde_json::from_str(said) {
            Ok(value) if good => Ok(value),
            _ => Err(Error::new(format!("litestream {target}: {said}"))),
        }
    }
}

/// A process that keeps a restored copy up to date.
pub struct Follower {
    process: Process,
    to: PathBuf,
}

impl Follower {
    /// The last transaction that was put into the copy.
    pub fn txid(&self) -> u64 {
        let mut path = self.to.clone().into_os_string();
        path.push("-txid");
        let text = fs::read_to_string(path).unwrap_or_default();
        u64::from_str_radix(text.trim(), 16).unwrap_or(0)
    }

    pub fn wait_for(&self, txid: u64) -> Result<(), Error> {
        until("litestream's follower", SYNC_LIMIT, LOOK, || {
            Ok((self.txid() >= txid).then_some(()))
        })
    }

    /// Ends it; the copy is a database like any other then.
    pub fn stop(mut self) -> Result<(), Error> {
        self.process.terminate();
        until("the follower's end", END_LIMIT, LOOK, || {
            Ok(self.process.ended())
        })
        .map(|_| ())
    }
}

/// The txid of a database whose replica has all of it.
fn synced(answer: &Value) -> Result<u64, Error> {
    let txid = |key: &str| answer[key].as_u64();
    // The socket and the command have different words for it.
    let replicated = txid("replicated_txid").or(txid("replica_txid"));
    match (txid("txid"), replicated) {
        (Some(txid), Some(replicated)) if replicated >= txid => Ok(txid),
        _ => Err(Error::new(format!("litestream sync: {answer}"))),
    }
}

fn read_ltx(path: &Path) -> Result<Ltx, Error> {
    let failed = |error| Error::at("read", path, error);
    let mut header = [0; LTX_HEADER];
    let mut file = fs::File::open(path).map_err(failed)?;
    file.read_exact(&mut header).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if &header[..4] != b"LTX1" {
        return Err(Error::new(format!("{}: no LTX file", path.display())));
    }
    let word = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let begin = word(WAL_OFFSET_AT);
    Ok(Ltx {
        bytes,
        wal: (begin, begin + word(WAL_SIZE_AT)),
    })
}
