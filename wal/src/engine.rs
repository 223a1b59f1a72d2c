//! The engines whose partitions are looked after.

use rkyv::{Archive, Deserialize, Serialize};

/// Whose files a partition is.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
)]
pub enum Engine {
    /// A SQLite database in WAL mode.
    #[default]
    Sqlite,
    /// A log of [`crate::log`].
    Native,
}

impl Engine {
    pub const ALL: [Engine; 2] = [Engine::Sqlite, Engine::Native];

    /// As it is written in the configuration, and to people.
    pub fn word(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Native => "native",
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}
