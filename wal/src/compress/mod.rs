//! zstd in two forms: pages against their previous images, and a link's stream of small frames.

mod link;
mod pages;

pub use link::{RECORD_LEN_MAX, RecordHead, Squeezer, Unsqueezer, WINDOW_LOG};
pub(crate) use pages::{PLAIN_LEN_MAX, PREFIXED_LEN_MAX, Packer, Unpacker};
