//! HAProxy's HTTP log (`option httplog`), read as access events by a few rules.
//!
//! The format is section 8.2.3 of HAProxy's configuration manual; what comes before the client's
//! address (a syslog header of RFC 3164 or 5424, or nothing) and after the request (`option
//! httpslog`) is passed over. The manual, section 8.6: in captured headers `"`, `#`, `{`, `|`, `}`
//! and what can't be printed are written `#XX`; in the request `"` and `#` are.
//!
//! The accept date has no zone, so an event's time is when the line arrived.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

use super::access::{Access, Malformed, partition};

/// A part of a line that can stand for a part of an event.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Field {
    /// The path of the request.
    Path,
    /// The path's part of this number, from 1.
    PathPart(usize),
    /// The parameter of this name in the request's query string.
    Query(String),
    /// The captured value of this number, from 1, over both groups.
    Captured(usize),
    Client,
    Frontend,
    Backend,
    Server,
    Method,
}

/// What of a line is what of an event.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rules {
    pub key: Field,
    pub user: Option<Field>,
    pub region: Option<Field>,
    pub partition: Option<Field>,
    /// Appended to what `partition` gives: `.db`.
    pub partition_suffix: String,
    pub task: Option<Field>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            key: Field::Path,
            user: None,
            region: None,
            partition: None,
            partition_suffix: String::new(),
            task: None,
        }
    }
}

impl Rules {
    /// The event of a line; `None` when it is right and has no key.
    pub fn read(&self, line: &[u8]) -> Result<Option<Access>, Malformed> {
        let text = String::from_utf8_lossy(line);
        let line = Line::read(&text)?;
        let value = |field: &Option<Field>| field.as_ref().and_then(|field| line.value(field));
        let Some(key) = line.value(&self.key) else {
            return Ok(None);
        };
        let name = value(&self.partition).map(|name| name + &self.partition_suffix);
        let access = Access {
            time: None,
            user: value(&self.user),
            key,
            partition: name.map(partition).transpose()?,
            region: value(&self.region),
            task: value(&self.task),
            depends_on: None,
            bytes: line.bytes,
        };
        access.checked().map(Some)
    }
}

impl Field {
    /// Reads `path`, `path:2`, `query:user`, `captured:1`, `backend` and so on.
    pub fn parse(text: &str) -> Option<Field> {
        let number = |text: &str| text.parse().ok().filter(|number| (1..=64).contains(number));
        Some(match text.split_once(':') {
            Some(("path", part)) => Field::PathPart(number(part)?),
            Some(("query", name)) if !name.is_empty() => Field::Query(name.to_owned()),
            Some(("captured", index)) => Field::Captured(number(index)?),
            Some(_) => return None,
            None => match text {
                "path" => Field::Path,
                "client" => Field::Client,
                "frontend" => Field::Frontend,
                "backend" => Field::Backend,
                "server" => Field::Server,
                "method" => Field::Method,
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Path => f.write_str("path"),
            Field::PathPart(part) => write!(f, "path:{part}"),
            Field::Query(name) => write!(f, "query:{name}"),
            Field::Captured(index) => write!(f, "captured:{index}"),
            Field::Client => f.write_str("client"),
            Field::Frontend => f.write_str("frontend"),
            Field::Backend => f.write_str("backend"),
            Field::Server => f.write_str("server"),
            Field::Method => f.write_str("method"),
        }
    }
}

/// What a line says.
struct Line<'a> {
    client: &'a str,
    frontend: &'a str,
    backend: &'a str,
    server: &'a str,
    bytes: u64,
    captured: Vec<&'a str>,
    method: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Result<Line<'a>, Malformed> {
        let missing = Malformed::Haproxy;
        let (before, rest) = accept_date(text).ok_or(missing("the accept date"))?;
        let client = before.split_ascii_whitespace().next_back();
        let client = client.ok_or(missing("the client"))?;
        let mut words = Words(rest);
        let frontend = words.next().ok_or(missing("the frontend"))?;
        let serving = words.next().ok_or(missing("the backend"))?;
        let (backend, server) = serving
            .split_once('/')
            .ok_or(missing("the server after the backend"))?;
        // Timers and status.
        let timers = words.next().ok_or(missing("the timers"))?;
        let status = words.next().ok_or(missing("the status"))?;
        if timers.split('/').count() < 5 || status.parse::<i32>().is_err() {
            return Err(missing("the status after five timers"));
        }
        // With `option logasap` the count is not final and has a plus sign.
        let bytes = words.next().ok_or(missing("the count of bytes"))?;
        let bytes = bytes.strip_prefix('+').unwrap_or(bytes).parse();
        let bytes = bytes.map_err(|_| missing("the count of bytes"))?;
        // Two cookies, the termination state, connections, queues.
        for _ in 0..5 {
            words.next().ok_or(missing("the queues"))?;
        }
        let (captured, rest) = captures(words.0);
        let (method, target) = request(rest).ok_or(missing("the request"))?;
        let target = target.split('#').next().unwrap_or(target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Line {
            // An address of IPv6 has colons, too: the port is behind the last one.
            client: client.rsplit_once(':').map_or(client, |(host, _)| host),
            frontend: frontend.strip_suffix('~').unwrap_or(frontend),
            backend,
            server,
            bytes,
            captured,
            method,
            path: path_of(path),
            query,
        })
    }

    fn value(&self, field: &Field) -> Option<String> {
        let plain = |text: &str| Some(text.to_owned());
        let value = match field {
            Field::Path => decoded(self.path),
            Field::PathPart(part) => {
                let mut parts = self.path.split('/').filter(|part| !part.is_empty());
                parts.nth(part - 1).and_then(decoded)
            }
            Field::Query(name) => {
                let pairs = self
                    .query
                    .split('&')
                    .filter_map(|pair| pair.split_once('='));
                let mut values = pairs.filter(|(key, _)| key == name);
                values.next().and_then(|(_, value)| decoded(value))
            }
            Field::Captured(index) => self
                .captured
                .get(index - 1)
                .map(|value| unescaped(value).into_owned()),
            Field::Client => plain(self.client),
            Field::Frontend => plain(self.frontend),
            Field::Backend => plain(self.backend),
            Field::Server => plain(self.server),
            Field::Method => plain(self.method),
        };
        // HAProxy writes <NOSRV>, <STATS> and so on where there was none, and - for an empty value.
        value.filter(|value| !value.is_empty() && value != "-" && !value.starts_with('<'))
    }
}

/// Words between single spaces.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start_matches(' ');
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// What stands before and after ` [22/Nov/2026:10:22:38.123] `.
fn accept_date(text: &str) -> Option<(&str, &str)> {
    let is_date = |inside: &str| {
        let bytes = inside.as_bytes();
        let at = |index: usize| bytes.get(index).copied();
        bytes.len() >= 20 && at(2) == Some(b'/') && at(6) == Some(b'/') && at(11) == Some(b':')
    };
    let mut openings = text.match_indices(" [");
    openings.find_map(|(at, _)| {
        let (inside, rest) = text[at + 2..].split_once("] ")?;
        is_date(inside).then(|| (&text[..at], rest))
    })
}

/// The values of the groups `{a|b}` at the beginning, and what follows them.
fn captures(mut text: &str) -> (Vec<&str>, &str) {
    let mut values = Vec::new();
    loop {
        text = text.trim_start_matches(' ');
        let group = text.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((group, rest)) = group else {
            return (values, text);
        };
        values.extend(group.split('|'));
        text = rest;
    }
}

/// Method and target of `"GET /path HTTP/1.1"`.
fn request(text: &str) -> Option<(&str, &str)> {
    let (inside, _) = text.strip_prefix('"')?.split_once('"')?;
    let mut words = inside.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (!method.starts_with('<')).then_some((method, target))
}

/// The path of a target in absolute form, `http://host/path` (RFC 9112 3.2.2), too.
fn path_of(target: &str) -> &str {
    match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    }
}

fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

/// `#XX` -> the byte.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('#') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte.filter(|_| *first == b'#') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[path = "haproxy_tests.rs"]
mod tests;
