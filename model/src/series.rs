//! Series as they come: values at times, cut into bins.

use crate::history::Grid;

/// Values in bins of equal length; NaN where nothing is known.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    pub name: String,
    /// When the first bin begins, seconds.
    pub start: i64,
    /// Seconds of a bin.
    pub step: u32,
    pub values: Vec<f32>,
}

/// Bins of one series; more are a mistake in the times.
const BINS_MAX: i64 = 10_000_000;

impl Series {
    /// The means of `points`, (time, value) in any order, in bins of `step` seconds, or of the
    /// points' own distance if that is longer. What is no number is left out; `None` if nothing is
    /// left, or if the times lie too far apart for one series.
    pub fn binned(name: &str, points: &[(i64, f32)], step: u32) -> Option<Series> {
        let mut sorted: Vec<_> = points.iter().filter(|(_, v)| v.is_finite()).collect();
        sorted.sort_by_key(|(time, _)| *time);
        let (first, last) = (sorted.first()?.0, sorted.last()?.0);
        let step = step.max(usual_distance(&sorted)).max(1);
        let bin = |time: i64| time.div_euclid(i64::from(step));
        let bins = bin(last).checked_sub(bin(first))?.checked_add(1)?;
        if bins > BINS_MAX {
            return None;
        }
        let mut sums = vec![(0.0_f64, 0_u32); bins as usize];
        for (time, value) in sorted {
            let (sum, count) = &mut sums[(bin(*time) - bin(first)) as usize];
            *sum += f64::from(*value);
            *count += 1;
        }
        let mean = |(sum, count): (f64, u32)| match count {
            0 => f32::NAN,
            _ => (sum / f64::from(count)) as f32,
        };
        Some(Series {
            name: name.to_owned(),
            start: bin(first) * i64::from(step),
            step,
            values: sums.into_iter().map(mean).collect(),
        })
    }

    pub fn grid(&self) -> Grid {
        Grid::daily(self.step)
    }
}

/// The median distance between neighbours in time, seconds.
fn usual_distance(sorted: &[&(i64, f32)]) -> u32 {
    let distances = sorted
        .windows(2)
        .map(|two| two[1].0.saturating_sub(two[0].0));
    let mut distances: Vec<i64> = distances.filter(|distance| *distance > 0).collect();
    distances.sort_unstable();
    let middle = distances.get(distances.len() / 2).copied().unwrap_or(1);
    middle.clamp(1, i64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_become_means_of_bins_and_gaps_stay_gaps() {
        let points = [(0, 1.0), (600, 3.0), (5400, 7.0), (1200, f32::NAN)];
        let series = Series::binned("s", &points, 1800).expect("some");
        assert_eq!(
            (series.start, series.step),
            (0, 4800),
            "as far apart as they are"
        );
        let near: Vec<_> = (0..10).map(|n| (7 + n * 300, n as f32)).collect();
        let series = Series::binned("s", &near, 900).expect("some");
        assert_eq!(series.values, [1.0, 4.0, 7.0, 9.0]);
        let gap = [(0, 1.0), (60, 1.0), (120, 1.0), (600, 5.0)];
        let series = Series::binned("s", &gap, 60).expect("some");
        assert_eq!(series.values.len(), 11);
        assert!(series.values[5].is_nan() && series.values[10] == 5.0);
    }

    #[test]
    fn what_can_not_be_a_series_is_none() {
        assert_eq!(Series::binned("s", &[], 60), None);
        assert_eq!(Series::binned("s", &[(0, f32::NAN)], 60), None);
        let far = [
            (i64::MIN, 1.0),
            (0, 1.0),
            (1, 1.0),
            (2, 1.0),
            (i64::MAX, 1.0),
        ];
        assert_eq!(Series::binned("s", &far, 1), None);
    }
}
