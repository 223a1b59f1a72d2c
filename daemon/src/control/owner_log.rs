//! The owners file: bytes <-> records. Pure; `embedded.rs` reads and writes it.
//!
//! `<dir>/owners.log`, little-endian:
//!
//! | offset | header (24 bytes) |
//! |---|---|
//! | 0 | magic `FSOWN\0\0\1`; the last byte is the version |
//! | 8 | length of the sealed part: header and records written at once by a compaction |
//! | 16 | crc32 of the 16 bytes before |
//! | 20 | 0 |
//!
//! | offset | record |
//! |---|---|
//! | 0 | length of the name |
//! | 4 | crc32 of the rest of the record, the length before it |
//! | 8 | revision |
//! | 16 | group: revision of the first record written with the same sync |
//! | 24 | epoch |
//! | 32 | highest reserved epoch |
//! | 40 | owner |
//! | 44 | previous owner |
//! | 48 | 1 if there is a previous owner, else 0 |
//! | 52 | number of former owners |
//! | 56 | name, then each former owner in 4 bytes |
//!
//! A later record of a partition replaces an earlier one. A crash can tear only the group that was
//! being written, which nobody was promised: what does not check is cut off. A record that does not
//! check but is followed by one of a later group, or lies in the sealed part, is damage instead;
//! cutting there would give epochs out twice.

use wal::{Epoch, NodeId, PartitionName};

use super::coordinator::{OwnerRecord, Revision};

pub const HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 56;
/// More nodes than a cluster has.
const FORMERS_MAX: usize = 4096;
const MAGIC: [u8; 8] = *b"FSOWN\0\0\x01";

/// A file that can't be believed, from byte `offset` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    pub offset: usize,
    pub reason: &'static str,
}

/// What was read of a file or of its tail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scanned {
    pub records: Vec<OwnerRecord>,
    /// Bytes that check; what follows is torn.
    pub valid_len: usize,
}

/// The header of a file whose first `sealed_len` bytes were written at once.
pub fn encode_header(sealed_len: u64) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&sealed_len.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The sealed length that `bytes` declare.
pub fn decode_header(bytes: &[u8]) -> Result<u64, Damage> {
    let damage = |reason| Damage { offset: 0, reason };
    let head: &[u8; HEADER_LEN] = bytes
        .first_chunk()
        .ok_or(damage("the header is cut short"))?;
    if head[..7] != MAGIC[..7] {
        return Err(damage("it is not an owners file"));
    }
    if head[7] != MAGIC[7] {
        return Err(damage("it was written by another version"));
    }
    if u32_at(head, 16) != crc32fast::hash(&head[..16]) {
        return Err(damage("the header fails its checksum"));
    }
    Ok(u64_at(head, 8))
}

/// Appends `record` to `out`, as written with the group that began at `group`.
pub fn encode(record: &OwnerRecord, group: Revision, out: &mut Vec<u8>) {
    let start = out.len();
    let name = record.name.as_str().as_bytes();
    out.extend_from_slice(&(name.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for word in [
        record.revision.0,
        group.0,
        record.epoch.0,
        record.reserved.0,
    ] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let previous = record.previous;
    for word in [
        record.owner.0,
        previous.map_or(0, |node| node.0),
        previous.is_some().into(),
        record.formers.len() as u32,
    ] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(name);
    for node in &record.formers {
        out.extend_from_slice(&node.0.to_le_bytes());
    }
    let crc = crc_of(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Where bytes lie in their file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub offset: usize,
    /// The sealed part of the file ends here.
    pub sealed_len: u64,
    /// The newest revision before these bytes.
    pub revision: Revision,
}

/// Reads the records of `bytes`, which lie at `place`.
pub fn scan(bytes: &[u8], place: Place) -> Result<Scanned, Damage> {
    let mut scanned = Scanned::default();
    let mut group = place.revision;
    while let Some((record, its_group, len)) = decode(&bytes[scanned.valid_len..]) {
        group = group.max(its_group).max(record.revision);
        scanned.records.push(record);
        scanned.valid_len += len;
    }
    let torn = place.offset + scanned.valid_len;
    if (torn as u64) < place.sealed_len {
        return Err(Damage {
            offset: torn,
            reason: "a sealed record fails its checksum",
        });
    }
    let rest = &bytes[scanned.valid_len..];
    let later = (1..rest.len()).any(|at| {
        // A record of the torn group itself has a group of at most the next revision.
        decode(&rest[at..]).is_some_and(|(_, its_group, _)| its_group.0 > group.0 + 1)
    });
    if later {
        return Err(Damage {
            offset: torn,
            reason: "a record fails its checksum",
        });
    }
    Ok(scanned)
}

/// The record that `bytes` begin with, its group and its length.
fn decode(bytes: &[u8]) -> Option<(OwnerRecord, Revision, usize)> {
    let head: &[u8; RECORD_LEN] = bytes.first_chunk()?;
    let name_len = u32_at(head, 0) as usize;
    let formers = u32_at(head, 52) as usize;
    if name_len > wal::ids::PARTITION_NAME_LEN_MAX || formers > FORMERS_MAX {
        return None;
    }
    let name_end = RECORD_LEN + name_len;
    let whole = bytes.get(..name_end + 4 * formers)?;
    if crc_of(whole) != u32_at(head, 4) {
        return None;
    }
    let name = PartitionName::new(std::str::from_utf8(&whole[RECORD_LEN..name_end]).ok()?)?;
    let formers = (0..formers).map(|nth| NodeId(u32_at(whole, name_end + 4 * nth)));
    let previous = (u32_at(head, 48) == 1).then(|| NodeId(u32_at(head, 44)));
    let record = OwnerRecord {
        partition: name.id(),
        name,
        owner: NodeId(u32_at(head, 40)),
        epoch: Epoch(u64_at(head, 24)),
        previous,
        formers: formers.collect(),
        reserved: Epoch(u64_at(head, 32)),
        revision: Revision(u64_at(head, 8)),
    };
    Some((record, Revision(u64_at(head, 16)), whole.len()))
}

fn crc_of(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(sealed_len: usize) -> Place {
        Place {
            offset: HEADER_LEN,
            sealed_len: sealed_len as u64,
            revision: Revision(0),
        }
    }

    fn record(name: &str, revision: u64) -> OwnerRecord {
        let name = PartitionName::new(name).expect("valid");
        OwnerRecord {
            partition: name.id(),
            name,
            owner: NodeId(7),
            epoch: Epoch(3),
            previous: revision.is_multiple_of(2).then_some(NodeId(0)),
            formers: (0..revision as u32).map(NodeId).collect(),
            reserved: Epoch(4),
            revision: Revision(revision),
        }
    }

    /// Three groups: one record, two records, one record.
    fn three_groups() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (name, revision, group) in [
            ("a", 1, 1),
            ("b", 2, 2),
            ("longer/name.db", 3, 2),
            ("d", 4, 4),
        ] {
            encode(&record(name, revision), Revision(group), &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn records_survive_the_file() {
        let (bytes, _) = three_groups();
        let scanned = scan(&bytes, sealed(0)).expect("no damage");
        let names: Vec<&str> = scanned
            .records
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b", "longer/name.db", "d"]);
        assert_eq!(
            scanned.records[2].formers,
            [NodeId(0), NodeId(1), NodeId(2)]
        );
        assert_eq!(scanned.records[1], record("b", 2));
        assert_eq!(scanned.valid_len, bytes.len());
    }

    #[test]
    fn a_file_cut_at_any_byte_is_a_prefix_of_its_records() {
        let (bytes, ends) = three_groups();
        for cut in 0..bytes.len() {
            let scanned = scan(&bytes[..cut], sealed(0)).expect("a torn tail is no damage");
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(scanned.records.len(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_a_later_group_is_not_a_torn_tail() {
        let (bytes, ends) = three_groups();
        for at in 0..ends[2] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(scan(&damaged, sealed(0)).is_err(), "byte {at} is damaged");
        }
        let mut torn = bytes;
        torn[ends[2]] ^= 1;
        assert_eq!(
            scan(&torn, sealed(0))
                .expect("the last group")
                .records
                .len(),
            3
        );
    }

    #[test]
    fn half_of_a_group_may_be_lost_in_any_order() {
        let (bytes, ends) = three_groups();
        let mut torn = bytes[..ends[2]].to_vec();
        torn[ends[0]..ends[1]].fill(0);
        assert_eq!(
            scan(&torn, sealed(0)).expect("a torn group").records.len(),
            1
        );
    }

    #[test]
    fn a_cut_in_the_sealed_part_is_damage() {
        let (bytes, ends) = three_groups();
        let place = sealed(HEADER_LEN + ends[1]);
        assert!(scan(&bytes[..ends[1] - 1], place).is_err());
        assert!(scan(&bytes[..ends[1]], place).is_ok());
    }

    #[test]
    fn only_this_format_is_read() {
        assert_eq!(decode_header(&encode_header(99)), Ok(99));
        let mut later = encode_header(99);
        later[7] = 2;
        let damage = decode_header(&later).expect_err("version 2");
        assert_eq!(damage.reason, "it was written by another version");
    }
}
