//! Waiting for the bells of native logs: a futex that lies in a mapped file.

use std::sync::Arc;

use io_uring::opcode;
use wal::log::Control;

use super::slab::Hold;
use super::{IGNORED, Payload, Ring, Token};

/// linux/futex.h: the word has 32 bits, and lies in memory that processes share.
const SIZE_U32: u32 = 2;
/// Any waker.
const MATCH_ANY: u64 = u32::MAX as u64;

/// A log whose bell is waited for. While this lives whoever commits to the log wakes who waits.
#[derive(Debug)]
pub struct Bell {
    control: Arc<Control>,
    /// The caller's.
    pub key: u64,
}

impl Bell {
    pub fn new(control: Arc<Control>, key: u64) -> Bell {
        control.listen();
        Bell { control, key }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.control.unlisten();
    }
}

impl Ring {
    /// Completes when the bell is not `seen` any more, or at any time before: look at the log.
    /// Kernels before 6.7 answer with an error.
    pub fn wait_bell(&mut self, token: Token, bell: Bell, seen: u32) {
        let word = bell.control.bell_address().cast::<u32>();
        let entry = opcode::FutexWait::new(word, u64::from(seen), MATCH_ANY, SIZE_U32).build();
        self.start(token, None, Payload::Bell(bell), Hold::Nothing, entry);
    }

    /// Asks for the end of the wait for the bell of `key`; it still completes.
    pub fn cancel_bell(&mut self, key: u64) {
        let keys = self
            .slab
            .keys_where(|payload| matches!(payload, Payload::Bell(bell) if bell.key == key));
        for key in keys {
            let entry = opcode::AsyncCancel::new(key).build().user_data(IGNORED);
            self.push(entry);
        }
    }
}
