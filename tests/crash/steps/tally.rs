//! What many rounds add up to.

use std::collections::BTreeMap;

use foreshadow::cli::demo::harness::Verdict;
use io::failpoint::Step;

use super::stage::Victim;

/// Totals of all stages.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    pub rounds: u64,
    /// Processes that got SIGKILL, or sent it to themselves.
    pub kills: u64,
    pub random: u64,
    /// Rounds whose move ended before it came to its step.
    pub missed: Vec<String>,
    /// Rounds by step and by who died there.
    pub fired: BTreeMap<Step, BTreeMap<Victim, u64>>,
    pub both_open: u64,
    /// Looks at the rows of a tenant after a round, and what was wrong there.
    pub looks: u64,
    pub wrong: Vec<String>,
    pub verdicts: u64,
    pub acked: u64,
    pub lost: u64,
    pub phantom: u64,
    pub duplicated: u64,
    pub accepted_after_fence: u64,
    pub integrity: u64,
    pub digests: u64,
    pub copies_read: u64,
}

impl Tally {
    pub fn fired(&mut self, step: Step, victim: Victim) {
        *self
            .fired
            .entry(step)
            .or_default()
            .entry(victim)
            .or_default() += 1;
    }

    /// Takes in what a stage's end showed.
    pub fn judge(&mut self, verdict: &Verdict) {
        self.verdicts += 1;
        self.acked += verdict.acked;
        self.lost += verdict.lost;
        self.phantom += verdict.phantom;
        self.duplicated += verdict.duplicated;
        self.accepted_after_fence += verdict.accepted_after_fence;
        self.integrity += verdict.integrity_failures;
        self.digests += verdict.digest_failures;
        self.copies_read += verdict.copies_read;
        self.wrong.extend(verdict.notes.iter().cloned());
    }

    pub fn add(&mut self, other: Tally) {
        self.rounds += other.rounds;
        self.kills += other.kills;
        self.random += other.random;
        self.missed.extend(other.missed);
        self.both_open += other.both_open;
        self.looks += other.looks;
        self.wrong.extend(other.wrong);
        self.verdicts += other.verdicts;
        self.acked += other.acked;
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.duplicated += other.duplicated;
        self.accepted_after_fence += other.accepted_after_fence;
        self.integrity += other.integrity;
        self.digests += other.digests;
        self.copies_read += other.copies_read;
        for (step, victims) in other.fired {
            for (victim, count) in victims {
                *self
                    .fired
                    .entry(step)
                    .or_default()
                    .entry(victim)
                    .or_default() += count;
            }
        }
    }

    /// For people: a line for each step, then the sums.
    pub fn print(&self) {
        for (step, victims) in &self.fired {
            let sum: u64 = victims.values().sum();
            println!("{:28} {sum:5}  {victims:?}", step.name());
        }
        println!(
            "{} rounds, {} of them at random moments, {} processes killed, {} steps met, {} missed",
            self.rounds,
            self.random,
            self.kills,
            self.fired.len(),
            self.missed.len()
        );
        println!(
            "{} rows acknowledged in {} runs: {} lost, {} phantom, {} duplicated, \
             {} accepted after a fence, {} not whole, {} digests differ, \
             {} rounds with both sides open; {} copies read, {} looks in between",
            self.acked,
            self.verdicts,
            self.lost,
            self.phantom,
            self.duplicated,
            self.accepted_after_fence,
            self.integrity,
            self.digests,
            self.both_open,
            self.copies_read,
            self.looks
        );
    }
}
