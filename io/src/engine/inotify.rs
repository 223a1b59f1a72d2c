//! The kernel's queue of what happened to files and directories (inotify(7)).

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Bytes of an event before its name: wd, mask, cookie, len.
const HEAD_LEN: usize = 16;

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    pub watch: i32,
    pub mask: u32,
    /// Of the file within a watched directory; empty otherwise.
    pub name: &'a [u8],
}

/// An inotify queue.
#[derive(Debug)]
pub(super) struct Inotify(OwnedFd);

impl Inotify {
    pub(super) fn new() -> Result<Inotify> {
        // SAFETY: creates a descriptor and touches no memory.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::system("make", "an inotify queue", error));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Inotify(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Readable when there are events.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Watches `path`. Fails when the user's share (fs.inotify.max_user_watches) is used up.
    pub(super) fn add(&self, path: &Path, mask: u32) -> Result<i32> {
        let name = CString::new(path.as_os_str().as_bytes());
        let name = name.map_err(|e| Error::at("watch", path, std::io::Error::other(e)))?;
        // SAFETY: the name is a C string that outlives the call.
        let watch = unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), name.as_ptr(), mask) };
        match watch {
            0.. => Ok(watch),
            _ => Err(Error::at("watch", path, std::io::Error::last_os_error())),
        }
    }

    pub(super) fn remove(&self, watch: i32) {
        // SAFETY: takes two numbers. It fails when the file is gone, and the watch with it.
        unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), watch) };
    }

    /// Hands over what happened since the last call, in order; never waits.
    pub(super) fn read(&self, mut sink: impl FnMut(Event<'_>)) -> Result<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            let fd = self.0.as_raw_fd();
            // SAFETY: the buffer is ours and as long as we say.
            let got = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
            if got <= 0 {
                let error = std::io::Error::last_os_error();
                return match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => Ok(()),
                    _ => Err(Error::system("read", "inotify", error)),
                };
            }
            decode(&buffer[..got as usize], &mut sink);
        }
    }
}

fn decode(mut bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) {
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LEN>() {
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let len = (u32::from_ne_bytes(word(12)) as usize).min(rest.len());
        // The name is filled up with zeros.
        let name = rest[..len].split(|byte| *byte == 0).next();
        sink(Event {
            watch: i32::from_ne_bytes(word(0)),
            mask: u32::from_ne_bytes(word(4)),
            name: name.unwrap_or_default(),
        });
        bytes = &rest[len..];
    }
}
