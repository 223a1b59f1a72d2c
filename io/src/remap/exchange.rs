//! The exchange of a live path, the adoption of a plain file, and cleaning up after a crash.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wal::{Engine, PartitionName};

use super::{Generation, Remap, SIBLINGS, TEMP_PREFIX, Target, file_name, refused};
use crate::durable;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// What an exchange found at the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchanged {
    /// It already led there.
    Already,
    /// Nothing was there.
    Created,
    /// It led to an older generation.
    Replaced(Generation),
}

impl Remap {
    /// Makes `live/<name>` lead to `generation`, which must hold the file. May be repeated.
    /// Durable only after [`Remap::sync_dir`].
    pub fn exchange(&self, name: &PartitionName, generation: Generation) -> Result<Exchanged> {
        let target = self.path(generation, name);
        if !target.is_file() {
            return Err(refused(
                "point the live path at",
                &target,
                "there is no such file",
            ));
        }
        match self.target(name)? {
            Target::Generation(now) if now == generation => Ok(Exchanged::Already),
            Target::Generation(now) => {
                self.swap(name, generation, libc::RENAME_EXCHANGE)?;
                Ok(Exchanged::Replaced(now))
            }
            Target::Nothing => {
                self.swap(name, generation, libc::RENAME_NOREPLACE)?;
                Ok(Exchanged::Created)
            }
            Target::Plain => {
                let reason = "is a plain file, which would be lost; adopt it first";
                Err(refused("exchange", &self.live_path(name)?, reason))
            }
            Target::Foreign(what) => {
                let path = self.live_path(name)?;
                Err(refused(
                    "exchange",
                    &path,
                    format!("is {what}, which is not ours"),
                ))
            }
        }
    }

    /// Moves a plain file and its siblings into a fresh generation by hard links, so that open
    /// connections and new ones meet in the same inodes, then exchanges the path. The old names of
    /// the siblings stay. May be repeated: a path that leads to a generation is left alone.
    ///
    /// A SQLite database is refused without -wal and -shm: a connection that opens between the
    /// links and the exchange would make its own under the old name. Attach to the database first;
    /// attaching makes them.
    pub fn adopt_plain(&mut self, name: &PartitionName, engine: Engine) -> Result<Generation> {
        let live = self.live_path(name)?;
        match self.target(name)? {
            Target::Generation(generation) => return Ok(generation),
            Target::Plain => {}
            Target::Nothing => return Err(refused("adopt", &live, "there is no such file")),
            Target::Foreign(what) => return Err(refused("adopt", &live, format!("is {what}"))),
        }
        let siblings = match engine {
            Engine::Sqlite => &SIBLINGS[..],
            // What lies beside a log is made when it is needed.
            Engine::Native => &[],
        };
        let missing = |end: &&&str| !with_suffix(&live, end).is_file();
        if let Some(missing) = siblings.iter().find(missing) {
            return Err(refused(
                "adopt",
                &live,
                format!("there is no {missing} beside it"),
            ));
        }
        let generation = self.allocate(name)?;
        let target = self.path(generation, name);
        for end in [""].iter().chain(siblings) {
            let (from, to) = (with_suffix(&live, end), with_suffix(&target, end));
            std::fs::hard_link(&from, &to).map_err(|e| Error::at("link", &from, e))?;
        }
        durable::sync_dir(&self.dir(generation))?;
        failpoint::pass(Step::RetireAdopted)?;
        self.swap(name, generation, libc::RENAME_EXCHANGE)?;
        Ok(generation)
    }

    /// Removes what a crash left in the live path's directory: temporary links, and the second
    /// name of an adopted file. A temporary name that is a file's only one is kept and reported.
    pub fn clean(&self, name: &PartitionName) -> Result<()> {
        let temp = self.temp_path(&self.live_path(name)?, name);
        drop_temp(&temp)
    }

    /// [`Remap::clean`] for every temporary name directly in the live directory.
    pub fn clean_all(&self) -> Result<u32> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.live).map_err(|e| Error::at("list", &self.live, e))? {
            let entry = entry.map_err(|e| Error::at("list", &self.live, e))?;
            if entry
                .file_name()
                .as_bytes()
                .starts_with(TEMP_PREFIX.as_bytes())
            {
                drop_temp(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes the link that [`Remap::exchange`] will put in place, so that in a pause it need not
    /// wait for the file system's journal. One that is not used is replaced or cleaned away later.
    pub fn prepare(&self, name: &PartitionName, generation: Generation) -> Result<()> {
        self.link(&self.live_path(name)?, name, generation)
            .map(drop)
    }

    /// The temporary link to a generation; made unless it is there.
    fn link(&self, live: &Path, name: &PartitionName, generation: Generation) -> Result<PathBuf> {
        let temp = self.temp_path(live, name);
        let text = self.link_text(live, generation, name);
        if std::fs::read_link(&temp).is_ok_and(|found| found == text) {
            return Ok(temp);
        }
        drop_temp(&temp)?;
        std::os::unix::fs::symlink(&text, &temp).map_err(|e| Error::at("symlink", &temp, e))?;
        Ok(temp)
    }

    /// One renameat2(2) between the temporary link and the live path.
    fn swap(&self, name: &PartitionName, generation: Generation, how: u32) -> Result<()> {
        let live = self.live_path(name)?;
        let temp = self.link(&live, name, generation)?;
        failpoint::pass(Step::RemapLinked)?;
        if let Err(error) = rename(&temp, &live, how) {
            drop_temp(&temp)?;
            return Err(error);
        }
        failpoint::reach(Step::RemapExchanged);
        if how == libc::RENAME_EXCHANGE {
            drop_temp(&temp)
        } else {
            Ok(())
        }
    }

    fn temp_path(&self, live: &Path, name: &PartitionName) -> PathBuf {
        durable::parent(live).join(format!("{TEMP_PREFIX}{}", file_name(name)))
    }
}

fn rename(from: &Path, to: &Path, how: u32) -> Result<()> {
    let (c_from, c_to) = (c_path(from)?, c_path(to)?);
    // SAFETY: both strings are NUL-terminated and outlive the call; renameat2(2) keeps neither.
    let result = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            c_from.as_ptr(),
            libc::AT_FDCWD,
            c_to.as_ptr(),
            how,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    let kind = match error.raw_os_error() {
        // Someone made or removed the path between the look and the rename.
        Some(libc::EEXIST | libc::ENOENT) => Kind::Retry,
        Some(libc::EINVAL | libc::EXDEV) => Kind::Refused,
        _ => return Err(Error::at("renameat2", to, error)),
    };
    Err(Error::new(
        kind,
        "renameat2",
        to.display().to_string(),
        error.to_string(),
    ))
}

/// Removes a temporary name, unless it is the last name of a file with content.
fn drop_temp(temp: &Path) -> Result<()> {
    let meta = match std::fs::symlink_metadata(temp) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::at("stat", temp, e)),
    };
    if !meta.is_symlink() && meta.nlink() < 2 {
        return Err(refused(
            "remove",
            temp,
            "it is the only name of a file; move it by hand",
        ));
    }
    std::fs::remove_file(temp).map_err(|e| Error::at("remove", temp, e))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| refused("use", path, "it holds a NUL"))
}

/// `path` with `end` appended to its last part.
fn with_suffix(path: &Path, end: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(end);
    PathBuf::from(text)
}
