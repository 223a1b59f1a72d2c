//! What a link carries per second of processor time, against a blocking loop over std's sockets.
//!
//! Both ends are threads of this process on the loopback, each contender has the same sizes, and
//! the contenders take turns: neighbours on the machine slow down both. Wall time says little on a
//! shared machine and is left out. The link does more than the loop: it checks every frame's sum
//! and hands out frames that own their bytes; the loop reads over what it read before.

#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use foreshadow::cli::demo::harness::percentile;
use io::link::{Bounds, Class, LinkEvent, Reason, TcpLink};
use io::reactor::now;
use io::ring::Ring;
use report::{Bar, Bound, Figure, Report};
use rustix::time::{ClockId, clock_gettime};
use wal::frame::{Frame, FrameKind, HEADER_LEN, Header};
use wal::{Epoch, PartitionId};

const ROUNDS: usize = 11;
/// Bytes of one round of one contender.
const BYTES: usize = 256 << 20;
/// Bytes that wait in the link's queue: enough that it never runs dry.
const QUEUED: usize = 4 << 20;
const FRAMES: [(usize, &str); 2] = [(256 << 10, "256 KiB"), (1 << 20, "1 MiB")];
/// How much the blocking loop reads at a time; the cheapest is the bound.
const READS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
const OUT: &str = "the loopback works";

fn main() -> ExitCode {
    io::heap::keep_freed_frames();
    let mut report = Report::new("stream");
    for (len, name) in FRAMES {
        let frame = Frame::seal(
            Header::plain(FrameKind::Note, PartitionId(1), Epoch(1)),
            &noise(len - HEADER_LEN),
        );
        let mut ours = Vec::new();
        let mut loops = READS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            ours.push(link(&frame));
            for (read, costs) in READS.iter().zip(&mut loops) {
                costs.push(blocking(frame.bytes(), *read));
            }
        }
        for (statistic, share) in [("median", 0.5), ("p20", 0.2)] {
            let rate = |costs: &mut Vec<f64>| 1e3 / percentile(costs, share);
            let ours = rate(&mut ours);
            let bound = loops.iter_mut().map(rate).fold(0.0, f64::max);
            report.case(
                &format!("link, frames of {name}, {statistic}"),
                Figure(ours, "MB/core-s"),
                Bound(bound, "std loop, cheapest read size"),
                Bar::AtLeast(0.8 * bound),
            );
        }
        for (read, costs) in READS.iter().zip(&mut loops) {
            let cost = percentile(costs, 0.5);
            report.note(&format!(
                "std, reads of {} KiB: {cost:.3} core-s/GB",
                read >> 10
            ));
        }
    }
    report.finish()
}

/// Core-seconds per GB of both ends of a link.
fn link(frame: &Frame) -> f64 {
    let (count, frame) = (BYTES / frame.len(), frame.clone());
    let send = move |stream: TcpStream, peer| {
        let mut end = LinkEnd::new(stream, peer);
        let mut left = count;
        while end.turn(&mut |link| {
            while left > 0 && link.queued_bytes(Class::Live) < QUEUED {
                link.enqueue(Class::Live, frame.clone())
                    .expect("below its bound");
                left -= 1;
            }
            if left == 0 {
                link.close(now());
            }
        }) {}
    };
    let receive = move |stream: TcpStream, peer| {
        let mut end = LinkEnd::new(stream, peer);
        while end.turn(&mut |_| ()) {}
        assert_eq!(end.received, count, "every frame arrives");
    };
    cost(send, receive)
}

/// One end of a link with the loop of a shard, as short as it can be.
struct LinkEnd {
    ring: Ring,
    link: TcpLink,
    frames: Vec<Frame>,
    received: usize,
}

impl LinkEnd {
    fn new(stream: TcpStream, peer: SocketAddr) -> LinkEnd {
        let link = TcpLink::accepted(1, OwnedFd::from(stream), peer, Bounds::default());
        LinkEnd {
            ring: Ring::new().expect("a ring"),
            link: link.expect("a link"),
            frames: Vec::new(),
            received: 0,
        }
    }

    /// One turn of the loop; `false` once the link was closed in order.
    fn turn(&mut self, feed: &mut dyn FnMut(&mut TcpLink)) -> bool {
        feed(&mut self.link);
        if ended(&self.link.pump(&mut self.ring, now())) {
            return false;
        }
        self.ring.submit_and_wait(None).expect(OUT);
        while let Some(completion) = self.ring.completion() {
            let event = self
                .link
                .on_completion(&mut self.ring, completion, &mut self.frames);
            self.received += self.frames.len();
            self.frames.clear();
            if ended(&event) {
                return false;
            }
        }
        true
    }
}

fn ended(event: &LinkEvent) -> bool {
    match event {
        LinkEvent::Closed(Reason::Finished | Reason::PeerFinished) => true,
        LinkEvent::Closed(reason) => panic!("{reason}"),
        _ => false,
    }
}

/// Core-seconds per GB of a loop that writes whole frames and one that reads over its buffer.
fn blocking(bytes: &[u8], read: usize) -> f64 {
    let (count, bytes) = (BYTES / bytes.len(), bytes.to_vec());
    let send = move |mut stream: TcpStream, _| {
        for _ in 0..count {
            stream.write_all(&bytes).expect(OUT);
        }
    };
    let receive = move |mut stream: TcpStream, _| {
        let mut buffer = vec![0; read];
        while stream.read(&mut buffer).expect(OUT) > 0 {}
    };
    cost(send, receive)
}

/// Runs both ends on threads of their own.
fn cost(
    send: impl FnOnce(TcpStream, SocketAddr) + Send + 'static,
    receive: impl FnOnce(TcpStream, SocketAddr) + Send + 'static,
) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect(OUT);
    let near = TcpStream::connect(listener.local_addr().expect(OUT)).expect(OUT);
    let (far, address) = listener.accept().expect(OUT);
    near.set_nodelay(true).expect(OUT);
    let sender = std::thread::spawn(move || timed(|| send(near, address)));
    let receiver = std::thread::spawn(move || timed(|| receive(far, address)));
    let seconds = sender.join().expect("it ends") + receiver.join().expect("it ends");
    seconds / (BYTES as f64 / 1e9)
}

/// Processor seconds of this thread during `work`.
fn timed(work: impl FnOnce()) -> f64 {
    let clock = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let begun = clock();
    work();
    clock() - begun
}

/// Bytes that nothing can shrink.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(byte).collect()
}
