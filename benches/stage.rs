//! Where a bench plays: a directory of its own on a real file system, and clusters in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Options};
use serde_json::Value;

/// The binary whose daemons a bench starts.
const BINARY: &str = env!("CARGO_BIN_EXE_foreshadow");
/// EXT4_SUPER_MAGIC and TMPFS_MAGIC of statfs(2).
const EXT4: i64 = 0xef53;
const TMPFS: i64 = 0x0102_1994;

/// A directory that is removed at the end; below FORESHADOW_BENCH_DIR, or else where temporary
/// files go.
pub struct Stage(PathBuf);

impl Stage {
    pub fn new(name: &str) -> Stage {
        let parent = std::env::var_os("FORESHADOW_BENCH_DIR").map(PathBuf::from);
        let parent = parent.unwrap_or_else(std::env::temp_dir);
        let path = parent.join(format!("fs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for the bench");
        Stage(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file system's name: figures with fsync mean nothing on tmpfs.
    pub fn filesystem(&self) -> String {
        let kind = rustix::fs::statfs(&self.0).map_or(0, |stat| stat.f_type);
        match kind {
            EXT4 => "ext4".to_owned(),
            TMPFS => "tmpfs".to_owned(),
            other => format!("file system {other:x}"),
        }
    }

    /// Options of a cluster in a directory `name` here.
    pub fn options(&self, name: &str, nodes: usize) -> Options {
        Options {
            binary: BINARY.into(),
            root: Some(self.0.join(name)),
            nodes,
            ..Options::default()
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What can't be removed is only litter in a temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asks `look` every 5 ms until it finds something.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the owner `node` calls a shadow of `partition` ready.
pub fn has_ready_shadow(cluster: &Cluster, node: &str, partition: &str) -> bool {
    let asked = cluster
        .node(node)
        .and_then(|node| node.get(&format!("/v1/partitions?name={partition}")));
    let Ok(Value::Array(rows)) = asked else {
        return false;
    };
    let shadows = rows.iter().filter(|row| row["role"] == "owner");
    let mut shadows = shadows.flat_map(|row| row["shadows"].as_array().into_iter().flatten());
    shadows.any(|shadow| shadow["ready"] == true)
}
