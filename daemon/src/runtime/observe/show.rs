//! What is seen, put together for people.

use super::outlook::Outlook;
use super::source::Source;
use super::wall;
use crate::observe::change::Changed;
use crate::observe::history::{Happening, Past};
use crate::observe::load::Gauge;
use crate::observe::sketch::Held;
use crate::observe::{Observatory, Subject};
use crate::serve::observed::{
    AccessReply, BinReply, ChangeReply, KeyReply, ObservedReply, PastReply,
};

/// Everything, with the first `limit` of each list.
pub fn observed(
    observatory: &Observatory,
    outlook: &Outlook,
    sources: Vec<AccessReply>,
    limit: usize,
) -> ObservedReply {
    let (begin, since) = observatory.running();
    let changes = observatory.changes().partitions();
    let mut partitions: Vec<&Changed> = changes.filter(|one| one.whole.commits > 0).collect();
    partitions.sort_by_key(|one| std::cmp::Reverse((one.whole.bytes, one.whole.commits)));
    let held = observatory.accesses().held().iter();
    let mut keys: Vec<&Held<Subject>> = held.filter(|one| one.accesses() > 0).collect();
    keys.sort_by(|one, two| {
        let order = two.accesses().cmp(&one.accesses());
        order.then_with(|| one.item.cmp(&two.item))
    });
    let past = observatory.history().recent().rev().take(limit);
    let mut history: Vec<PastReply> = past.map(happened).collect();
    history.reverse();
    let newest = observatory.node_load().newest().iter();
    ObservedReply {
        begin,
        seconds: u64::try_from(wall().saturating_sub(since)).unwrap_or(0),
        bytes: observatory.bytes() as u64,
        node: newest
            .map(|(gauge, value)| (word(*gauge).to_owned(), *value))
            .collect(),
        partitions: partitions.into_iter().take(limit).map(change).collect(),
        keys: keys
            .into_iter()
            .take(limit)
            .map(|held| key(observatory, held))
            .collect(),
        others_max: observatory.accesses().floor(),
        history,
        sources,
        last: outlook.newest().map(|bin| BinReply {
            begin: bin.begin,
            seconds: bin.seconds,
            missed: bin.missed,
            samples: bin.samples.len() as u64,
        }),
    }
}

/// What came from one source.
pub fn source(source: &Source) -> AccessReply {
    let tally = source.tally();
    AccessReply {
        source: source.name().to_owned(),
        accepted: tally.accepted,
        malformed: tally.malformed,
        passed_over: tally.passed_over,
        late: tally.late,
        early: tally.early,
    }
}

fn change(changed: &Changed) -> ChangeReply {
    let active = changed.segments.values().filter(|tally| tally.commits > 0);
    ChangeReply {
        partition: changed.name.to_string(),
        commits: changed.whole.commits,
        pages: changed.whole.pages,
        bytes: changed.whole.bytes,
        update_size: f64::from(changed.whole.sizes.median()),
        segments: active.count() as u64,
    }
}

fn key(observatory: &Observatory, held: &Held<Subject>) -> KeyReply {
    let (partition, key) = match &held.item {
        Subject::Record { partition, key } => (partition.as_ref(), Some(key.to_string())),
        Subject::Partition(name) | Subject::Segment(name, _) => (Some(name), None),
        Subject::Node => (None, None),
    };
    let known = held.counts().iter().filter_map(|count| {
        let region = observatory.region_name(count.region)?;
        (count.accesses > 0).then(|| (region.to_string(), count.accesses))
    });
    KeyReply {
        partition: partition.map(|name| name.to_string()),
        key,
        count: held.accesses(),
        error: held.error(),
        bytes: held.counts().iter().map(|count| count.bytes).sum(),
        regions: known.collect(),
    }
}

fn happened(past: &Past) -> PastReply {
    let what = match past.happening {
        Happening::Left => "left",
        Happening::Came => "came",
        Happening::Backup => "backup",
    };
    PastReply {
        at: past.at,
        partition: past.partition.to_string(),
        what: what.to_owned(),
    }
}

fn word(gauge: Gauge) -> &'static str {
    match gauge {
        Gauge::Cpu => "cpu",
        Gauge::Memory => "memory",
        Gauge::IoBusy => "io_busy",
        Gauge::PressureCpu => "pressure_cpu",
        Gauge::PressureMemory => "pressure_memory",
        Gauge::PressureIo => "pressure_io",
        Gauge::LinkSent => "link_sent",
        Gauge::LinkReceived => "link_received",
    }
}
