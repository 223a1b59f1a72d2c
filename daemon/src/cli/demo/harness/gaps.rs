//! What the writers felt, from their ack journals: the pause across a move, and steady commits.
//!
//! Pause of a writer across a move: the longest time, touching the move's window, from when the
//! writer could and wanted to write next (its last acknowledgement, or its next arrival if that
//! came later) until that write was acknowledged. For a writer in a closed loop this is the plain
//! gap between two acknowledged writes, its thinking included.

use super::{Ack, MoveReport};

const NS_PER_MS: f64 = 1e6;

/// The longest pause of every writer of a moved tenant, one number per writer and move.
pub fn gaps_ms(journals: &[Vec<Ack>], moves: &[&MoveReport]) -> Vec<f64> {
    let mut gaps = Vec::new();
    for journal in journals {
        for report in moves.iter().filter(|report| is_of(journal, report)) {
            gaps.extend(gap_ms(journal, report.started_ns, report.ended_ns));
        }
    }
    gaps
}

/// How long transactions took that touch no window of any move.
pub fn steady_ms(journals: &[Vec<Ack>], windows: &[(u64, u64)]) -> Vec<f64> {
    let apart = |ack: &&Ack| {
        windows
            .iter()
            .all(|(from, until)| ack.end_ns < *from || ack.start_ns > *until)
    };
    let steady = journals.iter().flatten().filter(apart);
    steady
        .map(|ack| (ack.end_ns - ack.start_ns) as f64 / NS_PER_MS)
        .collect()
}

/// The value below which `share` of the sorted-in-place samples lie; 0 without samples.
pub fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let rank = (samples.len() as f64 * share).ceil() as usize;
    samples.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn is_of(journal: &[Ack], report: &MoveReport) -> bool {
    journal
        .first()
        .is_some_and(|ack| ack.tenant == report.tenant)
}

fn gap_ms(journal: &[Ack], from: u64, until: u64) -> Option<f64> {
    let pairs = journal
        .windows(2)
        .map(|pair| (pair[0].end_ns.max(pair[1].due_ns), pair[1].end_ns));
    let touching = pairs.filter(|(wanted, got)| *wanted <= until && *got >= from);
    touching
        .map(|(wanted, got)| got.saturating_sub(wanted))
        .max()
        .map(|ns| ns as f64 / NS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(seq: u64, due_ms: u64, end_ms: u64) -> Ack {
        let (due_ns, end_ns) = (due_ms * 1_000_000, end_ms * 1_000_000);
        Ack {
            writer: 1,
            tenant: 4,
            seq,
            due_ns,
            start_ns: due_ns,
            end_ns,
        }
    }

    #[test]
    fn waiting_for_an_arrival_is_no_pause() {
        let journal = [ack(1, 0, 1), ack(2, 100, 108), ack(3, 200, 201)];
        assert_eq!(gap_ms(&journal, 50_000_000, 150_000_000), Some(8.0));
    }

    #[test]
    fn an_arrival_that_queued_behind_another_counts_from_when_its_turn_came() {
        let journal = [ack(1, 0, 10), ack(2, 1, 12)];
        assert_eq!(gap_ms(&journal, 0, 20_000_000), Some(2.0));
    }

    #[test]
    fn only_what_touches_the_window_counts() {
        let journal = [ack(1, 0, 1), ack(2, 2, 90), ack(3, 91, 95), ack(4, 96, 99)];
        assert_eq!(gap_ms(&journal, 92_000_000, 94_000_000), Some(4.0));
        assert_eq!(
            steady_ms(&[journal.to_vec()], &[(0, 94_000_000)]),
            vec![3.0]
        );
    }

    #[test]
    fn percentiles_are_members_of_the_sample() {
        let mut samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut samples, 0.5), 100.0);
        assert_eq!(percentile(&mut samples, 0.99), 198.0);
        assert_eq!(percentile(&mut samples, 1.0), 200.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }
}
