//! A rate where little was seen: what is akin speaks until there is enough of one's own.

/// In how many of some bins it happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    pub times: u64,
    pub bins: u64,
}

impl Count {
    pub fn add(&mut self, happened: bool) {
        self.bins = self.bins.saturating_add(1);
        self.times = self.times.saturating_add(u64::from(happened));
    }
}

/// Bins of one's own that weigh as much as what is akin.
const WEIGHT: f64 = 20.0;
/// What is said where nothing at all was ever seen.
const BLANK: f64 = 0.05;

/// The rate of the first of `counts`, which is drawn to that of the next the less was seen of it:
/// item, table, tenant, node, all.
pub fn shrunk(counts: &[Count]) -> f32 {
    let rate = counts.iter().rev().fold(BLANK, |beyond, count| {
        let (times, bins) = (count.times.min(count.bins) as f64, count.bins as f64);
        (times + WEIGHT * beyond) / (bins + WEIGHT)
    });
    rate as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(times: u64, bins: u64) -> Count {
        Count { times, bins }
    }

    #[test]
    fn a_new_item_is_like_its_kin_and_an_old_one_like_itself() {
        let table = count(8_000, 10_000);
        let new = shrunk(&[count(0, 0), table]);
        assert!((new - 0.8).abs() < 0.01, "{new}");
        let young = shrunk(&[count(0, 20), table]);
        assert!((young - 0.4).abs() < 0.01, "{young}");
        let old = shrunk(&[count(0, 100_000), table]);
        assert!(old < 0.001, "{old}");
        assert!((shrunk(&[]) - 0.05).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn it_is_a_rate_whatever_was_counted(
            counts in prop::collection::vec((0_u64..1_000, 0_u64..1_000), 0..6),
        ) {
            let counts: Vec<_> = counts.into_iter().map(|(t, b)| count(t, b)).collect();
            prop_assert!((0.0..=1.0).contains(&shrunk(&counts)));
        }
    }
}
