//! What this kernel and this user offer, found out once at start and said in one line.
//!
//! Whatever the daemon can't do without is an error here, with what to change; the rest is a field.

use std::ffi::CString;
use std::fmt;
use std::fs::{File, remove_file};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use io_uring::{IoUring, opcode};

use crate::error::{Error, Kind, Result};

/// Oldest kernel: the first long-term one with deferred task work, multishot operations and
/// buffer rings (Debian 12).
pub const KERNEL_MIN: Kernel = Kernel { major: 6, minor: 1 };

/// Capability bits of /proc/self/status (linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// Operations that links and tails can't do without.
const NEEDED: [(u8, &str); 8] = [
    (opcode::Read::CODE, "READ"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// A kernel's version; patches and distribution suffixes don't matter here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kernel {
    pub major: u32,
    pub minor: u32,
}

impl Kernel {
    /// Reads "6.18.44-anything".
    pub fn parse(release: &str) -> Option<Kernel> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Kernel { major, minor })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    pub kernel: Kernel,
    /// io_uring FUTEX_WAIT (6.7): doorbells of native logs without an eventfd.
    pub futex: bool,
    /// io_uring SEND_ZC: sends without a copy, where the network card can.
    pub send_zc: bool,
    /// Bytes that may be locked; `None` is no limit. Rings are charged to it.
    pub memlock_bytes: Option<u64>,
    /// CAP_IPC_LOCK: the limit above does not count.
    pub may_lock: bool,
    /// A thread may be SCHED_RR: commit latency does not depend on neighbours.
    pub realtime: bool,
    /// Open files (soft limit).
    pub files_max: u64,
    pub cpus: usize,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |found: bool| if found { "yes" } else { "no" };
        write!(f, "kernel {}, {} cpus, memlock ", self.kernel, self.cpus)?;
        match (self.may_lock, self.memlock_bytes) {
            (true, _) | (_, None) => f.write_str("unlimited")?,
            (false, Some(bytes)) => write!(f, "{} KiB", bytes >> 10)?,
        }
        write!(
            f,
            ", open files {}, realtime {}",
            self.files_max,
            yes(self.realtime)
        )?;
        write!(
            f,
            ", io_uring futex {}, send_zc {}",
            yes(self.futex),
            yes(self.send_zc)
        )
    }
}

impl Probe {
    /// Looks; fails when something is missing that the daemon can't do without.
    pub fn run() -> Result<Probe> {
        let kernel = kernel()?;
        require_kernel(kernel)?;
        let operations = operations()?;
        for (code, name) in NEEDED {
            if !operations.is_supported(code) {
                let reason = format!("this kernel's io_uring has no {name}");
                return Err(Error::new(Kind::Refused, "use", "io_uring", reason));
            }
        }
        require_ofd_locks()?;
        let (memlock_bytes, _) = limit(libc::RLIMIT_MEMLOCK)?;
        let (files_max, _) = limit(libc::RLIMIT_NOFILE)?;
        Ok(Probe {
            kernel,
            futex: operations.is_supported(opcode::FutexWait::CODE),
            send_zc: operations.is_supported(opcode::SendZc::CODE),
            memlock_bytes,
            may_lock: has_capability(CAP_IPC_LOCK),
            realtime: may_be_realtime(),
            files_max: files_max.unwrap_or(u64::MAX),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }
}

/// Raises the soft limit of open files to the hard one, and returns it: a cold partition takes one
/// descriptor, a hot one three.
pub fn raise_files_max() -> Result<u64> {
    let (_, hard) = limit(libc::RLIMIT_NOFILE)?;
    let hard = hard.unwrap_or(libc::RLIM_INFINITY);
    let wanted = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: the pointer is to an rlimit of ours. Raising soft to hard needs no privilege.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::system("raise", "the limit of open files", error));
    }
    Ok(hard)
}

/// Fails unless two names of `dir` can be exchanged in one step, which every landing needs.
pub fn require_exchange(dir: &Path) -> Result<()> {
    let names = ["a", "b"].map(|end| dir.join(format!(".fs-probe-{}-{end}", std::process::id())));
    let tried = try_exchange(&names[0], &names[1]);
    for name in &names {
        // Nothing depends on it: a leftover probe file is empty and never looked at.
        let _ = remove_file(name);
    }
    match tried.as_ref().map_err(std::io::Error::raw_os_error) {
        Err(Some(libc::EINVAL | libc::ENOSYS)) => {
            let reason = "its file system can't exchange two names (ext4, xfs, btrfs, tmpfs can)";
            Err(Error::new(
                Kind::Refused,
                "use",
                dir.display().to_string(),
                reason,
            ))
        }
        _ => tried.map_err(|error| Error::at("exchange two names in", dir, error)),
    }
}

fn try_exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    File::create(one)?;
    File::create(other)?;
    let [from, to] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (from, to) = (from?, to?);
    let flags = libc::RENAME_EXCHANGE;
    // SAFETY: both pointers are to strings of ours that end in a zero byte.
    let renamed = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            flags,
        )
    };
    if renamed == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

fn kernel() -> Result<Kernel> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    let release = std::fs::read_to_string(path).map_err(|e| Error::at("read", path, e))?;
    let unknown = || {
        Error::new(
            Kind::Refused,
            "read",
            "the kernel's version",
            release.clone(),
        )
    };
    Kernel::parse(&release).ok_or_else(unknown)
}

fn require_kernel(found: Kernel) -> Result<()> {
    if found >= KERNEL_MIN {
        return Ok(());
    }
    let reason = format!("version {KERNEL_MIN} or newer is needed");
    Err(Error::new(
        Kind::Refused,
        "run on",
        format!("kernel {found}"),
        reason,
    ))
}

fn operations() -> Result<io_uring::Probe> {
    let ring = IoUring::new(4).map_err(|error| {
        let reason = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "it is forbidden: sysctl kernel.io_uring_disabled must be 0, and a container's \
                 seccomp profile must allow io_uring_setup, io_uring_enter and io_uring_register"
                    .to_owned()
            }
            Some(libc::ENOSYS) => "this kernel was built without it".to_owned(),
            Some(libc::ENOMEM) => "no memory may be locked: raise LimitMEMLOCK".to_owned(),
            _ => error.to_string(),
        };
        Error::new(Kind::Refused, "use", "io_uring", reason)
    })?;
    let mut operations = io_uring::Probe::new();
    let registered = ring.submitter().register_probe(&mut operations);
    registered.map_err(|error| Error::system("probe", "io_uring", error))?;
    Ok(operations)
}

/// Locks of an open file, which another part of the process can't drop by closing the file.
fn require_ofd_locks() -> Result<()> {
    // SAFETY: a plain system call with a string that ends in a zero byte.
    let fd = unsafe { libc::memfd_create(c"probe".as_ptr(), libc::MFD_CLOEXEC) };
    let failed = |_| {
        let error = std::io::Error::last_os_error();
        Error::new(Kind::Refused, "use", "OFD locks", error.to_string())
    };
    if fd < 0 {
        return Err(failed(()));
    }
    // SAFETY: the descriptor is new and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: flock is plain data; all zeroes are a lock from 0 to the end, with l_pid 0 as
    // fcntl(2) asks for OFD locks.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: the pointer is to a flock of ours.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
        0 => Ok(()),
        _ => Err(failed(())),
    }
}

/// Soft and hard limit; `None` is no limit.
fn limit(resource: libc::__rlimit_resource_t) -> Result<(Option<u64>, Option<u64>)> {
    let mut found = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to an rlimit of ours.
    if unsafe { libc::getrlimit(resource, &mut found) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::system("read", "a resource limit", error));
    }
    let finite = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok((finite(found.rlim_cur), finite(found.rlim_max)))
}

fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> bit & 1 == 1)
}

/// Whether a thread may be SCHED_RR: tried on a thread of its own, because limits, capabilities
/// and the control group all have a say.
fn may_be_realtime() -> bool {
    let try_it = || {
        let wanted = libc::sched_param { sched_priority: 1 };
        let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
        // SAFETY: the pointer is to a sched_param of ours; 0 is the calling thread.
        unsafe { libc::sched_setscheduler(0, policy, &wanted) == 0 }
    };
    std::thread::spawn(try_it).join().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described_in_one_line() {
        let probe = Probe::run().unwrap();
        let line = probe.to_string();
        assert!(
            !line.contains('\n') && line.starts_with("kernel "),
            "{line}"
        );
        assert!(probe.cpus > 0 && probe.files_max > 0 && probe.kernel >= KERNEL_MIN);
    }

    #[test]
    fn a_kernel_below_the_minimum_is_refused_by_name() {
        let error = require_kernel(Kernel {
            major: 5,
            minor: 15,
        })
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert_eq!(
            error.to_string(),
            "run on kernel 5.15: version 6.1 or newer is needed"
        );
        assert!(require_kernel(KERNEL_MIN).is_ok());
    }

    #[test]
    fn kernel_releases_of_distributions_are_read() {
        for (release, major, minor) in [
            ("6.18.44-fc-v657\n", 6, 18),
            ("6.1.0-13-amd64", 6, 1),
            ("7.0-rc1", 7, 0),
        ] {
            assert_eq!(Kernel::parse(release), Some(Kernel { major, minor }));
        }
        assert_eq!(Kernel::parse("mine"), None);
    }

    #[test]
    fn a_directory_that_can_exchange_names_is_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        require_exchange(dir.path()).unwrap();
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let missing = dir.path().join("missing");
        assert_eq!(
            require_exchange(&missing).unwrap_err().kind(),
            Kind::Refused
        );
    }
}
