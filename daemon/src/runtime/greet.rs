//! The first words on a connection, exchanged by a helper thread before a shard sees it.
//!
//! The greeting decides which shard gets the connection, so it can't be read by one. Both ends
//! write their `Hello` as one plain frame and read the other's; everything after that belongs to
//! the link.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use wal::frame::{Frame, HEADER_LEN, frame_len};
use wal::message::{Hello, Message};

/// A peer that does not greet within this time is not one.
const GREET_TIMEOUT: Duration = Duration::from_secs(3);
/// No greeting is longer.
const GREETING_LEN_MAX: usize = 4096;

/// Connects, greets, and returns the peer's greeting.
pub fn dial(address: SocketAddr, ours: &Hello) -> Result<(TcpStream, Hello), String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, GREET_TIMEOUT).map_err(failed)?;
    prepare(&stream).map_err(failed)?;
    write_message(&mut stream, &Message::Hello(ours.clone())).map_err(failed)?;
    match read_message(&mut stream)? {
        Message::Hello(theirs) => {
            settle(&stream).map_err(failed)?;
            Ok((stream, theirs))
        }
        Message::Refuse { reason } => Err(format!("refused by {address}: {reason}")),
        _ => Err(format!("{address} did not begin with a greeting")),
    }
}

/// Reads a greeting on an accepted connection; `answer` decides what is said to it.
pub fn accept(
    mut stream: TcpStream,
    answer: impl FnOnce(&Hello) -> Result<Hello, String>,
) -> Result<(TcpStream, Hello), String> {
    let failed = |error: std::io::Error| format!("greeting: {error}");
    prepare(&stream).map_err(failed)?;
    let Message::Hello(theirs) = read_message(&mut stream)? else {
        return Err("a connection did not begin with a greeting".to_owned());
    };
    match answer(&theirs) {
        Ok(ours) => {
            write_message(&mut stream, &Message::Hello(ours)).map_err(failed)?;
            settle(&stream).map_err(failed)?;
            Ok((stream, theirs))
        }
        Err(reason) => {
            let refusal = Message::Refuse {
                reason: reason.clone(),
            };
            write_message(&mut stream, &refusal).map_err(failed)?;
            Err(reason)
        }
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GREET_TIMEOUT))?;
    stream.set_write_timeout(Some(GREET_TIMEOUT))
}

fn settle(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}

fn write_message(stream: &mut TcpStream, message: &Message) -> std::io::Result<()> {
    stream.write_all(message.seal().bytes())
}

fn read_message(stream: &mut TcpStream) -> Result<Message, String> {
    let mut bytes = vec![0; HEADER_LEN];
    stream
        .read_exact(&mut bytes)
        .map_err(|error| format!("greeting: {error}"))?;
    let length = frame_len(&bytes)
        .map_err(|error| format!("greeting: {error}"))?
        .filter(|length| *length <= GREETING_LEN_MAX)
        .ok_or("a greeting is too long")?;
    bytes.resize(length, 0);
    stream
        .read_exact(&mut bytes[HEADER_LEN..])
        .map_err(|error| format!("greeting: {error}"))?;
    let frame = Frame::parse(&bytes).map_err(|error| format!("greeting: {error}"))?;
    Message::open(&frame).map_err(|error| format!("greeting: {error}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use wal::NodeId;
    use wal::message::PROTOCOL_VERSION;

    use super::*;

    fn hello(name: &str) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            features: 0,
            cluster: "test".to_owned(),
            node: NodeId::of(name),
            name: name.to_owned(),
            shards: 1,
            lane: 0,
            lanes: 1,
        }
    }

    fn meet(
        answer: impl FnOnce(&Hello) -> Result<Hello, String> + Send + 'static,
    ) -> Result<Hello, String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            accept(stream, answer).map(|(_, theirs)| theirs)
        });
        let dialed = dial(address, &hello("a")).map(|(_, theirs)| theirs);
        assert!(server.join().expect("no panic").is_ok() == dialed.is_ok());
        dialed
    }

    #[test]
    fn both_ends_learn_who_the_other_is() {
        assert_eq!(meet(|_| Ok(hello("b"))), Ok(hello("b")));
    }

    #[test]
    fn a_refusal_reaches_the_dialer_with_its_reason() {
        let refused = meet(|_| Err("wrong cluster".to_owned())).expect_err("refused");
        assert!(refused.contains("wrong cluster"), "{refused}");
    }

    #[test]
    fn bytes_that_are_no_greeting_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.write_all(&[7; 200]).expect("writes");
        });
        let (stream, _) = listener.accept().expect("a connection");
        assert!(accept(stream, |_| Ok(hello("b"))).is_err());
        client.join().expect("no panic");
    }
}
