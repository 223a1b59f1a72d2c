//! The observatory as a whole: bins, clocks that jump, order, and memory.

use proptest::prelude::*;

use super::*;

const SETTINGS: Settings = Settings {
    bin_seconds: 300,
    bytes_max: 1 << 20,
    top: 100,
};
/// A time at which a bin begins.
const BEGIN: i64 = 300 * 6_000_000;

fn name(text: &str) -> PartitionName {
    PartitionName::new(text).expect("a name")
}

fn access(key: &str) -> Access {
    let line = format!(r#"{{"key":{key:?},"partition":"t.db","region":"eu","bytes":5}}"#);
    Access::read(line.as_bytes()).expect("right")
}

fn summary() -> Summary {
    let mut summary = Summary::default();
    summary.add(2, 100, [1_u32, 40].into_iter(), 16);
    summary
}

/// The samples as lines, without those of zero.
fn lines(bin: &Bin) -> Vec<String> {
    let shown = bin.samples.iter().filter(|sample| sample.value != 0.0);
    let line = |sample: &Sample| {
        let subject = match &sample.subject {
            Subject::Node => "node".to_owned(),
            Subject::Partition(name) => name.to_string(),
            Subject::Segment(name, number) => format!("{name}#{number}"),
            Subject::Record { key, .. } => format!("key {key}"),
        };
        format!("{subject} {:?} {}", sample.signal, sample.value)
    };
    shown.map(line).collect()
}

#[test]
fn a_bin_tells_everything_in_order_and_then_zeros() {
    let mut observatory = Observatory::new(SETTINGS, BEGIN);
    let mut tally = Tally::default();
    observatory.access(BEGIN + 1, &access("k"), &mut tally);
    observatory.changed(&name("t.db"), &summary());
    observatory.moved(BEGIN + 2, &name("t.db"), Happening::Came);
    let mut backup = access("k");
    (backup.task, backup.region) = (Some("backup".to_owned()), None);
    observatory.access(BEGIN + 3, &backup, &mut tally);
    let reading = |cpu| Reading {
        cpu: Some((cpu, 2 * cpu)),
        ..Reading::default()
    };
    observatory.load(Time(0), reading(1));
    observatory.load(Time(1_000_000_000), reading(9));
    assert_eq!(observatory.close(BEGIN + 299), None, "it runs");
    let bin = observatory.close(BEGIN + 300).expect("over");
    assert_eq!((bin.begin, bin.seconds, bin.missed), (BEGIN, 300, 0));
    let expected = [
        "node Load(Cpu) 0.5",
        "t.db Commits 2",
        "t.db Pages 2",
        "t.db Bytes 100",
        "t.db UpdateSize 48",
        "t.db Accesses { region: None } 1",
        "t.db Accesses { region: Some(\"eu\") } 1",
        "t.db AccessBytes { region: None } 5",
        "t.db AccessBytes { region: Some(\"eu\") } 5",
        "t.db Moves 1",
        "t.db Backups 1",
        "t.db#0 Commits 1",
        "t.db#0 Pages 1",
        "t.db#0 Bytes 50",
        "t.db#0 UpdateSize 48",
        "t.db#2 Commits 1",
        "t.db#2 Pages 1",
        "t.db#2 Bytes 50",
        "t.db#2 UpdateSize 48",
        "key k Accesses { region: None } 1",
        "key k Accesses { region: Some(\"eu\") } 1",
        "key k AccessBytes { region: None } 5",
        "key k AccessBytes { region: Some(\"eu\") } 5",
    ];
    assert_eq!(lines(&bin), expected);
    let silent = observatory.close(BEGIN + 600).expect("over");
    assert!(lines(&silent).is_empty(), "nothing happened");
    assert_eq!(
        silent.samples.len(),
        bin.samples.len() - 1,
        "and all but the load is told"
    );
}

#[test]
fn an_empty_history_is_an_empty_bin() {
    let mut observatory = Observatory::new(SETTINGS, BEGIN + 290);
    let bin = observatory.close(BEGIN + 300).expect("over");
    assert_eq!((bin.seconds, bin.samples), (10, vec![]));
}

#[test]
fn a_clock_that_jumps_ends_a_bin_and_says_what_was_missed() {
    let mut observatory = Observatory::new(SETTINGS, BEGIN);
    let mut close = |now| {
        let bin = observatory.close(now)?;
        Some((bin.begin, bin.seconds, bin.missed))
    };
    assert_eq!(close(BEGIN + 300), Some((BEGIN, 300, 0)));
    // Forward by ten bins: nobody looked at nine.
    assert_eq!(close(BEGIN + 3_310), Some((BEGIN + 300, 300, 0)));
    assert_eq!(close(BEGIN + 3_311), None);
    assert_eq!(close(BEGIN + 3_600), Some((BEGIN + 3_300, 290, 9)));
    // Back within the bin it goes on, back further it ends.
    assert_eq!(close(BEGIN + 3_600), None);
    assert_eq!(close(BEGIN + 10), Some((BEGIN + 3_600, 1, 0)));
    assert_eq!(close(BEGIN + 20), None);
    assert_eq!(close(BEGIN + 300), Some((BEGIN, 290, 0)));
}

#[test]
fn times_of_events_are_counted_and_do_not_matter() {
    let mut observatory = Observatory::new(SETTINGS, BEGIN + 100);
    let mut tally = Tally::default();
    for time in [
        None,
        Some(BEGIN as f64),
        Some(0.0),
        Some(-1e300),
        Some(1e300),
    ] {
        let access = Access {
            time,
            ..access("k")
        };
        observatory.access(BEGIN + 100, &access, &mut tally);
    }
    assert_eq!((tally.accepted, tally.late, tally.early), (5, 2, 1));
    assert_eq!(observatory.accesses().held()[0].accesses(), 5);
}

#[test]
fn more_regions_than_are_told_apart_are_none() {
    let mut observatory = Observatory::new(SETTINGS, BEGIN);
    for number in 0..1000 {
        let mut access = access(&format!("k{number}"));
        access.region = Some(format!("r{number}"));
        observatory.access(BEGIN, &access, &mut Tally::default());
    }
    assert_eq!(observatory.regions.len(), NODE_REGIONS_MAX);
}

#[derive(Clone, Debug)]
enum Step {
    Access(u16, u8),
    Change(u8, u16),
    Move(u8),
    Close(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(key, region)| Step::Access(key, region)),
        (any::<u8>(), any::<u16>()).prop_map(|(name, page)| Step::Change(name, page)),
        any::<u8>().prop_map(Step::Move),
        prop_oneof![any::<i64>(), BEGIN - 2000..BEGIN + 2000].prop_map(Step::Close),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn whatever_happens_bins_are_sound_and_memory_is_bounded(steps in steps()) {
        let mut observatory = Observatory::new(SETTINGS, BEGIN);
        for step in steps {
            match step {
                Step::Access(key, region) => {
                    let mut access = access(&format!("k{key}"));
                    access.region = Some(format!("r{region}"));
                    observatory.access(BEGIN, &access, &mut Tally::default());
                }
                Step::Change(number, page) => {
                    let mut summary = Summary::default();
                    summary.add(1, 60, [u32::from(page)].into_iter(), 1);
                    observatory.changed(&name(&format!("t{number}")), &summary);
                }
                Step::Move(number) => {
                    observatory.moved(0, &name(&format!("t{number}")), Happening::Left);
                }
                Step::Close(now) => {
                    if let Some(bin) = observatory.close(now) {
                        prop_assert!(bin.seconds >= 1 && bin.seconds <= 300);
                        prop_assert!(bin.samples.iter().all(|sample| sample.value.is_finite()));
                        prop_assert!(bin.samples.iter().all(|sample| sample.value >= 0.0));
                        let keys = bin.samples.iter().map(|one| (&one.subject, &one.signal));
                        prop_assert!(keys.is_sorted_by(|one, two| one < two));
                        prop_assert_eq!(observatory.close(now), None, "one bin a call");
                    }
                }
            }
            prop_assert!(observatory.bytes() <= SETTINGS.bytes_max);
        }
    }
}
