//! The Unix socket: taken without ever deleting what is not ours, given back at the end.

use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::access::Access;

/// Longest path of a socket: sun_path of unix(7), with its final NUL.
const PATH_LEN_MAX: usize = 107;

/// A socket that is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

/// Why a socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{} is there and is not a socket: it is left alone; set node.socket to another path",
        .0.display()
    )]
    NotASocket(PathBuf),
    #[error(
        "another daemon answers on {}: stop it, or set node.socket to another path",
        .0.display()
    )]
    Taken(PathBuf),
    #[error(
        "{} is longer than the {PATH_LEN_MAX} bytes that a socket's path may have",
        .0.display()
    )]
    TooLong(PathBuf),
    #[error("{}: {operation}: {source}", .path.display())]
    Storage {
        path: PathBuf,
        operation: &'static str,
        source: std::io::Error,
    },
}

impl Socket {
    /// Listens on `path`, for those whom `access` lets in.
    pub fn bind(path: &Path, access: Access) -> Result<Socket, Error> {
        let failed = |operation| {
            move |source| Error::Storage {
                path: path.to_owned(),
                operation,
                source,
            }
        };
        if path.as_os_str().len() > PATH_LEN_MAX {
            return Err(Error::TooLong(path.to_owned()));
        }
        remove_stale(path)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed("can't create its directory"))?;
        }
        let listener = UnixListener::bind(path).map_err(failed("can't listen"))?;
        let socket = Socket {
            path: path.to_owned(),
            listener: Some(listener),
        };
        if let Some(group) = access.group() {
            chown(path, None, Some(group)).map_err(failed("can't be given to its group"))?;
        }
        let mode = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(path, mode).map_err(failed("can't set its mode"))?;
        let listener = socket.listener.as_ref().expect("just bound");
        listener
            .set_nonblocking(true)
            .map_err(failed("can't be made non-blocking"))?;
        Ok(socket)
    }

    /// The listener; the path stays held by `self`.
    pub fn listener(&mut self) -> UnixListener {
        self.listener.take().expect("the listener is taken once")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have been removed by hand; what matters is that it is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what a dead daemon left; refuses what is alive or something else.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |operation| {
        move |source| Error::Storage {
            path: path.to_owned(),
            operation,
            source,
        }
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("can't be looked at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(Error::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::Taken(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("can't be removed"))
        }
        Err(error) => Err(failed("can't be tried")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        Socket::bind(path, Access::new(None))
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        std::fs::write(&path, "precious").expect("writes");
        assert!(refusal(&path).contains("is not a socket: it is left alone"));
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    }

    #[test]
    fn a_living_daemon_keeps_its_socket_and_a_dead_one_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/s");
        let first = Socket::bind(&path, Access::new(None)).expect("free");
        assert!(refusal(&path).starts_with("another daemon answers on"));
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(first);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).expect("a daemon that dies"));
        Socket::bind(&path, Access::new(None)).expect("the dead one's socket is replaced");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(PATH_LEN_MAX)));
        assert!(refusal(&path).contains("is longer than the 107 bytes"));
    }
}
