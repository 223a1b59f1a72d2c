//! What is foretold of what: kinds, targets, and the number of each target in a bin.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use wal::PartitionName;

use crate::observe::load::Gauge;
use crate::observe::{Bin, Sample, Signal, Subject};

/// What may happen to an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Somebody asks for it: an event says so, or it changes.
    Access,
    /// A partition comes or leaves.
    Migration,
    /// A node is busier, or a partition changes faster, than is healthy.
    Overload,
    /// Somebody asks for a backup.
    Backup,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Access, Kind::Migration, Kind::Overload, Kind::Backup];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Access => "access",
            Kind::Migration => "migration",
            Kind::Overload => "overload",
            Kind::Backup => "backup",
        }
    }

    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// It happens in a bin whose number is above this.
    pub fn limit(self) -> f32 {
        match self {
            Kind::Overload => 1.0,
            Kind::Access | Kind::Migration | Kind::Backup => 0.0,
        }
    }
}

/// An object, what may happen to it, and from where.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    pub subject: Subject,
    pub kind: Kind,
    pub region: Option<Arc<str>>,
}

/// An object as people write it: `node`, `orders.db`, `orders.db/segment/7`, `orders.db#key`, or
/// `#key` of no partition.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a>(pub &'a Subject);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Subject::Node => f.write_str("node"),
            Subject::Partition(name) => write!(f, "{}", name.as_str()),
            Subject::Segment(name, number) => write!(f, "{}/segment/{number}", name.as_str()),
            Subject::Record { partition, key } => {
                let name = partition.as_ref().map_or("", |name| name.as_str());
                write!(f, "{name}#{key}")
            }
        }
    }
}

/// Reads an object as [`Written`] writes it.
pub fn subject(text: &str) -> Option<Subject> {
    if text == "node" {
        return Some(Subject::Node);
    }
    let partition = |name: &str| PartitionName::new(name).map(Arc::new);
    if let Some((name, key)) = text.split_once('#') {
        let partition = match name {
            "" => None,
            name => Some(partition(name)?),
        };
        let key = key.into();
        return Some(Subject::Record { partition, key });
    }
    if let Some((name, number)) = text.rsplit_once("/segment/")
        && let Ok(number) = number.parse()
    {
        return Some(Subject::Segment(partition(name)?, number));
    }
    Some(Subject::Partition(partition(text)?))
}

/// What is healthy.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Healthy {
    /// Share of the processors.
    pub cpu: f64,
    pub memory: f64,
    /// Share of the time that the busiest disk is busy.
    pub io: f64,
    /// Share of the time that some task waits for any of them.
    pub pressure: f64,
    /// Bytes a second of changes of one partition.
    pub changes: f64,
}

impl Default for Healthy {
    fn default() -> Healthy {
        Healthy {
            cpu: 0.85,
            memory: 0.95,
            io: 0.9,
            pressure: 0.4,
            changes: (16 << 20) as f64,
        }
    }
}

impl Healthy {
    /// How near a gauge is to what is healthy: above 1 is not.
    fn share(&self, gauge: Gauge, value: f32) -> Option<f32> {
        let limit = match gauge {
            Gauge::Cpu => self.cpu,
            Gauge::Memory => self.memory,
            Gauge::IoBusy => self.io,
            Gauge::PressureCpu | Gauge::PressureMemory | Gauge::PressureIo => self.pressure,
            // How much a link can carry is not known here.
            Gauge::LinkSent | Gauge::LinkReceived => return None,
        };
        Some(value / limit as f32)
    }
}

/// The number of each target in a bin.
pub fn numbers(bin: &Bin, healthy: &Healthy) -> BTreeMap<Target, f32> {
    let mut numbers: BTreeMap<Target, f32> = BTreeMap::new();
    for sample in &bin.samples {
        let Some((target, value)) = number(sample, bin.seconds, healthy) else {
            continue;
        };
        let all = numbers.entry(target).or_insert(0.0);
        *all = match sample.signal {
            // The worst of them is how the node is.
            Signal::Load(_) => all.max(value),
            _ => *all + value,
        };
    }
    numbers
}

fn number(sample: &Sample, seconds: u32, healthy: &Healthy) -> Option<(Target, f32)> {
    let target = |kind, region: Option<&Arc<str>>| Target {
        subject: sample.subject.clone(),
        kind,
        region: region.cloned(),
    };
    let value = sample.value;
    match (&sample.signal, &sample.subject) {
        (Signal::Accesses { region }, _) => Some((target(Kind::Access, region.as_ref()), value)),
        (Signal::Commits, _) => Some((target(Kind::Access, None), value)),
        (Signal::Moves, _) => Some((target(Kind::Migration, None), value)),
        (Signal::Backups, _) => Some((target(Kind::Backup, None), value)),
        (Signal::Bytes, Subject::Partition(_)) => {
            let rate = f64::from(value) / f64::from(seconds.max(1));
            let share = rate / healthy.changes;
            Some((target(Kind::Overload, None), share as f32))
        }
        (Signal::Load(gauge), _) => {
            let share = healthy.share(*gauge, value)?;
            Some((target(Kind::Overload, None), share))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(object: &str, signal: Signal, value: f32) -> Sample {
        let subject = subject(object).expect("an object");
        Sample {
            subject,
            signal,
            value,
        }
    }

    #[test]
    fn objects_are_read_as_they_are_written() {
        for text in [
            "node",
            "a/orders.db",
            "orders.db/segment/7",
            "orders.db#user:7",
            "#user#7",
        ] {
            let read = subject(text).expect(text);
            assert_eq!(Written(&read).to_string(), text);
        }
        for wrong in ["", "/absolute.db", "../up.db#x"] {
            assert_eq!(subject(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn samples_become_numbers_of_targets() {
        let here = || Some(Arc::<str>::from("eu"));
        let bin = Bin {
            begin: 0,
            seconds: 10,
            missed: 0,
            samples: vec![
                sample("node", Signal::Load(Gauge::Cpu), 0.17),
                sample("node", Signal::Load(Gauge::PressureIo), 0.6),
                sample("node", Signal::Load(Gauge::LinkSent), 1e9),
                sample("a.db", Signal::Commits, 3.0),
                sample("a.db", Signal::Bytes, 20.0 * (16 << 20) as f32),
                sample("a.db", Signal::Accesses { region: None }, 2.0),
                sample("a.db", Signal::Accesses { region: here() }, 4.0),
                sample("a.db", Signal::UpdateSize, 99.0),
                sample("a.db/segment/3", Signal::Commits, 1.0),
                sample("a.db/segment/3", Signal::Bytes, 5.0),
            ],
        };
        let found: Vec<(String, f32)> = numbers(&bin, &Healthy::default())
            .into_iter()
            .map(|(target, value)| {
                let region = target.region.as_deref().unwrap_or("-").to_owned();
                let name = Written(&target.subject).to_string();
                (format!("{name} {} {region}", target.kind.name()), value)
            })
            .collect();
        let expected = [
            ("node overload -", 1.5),
            ("a.db access -", 5.0),
            ("a.db access eu", 4.0),
            ("a.db overload -", 2.0),
            ("a.db/segment/3 access -", 1.0),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(found, expected);
    }
}
