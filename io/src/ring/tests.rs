//! The ring against real sockets and files, each test bounded in time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use wal::frame::{Draft, Frame, FrameKind, Header};
use wal::{Epoch, PartitionId};

use super::*;

const WAIT: Duration = Duration::from_secs(5);

fn pair() -> (UnixStream, Descriptor) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(WAIT)).unwrap();
    ours.set_write_timeout(Some(WAIT)).unwrap();
    (ours, Descriptor::from(OwnedFd::from(theirs)))
}

/// The next completion, or a failed test.
fn next(ring: &mut Ring) -> Completion {
    let started = Instant::now();
    while started.elapsed() < WAIT {
        if let Some(completion) = ring.completion() {
            return completion;
        }
        ring.submit_and_wait(Some(Duration::from_millis(100)))
            .unwrap();
    }
    panic!("no completion within {WAIT:?}: {ring:?}");
}

fn monotonic() -> Time {
    crate::reactor::now()
}

fn gather(pieces: &[&[u8]]) -> Gather {
    let mut gather = Gather::default();
    pieces
        .iter()
        .for_each(|piece| gather.push(Chunk::Bytes(piece.to_vec())));
    gather
}

#[test]
fn a_receive_completes_with_what_was_sent() {
    let mut ring = Ring::new().unwrap();
    let (mut ours, theirs) = pair();
    ring.recv(Token::new(7, 1), &theirs, Buffer::zeroed(4096), 100);
    ring.submit().unwrap();
    ours.write_all(b"hello").unwrap();
    let completion = next(&mut ring);
    assert_eq!((completion.token.owner(), completion.token.op()), (7, 1));
    assert_eq!(completion.result.unwrap(), 5);
    let Payload::Buffer(buffer) = completion.payload else {
        panic!("the buffer is lost")
    };
    assert_eq!(&buffer[100..105], b"hello");
}

#[test]
fn a_gather_larger_than_the_socket_buffer_is_sent_whole() {
    let mut ring = Ring::new().unwrap();
    let (mut ours, theirs) = pair();
    let large: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
    ring.send(Token(1), &theirs, gather(&[b"head", &large, b"tail"]), 2);
    ring.submit().unwrap();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; large.len() + 6];
        ours.read_exact(&mut got).unwrap();
        assert!(got.starts_with(b"ad") && got.ends_with(b"tail"));
        assert_eq!(&got[2..got.len() - 4], large);
    });
    assert_eq!(next(&mut ring).result.unwrap(), 3_000_006);
    reader.join().unwrap();
}

#[test]
fn a_send_without_a_copy_keeps_its_bytes_until_the_kernel_is_done_with_them() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let near = Descriptor::from(OwnedFd::from(near));
    let mut ring = Ring::new().unwrap();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    let send = gather(&[b"head", &bytes]);
    ring.send_zero_copy(Token(1), &near, send);
    ring.submit().unwrap();
    let queued = next(&mut ring);
    assert_eq!(queued.result.unwrap(), 200_004);
    assert!(queued.more && matches!(queued.payload, Payload::Nothing));
    assert_eq!(ring.in_flight(), 1, "the bytes are still owned by the ring");
    let mut got = vec![0; 200_004];
    far.read_exact(&mut got).unwrap();
    assert!(got.starts_with(b"head") && got[4..] == bytes);
    let Payload::Released { gather, copied } = next(&mut ring).payload else {
        panic!("the bytes are lost")
    };
    assert!(copied, "the loopback always copies");
    assert_eq!((gather.len(), ring.in_flight()), (200_004, 0));
}

/// The frame that was received into, with what came.
fn received(ring: &mut Ring) -> Draft {
    let completion = next(ring);
    let Payload::Draft(mut draft) = completion.payload else {
        panic!("the frame is lost")
    };
    draft.advance(completion.result.unwrap());
    draft
}

#[test]
fn the_rest_of_a_frame_is_received_to_its_last_byte_and_no_further() {
    let mut ring = Ring::new().unwrap();
    let (mut ours, theirs) = pair();
    let header = Header::plain(FrameKind::Note, PartitionId(1), Epoch(1));
    let frame = Frame::seal(header, &[3; 300]);
    let (start, rest) = frame.bytes().split_at(100);
    ring.recv_rest(Token(1), &theirs, Draft::new(start).unwrap());
    ring.submit().unwrap();
    ours.write_all(&rest[..50]).unwrap();
    let mut draft = received(&mut ring);
    assert_eq!(draft.missing(), rest.len() - 50);
    ours.write_all(&rest[50..]).unwrap();
    ours.write_all(b"and what follows").unwrap();
    ring.recv_rest(Token(1), &theirs, draft);
    draft = received(&mut ring);
    assert!(draft.finish().unwrap() == frame);
    ring.recv(Token(2), &theirs, Buffer::zeroed(4096), 0);
    assert_eq!(next(&mut ring).result.unwrap(), b"and what follows".len());
}

#[test]
fn a_read_at_gives_the_bytes_at_the_offset_and_a_short_one_at_the_end() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    let file = Descriptor::from(OwnedFd::from(file));
    let mut ring = Ring::new().unwrap();
    ring.read_at(Token(1), &file, Buffer::zeroed(1), 4, 2);
    let completion = next(&mut ring);
    assert_eq!(completion.result.unwrap(), 4);
    let Payload::Buffer(buffer) = completion.payload else {
        panic!("the buffer is lost")
    };
    assert_eq!(&buffer[..4], b"2345");
    ring.read_at(Token(2), &file, buffer, 100, 8);
    assert_eq!(next(&mut ring).result.unwrap(), 2);
}

#[test]
fn a_batch_read_fills_every_slice_or_says_where_the_file_ends() {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i / 7) as u8).collect();
    file.write_all(&bytes).unwrap();
    let mut ring = Ring::new().unwrap();
    // Another operation's answer must survive a batch that comes in between.
    ring.timeout(Token(9), monotonic());
    for dropped in [false, true] {
        if dropped {
            file.sync_all().unwrap();
            // SAFETY: a plain system call on a descriptor that is open.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
        let mut places = vec![vec![0; 10_000]; 100];
        let reads = places.iter_mut().enumerate();
        let mut reads: Vec<_> = reads
            .map(|(i, into)| (i as u64 * 10_000, into.as_mut_slice()))
            .collect();
        ring.read_now(file.as_fd(), &mut reads).unwrap();
        assert_eq!(places.concat(), bytes);
    }
    let mut into = [0; 20];
    let error = ring
        .read_now(file.as_fd(), &mut [(999_990, &mut into)])
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Retry);
    assert!(error.to_string().contains("1000000"), "{error}");
    assert_eq!(next(&mut ring).token, Token(9));
}

#[test]
fn timeouts_complete_in_order_and_about_on_time() {
    let mut ring = Ring::new().unwrap();
    let start = monotonic();
    ring.timeout(Token(2), start + wal::Span::millis(20));
    ring.timeout(Token(1), start + wal::Span::millis(5));
    assert_eq!(next(&mut ring).token, Token(1));
    let late = monotonic() - (start + wal::Span::millis(5));
    let second = next(&mut ring);
    assert_eq!((second.token, second.result.unwrap()), (Token(2), 0));
    // The order of magnitude only: neighbours on the machine may hold the processor.
    assert!(late < wal::Span::millis(200), "{late:?}");
    assert!(monotonic() - start >= wal::Span::millis(20));
}

#[test]
fn a_cancelled_receive_gives_its_buffer_back() {
    let mut ring = Ring::new().unwrap();
    let (_ours, theirs) = pair();
    ring.recv(Token(5), &theirs, Buffer::zeroed(4096), 0);
    ring.submit().unwrap();
    ring.cancel(Token(5));
    let completion = next(&mut ring);
    assert_eq!(
        completion.result.unwrap_err().raw_os_error(),
        Some(libc::ECANCELED)
    );
    assert!(matches!(completion.payload, Payload::Buffer(_)));
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_multishot_poll_rings_until_cancelled() {
    let mut ring = Ring::new().unwrap();
    let (mut ours, theirs) = pair();
    ring.poll_multishot(Token(3), &theirs, libc::POLLIN);
    ring.submit().unwrap();
    for _ in 0..3 {
        ours.write_all(b"x").unwrap();
        let completion = next(&mut ring);
        assert!(completion.more);
        assert_ne!(completion.result.unwrap() as i16 & libc::POLLIN, 0);
    }
    ring.cancel(Token(3));
    let last = next(&mut ring);
    assert!(!last.more && last.result.is_err());
}

#[test]
fn a_descriptor_closes_only_after_its_operation_ended() {
    let mut ring = Ring::new().unwrap();
    let (mut ours, theirs) = pair();
    ring.recv(Token(1), &theirs, Buffer::zeroed(4096), 0);
    drop(theirs);
    ring.submit().unwrap();
    ours.write_all(b"still open").unwrap();
    assert_eq!(next(&mut ring).result.unwrap(), 10);
    let mut byte = [0];
    assert_eq!(ours.read(&mut byte).unwrap(), 0, "closed after the answer");
}

#[test]
fn more_operations_than_the_queue_holds_all_complete() {
    let mut ring = Ring::new().unwrap();
    let start = monotonic();
    for token in 0..5000 {
        ring.timeout(Token(token), start);
    }
    let mut seen = vec![false; 5000];
    for _ in 0..5000 {
        let completion = next(&mut ring);
        assert!(!std::mem::replace(
            &mut seen[completion.token.0 as usize],
            true
        ));
    }
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn dropping_a_ring_ends_its_operations() {
    let (mut ours, theirs) = pair();
    let mut ring = Ring::new().unwrap();
    ring.recv(Token(1), &theirs, Buffer::zeroed(4096), 0);
    ring.timeout(Token(2), monotonic() + wal::Span::secs(3600));
    ring.poll_multishot(Token(3), &theirs, libc::POLLIN);
    ring.submit().unwrap();
    let started = Instant::now();
    drop(ring);
    drop(theirs);
    assert!(started.elapsed() < DRAIN_WAIT);
    assert_eq!(
        ours.read(&mut [0]).unwrap(),
        0,
        "nothing keeps the descriptor open"
    );
}

#[test]
fn a_bell_ends_the_wait_once_and_a_bell_that_was_rung_before_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let appender = wal::log::Appender::open(&path, &wal::log::Options::default()).unwrap();
    let append = || appender.append(wal::log::Kind(1), b"x").unwrap();
    let control = std::sync::Arc::new(wal::log::Control::open(&path).unwrap());
    let bell = |key| Bell::new(std::sync::Arc::clone(&control), key);
    let mut ring = Ring::new().unwrap();

    let seen = control.bell();
    ring.wait_bell(Token(1), bell(7), seen);
    ring.submit_and_wait(Some(Duration::from_millis(20)))
        .unwrap();
    assert!(!ring.has_completion(), "nobody rang");
    append();
    let rung = next(&mut ring);
    assert!(matches!(rung.payload, Payload::Bell(Bell { key: 7, .. })));
    rung.result.unwrap();

    ring.wait_bell(Token(1), bell(8), seen);
    let late = next(&mut ring).result.unwrap_err();
    assert_eq!(late.raw_os_error(), Some(libc::EAGAIN));

    ring.wait_bell(Token(1), bell(9), control.bell());
    ring.submit().unwrap();
    ring.cancel_bell(8);
    ring.cancel_bell(9);
    let ended = next(&mut ring).result.unwrap_err();
    assert_eq!(ended.raw_os_error(), Some(libc::ECANCELED));
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_connect_and_an_accept_meet() {
    let mut ring = Ring::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    ring.accept_multishot(Token(1), &Descriptor::from(OwnedFd::from(listener)));
    // SAFETY: a plain system call that returns a new descriptor.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the descriptor is new and nobody else's.
    let socket = Descriptor::from(unsafe { OwnedFd::from_raw_fd(socket) });
    ring.connect(Token(2), &socket, address);
    let (mut accepted, mut connected) = (None, false);
    while accepted.is_none() || !connected {
        let completion = next(&mut ring);
        completion.result.unwrap();
        match completion.payload {
            Payload::Accepted(fd) => accepted = Some(fd),
            _ => connected = true,
        }
    }
    ring.send(Token(3), &socket, gather(&[b"hi"]), 0);
    assert_eq!(next(&mut ring).result.unwrap(), 2);
    let mut stream = std::net::TcpStream::from(accepted.unwrap());
    let mut got = [0; 2];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi");
}
