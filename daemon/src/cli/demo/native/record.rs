//! The records of a tenant's log. All numbers are little-endian; book.py packs the same rows.
//!
//! | kind | payload |
//! |---|---|
//! | 1, the first record | how many accounts there are, u64 |
//! | 2, an account | its number u64, then 84 bytes of filler as pgbench has them |
//! | 3, a row | writer u32, generation u32, seq u64, account u64, amount i64 |
//! | 4, a proof | nothing: once it is acknowledged, all before it is |

use wal::log::Kind;

use crate::cli::demo::writer::Row;

pub const FOUNDING: Kind = Kind(1);
pub const ACCOUNT: Kind = Kind(2);
pub const ROW: Kind = Kind(3);
pub const PROOF: Kind = Kind(4);

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    Founding { accounts: u64 },
    Account(u64),
    Row(Row),
    Proof,
}

/// The payload of an account's record.
pub fn account(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend(format!("{number:<84}").into_bytes());
    payload
}

/// The payload of a row's record.
pub fn row(row: &Row) -> Vec<u8> {
    let generation = u32::try_from(row.generation).unwrap_or(u32::MAX);
    let mut payload = row.writer.to_le_bytes().to_vec();
    payload.extend(generation.to_le_bytes());
    payload.extend(row.seq.to_le_bytes());
    payload.extend(row.account.to_le_bytes());
    payload.extend(row.amount.to_le_bytes());
    payload
}

/// What a record says; `None` if nobody of ours wrote it.
pub fn decode(kind: Kind, payload: &[u8]) -> Option<Entry> {
    let half = |at: usize| {
        Some(u32::from_le_bytes(
            payload.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    let long = |at: usize| {
        Some(u64::from_le_bytes(
            payload.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    let (entry, written) = match kind {
        FOUNDING => {
            let accounts = long(0)?;
            (Entry::Founding { accounts }, accounts.to_le_bytes().into())
        }
        ACCOUNT => (Entry::Account(long(0)?), account(long(0)?)),
        ROW => {
            let found = Row {
                writer: half(0)?,
                generation: u64::from(half(4)?),
                seq: long(8)?,
                account: long(16)?,
                amount: long(24)?.cast_signed(),
            };
            (Entry::Row(found), row(&found))
        }
        PROOF => (Entry::Proof, Vec::new()),
        _ => return None,
    };
    (written == payload).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let one = Row {
            writer: 3,
            seq: 1 << 40,
            generation: 7,
            account: 500,
            amount: -1000,
        };
        let payload = row(&one);
        assert_eq!(decode(ROW, &payload), Some(Entry::Row(one)));
        assert_eq!(decode(ROW, &payload[..31]), None, "cut");
        assert_eq!(decode(Kind(9), &payload), None, "another kind");
        let mut other = account(12);
        assert_eq!(decode(ACCOUNT, &other), Some(Entry::Account(12)));
        other[50] ^= 1;
        assert_eq!(decode(ACCOUNT, &other), None, "the filler is no other one");
    }
}
