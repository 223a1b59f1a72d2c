//! Storage engines: how a live engine's change log is tailed, frozen and fenced without changing
//! the engine or linking its library.
//!
//! | module | what it does |
//! |---|---|
//! | [`sqlite`] | SQLite in WAL mode, of unmodified applications |
//! | [`native`] | the native log of engines that link `foreshadow-wal` |
//! | [`source`], [`task`] | a live partition of either, and what helper threads do for it |
//! | [`watch`], [`alert`] | ten thousand partitions at a glance, and which of them stirs |
//! | [`discover`], [`hint`] | which partitions a directory holds, and when to look again |
//! | [`tombstone`] | what stands at the path of a partition that moved away |
//! | [`shadow`] | the copy of a partition: filled, followed, landed |
//! | `change`, [`table`] | the pages of a change; the hash of every page of a partition |
//! | `names`, `inotify` | names of files; the kernel's word of what happened to them |
//!
//! Adding an engine: a module here, a variant of [`wal::Engine`], and an arm in `source`, `task`,
//! `watch`, `discover` and `tombstone`.
mod change;
mod inotify;
mod names;

pub mod alert;
pub mod discover;
pub mod hint;
pub mod native;
pub mod shadow;
pub mod source;
pub mod sqlite;
pub mod table;
pub mod task;
pub mod tombstone;
pub mod watch;

pub use alert::Alerts;
pub use discover::{Directory, Found, Listing};
pub use hint::{DirectoryWatch, Hint, Stamp};
pub use names::{resolve_inside, sibling};
pub use source::{Adopted, Change, Extent, Landed, Options, Source};
pub use task::{CheckpointTask, FenceTask, FreezeTask, Scan, ScanTask};
pub use tombstone::{is_tombstone, tombstone};
pub use watch::{Sweeper, Watch};
