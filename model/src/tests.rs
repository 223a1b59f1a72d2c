//! Learning, foretelling and storing together, on series that are made here.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use crate::evaluate::{Plan, evaluate};
use crate::fleet::{Fleet, Outlook};
use crate::learn::{Lesson, learn};
use crate::learned::{Kind, Learned, Schema};
use crate::lstm::Training;
use crate::random::Random;
use crate::series::Series;
use crate::stored::Refused;

/// Hours with a daily shape, noise, and a peak at six on most days.
fn hours(days: usize, seed: u64) -> Series {
    let mut random = Random::new(seed);
    let value = |hour: usize| {
        let wave = (hour as f32 / 24.0 * std::f32::consts::TAU).sin();
        let peak = hour % 24 == 6 && random.unit() < 0.8;
        10.0 + 3.0 * wave + random.unit() as f32 + if peak { 20.0 } else { 0.0 }
    };
    Series {
        name: format!("hours-{seed}"),
        start: 0,
        step: 3600,
        values: (0..24 * days).map(value).collect(),
    }
}

fn schema() -> Schema {
    Schema::new(3600, 3600, &[3600, 2 * 3600, 6 * 3600]).expect("a schema")
}

fn quick() -> Training {
    Training {
        hidden: 16,
        epochs: 3,
        ..Training::default()
    }
}

fn taught(kind: Kind) -> Learned {
    let series: Vec<Series> = (0..3).map(|seed| hours(25, seed)).collect();
    let lessons: Vec<Lesson<'_>> = series
        .iter()
        .map(|series| Lesson {
            series,
            limit: 15.0,
            until: series.values.len(),
        })
        .collect();
    let learned = learn(kind, &schema(), &lessons, &quick(), &mut |_| true);
    learned.expect("it learns").expect("it was not ended")
}

static MIX: LazyLock<Arc<Learned>> = LazyLock::new(|| Arc::new(taught(Kind::Mix)));
static ALL: LazyLock<Vec<Arc<Learned>>> = LazyLock::new(|| {
    let others = [Kind::Lstm, Kind::Rnn, Kind::MovingAverage, Kind::Naive];
    let mut all = vec![Arc::clone(&MIX)];
    all.extend(others.map(|kind| Arc::new(taught(kind))));
    all
});

fn walk(fleet: &mut Fleet, item: usize, values: &[f32]) -> Vec<Outlook> {
    let mut said = Vec::new();
    for value in values {
        fleet.step(&vec![*value; fleet.len()]);
        said.push(fleet.outlook(item).clone());
    }
    said
}

#[test]
fn the_peak_at_six_is_foretold_for_six() {
    let mut fleet = Fleet::new(Arc::clone(&MIX));
    fleet.add(0, 15.0);
    let series = hours(20, 9);
    let said = walk(&mut fleet, 0, &series.values[..24 * 19 + 6]);
    let [five, noon] = [said.last(), said.get(24 * 19 - 12)].map(|said| said.expect("said"));
    assert!(five.chances[0] > 0.6, "at five: {:?}", five.chances);
    assert!(noon.chances[0] < 0.1, "at noon: {:?}", noon.chances);
    assert!(five.value.expect("a value") > 15.0);
    let reasons = fleet.reasons(0);
    let strongest = reasons
        .iter()
        .max_by(|one, other| one.1.total_cmp(&other.1));
    assert!(
        strongest.is_some_and(|(_, part)| *part > 0.0),
        "{reasons:?}"
    );
}

#[test]
fn items_in_a_batch_are_foretold_as_alone_and_one_may_leave() {
    let series: Vec<Series> = (20..24).map(|seed| hours(3, seed)).collect();
    let mut all = Fleet::new(Arc::clone(&MIX));
    for _ in &series {
        all.add(0, 15.0);
    }
    let mut single = Fleet::new(Arc::clone(&MIX));
    single.add(0, 15.0);
    for bin in 0..48 {
        let values: Vec<f32> = series.iter().map(|series| series.values[bin]).collect();
        all.step(&values);
        single.step(&values[3..]);
    }
    assert_eq!(all.outlook(3), single.outlook(0));
    all.remove(1);
    for bin in 48..60 {
        let of = |at: usize| series[at].values[bin];
        all.step(&[of(0), of(3), of(2)]);
        single.step(&[of(3)]);
    }
    assert_eq!(all.outlook(1), single.outlook(0), "the last took its place");
}

#[test]
fn nothing_that_lies_ahead_is_seen() {
    let series = hours(20, 5);
    let mut other = series.clone();
    for value in &mut other.values[300..] {
        *value += 1000.0;
    }
    let before = |series: &Series| {
        let mut fleet = Fleet::new(Arc::clone(&MIX));
        fleet.add(0, 15.0);
        walk(&mut fleet, 0, &series.values[..300])
    };
    assert_eq!(before(&series), before(&other));
}

#[test]
fn an_item_that_vanishes_and_returns_is_foretold_again() {
    let mut series = hours(30, 6);
    series.values[200..500].fill(f32::NAN);
    let mut fleet = Fleet::new(Arc::clone(&MIX));
    fleet.add(0, 15.0);
    let said = walk(&mut fleet, 0, &series.values);
    let value = said.last().and_then(|said| said.value).expect("a value");
    assert!((5.0..16.0).contains(&value), "{value}");
}

#[test]
fn a_constant_series_is_foretold_exactly_and_an_empty_one_not_at_all() {
    let mut fleet = Fleet::new(Arc::clone(&MIX));
    fleet.add(0, 15.0);
    fleet.step(&[f32::NAN]);
    assert_eq!(fleet.outlook(0).value, None);
    let said = walk(&mut fleet, 0, &[7.0; 200]);
    let value = said.last().and_then(|said| said.value).expect("a value");
    assert!((value - 7.0).abs() < 0.05, "{value}");
}

#[test]
fn what_is_stored_comes_back_and_foretells_the_same() {
    for learned in ALL.iter() {
        let bytes = learned.to_bytes().expect("bytes");
        let back = Arc::new(Learned::from_bytes(&bytes).expect("a model"));
        assert_eq!((back.kind, &back.schema), (learned.kind, &learned.schema));
        assert_eq!(
            (back.window, back.examples),
            (learned.window, learned.examples)
        );
        assert_eq!(back.edges, learned.edges);
        let [one, other] = [learned, &back].map(|learned| {
            let mut fleet = Fleet::new(Arc::clone(learned));
            fleet.add(0, 15.0);
            walk(&mut fleet, 0, &hours(3, 8).values)
        });
        assert_eq!(one, other);
        assert_eq!(back.to_bytes().expect("bytes"), bytes);
    }
}

#[test]
fn bytes_that_are_not_a_whole_model_of_ours_are_refused() {
    let bytes = MIX.to_bytes().expect("bytes");
    let refused = |bytes: &[u8]| Learned::from_bytes(bytes).expect_err("refused");
    assert!(matches!(refused(b"PNG and so on"), Refused::Foreign));
    assert!(matches!(refused(b""), Refused::Foreign));
    for cut in [8, 20, 28, bytes.len() / 2, bytes.len() - 1] {
        assert!(
            matches!(refused(&bytes[..cut]), Refused::Damaged(_)),
            "cut at {cut}"
        );
    }
    for at in (16..bytes.len()).step_by(bytes.len() / 97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(matches!(refused(&damaged), Refused::Damaged(_)), "at {at}");
    }
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert!(matches!(refused(&newer), Refused::Format { found: 9 }));
    let mut other = bytes.clone();
    other[12] = 7;
    assert!(refused(&other).to_string().contains("train anew"));
}

#[test]
fn who_learns_may_be_told_to_stop() {
    let series = hours(25, 1);
    let lesson = Lesson {
        series: &series,
        limit: 15.0,
        until: series.values.len(),
    };
    let mut left = 3;
    let learned = learn(Kind::Mix, &schema(), &[lesson], &quick(), &mut |_| {
        left -= 1;
        left > 0
    });
    assert!(learned.expect("no error").is_none());
    let nothing = learn(Kind::Mix, &schema(), &[], &quick(), &mut |_| true);
    assert!(
        nothing
            .expect("no error")
            .is_some_and(|learned| learned.values.is_none())
    );
}

#[test]
fn an_evaluation_knows_skill_from_none() {
    let plan = Plan {
        rounds: 2,
        training: quick(),
        ..Plan::new(3600)
    };
    let series: Vec<Series> = (0..3).map(|seed| hours(30, seed)).collect();
    let report = evaluate(&series, &plan, |_| {}).expect("it learns");
    let report = report.expect("long enough");
    assert_eq!(report.series, 3);
    let mix = report.skills.last().expect("the mix");
    assert_eq!(mix.name, "mix");
    let ewma = mix.vs_ewma.expect("values are scored");
    assert!(ewma.median > 0.2, "a mean knows no hour: {ewma:?}");
    let chances = &mix.chances[0];
    let skill = chances.brier_skill(chances.rate());
    assert!(skill > 0.3, "{skill}");
    let mut random = Random::new(1);
    let noise = |_| Series {
        values: (0..24 * 30).map(|_| random.unit() as f32).collect(),
        ..hours(1, 0)
    };
    let noise: Vec<Series> = (0..3).map(noise).collect();
    let report = evaluate(&noise, &plan, |_| {}).expect("it learns");
    let chances = report
        .expect("long enough")
        .skills
        .pop()
        .expect("the mix")
        .chances;
    let skill = chances[0].brier_skill(chances[0].rate());
    assert!(skill.abs() < 0.05, "nobody can foretell noise: {skill}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chances_are_chances_whatever_comes(
        values in prop::collection::vec(prop::num::f32::ANY, 1..120),
        limit in prop::num::f32::ANY,
        start in -1_000_000_000_i64..4_000_000_000,
        akin in prop::num::f32::ANY,
    ) {
        for learned in ALL.iter() {
            let mut fleet = Fleet::new(Arc::clone(learned));
            fleet.add(start, limit);
            fleet.set_akin(0, akin);
            for value in &values {
                fleet.step(&[*value]);
                let said = fleet.outlook(0);
                prop_assert_eq!(said.chances.len(), 3);
                prop_assert!(said.chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
                prop_assert!(said.chances.is_sorted(), "{:?}", said.chances);
                prop_assert!(said.value.is_none_or(|value| !value.is_nan()));
            }
        }
    }
}
