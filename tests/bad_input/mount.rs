//! Small file systems in memory, over a directory of a cluster, for as long as a test needs them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;

/// A mounted file system; gone when dropped.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
}

impl Mount {
    /// Covers `path` with an empty file system of so many MiB, keeping the files of its top level.
    pub fn over(path: &Path, mebibytes: u32) -> Mount {
        let mut kept = Vec::new();
        for entry in fs::read_dir(path).expect("a directory") {
            let entry = entry.expect("an entry").path();
            let bytes = entry.is_file().then(|| fs::read(&entry).expect("a file"));
            kept.push((entry, bytes));
        }
        let options = format!("size={mebibytes}m,mode=755");
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path);
        run(&mut command).exits(0);
        let mount = Mount {
            path: path.to_owned(),
        };
        for (entry, bytes) in kept {
            match bytes {
                Some(bytes) => fs::write(entry, bytes).expect("written again"),
                None => fs::create_dir(entry).expect("made again"),
            }
        }
        mount
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.path.join("filler")).expect("a file");
        let mut chunk = vec![0xff; 1 << 20];
        while !chunk.is_empty() {
            if let Err(error) = file.write_all(&chunk) {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                chunk.truncate(chunk.len() / 2);
            }
        }
    }

    /// Gives it back.
    pub fn clear(&self) {
        fs::remove_file(self.path.join("filler")).expect("it was filled");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon of a test that failed may still be at it.
        let mut command = Command::new("umount");
        run(command.arg("-l").arg(&self.path));
        // A cluster that ended before could not remove what was mounted in it.
        let temporary = std::env::temp_dir();
        let mut above = self.path.ancestors();
        let root = above.find(|path| path.parent() == Some(&temporary));
        if let Some(root) = root.filter(|_| !std::thread::panicking()) {
            let _ = fs::remove_dir_all(root);
        }
    }
}
