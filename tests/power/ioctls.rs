//! The two things that no tool does fast enough: a mark in the log of a dm-log-writes device, and
//! the end of a file system that nobody needs any more.
//!
//! A mark stands behind everything that was durable when it was asked for: the target appends
//! both to one list, the flush before its end is told.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rustix::ioctl::{Updater, ioctl};

/// `struct dm_ioctl` of linux/dm-ioctl.h, and behind it a `struct dm_target_msg`.
const HEAD_LEN: usize = 312;
const LEN: usize = 384;
const NAME_AT: usize = 48;
/// The sector of the target, a u64, stands before the words.
const WORDS_AT: usize = HEAD_LEN + 8;

/// `_IOWR(0xfd, 14, struct dm_ioctl)`.
const DM_TARGET_MSG: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<Head>(0xfd, 14);

#[repr(C, align(8))]
struct Head([u8; HEAD_LEN]);

#[repr(C, align(8))]
struct Message([u8; LEN]);

/// Where marks are asked for.
#[derive(Debug)]
pub struct Marker(File);

impl Marker {
    pub fn open() -> std::io::Result<Marker> {
        let mut options = OpenOptions::new();
        let control = options.read(true).write(true).open("/dev/mapper/control");
        control.map(Marker)
    }

    /// Puts `word` into the log of `device`; returns when it has its place.
    pub fn mark(&self, device: &str, word: &str) -> std::io::Result<()> {
        let words = format!("mark {word}");
        let mut message = Message([0; LEN]);
        let bytes = &mut message.0;
        assert!(device.len() < 128 && WORDS_AT + words.len() < LEN);
        let numbers = [4, 0, 0, LEN as u32, HEAD_LEN as u32];
        for (to, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&u32::to_le_bytes(number));
        }
        bytes[NAME_AT..NAME_AT + device.len()].copy_from_slice(device.as_bytes());
        bytes[WORDS_AT..WORDS_AT + words.len()].copy_from_slice(words.as_bytes());
        // SAFETY: the kernel reads and writes at most `data_size` bytes, which is the length of
        // `Message`; the opcode is the one that goes with this layout.
        let asked = unsafe {
            let update = Updater::<DM_TARGET_MSG, Message>::new(&mut message);
            ioctl(&self.0, update)
        };
        asked.map_err(Into::into)
    }
}

/// `_IOR('X', 125, __u32)`: the same for ext4 and XFS.
const FS_IOC_SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
/// Not even the journal is written.
const NO_LOG_FLUSH: u32 = 2;

/// Lets the file system at `dir` forget what it has not written.
pub fn shut_down(dir: &Path) -> std::io::Result<()> {
    let root = File::open(dir)?;
    let mut how = NO_LOG_FLUSH;
    // SAFETY: the kernel reads one u32; the opcode is the one that goes with it.
    let asked = unsafe {
        let update = Updater::<FS_IOC_SHUTDOWN, u32>::new(&mut how);
        ioctl(&root, update)
    };
    asked.map_err(Into::into)
}
