//! How far peers have a native log, in the log's own positions: for who waits until a peer has it.

use std::collections::VecDeque;

use wal::{Lsn, PartitionId};

use super::host::Host;

/// Positions that are remembered; beyond, the newest takes the place of the one before.
const KEPT_MAX: usize = 4096;

/// Which position of the log belongs to which Lsn of the partition.
#[derive(Debug, Default)]
pub struct Mirrored {
    /// Ascending; no peer has acknowledged them.
    waiting: VecDeque<(Lsn, Lsn)>,
}

impl Mirrored {
    /// The log was consumed up to `log` when the partition came to `lsn`.
    pub fn consumed(&mut self, lsn: Lsn, log: Option<Lsn>) {
        let Some(log) = log else { return };
        if self.waiting.len() == KEPT_MAX {
            self.waiting.pop_back();
        }
        self.waiting.push_back((lsn, log));
    }

    /// A peer has everything up to `lsn` durably; up to where in the log, if that is news.
    fn acknowledged(&mut self, lsn: Lsn) -> Option<Lsn> {
        let mut newest = None;
        while let Some((_, log)) = self.waiting.pop_front_if(|(at, _)| *at <= lsn) {
            newest = Some(log);
        }
        newest
    }

    /// Up to where in the log a peer was sent, if it was sent up to `lsn`.
    fn shipped(&self, lsn: Lsn) -> Option<Lsn> {
        let count = self.waiting.partition_point(|(at, _)| *at <= lsn);
        let (_, log) = self.waiting.get(count.checked_sub(1)?)?;
        Some(*log)
    }
}

impl Host {
    /// A peer acknowledged `lsn`.
    pub fn mirrored(&mut self, id: PartitionId, lsn: Lsn) {
        if let Some(live) = self.lives.by_id.get_mut(&id)
            && let Some(log) = live.mirrored.acknowledged(lsn)
        {
            live.source.set_mirrored(log);
        }
    }

    /// Everything up to `lsn` went to a peer.
    pub fn shipped(&mut self, id: PartitionId, lsn: Lsn) {
        if let Some(live) = self.lives.by_id.get(&id)
            && let Some(log) = live.mirrored.shipped(lsn)
        {
            live.source.set_shipped(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_says_how_far_the_log_is_mirrored() {
        let mut mirrored = Mirrored::default();
        for (lsn, log) in [(5, 4096), (6, 8192), (9, 12_288)] {
            mirrored.consumed(Lsn(lsn), Some(Lsn(log)));
        }
        assert_eq!(mirrored.acknowledged(Lsn(4)), None);
        assert_eq!(mirrored.shipped(Lsn(4)), None);
        assert_eq!(mirrored.shipped(Lsn(8)), Some(Lsn(8192)));
        assert_eq!(mirrored.acknowledged(Lsn(8)), Some(Lsn(8192)));
        assert_eq!(mirrored.acknowledged(Lsn(8)), None);
        assert_eq!(mirrored.acknowledged(Lsn(9)), Some(Lsn(12_288)));
    }

    #[test]
    fn without_peers_only_so_much_is_remembered_and_never_too_little_is_said() {
        let mut mirrored = Mirrored::default();
        let count = 2 * KEPT_MAX as u64;
        for lsn in 1..=count {
            mirrored.consumed(Lsn(lsn), Some(Lsn(lsn * 10)));
        }
        assert_eq!(mirrored.waiting.len(), KEPT_MAX);
        assert_eq!(
            mirrored.acknowledged(Lsn(count - 1)).map(|at| at.0),
            Some((KEPT_MAX as u64 - 1) * 10)
        );
        assert_eq!(mirrored.acknowledged(Lsn(count)), Some(Lsn(count * 10)));
    }
}
