//! Three daemons of one unprivileged user at RLIMIT_MEMLOCK 8 MiB, as real processes: this test
//! binary runs itself again as each of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use wal::Span;

use super::*;

const TEST: &str = "reactor::memlock::three_unprivileged_daemons_fit_into_8_mib_of_locked_memory";
const ROLE: &str = "FORESHADOW_TEST_MEMLOCK_DAEMON";
const MEMLOCK: u64 = 8 << 20;
const NOBODY: u32 = 65534;
/// Shards of each daemon: what the default configuration takes at most.
const SHARDS: usize = 4;

#[test]
fn three_unprivileged_daemons_fit_into_8_mib_of_locked_memory() {
    if std::env::var_os(ROLE).is_some() {
        return daemon();
    }
    let mut daemons: Vec<Child> = (0..3).map(|_| start()).collect();
    let said: Vec<String> = daemons.iter_mut().map(hear).collect();
    for daemon in &mut daemons {
        // The end of their input tells them to stop; one that failed has stopped already.
        drop(daemon.stdin.take());
        daemon.wait().unwrap();
    }
    assert!(
        said.iter().all(|line| line.contains("4 shards stand")),
        "{said:?}"
    );
}

fn start() -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(ROLE, "1");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .current_dir("/");
    // SAFETY: a plain system call.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let limited = || {
        let limit = libc::rlimit {
            rlim_cur: MEMLOCK,
            rlim_max: MEMLOCK,
        };
        // SAFETY: the pointer is to an rlimit of ours; setrlimit is async-signal-safe.
        match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(limited) };
    command.spawn().unwrap()
}

/// What a daemon says, up to the line that counts.
fn hear(daemon: &mut Child) -> String {
    let (said, heard) = channel();
    let output = BufReader::new(daemon.stdout.take().unwrap());
    std::thread::spawn(move || {
        let mut lines = output.lines().map_while(std::io::Result::ok);
        let line = lines.find(|line| line.contains("stand"));
        said.send(line.unwrap_or_default()).unwrap();
        lines.for_each(drop);
    });
    heard
        .recv_timeout(Duration::from_secs(30))
        .unwrap_or_default()
}

/// One daemon's worth of shards, each of which moves a few bytes; stands until its input ends.
fn daemon() {
    let (said, heard) = channel();
    let shards: Vec<Shard> = (0..SHARDS)
        .map(|index| {
            let said = said.clone();
            let body = move |mut context: ShardContext| {
                let said = said.clone();
                async move {
                    context
                        .ring
                        .timeout(crate::ring::Token(1), now() + Span::millis(1));
                    context.wait(None).await?;
                    said.send(context.ring.completion().is_some()).unwrap();
                    context.wait(None).await
                }
            };
            spawn_shard(&format!("shard-{index}"), None, body, |_| Next::Stop).unwrap()
        })
        .collect();
    for _ in 0..SHARDS {
        assert!(heard.recv_timeout(Duration::from_secs(20)).unwrap());
    }
    let probe = crate::probe::Probe::run().unwrap();
    assert!(
        !probe.may_lock && probe.memlock_bytes == Some(MEMLOCK),
        "{probe}"
    );
    println!("{SHARDS} shards stand: {probe}");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    for shard in shards {
        shard.wake().wake();
        shard.join().unwrap();
    }
}
