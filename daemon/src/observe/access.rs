//! Access events: who asked for which key, where from, how much; and the JSON line that says so.
//!
//! One object a line. `key` must be there; `time`, `user`, `partition`, `region`, `task`,
//! `depends_on` and `bytes` may be. `time` is seconds since 1970, with a fraction if need be, or
//! RFC 3339 text. Members that are not known are passed over: access logs say all sorts of things.

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wal::PartitionName;

/// Longest key, in bytes.
pub const KEY_LEN_MAX: usize = 512;
/// Longest user, region, task and partition, in bytes.
pub const WORD_LEN_MAX: usize = 255;
/// The task of a backup: it is also counted as a request for one.
pub const BACKUP: &str = "backup";

/// Somebody asked for something.
#[derive(Clone, PartialEq, Debug)]
pub struct Access {
    /// Seconds since 1970; `None`: when it arrived.
    pub time: Option<f64>,
    pub user: Option<String>,
    pub key: String,
    pub partition: Option<PartitionName>,
    pub region: Option<String>,
    pub task: Option<String>,
    /// The key that was asked for before, and made this one necessary.
    pub depends_on: Option<String>,
    pub bytes: u64,
}

/// Why a line is no access event.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// {0}
    #[error("{0}")]
    Json(String),
    /// {0} is empty, or longer than {1} bytes
    #[error("{0} is empty, or longer than {1} bytes")]
    Length(&'static str, usize),
    /// {0} is neither seconds since 1970 nor RFC 3339
    #[error("{0} is neither seconds since 1970 nor RFC 3339")]
    Time(String),
    /// {0:?} is no partition name
    #[error("{0:?} is no partition name")]
    Partition(String),
    /// it is no line of HAProxy's HTTP log: {0} is missing
    #[error("it is no line of HAProxy's HTTP log: {0} is missing")]
    Haproxy(&'static str),
}

#[derive(Deserialize)]
struct Line {
    time: Option<When>,
    user: Option<String>,
    key: String,
    partition: Option<String>,
    region: Option<String>,
    task: Option<String>,
    depends_on: Option<String>,
    bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Seconds(f64),
    Text(String),
}

impl Access {
    /// Reads one JSON line.
    pub fn read(line: &[u8]) -> Result<Access, Malformed> {
        let line: Line = serde_json::from_slice(line)
            .map_err(|error| Malformed::Json(format!("not an event in JSON: {error}")))?;
        Access {
            time: line.time.map(seconds).transpose()?,
            user: line.user,
            key: line.key,
            partition: line.partition.map(partition).transpose()?,
            region: line.region,
            task: line.task,
            depends_on: line.depends_on,
            bytes: line.bytes.unwrap_or(0),
        }
        .checked()
    }

    /// This event, if every part of it is within its bounds.
    pub fn checked(self) -> Result<Access, Malformed> {
        fits("key", Some(&self.key), KEY_LEN_MAX)?;
        fits("user", self.user.as_deref(), WORD_LEN_MAX)?;
        fits("region", self.region.as_deref(), WORD_LEN_MAX)?;
        fits("task", self.task.as_deref(), WORD_LEN_MAX)?;
        fits("depends_on", self.depends_on.as_deref(), KEY_LEN_MAX)?;
        let partition = self.partition.as_ref().map(PartitionName::as_str);
        fits("partition", partition, WORD_LEN_MAX)?;
        Ok(self)
    }

    pub fn is_backup(&self) -> bool {
        self.task.as_deref() == Some(BACKUP)
    }
}

/// The partition of this name.
pub fn partition(name: String) -> Result<PartitionName, Malformed> {
    PartitionName::new(&name).ok_or(Malformed::Partition(name))
}

/// The lines of `bytes` that are not blank.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

fn seconds(when: When) -> Result<f64, Malformed> {
    match when {
        When::Seconds(seconds) if seconds.is_finite() => Ok(seconds),
        When::Seconds(seconds) => Err(Malformed::Time(seconds.to_string())),
        When::Text(text) => match OffsetDateTime::parse(&text, &Rfc3339) {
            Ok(time) => Ok(time.unix_timestamp_nanos() as f64 / 1e9),
            Err(_) => Err(Malformed::Time(format!("{text:?}"))),
        },
    }
}

fn fits(what: &'static str, text: Option<&str>, max: usize) -> Result<(), Malformed> {
    match text {
        Some(text) if text.is_empty() || text.len() > max => Err(Malformed::Length(what, max)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Result<Access, Malformed> {
        Access::read(line.as_bytes())
    }

    #[test]
    fn a_line_with_everything_is_read() {
        let line = r#"{"time": 1700000000.25, "user": "u", "key": "k", "partition": "eu/t.db",
            "region": "eu", "task": "backup", "depends_on": "j", "bytes": 9, "more": [1]}"#;
        let access = read(line).expect("right");
        assert_eq!(access.time, Some(1_700_000_000.25));
        assert_eq!(access.partition, PartitionName::new("eu/t.db"));
        assert_eq!((access.region.as_deref(), access.bytes), (Some("eu"), 9));
        assert_eq!(access.depends_on.as_deref(), Some("j"));
        assert!(access.is_backup());
    }

    #[test]
    fn a_key_is_enough() {
        let access = read(r#"{"key":"k"}"#).expect("right");
        assert_eq!((access.time, access.bytes), (None, 0));
        assert!(!access.is_backup());
    }

    #[test]
    fn a_time_may_be_text() {
        let access = read(r#"{"key":"k","time":"2023-11-14T23:13:20.5+01:00"}"#).expect("right");
        assert_eq!(access.time, Some(1_700_000_000.5));
    }

    #[test]
    fn what_is_no_event_says_why() {
        let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(KEY_LEN_MAX + 1));
        for (line, words) in [
            ("", "EOF"),
            ("[1]", "not an event"),
            (r#"{"user":"u"}"#, "missing field `key`"),
            (r#"{"key":""}"#, "key is empty"),
            (long.as_str(), "longer than 512"),
            (r#"{"key":"k","bytes":-1}"#, "not an event"),
            (r#"{"key":"k","time":1e999}"#, "not an event"),
            (r#"{"key":"k","time":"today"}"#, "\"today\" is neither"),
            (r#"{"key":"k","partition":"../x"}"#, "no partition name"),
            (r#"{"key":"k","region":""}"#, "region is empty"),
        ] {
            let why = read(line).expect_err(line).to_string();
            assert!(why.contains(words), "{line}: {why}");
        }
        assert!(Access::read(b"{\"key\":\"\xff\"}").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_stumble(bytes: Vec<u8>) {
            for line in lines(&bytes) {
                if let Ok(access) = Access::read(line) {
                    prop_assert!(access.checked().is_ok());
                }
            }
        }

        #[test]
        fn every_finite_number_is_a_time(time: f64) {
            prop_assume!(time.is_finite());
            let access = read(&format!(r#"{{"key":"k","time":{time}}}"#)).expect("right");
            prop_assert!(access.time.is_some_and(f64::is_finite));
        }
    }
}
