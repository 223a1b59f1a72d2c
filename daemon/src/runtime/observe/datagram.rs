//! A Unix datagram socket that takes events: one or more lines in each datagram.
//!
//! A full queue (net.unix.max_dgram_qlen) holds senders up, or tells them at once if they don't
//! want to wait; the daemon is not asked.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::super::Error;
use super::source::{LINE_LEN_MAX, Source};
use crate::config::Format;
use crate::observe::Observatory;

/// Datagrams read before the other sources have their turn.
const TURN: usize = 1024;

/// The socket; its path is removed when it is dropped.
#[derive(Debug)]
pub struct Datagrams {
    path: PathBuf,
    socket: UnixDatagram,
    pub source: Source,
    buffer: Vec<u8>,
}

impl Datagrams {
    /// Takes the path: what a dead daemon left there is removed, what is alive is not.
    pub fn bind(path: &Path, group: Option<u32>, format: Format) -> Result<Datagrams, Error> {
        let failed = |what| {
            move |source| Error::System {
                what,
                path: path.display().to_string(),
                source,
            }
        };
        remove_stale(path).map_err(failed("take the socket"))?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed("make the directory of"))?;
        }
        let socket = UnixDatagram::bind(path).map_err(failed("receive on"))?;
        if let Some(group) = group {
            chown(path, None, Some(group)).map_err(failed("give to its group"))?;
        }
        let mode = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(path, mode).map_err(failed("set the mode of"))?;
        socket
            .set_nonblocking(true)
            .map_err(failed("make non-blocking"))?;
        Ok(Datagrams {
            path: path.to_owned(),
            socket,
            source: Source::new(path.display().to_string(), format),
            buffer: vec![0; LINE_LEN_MAX],
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes in what has come; `true` when there may be more.
    pub fn pump(&mut self, now: i64, to: &mut Observatory) -> bool {
        for _ in 0..TURN {
            match self.socket.recv(&mut self.buffer) {
                // What is longer was cut off, and its last line is malformed.
                Ok(len) => self.source.take_all(now, &self.buffer[..len], to),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    tracing::warn!(socket = %self.path.display(), %error, "not read");
                    return false;
                }
            }
        }
        true
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // It may have been removed by hand; what matters is that it is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(std::io::Error::other("it is there and is not a socket"));
        }
        Ok(_) => {}
    }
    match UnixDatagram::unbound()?.connect(path) {
        Ok(()) => Err(std::io::Error::other("another process receives on it")),
        Err(_) => std::fs::remove_file(path),
    }
}
