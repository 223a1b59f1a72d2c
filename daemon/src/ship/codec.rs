//! Which codec the pages of one link travel with: the one that moves most pages per second.
//!
//! A codec moves what the slower of two things allows: the link, which carries fewer bytes the
//! better the codec, and the processor, which is slower the better the codec. So compressing pays
//! only while the link is slow for the cores that are idle: below about 0.4 GB/s each.
//!
//! Where the receiver has the previous images, no choice is left: with them as prefix, level 1
//! makes 57 times fewer bytes at 0.75 GB/s a core, and what is sent is also kept in a log here and
//! written with a sync there. What is chosen is how bulk pages travel, and at which level large
//! deltas are packed that are mostly new pages.
//!
//! Invariants: a change needs [`HOLD`] of samples that all ask for it, and a gain of [`GAIN`]; so a
//! load that only jitters never makes it go back to a codec that it left, though it may get to the
//! best one by way of the second best, and a step is followed within [`SETTLE_MAX`].

use wal::{Span, Time};

/// How long every sample must ask for another codec.
const HOLD: Span = Span::secs(10);
/// What another codec must gain, in percent: less than the 20 that level -5 gains over level 1
/// where the processor is the limit.
const GAIN: u64 = 115;
/// A new sample weighs one eighth, as in [`super::average`].
const WEIGHT: u64 = 8;
/// A change of load is followed within this time when it is sampled every second.
pub const SETTLE_MAX: Span = Span::secs(60);
/// A delta of so many bytes is large: smaller ones cost too little to choose.
pub const LARGE_DELTA: usize = 64 << 10;

/// Bytes per second that a link carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkRate(pub u64);

/// Processor time that compressing may take, in thousandths of a core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdleCores(pub u64);

/// How page images are made into bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Codec {
    /// zstd level 1 with the previous images as prefix: deltas.
    Prefix,
    #[default]
    /// zstd level 1.
    Zstd,
    /// zstd level -5.
    Fast,
    /// As they are.
    Plain,
}

impl Codec {
    /// What bulk pages may travel with.
    pub const PAGES: [Codec; 3] = [Codec::Zstd, Codec::Fast, Codec::Plain];

    /// In words, as people are told.
    pub const fn word(self) -> &'static str {
        match self {
            Codec::Prefix => "prefix zstd 1",
            Codec::Zstd => "zstd 1",
            Codec::Fast => "zstd -5",
            Codec::Plain => "none",
        }
    }

    /// The level for what is packed with zstd.
    pub const fn level(self) -> i8 {
        match self {
            Codec::Prefix | Codec::Zstd => 1,
            Codec::Fast | Codec::Plain => -5,
        }
    }

    /// Kilobytes of pages per second and core, packing, summing and sending included, and bytes in
    /// per hundred bytes out. Measured on WAL pages in chunks of 64 KiB.
    const fn figures(self) -> (u64, u64) {
        match self {
            Codec::Prefix => (750_000, 5700),
            Codec::Zstd => (350_000, 265),
            Codec::Fast => (420_000, 210),
            Codec::Plain => (9_800_000, 100),
        }
    }

    /// Kilobytes of pages per second over such a link with such a processor.
    fn throughput(self, rate: LinkRate, idle: IdleCores) -> u64 {
        let (speed, ratio) = self.figures();
        let by_link = (rate.0 / 1000).saturating_mul(ratio) / 100;
        // Sending costs a core whatever the codec is; without any time for more, nothing is packed.
        let by_processor = match self {
            Codec::Plain => u64::MAX,
            _ => speed.saturating_mul(idle.0) / 1000,
        };
        by_link.min(by_processor)
    }
}

/// The choice for one link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Chooser {
    chosen: Codec,
    rate: Option<LinkRate>,
    idle: Option<IdleCores>,
    /// What every sample asked for since then.
    wanted: Option<(Codec, Time)>,
}

impl Chooser {
    /// What bulk pages travel with.
    pub fn pages(&self) -> Codec {
        self.chosen
    }

    /// What a delta is packed with, of which `fresh` bytes of `len` have no previous image.
    pub fn delta(&self, len: usize, fresh: usize) -> Codec {
        match len >= LARGE_DELTA && fresh > len / 2 {
            true if self.chosen != Codec::Zstd => Codec::Fast,
            _ => Codec::Prefix,
        }
    }

    /// Takes a sample; nothing is chosen anew while the link's rate is not known.
    pub fn observe(&mut self, now: Time, rate: Option<LinkRate>, idle: IdleCores) {
        let idle = smooth(self.idle.map(|idle| idle.0), idle.0);
        self.idle = Some(IdleCores(idle));
        let Some(rate) = rate else {
            return;
        };
        let rate = smooth(self.rate.map(|rate| rate.0), rate.0);
        self.rate = Some(LinkRate(rate));
        let through = |codec: Codec| codec.throughput(LinkRate(rate), IdleCores(idle));
        let best = Codec::PAGES.into_iter().max_by_key(|codec| through(*codec));
        let best = best.unwrap_or_default();
        if through(best) * 100 <= through(self.chosen) * GAIN {
            self.wanted = None;
            return;
        }
        let since = match self.wanted {
            Some((wanted, since)) if wanted == best => since,
            _ => now,
        };
        self.wanted = Some((best, since));
        if now - since >= HOLD {
            (self.chosen, self.wanted) = (best, None);
        }
    }
}

/// The average after one more sample. A sample of twice or half as much is no jitter: the average
/// begins anew with it, or a link of a hundredth of the rate would be known for one after minutes.
fn smooth(average: Option<u64>, sample: u64) -> u64 {
    match average {
        None => sample,
        Some(average) if sample > average.saturating_mul(2) || sample < average / 2 => sample,
        Some(average) => average - average / WEIGHT + sample / WEIGHT,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Span = Span::secs(1);

    /// Samples once a second; when the choice changed, and to what.
    fn changes(
        chooser: &mut Chooser,
        from: Time,
        samples: impl Iterator<Item = (u64, u64)>,
    ) -> Vec<(Time, Codec)> {
        let (mut now, mut changes) = (from, Vec::new());
        for (rate, idle) in samples {
            let before = chooser.pages();
            chooser.observe(now, Some(LinkRate(rate)), IdleCores(idle));
            if chooser.pages() != before {
                changes.push((now, chooser.pages()));
            }
            now = now + SECOND;
        }
        changes
    }

    fn settled(rate: u64, idle: u64) -> Codec {
        let mut chooser = Chooser::default();
        changes(
            &mut chooser,
            Time(0),
            std::iter::repeat_n((rate, idle), 100),
        );
        chooser.pages()
    }

    #[test]
    fn compressing_pays_only_on_a_link_that_is_slow_for_the_idle_cores() {
        assert_eq!(settled(10_000_000, 1000), Codec::Zstd);
        assert_eq!(settled(100_000_000, 1000), Codec::Zstd);
        assert_eq!(settled(1_200_000_000, 1000), Codec::Plain);
        assert_eq!(settled(1_200_000_000, 8000), Codec::Zstd);
        assert_eq!(settled(10_000_000, 0), Codec::Plain);
        assert_eq!(settled(210_000_000, 1000), Codec::Fast);
    }

    #[test]
    fn a_link_of_unknown_rate_keeps_what_it_has() {
        let mut chooser = Chooser::default();
        for second in 0..100 {
            chooser.observe(Time(0) + Span::secs(second), None, IdleCores(0));
        }
        assert_eq!(chooser.pages(), Codec::Zstd);
    }

    #[test]
    fn deltas_keep_their_prefix_unless_they_are_large_and_new() {
        let mut chooser = Chooser::default();
        let fast = std::iter::repeat_n((2_000_000_000, 1000), 100);
        assert_eq!(chooser.delta(1 << 20, 1 << 20), Codec::Prefix);
        changes(&mut chooser, Time(0), fast);
        assert_eq!(chooser.delta(1 << 20, 0), Codec::Prefix);
        assert_eq!(chooser.delta(4096, 4096), Codec::Prefix);
        assert_eq!(chooser.delta(1 << 20, 1 << 20), Codec::Fast);
    }

    fn noisy(level: u64) -> impl Strategy<Value = u64> {
        (80u64..=120).prop_map(move |percent| level / 100 * percent)
    }

    proptest! {
        #[test]
        fn a_noisy_constant_load_never_makes_it_go_back(
            samples in (1u64..3_000_000_000, 100u64..8000).prop_flat_map(|(rate, idle)| {
                proptest::collection::vec((noisy(rate), noisy(idle)), 300)
            })
        ) {
            let seen = changes(&mut Chooser::default(), Time(0), samples.into_iter());
            let mut taken = vec![Codec::default()];
            taken.extend(seen.iter().map(|(_, codec)| *codec));
            let twice = taken.iter().enumerate().any(|(at, codec)| taken[..at].contains(codec));
            prop_assert!(!twice, "changed at {seen:?}");
        }

        #[test]
        fn a_step_is_followed_within_a_bounded_time(
            before in 1u64..3_000_000_000, after in 1u64..3_000_000_000, idle in 100u64..8000,
        ) {
            let mut chooser = Chooser::default();
            changes(&mut chooser, Time(0), std::iter::repeat_n((before, idle), 100));
            let step = Time(0) + Span::secs(1000);
            let in_time = (SETTLE_MAX.0 / SECOND.0) as usize;
            changes(&mut chooser, step, std::iter::repeat_n((after, idle), in_time));
            let fixed = IdleCores(idle);
            let through = |codec: Codec| codec.throughput(LinkRate(after), fixed);
            let best = Codec::PAGES.map(through).into_iter().max().unwrap_or(0);
            prop_assert!(best * 100 <= through(chooser.pages()) * (GAIN + 2), "stays too bad");
            // The average still closes in: where it ends at the very threshold the last change
            // comes late, and gains next to nothing.
            let later = step + SETTLE_MAX;
            let seen = changes(&mut chooser, later, std::iter::repeat_n((after, idle), 300));
            prop_assert!(seen.len() <= 1, "changed at {seen:?}");
        }
    }
}
