//! What the store writes into a record: a key, and a value or its end. Pure.
//!
//! A payload, numbers little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 2 | length of the key, `k` |
//! | 2 | k | the key |
//! | 2 + k | the rest | the value; empty in a delete |
//!
//! | kind | what the record does |
//! |---|---|
//! | 1 | put: the key has this value from here on |
//! | 2 | delete: the key has no value from here on |
//! | 3 | relocated: a put that was moved; no news for who follows changes |
//!
//! Whoever replays the log takes 1 and 3 alike: of one key the last record counts.

use wal::log::Kind;

/// The longest key.
pub const KEY_MAX: usize = u16::MAX as usize;

pub const PUT: Kind = Kind(1);
pub const DELETE: Kind = Kind(2);
pub const RELOCATED: Kind = Kind(3);

/// What a record does to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
}

impl<'a> Change<'a> {
    /// `None` if no store wrote this.
    pub fn read(kind: Kind, payload: &'a [u8]) -> Option<Change<'a>> {
        let (len, rest) = payload.split_first_chunk::<2>()?;
        let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        match kind {
            PUT | RELOCATED => Some(Change::Put { key, value }),
            DELETE if value.is_empty() => Some(Change::Delete { key }),
            _ => None,
        }
    }

    pub fn key(&self) -> &'a [u8] {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}

/// Bytes of a payload.
pub const fn payload_len(key: usize, value: usize) -> usize {
    2 + key + value
}

/// The payload of a record; the key is not longer than [`KEY_MAX`].
pub fn payload(key: &[u8], value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(key.len()).expect("refused before");
    let mut bytes = Vec::with_capacity(payload_len(key.len(), value.len()));
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..300)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(key in bytes(), value in bytes()) {
            let put = payload(&key, &value);
            prop_assert_eq!(put.len(), payload_len(key.len(), value.len()));
            let expected = Change::Put { key: &key, value: &value };
            prop_assert_eq!(Change::read(PUT, &put), Some(expected));
            prop_assert_eq!(Change::read(RELOCATED, &put), Some(expected));
            let delete = payload(&key, &[]);
            prop_assert_eq!(Change::read(DELETE, &delete), Some(Change::Delete { key: &key }));
        }

        #[test]
        fn foreign_bytes_are_refused_and_never_panic(kind in any::<u16>(), bytes in bytes()) {
            if let Some(change) = Change::read(Kind(kind), &bytes) {
                prop_assert!((1..=3).contains(&kind));
                prop_assert!(change.key().len() <= bytes.len() - 2);
            }
        }
    }

    #[test]
    fn a_key_that_is_cut_short_is_no_record() {
        let whole = payload(b"key", b"");
        for len in 0..whole.len() {
            assert_eq!(Change::read(PUT, &whole[..len]), None, "{len} bytes");
        }
    }
}
