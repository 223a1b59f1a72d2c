//! Single values of the configuration file: expanded, parsed, bounded, or refused with their place.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use wal::Span;

use super::error::{Error, Place};
use super::raw::Value;
use super::units::{Rate, Share, Size, UnitError, parse_span, print_span};
use crate::serve::query::NodeName;

pub(super) const SPAN_HELP: &str = "write a number and ns, us, ms, s, min, h or d, as in \"50ms\"";
const SIZE_HELP: &str =
    "write a number and B, kB, KiB, MB, MiB, GB, GiB, TB or TiB, as in \"64MiB\"";

/// Reads values, and collects what is wrong with them.
pub(super) struct Checker<'a> {
    pub file: &'a Path,
    pub text: &'a str,
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    pub errors: Vec<Error>,
}

/// Where a value stands, if it is written at all.
pub(super) type At = Option<Range<usize>>;

/// Single values.
impl Checker<'_> {
    pub fn name(&mut self, key: &str, value: toml::Spanned<String>) -> NodeName {
        let at = value.span();
        let text = self.expand(key, value);
        NodeName::new(&text).unwrap_or_else(|| {
            let help = "write 1 to 64 letters, digits, -, _ and .";
            self.refuse(key, Some(at), format!("{text:?} is no name"), help);
            placeholder()
        })
    }

    pub fn path_of(&mut self, key: &str, value: Value<String>) -> Option<PathBuf> {
        let value = value?;
        let at = value.span();
        let text = self.expand(key, value);
        let path = PathBuf::from(&text);
        let dotted = text.split('/').any(|part| part == "..");
        if !path.is_absolute() || dotted {
            let help = "write the whole path, beginning with / and without ..";
            self.refuse(
                key,
                Some(at),
                format!("{text:?} is not an absolute path"),
                help,
            );
            return None;
        }
        Some(path)
    }

    pub fn socket_address(&mut self, key: &str, value: Value<String>) -> Option<SocketAddr> {
        let value = value?;
        let at = value.span();
        let text = self.expand(key, value);
        let address = text.parse();
        if address.is_err() {
            let help = "write an address and a port, as in \"127.0.0.1:7401\" or \"[::1]:7401\"";
            self.refuse(key, Some(at), format!("{text:?} is no address"), help);
        }
        address.ok()
    }

    pub fn span(
        &mut self,
        key: &str,
        value: Value<String>,
        default: Span,
        (min, max): (Span, Span),
    ) -> Span {
        let Some(value) = value else { return default };
        let at = value.span();
        let text = self.expand(key, value);
        let print = print_span;
        match parse_span(&text) {
            Ok(span) if span >= min && span <= max => return span,
            Ok(span) => self.refuse_range(key, at, print(span), print(min), print(max)),
            Err(error) => self.refuse_unit(key, at, &error, SPAN_HELP),
        }
        default
    }

    pub fn size(
        &mut self,
        key: &str,
        value: Value<String>,
        default: Size,
        (min, max): (Size, Size),
    ) -> Size {
        let Some(value) = value else { return default };
        let at = value.span();
        let text = self.expand(key, value);
        match Size::parse(&text) {
            Ok(size) if size >= min && size <= max => return size,
            Ok(size) => {
                self.refuse_range(key, at, size.to_string(), min.to_string(), max.to_string());
            }
            Err(error) => self.refuse_unit(key, at, &error, SIZE_HELP),
        }
        default
    }

    pub fn rate(&mut self, key: &str, value: Value<String>) -> Rate {
        let Some(value) = value else {
            return Rate::UNLIMITED;
        };
        let at = value.span();
        let text = self.expand(key, value);
        Rate::parse(&text).unwrap_or_else(|error| {
            self.refuse_unit(key, at, &error, SIZE_HELP);
            Rate::UNLIMITED
        })
    }

    /// A share, all of it at most; 0 only where `min` is.
    pub fn share(
        &mut self,
        key: &str,
        value: Value<f64>,
        default: Share,
        within: (Share, Share),
    ) -> Share {
        let Some(value) = value else { return default };
        let (at, share) = (value.span(), value.into_inner());
        let (min, max) = within;
        match Share::new(share) {
            Some(share) if share >= min && share <= max => return share,
            _ => self.refuse_range(key, at, share.to_string(), min.to_string(), max.to_string()),
        }
        default
    }

    pub fn number(
        &mut self,
        key: &str,
        value: Value<u64>,
        default: u32,
        (min, max): (u32, u32),
    ) -> u32 {
        let Some(value) = value else { return default };
        let (at, number) = (value.span(), value.into_inner());
        match u32::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => return number,
            _ => self.refuse_range(
                key,
                at,
                number.to_string(),
                min.to_string(),
                max.to_string(),
            ),
        }
        default
    }

    fn refuse_range(&mut self, key: &str, at: Range<usize>, is: String, min: String, max: String) {
        let help = format!("write {min} to {max}");
        self.refuse(key, Some(at), format!("{is} is out of bounds"), help);
    }

    pub fn refuse_unit(&mut self, key: &str, at: Range<usize>, error: &UnitError, help: &str) {
        self.refuse(key, Some(at), error.to_string(), help);
    }

    /// A path that is there or whose first existing parent is a directory.
    pub fn check_creatable(&mut self, key: &str, at: At, path: &Path) {
        let existing = path.ancestors().find(|path| path.exists());
        if let Some(existing) = existing.filter(|existing| !existing.is_dir()) {
            let why = format!("{} is a file, not a directory", existing.display());
            self.refuse(
                key,
                at,
                why,
                "name a directory, or a place where one can be made",
            );
        }
    }

    /// `${NAME}` -> the environment's value; `$$` -> `$`.
    pub fn expand(&mut self, key: &str, value: toml::Spanned<String>) -> String {
        let (at, text) = (value.span(), value.into_inner());
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(dollar) = rest.find('$') {
            out.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            let name = rest.strip_prefix('{').and_then(|tail| tail.split_once('}'));
            if let Some(tail) = rest.strip_prefix('$') {
                out.push('$');
                rest = tail;
            } else if let Some((name, tail)) = name {
                rest = tail;
                match (self.environment)(name) {
                    Some(value) => out.push_str(&value),
                    None => {
                        let why = format!("the environment has no {name}");
                        let help = "set it before the daemon starts (Environment= in the unit), \
                                    or write the value here";
                        self.refuse(key, Some(at.clone()), why, help);
                    }
                }
            } else {
                let help = "write ${NAME} for a variable, $$ for a dollar sign";
                self.refuse(key, Some(at.clone()), "a $ stands alone", help);
                return text;
            }
        }
        out + rest
    }
}

/// Errors.
impl Checker<'_> {
    pub fn refuse(&mut self, key: &str, at: At, why: impl Into<String>, help: impl Into<String>) {
        let place = at.map(|span| Place::of(self.text, span));
        let (file, key) = (self.file.to_owned(), key.to_owned());
        self.errors.push(Error {
            file,
            place,
            key,
            why: why.into(),
            help: help.into(),
        });
    }

    /// What the TOML reader refused: syntax, types, unknown keys.
    pub fn refuse_syntax(&mut self, error: &toml::de::Error) {
        let at = error.span();
        let section = at
            .as_ref()
            .map_or("", |span| section_of(self.text, span.start));
        let message = error.message().replace('\n', ", ");
        let Some((key, known)) = unknown_key(&message) else {
            let key = at.as_ref().map_or("", |span| key_of(self.text, span.start));
            let key = [section, key].into_iter().filter(|part| !part.is_empty());
            let key = key.collect::<Vec<_>>().join(".");
            let help = if message.contains("expected a string") {
                "durations, sizes, paths and addresses are text: put it in quotes, with its unit"
            } else {
                "see systemd/foreshadow.toml for every key, or write a new file with \
                 `foreshadow init`"
            };
            return self.refuse(&key, at, message, help);
        };
        let near = nearest(&key, &known);
        let place = if section.is_empty() {
            "the file".to_owned()
        } else {
            format!("[{section}]")
        };
        let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
        let help = format!("{near}{place} knows {}", known.join(", "));
        self.refuse(&key, at, format!("unknown key in {place}"), help);
    }
}

/// Stands for a name that was refused.
pub(super) fn placeholder() -> NodeName {
    NodeName::new("unnamed").expect("a valid name")
}

/// serde's words for a key that a section does not have: the key, and those that it has.
fn unknown_key(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known = rest
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    Some((key.to_owned(), known))
}

/// The known key that `key` was probably meant to be.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let scored = known
        .iter()
        .map(|name| (strsim::jaro_winkler(key, name), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score > 0.7)
        .map(|(_, name)| name.as_str())
}

/// The section header above byte `at`, without its brackets.
fn section_of(text: &str, at: usize) -> &str {
    let before = &text[..text.floor_char_boundary(at)];
    let mut headers = before
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('['));
    let header = headers.next_back().unwrap_or_default();
    header
        .trim_start_matches('[')
        .split(']')
        .next()
        .unwrap_or_default()
}

/// The key of the line of byte `at`.
fn key_of(text: &str, at: usize) -> &str {
    let at = text.floor_char_boundary(at);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    line.split_once('=').map_or("", |(key, _)| key.trim())
}
