//! What an operation in flight owns: its descriptor and its bytes, so that neither can be freed or
//! reused before the kernel has answered.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use wal::frame::{Draft, Frame};

use super::bell::Bell;
use crate::buffer::Buffer;

/// An open file or socket that closes when its last user, operations in flight included, is done.
#[derive(Clone, Debug)]
pub struct Descriptor(Arc<OwnedFd>);

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Descriptor {
        Descriptor(Arc::new(fd))
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Bytes (or a descriptor) that travel with an operation and come back with its completion.
#[derive(Debug, Default)]
pub enum Payload {
    #[default]
    Nothing,
    Buffer(Buffer),
    /// A frame that is received into its own memory.
    Draft(Draft),
    Gather(Gather),
    /// What a zero-copy send had sent, and whether the kernel copied it after all.
    Released {
        gather: Gather,
        copied: bool,
    },
    /// A log whose bell was waited for.
    Bell(Bell),
    /// A connection that a listener accepted.
    Accepted(OwnedFd),
}

/// One piece of a gathered send.
#[derive(Debug)]
pub enum Chunk {
    Bytes(Vec<u8>),
    Frame(Frame),
}

impl Chunk {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Frame(frame) => frame.bytes(),
        }
    }
}

/// Pieces of memory sent as one run of bytes, without copying them together.
#[derive(Debug, Default)]
pub struct Gather {
    chunks: Vec<Chunk>,
    len: usize,
}

impl Gather {
    /// Most pieces in one gather, below the kernel's UIO_MAXIOV of 1024.
    pub const CHUNKS_MAX: usize = 256;

    /// Adds a piece at the end.
    pub fn push(&mut self, chunk: Chunk) {
        assert!(
            self.chunks.len() < Gather::CHUNKS_MAX,
            "a gather has too many pieces"
        );
        self.len += chunk.bytes().len();
        self.chunks.push(chunk);
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether another two pieces (a record's length and its bytes) fit.
    pub fn has_room(&self) -> bool {
        self.chunks.len() + 2 <= Gather::CHUNKS_MAX
    }

    /// The pieces after the first `from` bytes.
    pub(super) fn vectors(&self, mut from: usize) -> Vec<libc::iovec> {
        let mut vectors = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let bytes = chunk.bytes();
            let skipped = from.min(bytes.len());
            from -= skipped;
            if skipped < bytes.len() {
                let rest = &bytes[skipped..];
                let base = rest.as_ptr().cast_mut().cast();
                vectors.push(libc::iovec {
                    iov_base: base,
                    iov_len: rest.len(),
                });
            }
        }
        vectors
    }
}

/// A message header and the vectors it points at, kept in place while the kernel may read them.
pub(super) struct Message {
    header: libc::msghdr,
    _vectors: Vec<libc::iovec>,
}

impl Message {
    pub(super) fn new(gather: &Gather, from: usize) -> Box<Message> {
        let mut vectors = gather.vectors(from);
        // SAFETY: msghdr is plain data for which all zeroes mean "nothing" (sendmsg(2)).
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len() as _;
        Box::new(Message {
            header,
            _vectors: vectors,
        })
    }

    pub(super) fn header(&self) -> *const libc::msghdr {
        &self.header
    }
}

/// A socket address in the kernel's layout.
pub(super) struct Address {
    storage: libc::sockaddr_storage,
    pub(super) len: libc::socklen_t,
}

impl Address {
    pub(super) fn new(address: SocketAddr) -> Box<Address> {
        // SAFETY: sockaddr_storage is plain data; all zeroes are a valid (unspecified) value.
        let storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut boxed = Box::new(Address { storage, len: 0 });
        let place: *mut libc::sockaddr_storage = &mut boxed.storage;
        match address {
            SocketAddr::V4(v4) => {
                let wanted = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is larger than and aligned for every sockaddr_*.
                unsafe { place.cast::<libc::sockaddr_in>().write(wanted) };
                boxed.len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(v6) => {
                let wanted = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { place.cast::<libc::sockaddr_in6>().write(wanted) };
                boxed.len = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        boxed
    }

    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flatten(vectors: &[libc::iovec]) -> Vec<u8> {
        let slice = |v: &libc::iovec| {
            // SAFETY: the gather that the vectors came from is alive in the caller.
            unsafe { std::slice::from_raw_parts(v.iov_base.cast::<u8>(), v.iov_len) }.to_vec()
        };
        vectors.iter().flat_map(slice).collect()
    }

    #[test]
    fn a_gather_resumed_anywhere_gives_exactly_the_rest() {
        let mut gather = Gather::default();
        for piece in [&b"one"[..], b"", b"three", b"x"] {
            gather.push(Chunk::Bytes(piece.to_vec()));
        }
        let whole = b"onethreex";
        assert_eq!(gather.len(), whole.len());
        for from in 0..=whole.len() {
            assert_eq!(flatten(&gather.vectors(from)), &whole[from..]);
        }
    }
}
