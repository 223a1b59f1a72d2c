//! A disk of a test's own: an ext4 file system in a sparse image, on a tmpfs that can be filled, so
//! that the disk itself fails with EIO. Needs root and loop devices.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether volumes can be made here; says why not.
pub fn can_be_made(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let tools = Path::new("/dev/loop-control").exists() && has("mkfs.ext4") && has("losetup");
    if !root || !tools {
        println!("skipped: {what} needs root, loop devices, losetup and mkfs.ext4");
    }
    root && tools
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("-V").output();
    found.is_ok()
}

/// A mounted volume over a directory; gone when dropped.
#[derive(Debug)]
pub struct Volume {
    over: PathBuf,
    /// The tmpfs that holds the image.
    store: PathBuf,
    device: String,
}

impl Volume {
    /// Covers `over` with an empty volume of `size` MiB that believes so, of which its store can
    /// hold `held` MiB. Files and directories of the top level are kept.
    pub fn over(over: &Path, size: u32, held: u32) -> Volume {
        let mut kept = Vec::new();
        for entry in fs::read_dir(over).expect("a directory") {
            let entry = entry.expect("an entry").path();
            let bytes = entry.is_file().then(|| fs::read(&entry).expect("a file"));
            kept.push((entry, bytes));
        }
        let store = over.with_extension("store");
        fs::create_dir(&store).expect("made");
        let options = format!("size={held}m");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs", text(&store)],
        );
        let image = store.join("image");
        let file = fs::File::create(&image).expect("made");
        file.set_len(u64::from(size) << 20).expect("sparse");
        drop(file);
        run(
            "mkfs.ext4",
            &["-q", "-E", "lazy_itable_init=1", text(&image)],
        );
        let device = run("losetup", &["--find", "--show", text(&image)]);
        let volume = Volume {
            over: over.to_owned(),
            store,
            device: device.trim().to_owned(),
        };
        volume.mount();
        for (entry, bytes) in kept {
            match bytes {
                Some(bytes) => fs::write(entry, bytes).expect("written again"),
                None => fs::create_dir(entry).expect("made again"),
            }
        }
        volume
    }

    fn mount(&self) {
        let over = text(&self.over);
        run("mount", &["-o", "errors=remount-ro", &self.device, over]);
    }

    /// Everything written so far is on the disk.
    pub fn sync(&self) {
        run("sync", &["--file-system", text(&self.over)]);
    }

    /// The kernel finds an error in the file system and makes it read-only at once, whoever writes.
    pub fn becomes_read_only(&self) {
        let name = self.device.trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        fs::write(trigger, "tests").expect("the file system is told of an error");
        let probe = fs::write(self.over.join("probe"), "x");
        let error = probe.expect_err("it is read-only");
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    /// From now on the disk fails to take what it has no block for yet: EIO.
    pub fn fails(&self) {
        let mut file = fs::File::create(self.store.join("filler")).expect("made");
        let mut chunk = vec![0xff; 1 << 20];
        while !chunk.is_empty() {
            if file.write_all(&chunk).is_err() {
                chunk.truncate(chunk.len() / 2);
            }
        }
    }

    /// The disk takes everything again; its file system is checked and mounted anew. Nobody may
    /// have a file of it open.
    pub fn repaired(&self) {
        let _ = fs::remove_file(self.store.join("filler"));
        // What a ring held of a killed process is let go a moment after the process is gone.
        crate::cluster::until("nobody uses the volume", || {
            let unmounted = Command::new("umount").arg(&self.over).output();
            unmounted.expect("it runs").status.success().then_some(())
        });
        let checked = Command::new("fsck.ext4")
            .args(["-f", "-y", &self.device])
            .output()
            .expect("it runs");
        // 1 and 2: errors were corrected.
        let code = checked.status.code().expect("it ends");
        assert!(code <= 2, "{}", String::from_utf8_lossy(&checked.stdout));
        self.mount();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a daemon of a test that failed may still be at it.
        for (program, arguments) in [
            ("umount", vec!["-l", text(&self.over)]),
            ("losetup", vec!["--detach", &self.device]),
            ("umount", vec!["-l", text(&self.store)]),
        ] {
            let _ = Command::new(program).args(arguments).output();
        }
        let _ = fs::remove_dir(&self.store);
        // A cluster that ended before could not remove what was mounted in it.
        let temporary = std::env::temp_dir();
        let mut above = self.over.ancestors();
        let root = above.find(|path| path.parent() == Some(&temporary));
        if let Some(root) = root.filter(|_| !std::thread::panicking()) {
            let _ = fs::remove_dir_all(root);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("plain text")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}
