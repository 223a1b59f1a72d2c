//! `[observe]` and `[[observe.follow]]`: what is seen, in how much memory, and where accesses are
//! told.

use std::path::PathBuf;

use wal::Span;

use super::raw::{self, Value};
use super::units::Size;
use super::values::Checker;
use crate::observe::Settings;
use crate::observe::haproxy::{Field, Rules};

/// Keys that are counted exactly when the file does not say, if so many fit.
const TOP: u32 = 10_000;

/// `[observe]`: what is seen of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObserveConfig {
    /// Everything is summed up in stretches of this length: whole seconds.
    pub bin: Span,
    /// How often the node's load is read.
    pub load_every: Span,
    /// Memory of what grows with what is seen.
    pub bytes_max: Size,
    /// Keys whose accesses are counted exactly.
    pub top: u32,
    /// Changes are told apart by ranges of 64 KiB.
    pub segments: bool,
    /// A Unix datagram socket that takes events as JSON lines.
    pub socket: Option<PathBuf>,
    pub follow: Vec<Follow>,
}

/// `[[observe.follow]]`: where else accesses are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Follow {
    pub feed: Feed,
    pub format: Format,
}

/// Where lines come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Feed {
    /// A file that grows and is rotated.
    File(PathBuf),
    /// A Unix datagram socket, as a log daemon's.
    Socket(PathBuf),
}

/// What a line is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Format {
    Json,
    Haproxy(Rules),
}

impl ObserveConfig {
    pub fn bin_seconds(&self) -> u32 {
        u32::try_from(self.bin.0 / 1_000_000_000).unwrap_or(u32::MAX)
    }
}

impl Default for ObserveConfig {
    fn default() -> ObserveConfig {
        ObserveConfig {
            bin: Span::secs(300),
            load_every: Span::secs(10),
            bytes_max: Size::mib(64),
            top: TOP,
            segments: true,
            socket: None,
            follow: Vec::new(),
        }
    }
}

impl Checker<'_> {
    pub fn observe(&mut self, raw: raw::Observe) -> ObserveConfig {
        let default = ObserveConfig::default();
        let day = Span::secs(86_400);
        let bin_at = raw.bin.as_ref().map(|value| value.span());
        let bin = self.span("observe.bin", raw.bin, default.bin, (Span::secs(1), day));
        if !bin.0.is_multiple_of(1_000_000_000) {
            let help = "write a whole number of seconds";
            self.refuse("observe.bin", bin_at, "is no whole number of seconds", help);
        }
        let load = (Span::secs(1), Span::secs(3_600));
        let bytes = (Size::mib(1), Size::mib(16 << 10));
        let bytes_max = self.size("observe.max_bytes", raw.max_bytes, default.bytes_max, bytes);
        ObserveConfig {
            bin,
            load_every: self.span(
                "observe.load_every",
                raw.load_every,
                default.load_every,
                load,
            ),
            bytes_max,
            top: self.top(raw.top, bytes_max),
            segments: raw.segments.is_none_or(|value| value.into_inner()),
            socket: self.path_of("observe.socket", raw.socket),
            follow: raw
                .follow
                .into_iter()
                .filter_map(|one| self.follow(one))
                .collect(),
        }
    }

    fn top(&mut self, value: Value<u64>, bytes_max: Size) -> u32 {
        let fits = Settings::top_max(usize::try_from(bytes_max.0).unwrap_or(usize::MAX));
        let fits = u32::try_from(fits).unwrap_or(u32::MAX);
        let Some(value) = value else {
            return TOP.min(fits);
        };
        let (at, top) = (value.span(), value.into_inner());
        if !(1..=u64::from(fits)).contains(&top) {
            let help = format!("write 1 to {fits}, or raise observe.max_bytes");
            let why = format!("{top} keys don't fit into observe.max_bytes = {bytes_max}");
            self.refuse("observe.top", Some(at), why, help);
        }
        (top as u32).clamp(1, fits)
    }

    fn follow(&mut self, raw: toml::Spanned<raw::Follow>) -> Option<Follow> {
        let (at, raw) = (raw.span(), raw.into_inner());
        let feed = match (raw.path, raw.socket) {
            (path @ Some(_), None) => Feed::File(self.path_of("observe.follow.path", path)?),
            (None, socket @ Some(_)) => {
                Feed::Socket(self.path_of("observe.follow.socket", socket)?)
            }
            _ => {
                let help = "write path for a file that grows, or socket for one to receive on";
                let why = "has neither path nor socket, or both";
                self.refuse("observe.follow", Some(at), why, help);
                return None;
            }
        };
        let rules = [&raw.key, &raw.user, &raw.region, &raw.partition, &raw.task];
        let ruled = rules
            .into_iter()
            .chain([&raw.partition_suffix])
            .flatten()
            .next();
        let ruled = ruled.map(|value| value.span());
        let format = raw.format.map(|value| {
            let at = value.span();
            (at, self.expand("observe.follow.format", value))
        });
        let format = match format {
            None => Format::Json,
            Some((_, word)) if word == "json" => Format::Json,
            Some((_, word)) if word == "haproxy" => {
                return Some(Follow {
                    feed,
                    format: Format::Haproxy(self.rules(
                        [
                            ("key", raw.key),
                            ("user", raw.user),
                            ("region", raw.region),
                            ("partition", raw.partition),
                            ("task", raw.task),
                        ],
                        raw.partition_suffix,
                    )),
                });
            }
            Some((at, word)) => {
                let why = format!("{word:?} is not known");
                let help = "write format = \"json\" or format = \"haproxy\"";
                self.refuse("observe.follow.format", Some(at), why, help);
                Format::Json
            }
        };
        if let Some(at) = ruled {
            let help = "events in JSON name their parts themselves; remove it";
            let why = "is a rule for format = \"haproxy\"";
            self.refuse("observe.follow", Some(at), why, help);
        }
        Some(Follow { feed, format })
    }

    fn rules(&mut self, fields: [(&str, Value<String>); 5], suffix: Value<String>) -> Rules {
        let [key, user, region, partition, task] =
            fields.map(|(name, value)| self.field(&format!("observe.follow.{name}"), value));
        let suffix = suffix.map(|value| self.expand("observe.follow.partition_suffix", value));
        Rules {
            key: key.unwrap_or(Rules::default().key),
            user,
            region,
            partition,
            partition_suffix: suffix.unwrap_or_default(),
            task,
        }
    }

    fn field(&mut self, key: &str, value: Value<String>) -> Option<Field> {
        let value = value?;
        let (at, text) = (value.span(), self.expand(key, value));
        let field = Field::parse(&text);
        if field.is_none() {
            let help = "write path, path:N, query:NAME, captured:N, client, frontend, backend, \
                        server or method; N is 1 to 64";
            let why = format!("{text:?} is no part of a line of HAProxy's log");
            self.refuse(key, Some(at), why, help);
        }
        field
    }
}
