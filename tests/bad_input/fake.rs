//! A peer that speaks the protocol by hand, well enough to be trusted, and then misbehaves.
//!
//! It greets, answers offers like a node without a copy, acknowledges what it gets, and stops
//! wherever it is told to. It keeps nothing.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use foreshadow::cli::demo::harness::Cluster;
use wal::NodeId;
use wal::compress::{RecordHead, Unsqueezer};
use wal::delta::Decoder;
use wal::frame::{Flags, Frame, FrameKind, HEADER_LEN, frame_len};
use wal::message::{Hello, Message, PROTOCOL_VERSION, Standing};

/// A fake that hears nothing for so long looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The greeting of an honest peer.
pub fn hello(name: &str) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        features: 0,
        cluster: "demo".to_owned(),
        node: NodeId::of(name),
        name: name.to_owned(),
        shards: 1,
        lane: 0,
        lanes: 1,
    }
}

/// A name whose node `from` dials, or that dials `from`: the smaller id dials.
pub fn name_for(from: &str, dialled: bool) -> String {
    let mut names = (0..).map(|n| format!("fake-{n}"));
    let fits = |name: &String| (NodeId::of(from) < NodeId::of(name)) == dialled;
    names.find(fits).expect("half of all names")
}

/// Adds a peer to the configuration of a node that does not run yet.
pub fn introduce(cluster: &Cluster, node: &str, name: &str, port: u16) {
    let path = cluster.node(node).expect("there").place.config();
    let mut text = fs::read_to_string(&path).expect("a configuration");
    text += &format!("\n[[peer]]\nname = {name:?}\naddress = \"127.0.0.1:{port}\"\n");
    fs::write(&path, text).expect("writes");
}

/// One connection, after the greetings.
pub struct Conversation {
    stream: TcpStream,
    unsqueezer: Unsqueezer,
    waiting: VecDeque<Frame>,
}

impl Conversation {
    /// Answers a caller with `ours`.
    pub fn answer(mut stream: TcpStream, ours: &Hello) -> std::io::Result<Conversation> {
        read_greeting(&mut stream)?;
        stream.write_all(Message::Hello(ours.clone()).seal().bytes())?;
        Ok(Conversation::over(stream))
    }

    /// Calls a daemon; what it says to `ours`.
    pub fn call(port: u16, ours: &Hello) -> std::io::Result<(Conversation, Message)> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(Message::Hello(ours.clone()).seal().bytes())?;
        let answer = read_greeting(&mut stream)?;
        Ok((Conversation::over(stream), answer))
    }

    fn over(stream: TcpStream) -> Conversation {
        Conversation {
            stream,
            unsqueezer: Unsqueezer::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Says one message, as a record of its own.
    pub fn say(&mut self, message: &Message) -> std::io::Result<()> {
        self.send(&record(message))
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; an error when the other side has ended or said nothing in time.
    pub fn hear(&mut self) -> std::io::Result<Frame> {
        while self.waiting.is_empty() {
            let mut head = [0; RecordHead::LEN];
            self.stream.read_exact(&mut head)?;
            // From here on a record is under way, however long it takes.
            self.stream
                .set_read_timeout(Some(Duration::from_secs(10)))?;
            let head = RecordHead::parse(head).map_err(std::io::Error::other)?;
            let mut bytes = vec![0; head.len as usize];
            self.stream.read_exact(&mut bytes)?;
            self.stream.set_read_timeout(Some(LOOK_EVERY))?;
            if head.squeezed {
                let mut plain = Vec::new();
                let cap = 1 << 24;
                let opened = self.unsqueezer.unsqueeze(&bytes, cap, &mut plain);
                opened.map_err(std::io::Error::other)?;
                bytes = plain;
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let len = frame_len(rest).map_err(std::io::Error::other)?;
                let (frame, after) = rest.split_at(len.expect("a whole header"));
                let frame = Frame::parse(frame).map_err(std::io::Error::other)?;
                self.waiting.push_back(frame);
                rest = after;
            }
        }
        Ok(self.waiting.pop_front().expect("not empty"))
    }
}

/// A message as it travels after the greetings.
pub fn record(message: &Message) -> Vec<u8> {
    let frame = message.seal();
    let head = RecordHead {
        len: frame.len() as u32,
        squeezed: false,
    };
    let mut bytes = head.encode().to_vec();
    bytes.extend_from_slice(frame.bytes());
    bytes
}

fn read_greeting(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut bytes = vec![0; HEADER_LEN];
    stream.read_exact(&mut bytes)?;
    let len = frame_len(&bytes).map_err(std::io::Error::other)?;
    bytes.resize(len.expect("a whole header"), 0);
    stream.read_exact(&mut bytes[HEADER_LEN..])?;
    let frame = Frame::parse(&bytes).map_err(std::io::Error::other)?;
    Message::open(&frame).map_err(std::io::Error::other)
}

/// A moment of the conversation about a partition, as the fake sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Offer,
    Pages,
    LastPages,
    Delta,
    Prepare,
    Finish,
}

impl Step {
    fn of(frame: &Frame) -> Option<Step> {
        Some(match (frame.header().kind, Message::open(frame)) {
            (FrameKind::Delta, _) => Step::Delta,
            (FrameKind::Pages, _) if frame.header().flags.has(Flags::LAST) => Step::LastPages,
            (FrameKind::Pages, _) => Step::Pages,
            (_, Ok(Message::Offer { .. })) => Step::Offer,
            (_, Ok(Message::Prepare { .. })) => Step::Prepare,
            (_, Ok(Message::Finish { .. })) => Step::Finish,
            _ => return None,
        })
    }
}

/// What the fake does in its step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Closes the connection, and every one after it.
    Leave,
    /// Says no more about the partition, but still answers pings.
    Silence,
}

/// A fake that is called by a daemon, until it is dropped.
pub struct Fake {
    end: Arc<AtomicBool>,
    reached: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Behaves until `step`, then as `manner` says.
    pub fn listen(listener: &TcpListener, name: &str, step: Step, manner: Manner) -> Fake {
        let ours = hello(name);
        Fake::serve(listener, move |stream, reached, end| {
            // Whatever goes wrong here ends the connection, as the daemon sees it.
            let _ = converse(stream, &ours, (step, manner), reached, end);
        })
    }

    /// Does anything with every connection.
    pub fn serve(
        listener: &TcpListener,
        each: impl Fn(TcpStream, &AtomicBool, &AtomicBool) + Send + 'static,
    ) -> Fake {
        let (end, reached) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let listener = listener.try_clone().expect("a descriptor");
        listener.set_nonblocking(true).expect("set");
        let (until, seen) = (Arc::clone(&end), Arc::clone(&reached));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).expect("set");
                        let wait = Some(Duration::from_secs(5));
                        stream.set_read_timeout(wait).expect("set");
                        each(stream, &seen, &until);
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Fake {
            end,
            reached,
            thread: Some(thread),
        }
    }

    /// Whether the step, or the first connection, was met.
    pub fn has_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let ended = self.thread.take().expect("joined once").join();
        assert!(ended.is_ok() || thread::panicking(), "the fake panicked");
    }
}

fn converse(
    stream: TcpStream,
    ours: &Hello,
    (step, manner): (Step, Manner),
    reached: &AtomicBool,
    end: &AtomicBool,
) -> std::io::Result<()> {
    let mut conversation = Conversation::answer(stream, ours)?;
    let mut silent = false;
    while !end.load(Ordering::Relaxed) {
        let frame = match conversation.hear() {
            Ok(frame) => frame,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        if Step::of(&frame) == Some(step) {
            reached.store(true, Ordering::Relaxed);
            silent = true;
            if manner == Manner::Leave {
                return Ok(());
            }
        }
        if let Some(answer) = answer_to(&frame, silent) {
            conversation.say(&answer)?;
        }
    }
    Ok(())
}

/// What an honest peer without a copy would say.
fn answer_to(frame: &Frame, silent: bool) -> Option<Message> {
    let partition = frame.header().partition;
    let answer = match (frame.header().kind, Message::open(frame)) {
        (_, Ok(Message::Ping { nonce })) => return Some(Message::Pong { nonce }),
        _ if silent => return None,
        (FrameKind::Delta, _) => Message::Ack {
            partition,
            durable: Decoder::delta_head(frame).expect("a delta").to,
        },
        (FrameKind::Pages, _) if frame.header().flags.has(Flags::LAST) => Message::Ack {
            partition,
            durable: Decoder::pages_head(frame).expect("pages").at,
        },
        (_, Ok(Message::Offer { partition, .. })) => Message::Stand {
            partition,
            standing: Standing::Nothing,
        },
        (_, Ok(Message::Prepare { partition, epoch })) => Message::Prepared { partition, epoch },
        _ => return None,
    };
    Some(answer)
}
