//! What peers say to one another, besides the frames that carry pages.
//!
//! A message travels as the payload of one [`Frame`](crate::frame::Frame) of kind `Message`,
//! archived with rkyv and opened with checked access. Unknown or damaged messages are errors, never
//! guesses. Names of states follow docs/PROTOCOL.md.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::engine::Engine;
use crate::error::Error;
use crate::frame::{Codec, Flags, Frame, FrameKind, Header};
use crate::ids::{NodeId, PartitionId};
use crate::lsn::{Epoch, Lsn, Position};

/// Version of the conversation. Peers with another version refuse each other by name.
pub const PROTOCOL_VERSION: u32 = 2;
/// Page hashes in one [`Message::Hashes`]: 64 KiB of payload.
pub const HASHES_PER_MESSAGE_MAX: usize = 8192;

/// First words on a link, in both directions.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hello {
    pub version: u32,
    /// Bits of optional abilities; none are defined yet, unknown bits are ignored.
    pub features: u64,
    pub cluster: String,
    pub node: NodeId,
    pub name: String,
    /// Shards of the speaker; with the listener's count it gives the number of lanes.
    pub shards: u16,
    /// Which of the `lanes` between the two nodes this connection carries.
    pub lane: u16,
    pub lanes: u16,
}

/// What the files of a partition are: preserved on every copy.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes {
    pub engine: Engine,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a receiver holds of a partition that it is offered.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// No copy.
    Nothing,
    /// Pages of no known position: compare page hashes.
    Partial,
    /// Exactly the partition at this position.
    At(Position),
    /// A copy is being made ready; ask again later.
    Busy,
}

/// Whether an epoch was granted, as its source knows.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    Granted,
    NotGranted,
    /// Not decided yet: ask again.
    Undecided,
}

/// Everything that peers say.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    Hello(Hello),
    /// The link will be closed; the reason is for people.
    Refuse {
        reason: String,
    },
    Ping {
        nonce: u64,
    },
    Pong {
        nonce: u64,
    },
    /// The owner wants a shadow kept.
    Offer {
        partition: PartitionId,
        name: String,
        at: Position,
        page_size: u32,
        attributes: Attributes,
    },
    Stand {
        partition: PartitionId,
        standing: Standing,
    },
    /// The receiver will not keep this shadow.
    Decline {
        partition: PartitionId,
        reason: String,
    },
    AskHashes {
        partition: PartitionId,
    },
    /// Page hashes from page `first` on; the last message of a table says so.
    Hashes {
        partition: PartitionId,
        first: u32,
        hashes: Vec<u64>,
        last: bool,
    },
    /// Everything up to `durable` survives a power cut at the receiver.
    Ack {
        partition: PartitionId,
        durable: Position,
    },
    /// The receiver's copy is no longer a prefix of the source; compare again.
    Lost {
        partition: PartitionId,
        reason: String,
    },
    /// A shadow that heard no offer for long: is it still wanted?
    Wanted {
        partition: PartitionId,
    },
    /// The owner no longer wants this shadow.
    Discard {
        partition: PartitionId,
    },
    /// Switchover: get ready to land under `epoch`.
    Prepare {
        partition: PartitionId,
        epoch: Epoch,
    },
    Prepared {
        partition: PartitionId,
        epoch: Epoch,
    },
    /// The target can't take over; the source goes on serving.
    Unable {
        partition: PartitionId,
        epoch: Epoch,
        reason: String,
    },
    /// The source is frozen at `position`; everything up to it has been sent.
    Finish {
        partition: PartitionId,
        epoch: Epoch,
        position: Position,
    },
    /// The target holds `position` durably and verified.
    Ready {
        partition: PartitionId,
        epoch: Epoch,
        position: Position,
    },
    /// `epoch` will never be granted.
    Abort {
        partition: PartitionId,
        epoch: Epoch,
    },
    /// `epoch` is granted: the fence is durable.
    Grant {
        partition: PartitionId,
        epoch: Epoch,
    },
    /// The target serves under `epoch`.
    Serving {
        partition: PartitionId,
        epoch: Epoch,
        lsn: Lsn,
    },
    /// A target that heard nothing: what became of `epoch`?
    Ask {
        partition: PartitionId,
        epoch: Epoch,
    },
    Tell {
        partition: PartitionId,
        epoch: Epoch,
        verdict: Verdict,
    },
}

impl Message {
    /// The partition spoken of; 0 where the link itself is meant.
    pub fn partition(&self) -> PartitionId {
        match self {
            Message::Hello(_)
            | Message::Refuse { .. }
            | Message::Ping { .. }
            | Message::Pong { .. } => PartitionId(0),
            Message::Offer { partition, .. }
            | Message::Stand { partition, .. }
            | Message::Decline { partition, .. }
            | Message::AskHashes { partition }
            | Message::Hashes { partition, .. }
            | Message::Ack { partition, .. }
            | Message::Lost { partition, .. }
            | Message::Wanted { partition }
            | Message::Discard { partition }
            | Message::Prepare { partition, .. }
            | Message::Prepared { partition, .. }
            | Message::Unable { partition, .. }
            | Message::Finish { partition, .. }
            | Message::Ready { partition, .. }
            | Message::Abort { partition, .. }
            | Message::Grant { partition, .. }
            | Message::Serving { partition, .. }
            | Message::Ask { partition, .. }
            | Message::Tell { partition, .. } => *partition,
        }
    }

    /// The message as a frame, ready for a link.
    pub fn seal(&self) -> Frame {
        let payload = rkyv::to_bytes::<rancor::Error>(self)
            .expect("a message of plain values and bounded vectors always archives");
        let header = Header {
            kind: FrameKind::Message,
            flags: Flags(0),
            partition: self.partition(),
            epoch: Epoch(0),
            from: Lsn(0),
            to: Lsn(0),
            plain_len: payload.len() as u32,
            wire_len: payload.len() as u32,
            codec: Codec::Plain,
            level: 0,
            crc: 0,
        };
        Frame::seal(header, &payload)
    }

    /// Reads the message of a frame whose checksum was already verified.
    pub fn open(frame: &Frame) -> Result<Message, Error> {
        let header = frame.header();
        if header.kind != FrameKind::Message {
            return Err(Error::Field {
                what: "message",
                field: "kind",
                value: header.kind as u64,
            });
        }
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(frame.payload().len());
        aligned.extend_from_slice(frame.payload());
        let message = rkyv::from_bytes::<Message, rancor::Error>(&aligned).map_err(|error| {
            Error::Archive {
                what: "message",
                reason: error.to_string(),
            }
        })?;
        if let Message::Hashes { hashes, .. } = &message
            && hashes.len() > HASHES_PER_MESSAGE_MAX
        {
            return Err(Error::TooLong {
                what: "page hashes",
                declared: hashes.len() as u64,
                max: HASHES_PER_MESSAGE_MAX as u64,
            });
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_frame() {
        let message = Message::Offer {
            partition: PartitionId(7),
            name: "tenant.db".to_owned(),
            at: Position::default(),
            page_size: 4096,
            attributes: Attributes {
                engine: Engine::Native,
                mode: 0o640,
                uid: 1,
                gid: 2,
            },
        };
        let frame = Frame::parse(message.seal().bytes()).expect("our own frame parses");
        assert_eq!(Message::open(&frame), Ok(message));
    }

    #[test]
    fn a_table_of_hashes_is_bounded() {
        let message = Message::Hashes {
            partition: PartitionId(7),
            first: 1,
            hashes: vec![1; HASHES_PER_MESSAGE_MAX + 1],
            last: true,
        };
        assert!(Message::open(&message.seal()).is_err());
    }
}
