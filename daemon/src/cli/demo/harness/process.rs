//! Child processes that never outlive us: killed by their number when dropped, and by the kernel
//! when we die without dropping them.
//!
//! Every child starts as `foreshadow demo child -- program args`, which asks the kernel for SIGKILL
//! at its parent's death and then becomes the program: same number, nothing in between. The kernel
//! means the parent *thread*, so one thread that lives as long as the process spawns them all.
//! Each is its own process group, so ctrl-c in a terminal reaches only us.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::Error;

/// Ticks of /proc/<pid>/stat per second; fixed at 100 by the kernel's user interface.
const TICKS_PER_SECOND: f64 = 100.0;

type Order = (Command, Sender<std::io::Result<Child>>);

/// One running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `program` with `arguments`, its output appended to `log`. `binary` is the foreshadow
    /// binary that does the first step.
    pub fn start(
        binary: &Path,
        program: &Path,
        arguments: &[OsString],
        log: &Path,
    ) -> Result<Process, Error> {
        let out = append_to(log)?;
        let err = out
            .try_clone()
            .map_err(|error| Error::at("open", log, error))?;
        let mut command = Command::new(binary);
        command
            .args(["demo", "child", "--"])
            .arg(program)
            .args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = spawn(command).map_err(|error| Error::at("start", program, error))?;
        children().insert(child.id());
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Process { name, child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child's input; dropping it asks a writer to stop.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// How the child ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        // An error means that there is no such child any more, which `kill` finds as well.
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            children().remove(&self.id());
        }
        status
    }

    /// Waits for the child to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let (name, id) = (&self.name, self.id());
                return Err(Error::new(format!(
                    "{name} ({id}) did not end in {limit:?}"
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the child to end (SIGTERM).
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Stops the child where it stands (SIGSTOP), or lets it go on.
    pub fn suspend(&mut self, suspended: bool) {
        self.signal(if suspended {
            Signal::STOP
        } else {
            Signal::CONT
        });
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only when the child is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        children().remove(&self.id());
    }

    /// CPU seconds used so far, user and system; 0 once it is gone.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // proc(5): the name in parentheses may hold blanks; utime and stime are fields 14 and 15.
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).flat_map(str::parse::<u64>).sum();
        ticks as f64 / TICKS_PER_SECOND
    }

    /// What each thread that lives has used, to the nanosecond, where [`Process::cpu_seconds`]
    /// counts whole ticks of 10 ms.
    pub fn threads(&self) -> Threads {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id()));
        let of = |task: fs::DirEntry| {
            let spent = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let spent = spent.split_whitespace().next()?.parse().ok()?;
            Some((task.file_name(), spent))
        };
        Threads(
            tasks
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(of)
                .collect(),
        )
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.id() as i32) {
            // It fails only when the child has just ended, which is what was asked for.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills every child that still runs; for an end that drops nothing, as after ctrl-c.
pub fn kill_children() {
    for id in children().iter() {
        if let Some(pid) = rustix::process::Pid::from_raw(*id as i32) {
            // It fails only when the child is gone already; unreaped, its number is not reused.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Numbers of the children that have not been waited for.
fn children() -> MutexGuard<'static, BTreeSet<u32>> {
    static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first step of every child; returns only if it cannot become the program.
pub fn become_child(command: &[OsString]) -> Error {
    let Some((program, arguments)) = command.split_first() else {
        return Error::new("demo child: no program");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Error::new(format!("ask for the parent's death signal: {error}"));
    }
    let error = Command::new(program).args(arguments).exec();
    Error::at("run", Path::new(program), error)
}

fn append_to(log: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().create(true).append(true).open(log);
    opened.map_err(|error| Error::at("open", log, error))
}

fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Nobody waits for the answer only if the caller has panicked; the child then dies
                // with this process.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, result) = channel();
    let gone = || std::io::Error::other("the spawning thread is gone");
    spawner.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

/// Nanoseconds that threads used, by their ids.
#[derive(Clone, Default, Debug)]
pub struct Threads(BTreeMap<OsString, u64>);

impl Threads {
    /// CPU seconds used since `before`; what a thread used that ended meanwhile is not known.
    pub fn seconds_since(&self, before: &Threads) -> f64 {
        let used = self.0.iter().map(|(thread, used)| {
            let then = before.0.get(thread).copied().unwrap_or(0);
            used.saturating_sub(then)
        });
        used.sum::<u64>() as f64 / 1e9
    }
}
