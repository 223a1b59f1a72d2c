//! The trial of what was learned anew: the challenger foretells beside the champion, and takes its
//! place only if it is surely better; a champion that is worse than a rule is deposed at once.

use std::collections::VecDeque;

use crate::random::Random;

/// What was lost in one block of bins, a day or a part of one, by the sum of squared errors of
/// chances.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Block {
    pub champion: f64,
    pub challenger: f64,
    /// The rate so far, which anybody could say.
    pub naive: f64,
    pub forecasts: u64,
    /// How many of the forecasts' events happened.
    pub events: u64,
}

/// When there is enough to judge by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rules {
    pub blocks: usize,
    pub events: u64,
    /// The least gain that is worth a change.
    pub gain: f64,
    /// How much worse than the rule the champion may be in its newest block.
    pub worse: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            blocks: 7,
            events: 200,
            gain: 0.01,
            worse: 1.1,
        }
    }
}

/// What is to be done, and by which figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    /// Too little was seen.
    Wait { blocks: usize, events: u64 },
    /// The challenger loses this share less, 95 % sure to lie between these bounds.
    Promote { gain: f64, low: f64, high: f64 },
    /// It is not surely better.
    Keep { gain: f64, low: f64, high: f64 },
}

/// Draws of the bootstrap.
const DRAWS: usize = 1_000;
/// Blocks that are remembered.
const REMEMBERED: usize = 64;

/// A trial under way.
#[derive(Clone, Default, Debug)]
pub struct Trial {
    blocks: VecDeque<Block>,
}

impl Trial {
    pub fn add(&mut self, block: Block) {
        if self.blocks.len() == REMEMBERED {
            self.blocks.pop_front();
        }
        self.blocks.push_back(block);
    }

    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Whether the challenger is to take the champion's place. Whole blocks are drawn, because what
    /// happens within one hangs together.
    pub fn judge(&self, rules: &Rules, seed: u64) -> Verdict {
        let events = self.blocks.iter().map(|block| block.events).sum();
        if self.blocks.len() < rules.blocks.max(2) || events < rules.events {
            let blocks = self.blocks.len();
            return Verdict::Wait { blocks, events };
        }
        let gain = |blocks: &mut dyn Iterator<Item = &Block>| {
            let (mut champion, mut challenger) = (0.0, 0.0);
            for block in blocks {
                champion += block.champion;
                challenger += block.challenger;
            }
            if champion > 0.0 {
                1.0 - challenger / champion
            } else {
                0.0
            }
        };
        let mut random = Random::new(seed);
        let mut gains: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let mut draw =
                    (0..self.blocks.len()).map(|_| &self.blocks[random.below(self.blocks.len())]);
                gain(&mut draw)
            })
            .collect();
        gains.sort_by(f64::total_cmp);
        let (low, high) = (gains[DRAWS / 40], gains[DRAWS - 1 - DRAWS / 40]);
        let gain = gain(&mut self.blocks.iter());
        match low > 0.0 && gain >= rules.gain {
            true => Verdict::Promote { gain, low, high },
            false => Verdict::Keep { gain, low, high },
        }
    }
}

/// Whether a champion that lost so much in a block has to go: by how much it is worse than the
/// rule.
pub fn is_deposed(block: &Block, rules: &Rules) -> Option<f64> {
    let worse = block.champion / block.naive.max(f64::MIN_POSITIVE);
    (block.events > 0 && block.forecasts > 0 && worse > rules.worse).then_some(worse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(days: usize, challenger: impl Fn(usize) -> f64) -> Trial {
        let mut trial = Trial::default();
        for day in 0..days {
            trial.add(Block {
                champion: 10.0,
                challenger: challenger(day),
                naive: 12.0,
                forecasts: 500,
                events: 40,
            });
        }
        trial
    }

    #[test]
    fn who_is_surely_better_is_promoted_and_who_is_so_by_luck_is_not() {
        let rules = Rules::default();
        let better = trial(10, |day| 8.5 + (day % 3) as f64 * 0.3).judge(&rules, 1);
        assert!(
            matches!(better, Verdict::Promote { gain, .. } if gain > 0.1),
            "{better:?}"
        );
        let once = trial(10, |day| if day == 4 { 1.0 } else { 10.1 }).judge(&rules, 1);
        assert!(
            matches!(once, Verdict::Keep { gain, .. } if gain > 0.05),
            "{once:?}"
        );
        let same = trial(10, |_| 9.95).judge(&rules, 1);
        assert!(
            matches!(same, Verdict::Keep { .. }),
            "too little to bother: {same:?}"
        );
        assert_eq!(
            trial(10, |_| 8.0).judge(&rules, 1),
            trial(10, |_| 8.0).judge(&rules, 1)
        );
    }

    #[test]
    fn a_few_days_or_events_are_no_proof() {
        let early = trial(4, |_| 1.0).judge(&Rules::default(), 1);
        assert_eq!(
            early,
            Verdict::Wait {
                blocks: 4,
                events: 160
            }
        );
        let rare = Rules {
            events: 1_000,
            ..Rules::default()
        };
        assert!(matches!(
            trial(10, |_| 1.0).judge(&rare, 1),
            Verdict::Wait { .. }
        ));
        let nothing = Trial::default().judge(
            &Rules {
                blocks: 0,
                events: 0,
                ..rare
            },
            1,
        );
        assert_eq!(
            nothing,
            Verdict::Wait {
                blocks: 0,
                events: 0
            }
        );
    }

    #[test]
    fn a_champion_that_is_worse_than_a_rule_is_deposed() {
        let block = |champion| Block {
            champion,
            challenger: 0.0,
            naive: 10.0,
            forecasts: 100,
            events: 5,
        };
        let rules = Rules::default();
        assert_eq!(is_deposed(&block(10.9), &rules), None);
        assert!(is_deposed(&block(11.5), &rules).is_some_and(|worse| worse > 1.14));
        let calm = Block {
            events: 0,
            ..block(99.0)
        };
        assert_eq!(
            is_deposed(&calm, &rules),
            None,
            "nothing happened, nothing is known"
        );
    }
}
