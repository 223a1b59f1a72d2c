//! Large frames: how often they wake their receiver, and that they always arrive.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};

use super::*;

/// A stream and the link that reads it, with so much room in the link's socket.
fn pair(room: Option<libc::c_int>) -> (TcpStream, TcpLink) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, from) = listener.accept().unwrap();
    if let Some(room) = room {
        let (value, len) = ((&raw const room).cast(), size_of::<libc::c_int>() as u32);
        let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
        // SAFETY: the pointer and length describe `room`, an int as socket(7) says.
        let set = unsafe { libc::setsockopt(far.as_raw_fd(), level, name, value, len) };
        assert_eq!(set, 0);
    }
    let link = TcpLink::accepted(LINK, OwnedFd::from(far), from, Bounds::default());
    (near, link.unwrap())
}

/// Drives the link until it has one frame more or is over.
fn until_frame(ring: &mut Ring, peer: &mut Peer) {
    let (count, until) = (peer.frames.len() + 1, Instant::now() + WAIT);
    peer.take(ring);
    while peer.frames.len() < count && peer.closed.is_none() {
        assert!(Instant::now() < until, "the frame does not arrive");
        ring.submit_and_wait(Some(Duration::from_secs(1))).unwrap();
        peer.take(ring);
    }
}

/// How often this thread has gone to sleep.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("voluntary_ctxt"));
    let count = line.and_then(|line| line.split_whitespace().last());
    count.unwrap().parse().unwrap()
}

#[test]
fn a_large_frame_that_comes_in_pieces_wakes_its_receiver_a_few_times() {
    const PIECES: usize = 300;
    let (mut near, link) = pair(None);
    let (mut ring, mut peer) = (Ring::new().unwrap(), Peer::new(link));
    let sent = frame(Class::Live, 1, PIECES << 10);
    let bytes = record(&sent);
    let writer = std::thread::spawn(move || {
        for piece in bytes.chunks(1 << 10) {
            near.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_micros(300));
        }
        near
    });
    let before = sleeps();
    until_frame(&mut ring, &mut peer);
    let slept = sleeps() - before;
    assert!(peer.frames == [sent]);
    assert!(slept < PIECES as u64 / 4, "it woke {slept} times");
    drop(writer.join().unwrap());
}

/// What a wake-up took is missing of what the next one waits for: nobody may wait for more than is
/// still to come.
#[test]
fn a_large_frame_that_nothing_follows_arrives_however_little_room_there_is() {
    for room in [None, Some(100 << 10), Some(300 << 10)] {
        let (mut near, link) = pair(room);
        let (mut ring, mut peer) = (Ring::new().unwrap(), Peer::new(link));
        let lens = [100_000, 1 << 20, (1 << 20) + 70_000, (3 << 20) + 5, 300];
        for (number, len) in (1..).zip(lens) {
            let sent = frame(Class::Live, number, len);
            let bytes = record(&sent);
            let (out, gone) = channel();
            let writer = std::thread::spawn(move || {
                near.write_all(&bytes).unwrap();
                out.send(()).unwrap();
                near
            });
            until_frame(&mut ring, &mut peer);
            assert!(peer.frames.pop() == Some(sent));
            gone.recv_timeout(WAIT).unwrap();
            near = writer.join().unwrap();
        }
    }
}

#[test]
fn a_peer_that_goes_in_the_middle_of_a_large_frame_is_noticed_at_once() {
    let (mut near, link) = pair(None);
    let (mut ring, mut peer) = (Ring::new().unwrap(), Peer::new(link));
    let bytes = record(&frame(Class::Live, 1, 3 << 20));
    near.write_all(&bytes[..200_000]).unwrap();
    drop(near);
    let begun = Instant::now();
    until_frame(&mut ring, &mut peer);
    assert!(matches!(peer.closed, Some(Reason::Lost(_))));
    assert!(begun.elapsed() < Duration::from_secs(2));
}
