//! Sends without a copy, and what the kernel says about them.
//!
//! Such a send is answered twice: when its bytes are queued, and by a notification when nobody
//! reads the memory any more (io_uring_enter(2), IORING_OP_SEND_ZC). The ring keeps the bytes
//! until the second answer, or until an only one that says no second will follow.

use io_uring::opcode;

use super::payload::{Descriptor, Gather, Message, Payload};
use super::slab::Hold;
use super::{Ring, Token, raw};

/// The notification tells whether the kernel copied after all (6.2).
const REPORT_USAGE: u16 = 1 << 3;
/// It did.
const COPIED: u32 = 1 << 31;

impl Ring {
    /// Like [`Ring::send`], from our memory. First completes with the bytes queued and `more`, then
    /// with [`Payload::Released`]; or at once with the gather and an error.
    pub fn send_zero_copy(&mut self, token: Token, fd: &Descriptor, gather: Gather) {
        let message = Message::new(&gather, 0);
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        let entry = opcode::SendMsgZc::new(raw(fd), message.header())
            .flags(flags)
            .ioprio(REPORT_USAGE)
            .build();
        self.start(
            token,
            Some(fd),
            Payload::Gather(gather),
            Hold::Message(message),
            entry,
        );
    }
}

/// What a notification gives back.
pub(super) fn released(payload: Payload, result: i32) -> Payload {
    match payload {
        Payload::Gather(gather) => Payload::Released {
            gather,
            copied: result as u32 & COPIED != 0,
        },
        other => other,
    }
}
