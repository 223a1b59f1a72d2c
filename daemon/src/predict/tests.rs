//! The stage as a whole: bins in, forecasts and decisions out.

use model::learned::Kind as ModelKind;
use model::lstm::Training;
use model::trial::Rules;
use proptest::prelude::*;

use super::contest::What;
use super::target::{Kind, subject};
use super::*;

const STEP: i64 = 3600;

fn settings() -> Settings {
    let schema = Schema::new(STEP as u32, 3600, &[3600, 6 * 3600]).expect("a schema");
    Settings {
        kind: ModelKind::Mix,
        schema,
        targets_max: 100,
        interval: 3600,
        training_interval: 10 * 86_400,
        control_share: 0.05,
        healthy: Healthy::default(),
        rules: Rules {
            blocks: 3,
            events: 10,
            ..Rules::default()
        },
        block: 24,
    }
}

fn target(text: &str) -> Target {
    Target {
        subject: subject(text).expect("an object"),
        kind: Kind::Access,
        region: None,
    }
}

fn seen(bin: i64, numbers: &[(&str, f32)]) -> Seen {
    Seen {
        begin: bin * STEP,
        seconds: STEP as u32,
        missed: 0,
        numbers: numbers
            .iter()
            .map(|(text, value)| (target(text), *value))
            .collect(),
    }
}

/// A report is asked for at six every day, an order at any time of the day, a log never.
fn shop(bin: i64) -> Seen {
    let hour = bin % 24;
    let report = if hour == 6 { 40.0 } else { 0.0 };
    let order = if (8..20).contains(&hour) {
        5.0 + (bin * 7919 % 11) as f32
    } else {
        0.0
    };
    seen(bin, &[("r.db", report), ("o.db", order), ("l.db", 0.0)])
}

fn learn(lessons: &[(Series, f32)], epochs: usize) -> Learned {
    let lessons: Vec<_> = lessons
        .iter()
        .map(|(series, limit)| model::learn::Lesson {
            series,
            limit: *limit,
            until: series.values.len(),
        })
        .collect();
    let training = Training {
        hidden: 16,
        epochs,
        ..Training::default()
    };
    let schema = settings().schema;
    let learned = model::learn::learn(ModelKind::Mix, &schema, &lessons, &training, &mut |_| true);
    learned.expect("it learns").expect("not ended")
}

fn chance(foreseer: &Foreseer, text: &str, now: i64) -> f32 {
    let page = foreseer.book().page(&target(text)).expect("a page");
    page.chances(now)[0]
}

#[test]
fn it_works_from_the_first_bin_and_says_rates() {
    let mut foreseer = Foreseer::new(settings(), None);
    foreseer.take(&seen(0, &[("a.db", 1.0), ("b.db", 0.0)]));
    let now = STEP;
    let (a, b) = (
        chance(&foreseer, "a.db", now),
        chance(&foreseer, "b.db", now),
    );
    assert!(a > b && b > 0.0, "{a} and {b}");
    let page = foreseer.book().page(&target("a.db")).expect("a page");
    let forecast = page.forecast.as_ref().expect("a forecast");
    assert_eq!(
        (forecast.issued, forecast.expires, forecast.model),
        (now, 2 * STEP, 0)
    );
}

#[test]
fn only_what_is_stale_is_asked_again() {
    let mut foreseer = Foreseer::new(
        Settings {
            interval: 3 * 3600,
            ..settings()
        },
        None,
    );
    let issued = |foreseer: &Foreseer| {
        let page = foreseer.book().page(&target("r.db")).expect("a page");
        page.forecast
            .as_ref()
            .map(|forecast| forecast.issued / STEP)
    };
    let mut all = Vec::new();
    for bin in 0..5 {
        foreseer.take(&shop(bin));
        all.extend(issued(&foreseer));
    }
    assert_eq!(all, [1, 1, 1, 4, 4]);
}

#[test]
fn what_is_learned_competes_wins_and_can_be_taken_back() {
    let mut foreseer = Foreseer::new(settings(), None);
    let days = |foreseer: &mut Foreseer, days: std::ops::Range<i64>| -> Vec<Decision> {
        let bins = days.start * 24..days.end * 24;
        bins.flat_map(|bin| foreseer.take(&shop(bin))).collect()
    };
    assert_eq!(days(&mut foreseer, 0..20), []);
    let now = 20 * 86_400;
    assert_eq!(foreseer.occasion(now), Some(Occasion::Due));
    let lessons = foreseer.lessons(now);
    assert_eq!(lessons.len(), 3);
    assert_eq!(foreseer.occasion(now), None, "it was just done");
    let learned = learn(&lessons, 3);
    let challenged = foreseer.challenge(learned, now);
    assert!(matches!(challenged.what, What::Challenged { .. }) && challenged.champion == 0);
    let decided = days(&mut foreseer, 20..26);
    assert!(
        matches!(&decided[..], [Decision { what: What::Promoted { .. }, champion, .. }]
            if *champion != 0),
        "{decided:?}"
    );
    let five = 26 * 24 + 6;
    for bin in 26 * 24..five {
        foreseer.take(&shop(bin));
    }
    let six = chance(&foreseer, "r.db", five * STEP);
    assert!(six > 0.8, "the report at six: {six}");
    assert!(
        chance(&foreseer, "o.db", five * STEP) < 0.2,
        "no order at six"
    );
    let page = foreseer.book().page(&target("r.db")).expect("a page");
    assert!(
        page.hits.judged > 600 && page.hits.right >= 3,
        "{:?}",
        page.hits
    );
    let reasons = foreseer.reasons(&target("r.db")).expect("reasons");
    assert!(!reasons.inputs.is_empty() && reasons.weights.len() == reasons.outlook.members.len());
    let back = foreseer.roll_back(five * STEP).expect("rules spoke before");
    assert_eq!((back.what, back.champion), (What::RolledBack, 0));
    assert!(
        foreseer
            .roll_back(five * STEP)
            .is_some_and(|again| again.champion != 0)
    );
}

#[test]
fn a_champion_that_is_worse_than_a_rate_is_deposed() {
    let mut foreseer = Foreseer::new(settings(), None);
    for bin in 0..24 * 20 {
        foreseer.take(&shop(bin));
    }
    let lessons = foreseer.lessons(0);
    let mut learned = learn(&lessons, 1);
    // It says the opposite of what it knows.
    let odds = learned.odds.as_mut().expect("it has learned");
    for calibration in &mut odds.calibrations {
        calibration.scale = -calibration.scale;
    }
    let mut foreseer = Foreseer::new(settings(), Some(Arc::new(learned)));
    let decided: Vec<_> = (0..24 * 3)
        .flat_map(|bin| foreseer.take(&shop(bin)))
        .collect();
    assert!(
        matches!(&decided[..], [Decision { what: What::Deposed { worse }, champion: 0, .. }, ..]
            if *worse > 1.1),
        "{decided:?}"
    );
}

#[test]
fn the_longest_silent_goes_when_there_is_no_room_and_its_index_is_used_again() {
    let mut foreseer = Foreseer::new(
        Settings {
            targets_max: 3,
            ..settings()
        },
        None,
    );
    foreseer.take(&seen(0, &[("a.db", 1.0), ("b.db", 1.0), ("c.db", 1.0)]));
    foreseer.take(&seen(1, &[("b.db", 1.0)]));
    foreseer.take(&seen(2, &[("b.db", 1.0), ("c.db", 1.0)]));
    foreseer.take(&seen(3, &[("b.db", 1.0), ("d.db", 1.0)]));
    assert!(
        foreseer.book().page(&target("a.db")).is_none(),
        "silent for three bins"
    );
    for (text, least) in [("b.db", 0.3), ("d.db", 0.05)] {
        assert!(chance(&foreseer, text, 4 * STEP) > least, "{text}");
    }
    foreseer.take(&seen(
        4,
        &[("b.db", 1.0), ("c.db", 1.0), ("d.db", 1.0), ("e.db", 1.0)],
    ));
    assert_eq!(
        (foreseer.left_out(), foreseer.book().len()),
        (1, 3),
        "nobody was silent"
    );
}

#[test]
fn what_is_replayed_is_remembered_and_decides_nothing() {
    let mut walked = Foreseer::new(settings(), None);
    let mut replayed = Foreseer::new(settings(), None);
    for bin in 0..100 {
        walked.take(&shop(bin));
        replayed.replay(&shop(bin));
    }
    let pages = |foreseer: &Foreseer| -> Vec<_> {
        let pages = foreseer.book().pages();
        pages
            .map(|(target, page)| (target.clone(), page.chances(100 * STEP)))
            .collect()
    };
    assert_eq!(pages(&walked), pages(&replayed));
}

#[test]
fn a_twentieth_is_never_acted_upon_and_always_the_same() {
    let control = |share| {
        let is = |n: &u32| is_control(&target(&format!("#{n}")), share);
        (0..2_000_u32).filter(is).collect::<Vec<_>>()
    };
    let some = control(0.05);
    assert!((60..140).contains(&some.len()), "{}", some.len());
    assert_eq!(some, control(0.05));
    assert!(control(0.0).is_empty());
}

#[test]
fn drift_is_a_reason_to_learn_anew() {
    let mut foreseer = Foreseer::new(settings(), None);
    for bin in 0..24 * 20 {
        foreseer.take(&shop(bin));
    }
    let rows: Vec<Vec<f32>> = (0..200).map(|_| vec![-50.0; 29]).collect();
    let mut learned = Learned::blank(ModelKind::Mix, settings().schema);
    learned.edges = Some(model::drift::Edges::of(rows.iter().map(Vec::as_slice)));
    foreseer.lessons(20 * 86_400);
    foreseer.challenge(learned, 20 * 86_400);
    for bin in 24 * 20..24 * 35 {
        foreseer.take(&shop(bin));
    }
    let occasion = foreseer.occasion(20 * 86_400 + 1);
    assert!(
        matches!(occasion, Some(Occasion::Drifted { .. })),
        "{occasion:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_clock_that_jumps_and_numbers_that_are_none_do_no_harm(
        bins in prop::collection::vec(
            (prop::num::i64::ANY, any::<u32>(), 0_u32..5_000, prop::num::f32::ANY, 0_u8..6),
            1..12,
        ),
    ) {
        let mut foreseer = Foreseer::new(settings(), None);
        for (begin, seconds, missed, value, object) in bins {
            let numbers = [(target(&format!("#{object}")), value)];
            foreseer.take(&Seen { begin, seconds, missed, numbers: numbers.into() });
            for (_, page) in foreseer.book().pages() {
                let chances = page.forecast.as_ref().map(|forecast| &forecast.chances);
                let chances = chances.expect("asked");
                prop_assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
                prop_assert!(chances.is_sorted());
            }
        }
    }
}
