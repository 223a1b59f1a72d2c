//! TCP sockets as links want them, and the listener.
//!
//! The listener is a plain one: glommio's sets SO_REUSEPORT, so that a second daemon on the same
//! port would start and take half of the connections.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use wal::{Span, Time};

use super::pace::Sample;
use crate::error::{Error, Result};
use crate::ring::{Completion, Descriptor, Payload, Ring, Token};
use crate::throttle::Rate;

/// Unsent bytes that the kernel may hold until the link's rate is known: what is in flight to the
/// peer does not count, so this bounds what stands before an urgent frame without bounding the
/// throughput of a long path.
pub const UNSENT_LEN: usize = 256 << 10;
/// A peer that acknowledges nothing for so long is gone.
const SILENCE_MAX: Span = Span::secs(10);
/// Idle time before the first keepalive probe, and between probes.
const KEEPALIVE: Span = Span::secs(5);
/// Wait after a failed accept (no descriptors left, most likely) before the next try.
const ACCEPT_PAUSE: Span = Span::millis(200);
/// How long an address may still be taken at the start, and the wait between looks.
const TAKEN_MAX: Duration = Duration::from_secs(2);
const TAKEN_WAIT: Duration = Duration::from_millis(5);

/// A socket that is about to be connected to `address`.
pub(super) fn unconnected(address: SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: a plain system call that returns a new descriptor or -1.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::system(
            "create a socket for",
            address.to_string(),
            error,
        ));
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets what every link wants of its socket.
pub(super) fn tune(socket: &OwnedFd, subject: &str) -> Result<()> {
    let seconds = |span: Span| (span.0 / 1_000_000_000) as libc::c_int;
    let options = [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            UNSENT_LEN as libc::c_int,
        ),
        (
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            seconds(SILENCE_MAX) * 1000,
        ),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(KEEPALIVE)),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(KEEPALIVE)),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 2),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    ];
    for (level, name, value) in options {
        let (pointer, len) = ((&raw const value).cast(), size_of::<libc::c_int>() as u32);
        // SAFETY: the pointer and length describe `value`, an int as tcp(7) and socket(7) say.
        if unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, len) } != 0 {
            return Err(Error::system(
                "tune",
                subject,
                std::io::Error::last_os_error(),
            ));
        }
    }
    Ok(())
}

/// Sets how many unsent bytes the kernel may hold.
pub(super) fn hold_unsent(socket: &Descriptor, len: usize) {
    set_len(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, len);
}

/// Sets how many bytes make the socket readable. The end of the stream, an error and a window that
/// is closed do so, too (`tcp_epollin_ready`): nobody waits for bytes that have no room.
pub(super) fn set_low_water(socket: &Descriptor, len: usize) {
    set_len(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, len);
}

/// Bytes that the kernel's receive buffer may take now; it grows with what the link carries in a
/// round trip. 0 of a connection that is gone.
pub(super) fn receive_room(socket: &Descriptor) -> usize {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let (fd, pointer) = (socket.as_raw_fd(), (&raw mut value).cast());
    let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
    // SAFETY: the pointer and length describe `value`, an int as socket(7) says.
    unsafe { libc::getsockopt(fd, level, name, pointer, &raw mut len) };
    usize::try_from(value).unwrap_or(0)
}

fn set_len(socket: &Descriptor, level: libc::c_int, name: libc::c_int, len: usize) {
    let value = len as libc::c_int;
    let (pointer, len) = ((&raw const value).cast(), size_of::<libc::c_int>() as u32);
    // SAFETY: the pointer and length describe `value`, an int as tcp(7) and socket(7) say. Both
    // options are known to every kernel that has rings, so they can be set.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, len) };
}

/// What the kernel knows of a connection's rate and round trip; nothing of one that is gone.
pub(super) fn sample(socket: &Descriptor) -> Sample {
    // SAFETY: tcp_info is plain data; all zeroes are "nothing known", which an older kernel leaves
    // in the fields that it does not fill in.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (fd, pointer) = (socket.as_raw_fd(), (&raw mut info).cast());
    // SAFETY: the pointer and length describe `info`, which tcp(7) says TCP_INFO fills in.
    unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &raw mut len) };
    Sample {
        rate: Rate(info.tcpi_delivery_rate),
        round_trip: Span::micros(u64::from(info.tcpi_min_rtt)),
    }
}

/// Which direction to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Sending,
    Both,
}

/// Ends one or both directions; on a socket that is not connected any more it does nothing.
pub(super) fn shutdown(socket: &Descriptor, end: End) {
    let how = if end == End::Sending {
        libc::SHUT_WR
    } else {
        libc::SHUT_RDWR
    };
    // SAFETY: a plain system call on a descriptor that `socket` keeps open. Its only failure here
    // is ENOTCONN, which is the state asked for.
    unsafe { libc::shutdown(socket.as_raw_fd(), how) };
}

/// Listens on `address`, soon: what a ring held of a process that was killed is closed by the
/// kernel some milliseconds after the process is gone, so the next start may come too early.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let until = Instant::now() + TAKEN_MAX;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(TAKEN_WAIT);
            }
            other => return other,
        }
    }
}

/// Accepts connections of peers.
#[derive(Debug)]
pub struct Listener {
    token: Token,
    socket: Descriptor,
    address: SocketAddr,
    armed: bool,
    again: Option<Time>,
}

impl Listener {
    /// Listens on `address`; fails when another process does. `owner` marks its completions.
    /// May block for up to [`TAKEN_MAX`].
    pub fn bind(owner: u64, address: SocketAddr) -> Result<Listener> {
        let failed = |error| Error::system("listen on", address.to_string(), error);
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (token, socket) = (
            Token::new(owner, 0),
            Descriptor::from(OwnedFd::from(listener)),
        );
        Ok(Listener {
            token,
            socket,
            address,
            armed: false,
            again: None,
        })
    }

    /// The address, with the port that the system chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for connections, unless that is done or must wait.
    pub fn pump(&mut self, ring: &mut Ring, now: Time) {
        if !self.armed && self.again.is_none_or(|again| again <= now) {
            ring.accept_multishot(self.token, &self.socket);
            (self.armed, self.again) = (true, None);
        }
    }

    /// When `pump` should be called again at the latest.
    pub fn deadline(&self) -> Option<Time> {
        self.again
    }

    /// A connection, and who it is from; it may be given to another thread.
    pub fn on_completion(
        &mut self,
        completion: Completion,
        now: Time,
    ) -> Result<Option<(OwnedFd, SocketAddr)>> {
        self.armed = completion.more;
        match (completion.result, completion.payload) {
            (Ok(_), Payload::Accepted(socket)) => {
                let stream = TcpStream::from(socket);
                // A peer that is gone again has no address: nothing is accepted then.
                let address = stream.peer_addr().ok();
                Ok(address.map(|address| (OwnedFd::from(stream), address)))
            }
            (Ok(_), _) => Ok(None),
            (Err(error), _) => {
                self.again = Some(now + ACCEPT_PAUSE);
                Err(Error::system("accept on", self.address.to_string(), error))
            }
        }
    }

    /// Stops listening: the socket closes when the ring has answered.
    pub fn close(self, ring: &mut Ring) {
        ring.cancel(self.token);
        shutdown(&self.socket, End::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_let_go_soon_is_waited_for() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = first.local_addr().expect("it has one");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                drop(first);
            });
            let second = Listener::bind(1, address).expect("a moment later it is free");
            assert_eq!(second.address(), address);
        });
    }

    #[test]
    fn an_address_that_stays_taken_is_an_error() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = first.local_addr().expect("it has one");
        assert!(Listener::bind(1, address).is_err());
    }
}
