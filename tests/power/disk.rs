//! Loop devices, the log target, file systems and mounts, made by the system's own tools.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::scope;

use crate::ioctls;

/// Bytes that a log may grow to; the file is sparse.
const LOG_LEN: u64 = 3 << 30;

/// How a node treats its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Care {
    /// As usual: what is not synced is lost.
    Usual,
    /// Every write is durable before it returns, so that a cut finds all this node ever did: it
    /// did not lose its power.
    KeepsAll,
}

/// A file system on a logged device.
#[derive(Debug)]
pub struct Logged {
    pub device: String,
    pub dir: PathBuf,
    pub log: PathBuf,
    loops: Vec<String>,
}

/// Runs a tool; what it said is the error.
pub fn tool(name: &str, words: &[&str]) -> Result<String, String> {
    let ran = Command::new(name)
        .args(words)
        .env("DM_DISABLE_UDEV", "1")
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ran.status.success() {
        return Ok(text(&ran.stdout));
    }
    Err(format!(
        "{name} {words:?}: {} {}",
        ran.status,
        text(&ran.stderr)
    ))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of ours are text")
}

/// An empty file system in a file of its own.
pub fn format(image: &Path, kind: &str, megabytes: u64) -> Result<(), String> {
    let file = File::create(image).map_err(|error| error.to_string())?;
    file.set_len(megabytes << 20)
        .map_err(|error| error.to_string())?;
    let words: &[&str] = match kind {
        "ext4" => &[
            "-q",
            "-F",
            "-E",
            "nodiscard,lazy_itable_init=0",
            text(image),
        ],
        _ => &["-q", "-K", text(image)],
    };
    tool(&format!("mkfs.{kind}"), words).map(|_| ())
}

/// A mounted image. Dropped it is thrown away: what is not written yet never is.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn new(image: &Path, dir: &Path) -> Result<Mounted, String> {
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        // XFS refuses a second copy of one disk, as other moments are, unless told.
        let xfs = File::open(image).and_then(|file| {
            let mut magic = [0; 4];
            file.read_exact_at(&mut magic, 0)
                .map(|()| magic == *b"XFSB")
        });
        let xfs = xfs.map_err(|error| error.to_string())?;
        let how = if xfs { "loop,nouuid" } else { "loop" };
        tool("mount", &["-o", how, text(image), text(dir)])?;
        Ok(Mounted(dir.to_owned()))
    }

    /// Unmounts it with all that was written.
    pub fn end(self) -> Result<(), String> {
        let ended = tool("umount", &[text(&self.0)]);
        std::mem::forget(self);
        ended.map(|_| ())
    }

    /// Unmounts it; the image is of no use any more.
    pub fn throw_away(self) -> Result<(), String> {
        let ended = ioctls::shut_down(&self.0)
            .map_err(|error| format!("{}: {error}", self.0.display()))
            .and_then(|()| tool("umount", &[text(&self.0)]));
        std::mem::forget(self);
        ended.map(|_| ())
    }
}

/// Mounts each image below `root` by the name of its disk, all at once.
pub fn mount_all(disks: &[&str], images: &[String], root: &Path) -> Result<Vec<Mounted>, String> {
    scope(|threads| {
        let mounts = disks.iter().zip(images).map(|(disk, image)| {
            let dir = root.join(disk);
            threads.spawn(move || {
                let mounted = Mounted::new(Path::new(image), &dir);
                mounted.map_err(|error| format!("{disk} can't be mounted: {error}"))
            })
        });
        let mounts: Vec<_> = mounts.collect();
        let joined = mounts
            .into_iter()
            .map(|one| one.join().expect("no mount panics"));
        joined.collect()
    })
}

/// Throws all of them away at once.
pub fn throw_away(mounted: Vec<Mounted>) -> Result<(), String> {
    scope(|threads| {
        let ends = mounted
            .into_iter()
            .map(|one| threads.spawn(|| one.throw_away()));
        let ends: Vec<_> = ends.collect();
        let mut joined = ends
            .into_iter()
            .map(|one| one.join().expect("no end panics"));
        joined.try_for_each(|ended| ended)
    })
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Something failed already; lazily, so that the next moment can be mounted all the same.
        let _ = tool("umount", &["-l", text(&self.0)]);
    }
}

impl Logged {
    /// Mounts `image` at `dir` through the log target `name`.
    pub fn mount(name: &str, image: &Path, dir: &Path, care: Care) -> Result<Logged, String> {
        let log = image.with_extension("log");
        let file = File::create(&log).map_err(|error| error.to_string())?;
        file.set_len(LOG_LEN).map_err(|error| error.to_string())?;
        let data_loop = tool("losetup", &["-f", "--show", text(image)])?;
        let log_loop = tool("losetup", &["-f", "--show", text(&log)])?;
        let sectors = fs::metadata(image)
            .map_err(|error| error.to_string())?
            .len()
            / 512;
        let table = format!("0 {sectors} log-writes {data_loop} {log_loop}");
        tool("dmsetup", &["create", name, "--table", &table])?;
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let how = match care {
            Care::Usual => "rw",
            Care::KeepsAll => "rw,sync,dirsync",
        };
        tool(
            "mount",
            &["-o", how, &format!("/dev/mapper/{name}"), text(dir)],
        )?;
        Ok(Logged {
            device: name.to_owned(),
            dir: dir.to_owned(),
            log,
            loops: vec![data_loop, log_loop],
        })
    }

    /// Takes all down; the log is whole when this returns. The data is of no use any more.
    pub fn end(self) -> Result<PathBuf, String> {
        tool("umount", &[text(&self.dir)])?;
        tool("dmsetup", &["remove", &self.device])?;
        for device in &self.loops {
            tool("losetup", &["-d", device])?;
        }
        Ok(self.log)
    }
}
