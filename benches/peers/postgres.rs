//! PostgreSQL as a bench needs it: clusters of its own in temporary directories, reached by Unix
//! sockets alone, a standby made by pg_basebackup, and an application that writes to it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Error, Process};
use rustix::process::{Pid, Signal, kill_process};

use crate::application::{Commit, now_ns};
use crate::fetch::Programs;
use crate::sqlite::{BODY, N_AT_FIRST, Work};
use crate::wait::{last_lines, until};
use crate::wire::Connection;

const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);
/// As sqlite.rs fills its table.
const FILL: &str = "INSERT INTO docs SELECT i, $N, json_build_object(
    'name', 'customer ' || i, 'email', left(md5(random()::text), 10) || '@example.org',
    'address', json_build_object('street', 'Main Street ' || (i % 997), 'city', 'Springfield'),
    'balance', (random() * 1000000)::int, 'active', true,
    'token', md5(random()::text), 'tags', json_build_array('new', 'monthly', i % 7))::text
    FROM generate_series(1, $ROWS) AS i";
const TABLES: &str = "
    CREATE TABLE docs(id int PRIMARY KEY, n int NOT NULL, doc text NOT NULL);
    CREATE TABLE log(id serial PRIMARY KEY, body bytea NOT NULL);";

/// One running server.
pub struct Server {
    programs: Programs,
    process: Process,
    dir: PathBuf,
    port: u16,
}

impl Server {
    /// A new cluster in `dir` with default settings.
    pub fn create(programs: &Programs, dir: &Path) -> Result<Server, Error> {
        make(programs, dir)?;
        let (data, log) = (dir.join("data"), dir.join("initdb.log"));
        let data = data.to_string_lossy();
        let words = ["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8"];
        programs.run("initdb", &words, &log)?;
        Server::run(programs, dir)
    }

    /// A standby of this server, streaming.
    pub fn standby(&self, dir: &Path) -> Result<Server, Error> {
        make(&self.programs, dir)?;
        self.backup(&dir.join("data"), &["-R"])?;
        let standby = Server::run(&self.programs, dir)?;
        until("the standby streams", LIMIT, LOOK, || {
            let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            Ok((self.connect()?.value(count)? != "0").then_some(()))
        })?;
        Ok(standby)
    }

    /// pg_basebackup into `to`, as soon as the checkpoint that it needs can be had.
    pub fn backup(&self, to: &Path, more: &[&str]) -> Result<(), Error> {
        let (socket, to) = (self.dir.to_string_lossy(), to.to_string_lossy());
        let port = self.port.to_string();
        let words = ["-h", &socket, "-p", &port, "-U", "postgres", "-D", &to];
        let words = [&words[..], &["-c", "fast", "-X", "stream"], more].concat();
        let log = self.dir.join("basebackup.log");
        self.programs.run("pg_basebackup", &words, &log)?;
        Ok(())
    }

    /// Makes the tables and so many rows of JSON.
    pub fn fill(&self, rows: u64) -> Result<(), Error> {
        let mut connection = self.connect()?;
        connection.query(TABLES)?;
        let fill = FILL.replace("$N", &N_AT_FIRST.to_string());
        connection.query(&fill.replace("$ROWS", &rows.to_string()))?;
        connection.query("VACUUM ANALYZE docs")?;
        connection.query("CHECKPOINT")?;
        Ok(())
    }

    pub fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.socket())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The fast shutdown: sends what a standby lacks, then ends.
    pub fn stop(mut self) -> Result<(), Error> {
        self.interrupt();
        until("the end of a server", LIMIT, LOOK, || {
            Ok(self.process.ended())
        })
        .map(|_| ())
    }

    fn run(programs: &Programs, dir: &Path) -> Result<Server, Error> {
        // TCP is off, so a port is only the number in a socket's name.
        static PORT: AtomicU16 = AtomicU16::new(5432);
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let (data, socket) = (dir.join("data"), dir.to_string_lossy());
        let settings = [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={socket}"),
            format!("port={port}"),
        ];
        let data = data.to_string_lossy();
        let mut words = vec!["-D", &data];
        words.extend(settings.iter().flat_map(|setting| ["-c", setting]));
        let log = dir.join("postgres.log");
        let process = programs.start("postgres", &words, &log)?;
        let mut server = Server {
            programs: programs.clone(),
            process,
            dir: dir.to_owned(),
            port,
        };
        until("postgres answers", LIMIT, LOOK, || {
            if server.process.ended().is_some() {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(Error::new(format!("postgres: {}", last_lines(&said))));
            }
            let answer = server.connect().and_then(|mut it| it.value("SELECT 1"));
            Ok(answer.ok().map(|_| ()))
        })?;
        Ok(server)
    }

    fn interrupt(&self) {
        if let Some(pid) = Pid::from_raw(self.process.id() as i32) {
            // It fails only when the server has ended, which is what was asked for.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

impl Drop for Server {
    /// In good order where that is quick: a server that is killed leaves shared memory behind.
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.interrupt();
            let limit = Duration::from_secs(10);
            // Who does not end in time is killed with its process.
            let _ = until("the end of a server", limit, LOOK, || {
                Ok(self.process.ended())
            });
        }
    }
}

/// An application with one connection.
pub struct Client {
    connection: Connection,
    work: Work,
    random: u64,
}

impl Client {
    pub fn open(socket: &Path, work: Work) -> Result<Client, Error> {
        let mut connection = Connection::open(socket)?;
        connection.query(match work {
            Work::Update(_) => "PREPARE w(int) AS UPDATE docs SET n = n + 1 WHERE id = $1",
            Work::Insert => "PREPARE w(bytea) AS INSERT INTO log(body) VALUES($1)",
        })?;
        let random = now_ns() | 1;
        Ok(Client {
            connection,
            work,
            random,
        })
    }

    /// One transaction, committed.
    pub fn transact(&mut self) -> Result<Commit, Error> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let sql = match self.work {
            Work::Update(rows) => format!("EXECUTE w({})", self.random % rows + 1),
            Work::Insert => {
                let (random, digits) = (self.random, BODY * 2);
                format!("EXECUTE w('\\x{random:0digits$x}')")
            }
        };
        let start_ns = now_ns();
        self.connection.query(&sql)?;
        Ok(Commit {
            start_ns,
            end_ns: now_ns(),
        })
    }

    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Writes for a while, flat out.
    pub fn run_for(&mut self, time: Duration) -> Result<Vec<Commit>, Error> {
        let begun = Instant::now();
        let mut commits = Vec::new();
        while begun.elapsed() < time {
            commits.push(self.transact()?);
        }
        Ok(commits)
    }
}

/// A position in the log, as the server writes it: two hexadecimal halves.
pub fn lsn(text: &str) -> Result<u64, Error> {
    let halves = text.split_once('/');
    let number = |half: &str| u64::from_str_radix(half, 16).ok();
    let lsn = halves.and_then(|(high, low)| Some(number(high)? << 32 | number(low)?));
    lsn.ok_or_else(|| Error::new(format!("no position: {text}")))
}

/// A directory that the servers' user may use, and nobody else.
fn make(programs: &Programs, dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|error| Error::at("create", dir, error))?;
    if let Some((user, group)) = programs.user {
        let owned = chown(dir, Some(user), Some(group));
        owned.map_err(|error| Error::at("give away", dir, error))?;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(dir, mode).map_err(|error| Error::at("close", dir, error))
}
