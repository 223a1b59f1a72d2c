//! Links over TCP on the loopback, driven by shard threads of the test process.

mod damage;
mod fast;
mod large;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use wal::compress::RecordHead;
use wal::frame::{Frame, FrameKind, Header};
use wal::{Epoch, Lsn, PartitionId, Span};

use super::*;
use crate::error::{Kind, Result};
use crate::reactor::{End, Next, Shard, ShardContext, now, spawn_shard};
use crate::ring::Ring;

const WAIT: Duration = Duration::from_secs(20);
const LINK: u64 = 7;

/// A frame that says its class and its number, and whose bytes follow from the number.
fn frame(class: Class, number: u64, len: usize) -> Frame {
    let mut header = Header::plain(FrameKind::Note, PartitionId(class as u64), Epoch(1));
    header.to = Lsn(number);
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let payload: Vec<u8> = (0..len)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .collect();
    Frame::seal(header, &payload)
}

/// Lengths from tiny to several receive buffers, the same on both ends.
fn mixed_len(number: u64) -> usize {
    match number % 10 {
        0..=5 => (number * 7 % 300) as usize,
        6 | 7 => 4096 + (number * 131 % 9000) as usize,
        8 => 70_000,
        _ if number % 100 == 9 => 400_000,
        _ => 0,
    }
}

/// A shard of a test and how its loop ends.
type Running = (Shard, Receiver<End>);

/// Runs one loop on a shard of its own; its result comes back through the channel.
fn on_shard<F, Fut>(name: &str, body: F) -> Running
where
    F: Fn(ShardContext) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + 'static,
{
    let (ends, ended) = channel();
    let supervise = move |end| {
        ends.send(end).unwrap();
        Next::Stop
    };
    (spawn_shard(name, None, body, supervise).unwrap(), ended)
}

fn finish((shard, ended): Running) {
    match ended.recv_timeout(WAIT).expect("the shard goes on and on") {
        End::Finished => shard.join().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A link in the middle of a test: what it received, and how it ended.
struct Peer {
    link: TcpLink,
    frames: Vec<Frame>,
    writable: usize,
    closed: Option<Reason>,
}

impl Peer {
    fn new(link: TcpLink) -> Peer {
        Peer {
            link,
            frames: Vec::new(),
            writable: 0,
            closed: None,
        }
    }

    fn connect(address: SocketAddr) -> Peer {
        Peer::new(TcpLink::connect(LINK, address, Bounds::default()).unwrap())
    }

    /// One turn: sleep, take answers, start operations. `false` once the link is over.
    async fn turn(&mut self, context: &mut ShardContext, longest: Span) -> Result<bool> {
        let pumped = self.link.pump(&mut context.ring, now());
        self.note(pumped);
        if self.closed.is_none() {
            context.wait(Some(now() + longest)).await?;
        }
        self.take(&mut context.ring);
        Ok(self.closed.is_none())
    }

    fn take(&mut self, ring: &mut Ring) {
        while let Some(completion) = ring.completion() {
            let event = self.link.on_completion(ring, completion, &mut self.frames);
            self.note(event);
        }
        let pumped = self.link.pump(ring, now());
        self.note(pumped);
    }

    fn note(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Writable => self.writable += 1,
            LinkEvent::Closed(reason) => self.closed = Some(reason),
            _ => {}
        }
    }
}

/// Waits for the first connection and makes a link of it.
async fn accept(context: &mut ShardContext, listener: &mut Listener) -> Result<Peer> {
    loop {
        listener.pump(&mut context.ring, now());
        context.wait(None).await?;
        while let Some(completion) = context.ring.completion() {
            if let Some((socket, from)) = listener.on_completion(completion, now())? {
                return Ok(Peer::new(TcpLink::accepted(
                    LINK,
                    socket,
                    from,
                    Bounds::default(),
                )?));
            }
        }
    }
}

fn record(frame: &Frame) -> Vec<u8> {
    let head = RecordHead {
        len: frame.len() as u32,
        squeezed: false,
    };
    [&head.encode()[..], frame.bytes()].concat()
}

/// A shard that accepts one link, keeps it until its end, and hands out what came.
fn collector(pause: Span) -> (SocketAddr, Receiver<(Vec<Frame>, Reason)>, Running) {
    let (addresses, address) = channel();
    let (said, heard) = channel();
    let shard = on_shard("collector", move |mut context| {
        let (addresses, said) = (addresses.clone(), said.clone());
        async move {
            let mut listener = Listener::bind(1, "127.0.0.1:0".parse().unwrap())?;
            addresses.send(listener.address()).unwrap();
            let mut peer = accept(&mut context, &mut listener).await?;
            if pause > Span::ZERO {
                context.wait(Some(now() + pause)).await?;
            }
            while peer.turn(&mut context, Span::secs(1)).await? {}
            said.send((peer.frames, peer.closed.unwrap())).unwrap();
            Ok(())
        }
    });
    (address.recv_timeout(WAIT).unwrap(), heard, shard)
}

fn of_class(frames: &[Frame], class: Class) -> Vec<&Frame> {
    let with_class = |frame: &&Frame| frame.header().partition.0 == class as u64;
    frames.iter().filter(with_class).collect()
}

#[test]
fn ten_thousand_mixed_frames_arrive_whole_and_in_order_per_class() {
    const COUNT: u64 = 10_000;
    let (address, heard, collecting) = collector(Span::ZERO);
    let (counted, counts) = channel();
    let sending = on_shard("sender", move |mut context| {
        let counted = counted.clone();
        async move {
            let mut peer = Peer::connect(address);
            let mut numbers = [0u64; 3];
            let mut next = 0;
            while next < COUNT {
                let class = Class::ALL[(next % 3) as usize];
                let number = numbers[class as usize];
                match peer
                    .link
                    .enqueue(class, frame(class, number, mixed_len(number)))
                {
                    Ok(()) => (numbers[class as usize], next) = (number + 1, next + 1),
                    Err(Backpressure::Full { .. }) => {
                        assert!(peer.turn(&mut context, Span::secs(1)).await?);
                    }
                    Err(other) => panic!("{other}: {:?}", peer.closed),
                }
            }
            while peer.link.queued_bytes(Class::Bulk) + peer.link.queued_bytes(Class::Live) > 0 {
                assert!(peer.turn(&mut context, Span::secs(1)).await?);
            }
            peer.link.close(now());
            while peer.turn(&mut context, Span::secs(1)).await? {}
            assert!(
                matches!(peer.closed, Some(Reason::Finished)),
                "{:?}",
                peer.closed
            );
            counted.send(peer.link.counters()).unwrap();
            Ok(())
        }
    });
    let (frames, reason) = heard.recv_timeout(WAIT).unwrap();
    assert!(matches!(reason, Reason::PeerFinished), "{reason}");
    finish(sending);
    finish(collecting);
    assert_eq!(frames.len() as u64, COUNT);
    for class in Class::ALL {
        for (number, got) in of_class(&frames, class).into_iter().enumerate() {
            let wanted = frame(class, number as u64, mixed_len(number as u64));
            assert!(*got == wanted, "{class:?} frame {number} differs");
        }
    }
    let counters = counts.recv().unwrap();
    assert_eq!(counters.frames_out, COUNT);
    let plain: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    assert!(
        counters.bytes_out < plain,
        "headers of small frames are squeezed"
    );
}

#[test]
fn an_urgent_frame_overtakes_bulk() {
    // The collector does not read at first, so the sender's kernel buffer fills up with bulk.
    let (address, heard, collecting) = collector(Span::millis(300));
    let sending = on_shard("sender", move |mut context| async move {
        let mut peer = Peer::connect(address);
        let started = Instant::now();
        let mut number = 0;
        // Until bulk is stuck: the class is full and nothing moves for a while.
        loop {
            match peer
                .link
                .enqueue(Class::Bulk, frame(Class::Bulk, number, 64 << 10))
            {
                Ok(()) => number += 1,
                Err(_) => {
                    let before = peer.link.queued_bytes(Class::Bulk);
                    peer.turn(&mut context, Span::millis(20)).await?;
                    if peer.link.queued_bytes(Class::Bulk) == before {
                        break;
                    }
                }
            }
            assert!(started.elapsed() < WAIT);
        }
        peer.link
            .enqueue(Class::Urgent, frame(Class::Urgent, 0, 100))
            .unwrap();
        let behind = peer.link.queued_bytes(Class::Bulk);
        assert!(behind > 1 << 20, "{behind} bytes of bulk wait");
        peer.link.close(now());
        while peer.turn(&mut context, Span::secs(1)).await? {}
        assert!(
            matches!(peer.closed, Some(Reason::Finished)),
            "{:?}",
            peer.closed
        );
        Ok(())
    });
    let (frames, _) = heard.recv_timeout(WAIT).unwrap();
    finish(sending);
    finish(collecting);
    let urgent = frames
        .iter()
        .position(|f| f.header().partition.0 == Class::Urgent as u64);
    let after: usize = frames[urgent.expect("it arrived")..]
        .iter()
        .map(Frame::len)
        .sum();
    assert!(
        after > 1 << 20,
        "only {after} bytes of bulk came after the urgent frame"
    );
}

#[test]
fn a_full_class_answers_with_backpressure_and_says_when_it_has_room() {
    let (address, heard, collecting) = collector(Span::millis(100));
    let sending = on_shard("sender", move |mut context| async move {
        let mut peer = Peer::connect(address);
        let mut sent = 0;
        while peer.writable == 0 {
            match peer
                .link
                .enqueue(Class::Bulk, frame(Class::Bulk, sent, 100_000))
            {
                Ok(()) => sent += 1,
                Err(Backpressure::Full { class, queued }) => {
                    assert!(class == Class::Bulk && queued <= Bounds::default().bulk);
                    while peer.writable == 0 {
                        assert!(peer.turn(&mut context, Span::secs(1)).await?);
                    }
                }
                Err(other) => panic!("{other}: {:?}", peer.closed),
            }
        }
        assert!(peer.link.queued_bytes(Class::Bulk) <= Bounds::default().bulk / 2);
        let long = frame(Class::Bulk, 0, outbox::BULK_LEN_MAX);
        let refused = peer.link.enqueue(Class::Bulk, long);
        assert!(matches!(refused, Err(Backpressure::TooLong { .. })));
        peer.link.close(now());
        let late = peer.link.enqueue(Class::Live, frame(Class::Live, 0, 1));
        assert_eq!(late, Err(Backpressure::Closed));
        while peer.turn(&mut context, Span::secs(1)).await? {}
        Ok(())
    });
    let (frames, _) = heard.recv_timeout(WAIT).unwrap();
    assert!(frames.len() >= 20);
    finish(sending);
    finish(collecting);
}

#[test]
fn a_frame_as_long_as_allowed_passes() {
    let (address, heard, collecting) = collector(Span::ZERO);
    let sending = on_shard("sender", move |mut context| async move {
        let mut peer = Peer::connect(address);
        let longest = wal::frame::WIRE_LEN_MAX as usize;
        for number in 0..3 {
            peer.link
                .enqueue(Class::Live, frame(Class::Live, number, 10))
                .unwrap();
            let long = frame(Class::Live, number, longest);
            while peer.link.enqueue(Class::Live, long.clone()).is_err() {
                assert!(peer.turn(&mut context, Span::secs(1)).await?);
            }
        }
        peer.link.close(now());
        while peer.turn(&mut context, Span::secs(1)).await? {}
        assert!(
            matches!(peer.closed, Some(Reason::Finished)),
            "{:?}",
            peer.closed
        );
        Ok(())
    });
    let (frames, _) = heard.recv_timeout(WAIT).unwrap();
    finish(sending);
    finish(collecting);
    assert_eq!(frames.len(), 6);
    assert_eq!(frames[5].payload().len(), wal::frame::WIRE_LEN_MAX as usize);
}

#[test]
fn a_peer_that_listens_nowhere_is_unreachable() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (said, heard): (Sender<Reason>, _) = channel();
    let trying = on_shard("trying", move |mut context| {
        let said = said.clone();
        async move {
            let mut peer = Peer::connect(closed);
            while peer.turn(&mut context, Span::secs(1)).await? {}
            said.send(peer.closed.unwrap()).unwrap();
            Ok(())
        }
    });
    let reason = heard.recv_timeout(WAIT).unwrap();
    let Reason::Unreachable(error) = reason else {
        panic!("{reason}")
    };
    assert_eq!(error.kind(), Kind::Retry);
    finish(trying);
}

#[test]
fn a_second_listener_on_the_same_port_is_refused() {
    let first = Listener::bind(1, "127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Listener::bind(2, first.address()).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn a_close_in_order_loses_nothing_that_either_end_had_queued() {
    let (addresses, address) = channel();
    let (said, heard) = channel();
    let both = |name: &'static str, listen: bool, to: Option<SocketAddr>| {
        let (addresses, said) = (addresses.clone(), said.clone());
        on_shard(name, move |mut context| {
            let (addresses, said) = (addresses.clone(), said.clone());
            async move {
                let mut listener = None;
                let mut peer = if listen {
                    let listening =
                        listener.insert(Listener::bind(1, "127.0.0.1:0".parse().unwrap())?);
                    addresses.send(listening.address()).unwrap();
                    accept(&mut context, listening).await?
                } else {
                    Peer::connect(to.unwrap())
                };
                for number in 0..200 {
                    peer.link
                        .enqueue(Class::Live, frame(Class::Live, number, 20_000))
                        .unwrap();
                }
                let greeted = |peer: &Peer| !peer.frames.is_empty();
                while !greeted(&peer) && peer.turn(&mut context, Span::secs(1)).await? {}
                peer.link.close(now());
                while peer.turn(&mut context, Span::secs(1)).await? {}
                said.send((peer.frames.len(), peer.closed.unwrap()))
                    .unwrap();
                Ok(())
            }
        })
    };
    let one = both("listens", true, None);
    let other = both("connects", false, Some(address.recv_timeout(WAIT).unwrap()));
    for _ in 0..2 {
        let (frames, reason) = heard.recv_timeout(WAIT).unwrap();
        assert_eq!(frames, 200, "{reason}");
    }
    finish(one);
    finish(other);
}

#[test]
fn a_paused_link_stops_reading() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (said, heard) = channel();
    let pausing = on_shard("pausing", move |mut context| {
        let said = said.clone();
        async move {
            let mut peer = Peer::connect(address);
            peer.link.pause_reading(true);
            for _ in 0..10 {
                peer.turn(&mut context, Span::millis(10)).await?;
            }
            said.send(peer.frames.len()).unwrap();
            peer.link.pause_reading(false);
            while peer.turn(&mut context, Span::secs(1)).await? {}
            said.send(peer.frames.len()).unwrap();
            Ok(())
        }
    });
    let (mut stream, _) = listener.accept().unwrap();
    stream
        .write_all(&record(&frame(Class::Live, 1, 5000)))
        .unwrap();
    assert_eq!(heard.recv_timeout(WAIT).unwrap(), 0);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(heard.recv_timeout(WAIT).unwrap(), 1);
    stream.set_read_timeout(Some(WAIT)).unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap(),
        0,
        "the link closed in order too"
    );
    finish(pausing);
}
