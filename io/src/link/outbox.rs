//! Frames waiting to be sent, by class, each class bounded; and what goes out next.
//!
//! Invariants: frames of one class leave in the order they came; no class holds more than its
//! bound, except one frame that is larger than the bound all by itself; what is built for one send
//! is at most what the link carries in a turn ([`super::pace`]) or one frame, so an urgent frame
//! waits for no more than that.

use std::collections::VecDeque;

use wal::compress::{RecordHead, Squeezer};
use wal::frame::Frame;

use super::Class;
use crate::error::{Error, Result};
use crate::ring::{Chunk, Gather};

/// Frames shorter than this share the squeezed stream; longer ones are compressed well already.
pub const SQUEEZE_LEN: usize = 4096;
/// Plain bytes of one squeezed record.
pub const BATCH_LEN: usize = 64 << 10;
/// Longest bulk frame: with what the socket holds it keeps an urgent frame behind at most 1 MiB.
pub const BULK_LEN_MAX: usize = 512 << 10;

/// Most bytes waiting in each class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub urgent: usize,
    pub live: usize,
    pub bulk: usize,
}

impl Default for Bounds {
    /// Live has room for two of the longest frames, bulk for what a fast disk reads meanwhile.
    fn default() -> Bounds {
        Bounds {
            urgent: 4 << 20,
            live: 32 << 20,
            bulk: 2 << 20,
        }
    }
}

/// Why a frame was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Backpressure {
    /// The class is full; `LinkEvent::Writable` tells when it has room again.
    #[error("{class:?} frames of the link are full: {queued} bytes wait")]
    Full { class: Class, queued: usize },
    /// The frame would keep an urgent one waiting for too long.
    #[error("a bulk frame of {len} bytes is too long: at most {BULK_LEN_MAX} are accepted")]
    TooLong { len: usize },
    /// The link is over or ending.
    #[error("the link is closed")]
    Closed,
}

#[derive(Debug)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    bytes_max: usize,
    /// Somebody was refused and waits to hear of room.
    refused: bool,
}

/// The sending side of a link, without its socket.
#[derive(Debug)]
pub struct Outbox {
    queues: [Queue; Class::ALL.len()],
    squeezer: Squeezer,
    /// Small frames gathered for one squeezed record.
    batch: Vec<u8>,
    frames_out: u64,
}

impl Outbox {
    pub fn new(bounds: Bounds) -> Outbox {
        let queue = |bytes_max| Queue {
            frames: VecDeque::new(),
            bytes: 0,
            bytes_max,
            refused: false,
        };
        let queues = [bounds.urgent, bounds.live, bounds.bulk].map(queue);
        Outbox {
            queues,
            squeezer: Squeezer::new(),
            batch: Vec::new(),
            frames_out: 0,
        }
    }

    /// Queues a frame behind those of its class.
    pub fn enqueue(&mut self, class: Class, frame: Frame) -> std::result::Result<(), Backpressure> {
        let len = frame.len();
        if class == Class::Bulk && len > BULK_LEN_MAX {
            return Err(Backpressure::TooLong { len });
        }
        let queue = &mut self.queues[class as usize];
        if queue.bytes > 0 && queue.bytes + len > queue.bytes_max {
            queue.refused = true;
            return Err(Backpressure::Full {
                class,
                queued: queue.bytes,
            });
        }
        queue.bytes += len;
        queue.frames.push_back(frame);
        Ok(())
    }

    /// Bytes of frames waiting in a class.
    pub fn queued_bytes(&self, class: Class) -> usize {
        self.queues[class as usize].bytes
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.frames.is_empty())
    }

    /// Frames handed out for sending.
    pub fn frames_out(&self) -> u64 {
        self.frames_out
    }

    /// Whether a class that refused is down to half its bound; says so once per refusal.
    pub fn has_room_again(&mut self) -> bool {
        let mut again = false;
        for queue in &mut self.queues {
            if queue.refused && queue.bytes <= queue.bytes_max / 2 {
                queue.refused = false;
                again = true;
            }
        }
        again
    }

    /// Takes what is to be sent next, as records of at most `len_max` bytes of frames, or of one
    /// longer frame; `None` when nothing waits.
    pub fn next_send(&mut self, len_max: usize) -> Result<Option<Gather>> {
        let mut gather = Gather::default();
        let mut head = Vec::new();
        let mut planned = 0;
        while let Some(frame) = self.next_frame(planned, len_max) {
            planned += frame.len();
            self.frames_out += 1;
            if frame.len() < SQUEEZE_LEN {
                self.batch.extend_from_slice(frame.bytes());
                if self.batch.len() + SQUEEZE_LEN > BATCH_LEN {
                    self.squeeze_batch(&mut head)?;
                }
                continue;
            }
            self.squeeze_batch(&mut head)?;
            head.extend(
                RecordHead {
                    len: frame.len() as u32,
                    squeezed: false,
                }
                .encode(),
            );
            gather.push(Chunk::Bytes(std::mem::take(&mut head)));
            gather.push(Chunk::Frame(frame));
            if !gather.has_room() {
                break;
            }
        }
        self.squeeze_batch(&mut head)?;
        if !head.is_empty() {
            gather.push(Chunk::Bytes(head));
        }
        Ok((!gather.is_empty()).then_some(gather))
    }

    /// The most urgent frame that still fits a send with `planned` bytes in it.
    fn next_frame(&mut self, planned: usize, len_max: usize) -> Option<Frame> {
        let queue = self
            .queues
            .iter_mut()
            .find(|queue| !queue.frames.is_empty())?;
        let len = queue.frames.front()?.len();
        if planned > 0 && planned + len > len_max {
            return None;
        }
        queue.bytes -= len;
        queue.frames.pop_front()
    }

    /// Appends the gathered small frames to `out` as one squeezed record.
    fn squeeze_batch(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let start = out.len();
        out.extend([0; RecordHead::LEN]);
        self.squeezer
            .squeeze(&self.batch, out)
            .map_err(Error::from)?;
        self.batch.clear();
        let len = (out.len() - start - RecordHead::LEN) as u32;
        let head = RecordHead {
            len,
            squeezed: true,
        }
        .encode();
        out[start..start + RecordHead::LEN].copy_from_slice(&head);
        Ok(())
    }
}
