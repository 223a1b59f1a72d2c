//! Native logs: the seal in the commit word, the ledger behind a route.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use wal::log::{Control, Error, Kind, Result, Scanner, Word, is_log};

use super::{Looked, Told};

/// The commit word, in the control page.
const WORD_AT: u64 = 64;
/// A row: writer u32, generation u32, seq u64, account u64, amount i64.
const ROW: Kind = Kind(3);

/// Whether a log would take appends at a live path: it is one, and is not sealed.
pub fn is_open(live: &Path) -> bool {
    let mut word = [0; 8];
    let Ok(file) = File::open(live) else {
        return false;
    };
    let read = file.read_exact_at(&mut word, WORD_AT);
    read.is_ok() && is_log(&file) && !Word::decode(u64::from_le_bytes(word)).sealed
}

/// The ledger behind a route. Every group's checksum is proven as it is read.
pub fn read(route: &Path, writers: &[u32], acked: &[u64]) -> Looked {
    let mut seqs: Vec<Vec<u64>> = vec![Vec::new(); writers.len()];
    let take = |writer: u32, seq: u64| {
        if let Some(index) = writers.iter().position(|one| *one == writer) {
            seqs[index].push(seq);
        }
    };
    match rows(route, take) {
        // Its rows go on elsewhere by now; a tombstone has none at all.
        Ok(Word { sealed: true, .. }) => Looked::Refused("it is sealed".to_owned()),
        Ok(_) => {
            let both = seqs.iter().zip(acked);
            Looked::Told(
                both.map(|(seqs, acked)| told(seqs, *acked)).collect(),
                Vec::new(),
            )
        }
        Err(error @ Error::Damaged { .. }) => Looked::Corrupt(error.to_string()),
        Err(error) => Looked::Refused(error.to_string()),
    }
}

/// Hands over writer and seq of every row, in order; returns the commit word of afterwards.
fn rows(route: &Path, mut take: impl FnMut(u32, u64)) -> Result<Word> {
    let control = Control::open(route)?;
    let mut scanner = Scanner::new(&control)?;
    while let Some(group) = scanner.next_group()? {
        for record in group.records().filter(|record| record.kind == ROW) {
            let (writer, seq) = (&record.payload[..4], &record.payload[8..16]);
            let writer = u32::from_le_bytes(writer.try_into().expect("four bytes"));
            take(
                writer,
                u64::from_le_bytes(seq.try_into().expect("eight bytes")),
            );
        }
    }
    Ok(control.word())
}

fn told(seqs: &[u64], acked: u64) -> Told {
    let distinct: BTreeSet<u64> = seqs.iter().copied().collect();
    Told {
        rows: seqs.len() as u64,
        distinct: distinct.len() as u64,
        up_to: distinct.range(..=acked).count() as u64,
        newest: distinct.last().copied().unwrap_or(0),
    }
}
