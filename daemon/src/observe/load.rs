//! How busy the node is: readings of its counters in, means over a bin out.
//!
//! A reading is what the shell found at one moment; what it did not find is absent. Between two
//! readings a counter that grew gives a rate; one that went backward was reset, and starts anew; a
//! device that vanishes is forgotten, and starts anew when it returns. So nothing is negative, and
//! nothing is said of what was seen once.

use std::collections::BTreeMap;

use wal::{Span, Time};

/// Devices of a kind that are told apart, at most.
const DEVICES_MAX: usize = 64;
/// The clock stood still, or nearly so: no rate is taken.
const APART_MIN: Span = Span::millis(1);

/// The counters of the node at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Reading {
    /// Processor time used and possible, in any one unit.
    pub cpu: Option<(u64, u64)>,
    /// Share of the memory that is in use.
    pub memory: Option<f64>,
    /// Milliseconds that each disk was busy.
    pub disks: BTreeMap<String, u64>,
    /// Microseconds in which some task waited for a processor, for memory, for I/O (PSI).
    pub pressure: [Option<u64>; 3],
    /// Bytes sent and received on each link.
    pub links: BTreeMap<String, (u64, u64)>,
}

/// What is measured of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Gauge {
    /// Share of all processors that is in use.
    Cpu,
    /// Share of the memory.
    Memory,
    /// Share of the time that the busiest disk is busy.
    IoBusy,
    /// Share of the time that some task waits for a processor.
    PressureCpu,
    PressureMemory,
    PressureIo,
    /// Bytes a second over all links but the loopback.
    LinkSent,
    LinkReceived,
}

impl Gauge {
    pub const ALL: [Gauge; 8] = [
        Gauge::Cpu,
        Gauge::Memory,
        Gauge::IoBusy,
        Gauge::PressureCpu,
        Gauge::PressureMemory,
        Gauge::PressureIo,
        Gauge::LinkSent,
        Gauge::LinkReceived,
    ];

    fn is_share(self) -> bool {
        !matches!(self, Gauge::LinkSent | Gauge::LinkReceived)
    }
}

/// A mean over time.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// Readings of a bin.
#[derive(Clone, Debug, Default)]
pub struct Load {
    last: Option<(Time, Reading)>,
    means: BTreeMap<Gauge, Mean>,
    newest: BTreeMap<Gauge, f64>,
}

impl Load {
    /// Takes in a reading at `now`.
    pub fn add(&mut self, now: Time, mut reading: Reading) {
        while reading.disks.len() > DEVICES_MAX {
            reading.disks.pop_last();
        }
        while reading.links.len() > DEVICES_MAX {
            reading.links.pop_last();
        }
        if let Some((then, before)) = &self.last {
            let apart = now - *then;
            if apart >= APART_MIN {
                let values = values(before, &reading, apart);
                self.take(&values, apart.as_millis_f64());
            } else if now >= *then {
                return;
            }
        }
        self.last = Some((now, reading));
    }

    /// What was seen last.
    pub fn newest(&self) -> &BTreeMap<Gauge, f64> {
        &self.newest
    }

    /// The means of this bin; nothing where nothing was seen.
    pub fn means(&self) -> impl Iterator<Item = (Gauge, f64)> {
        let means = self.means.iter();
        means.filter_map(|(gauge, mean)| Some((*gauge, mean.value()?)))
    }

    /// A bin is over: means begin anew, counters go on.
    pub fn next_bin(&mut self) {
        self.means.clear();
    }

    fn take(&mut self, values: &BTreeMap<Gauge, f64>, weight: f64) {
        for gauge in Gauge::ALL {
            let value = values
                .get(&gauge)
                .copied()
                .filter(|value| value.is_finite());
            let Some(value) = value else {
                self.newest.remove(&gauge);
                continue;
            };
            let most = if gauge.is_share() { 1.0 } else { f64::MAX };
            let value = value.clamp(0.0, most);
            self.newest.insert(gauge, value);
            self.means.entry(gauge).or_default().add(value, weight);
        }
    }
}

/// How much a counter grew; nothing if it was reset.
fn growth(before: u64, now: u64) -> Option<f64> {
    Some(now.checked_sub(before)? as f64)
}

fn values(before: &Reading, now: &Reading, apart: Span) -> BTreeMap<Gauge, f64> {
    let (millis, mut values) = (apart.as_millis_f64(), BTreeMap::new());
    let mut put = |gauge, value: Option<f64>| value.and_then(|value| values.insert(gauge, value));
    let cpu = before.cpu.zip(now.cpu).and_then(|(before, now)| {
        let (used, possible) = (growth(before.0, now.0)?, growth(before.1, now.1)?);
        (possible > 0.0).then_some(used / possible)
    });
    put(Gauge::Cpu, cpu);
    put(Gauge::Memory, now.memory);
    let pressures = [Gauge::PressureCpu, Gauge::PressureMemory, Gauge::PressureIo];
    for (index, gauge) in pressures.into_iter().enumerate() {
        let waited = before.pressure[index].zip(now.pressure[index]);
        let waited = waited.and_then(|(before, now)| growth(before, now));
        put(gauge, waited.map(|micros| micros / 1e3 / millis));
    }
    let busy = now.disks.iter().filter_map(|(name, now)| {
        let before = before.disks.get(name)?;
        Some(growth(*before, *now)? / millis)
    });
    put(Gauge::IoBusy, busy.max_by(f64::total_cmp));
    let grown = now.links.iter().filter_map(|(name, now)| {
        let before = before.links.get(name)?;
        Some((growth(before.0, now.0)?, growth(before.1, now.1)?))
    });
    let sum = |sum: Option<(f64, f64)>, (sent, received): (f64, f64)| {
        let (all_sent, all_received) = sum.unwrap_or_default();
        Some((all_sent + sent, all_received + received))
    };
    let links = grown.fold(None, sum);
    put(Gauge::LinkSent, links.map(|(sent, _)| sent / millis * 1e3));
    put(
        Gauge::LinkReceived,
        links.map(|(_, received)| received / millis * 1e3),
    );
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    fn reading(cpu: u64, sent: u64) -> Reading {
        Reading {
            cpu: Some((cpu, cpu * 4)),
            memory: Some(0.5),
            disks: BTreeMap::from([("sda".to_owned(), cpu)]),
            pressure: [Some(cpu * 1000), None, Some(0)],
            links: BTreeMap::from([("eth0".to_owned(), (sent, 0))]),
        }
    }

    fn means(load: &Load) -> BTreeMap<Gauge, f64> {
        load.means().collect()
    }

    #[test]
    fn two_readings_are_a_rate() {
        let mut load = Load::default();
        load.add(at(1), reading(0, 100));
        assert!(means(&load).is_empty(), "one reading says nothing");
        load.add(at(2), reading(500, 1100));
        let expected = [
            (Gauge::Cpu, 0.25),
            (Gauge::Memory, 0.5),
            (Gauge::IoBusy, 0.5),
            (Gauge::PressureCpu, 0.5),
            (Gauge::PressureIo, 0.0),
            (Gauge::LinkSent, 1000.0),
            (Gauge::LinkReceived, 0.0),
        ];
        assert_eq!(means(&load), BTreeMap::from(expected));
        load.next_bin();
        assert!(means(&load).is_empty());
        assert_eq!(load.newest()[&Gauge::Cpu], 0.25);
    }

    #[test]
    fn a_counter_that_goes_back_starts_anew() {
        let mut load = Load::default();
        load.add(at(1), reading(1000, 5000));
        load.add(at(2), reading(10, 20));
        assert_eq!(means(&load).get(&Gauge::LinkSent), None);
        assert_eq!(means(&load).get(&Gauge::Cpu), None);
        load.add(at(3), reading(110, 120));
        assert_eq!(means(&load)[&Gauge::LinkSent], 100.0);
    }

    #[test]
    fn a_device_that_vanishes_and_returns_starts_anew() {
        let mut load = Load::default();
        load.add(at(1), reading(0, 1000));
        load.add(at(2), Reading::default());
        load.add(at(3), reading(0, 9_000_000));
        assert!(!means(&load).contains_key(&Gauge::LinkSent));
        load.add(at(4), reading(0, 9_000_007));
        assert_eq!(means(&load)[&Gauge::LinkSent], 7.0);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_no_rate() {
        let mut load = Load::default();
        load.add(at(10), reading(0, 0));
        load.add(at(10), reading(100, 100));
        load.add(at(5), reading(200, 200));
        assert!(means(&load).is_empty());
        load.add(at(6), reading(300, 300));
        assert_eq!(
            means(&load)[&Gauge::LinkSent],
            100.0,
            "from where it went back to"
        );
    }

    #[test]
    fn a_constant_series_is_zero_and_its_level() {
        let mut load = Load::default();
        for second in 1..10 {
            load.add(at(second), reading(7, 7));
        }
        let means = means(&load);
        assert_eq!(
            means.get(&Gauge::Cpu),
            None,
            "no processor time at all was possible"
        );
        assert_eq!(means[&Gauge::LinkSent], 0.0);
        assert_eq!(means[&Gauge::Memory], 0.5);
    }

    #[test]
    fn devices_are_bounded() {
        let mut load = Load::default();
        let many = (0..1000).map(|number| (format!("d{number:04}"), number));
        let reading = Reading {
            disks: many.collect(),
            ..Reading::default()
        };
        load.add(at(1), reading);
        let (_, kept) = load.last.as_ref().expect("kept");
        assert_eq!(kept.disks.len(), DEVICES_MAX);
    }

    fn any_reading() -> impl Strategy<Value = Reading> {
        let counter = || prop::option::of(any::<u64>());
        let names = || "[a-c]";
        (
            prop::option::of((any::<u64>(), any::<u64>())),
            prop::option::of(any::<f64>()),
            prop::collection::btree_map(names(), any::<u64>(), 0..3),
            [counter(), counter(), counter()],
            prop::collection::btree_map(names(), (any::<u64>(), any::<u64>()), 0..3),
        )
            .prop_map(|(cpu, memory, disks, pressure, links)| Reading {
                cpu,
                memory,
                disks,
                pressure,
                links,
            })
    }

    proptest! {
        #[test]
        fn whatever_is_read_means_are_finite_and_not_negative(
            readings in prop::collection::vec((any::<u64>(), any_reading()), 0..20),
        ) {
            let mut load = Load::default();
            for (now, reading) in readings {
                load.add(Time(now), reading);
                for (gauge, mean) in load.means() {
                    prop_assert!(mean.is_finite() && mean >= 0.0, "{gauge:?} {mean}");
                    prop_assert!(!gauge.is_share() || mean <= 1.0 + 1e-9, "{gauge:?} {mean}");
                }
            }
        }
    }
}
