//! What people are shown of a foreseer that saw some bins.

use model::learned::{Kind as ModelKind, Learned, Schema};
use model::trial::Rules;

use super::*;
use crate::observe::{Bin, Sample, Signal};
use crate::predict::Settings;
use crate::predict::target::{Healthy, subject};
use crate::serve::models::ModelReply;

const STEP: i64 = 300;
/// When the last bin ends.
const NOW: i64 = 40 * STEP;

fn settings(kind: ModelKind) -> Settings {
    Settings {
        kind,
        schema: Schema::new(300, 3_600, &[900, 3_600]).expect("a schema"),
        targets_max: 100,
        interval: 300,
        training_interval: 3_600,
        control_share: 0.0,
        healthy: Healthy::default(),
        rules: Rules::default(),
        block: 288,
    }
}

fn object(text: &str) -> Subject {
    subject(text).expect("an object")
}

fn target(text: &str) -> Target {
    Target {
        subject: object(text),
        kind: Kind::Access,
        region: None,
    }
}

/// `busy.db` commits in every bin, `calm.db` in one of ten, and is backed up once.
fn bins() -> impl Iterator<Item = Bin> {
    (0..40).map(|bin| {
        let sample = |name: &str, signal, value| Sample {
            subject: object(name),
            signal,
            value,
        };
        let calm = f32::from(u8::from(bin % 10 == 0));
        let mut samples = vec![
            sample("busy.db", Signal::Commits, 5.0),
            sample("calm.db", Signal::Commits, calm),
        ];
        if bin == 0 {
            samples.push(sample("calm.db", Signal::Backups, 1.0));
        }
        Bin {
            begin: bin * STEP,
            seconds: 300,
            missed: 0,
            samples,
        }
    })
}

fn foreseer(kind: ModelKind) -> Foreseer {
    let mut foreseer = Foreseer::new(settings(kind), None);
    for bin in bins() {
        let seen = foreseer.seen(&bin);
        foreseer.take(&seen);
    }
    foreseer
}

fn mix() -> Foreseer {
    foreseer(ModelKind::Mix)
}

fn shown(reply: &ForecastsReply) -> Vec<(&str, &str)> {
    let shown = reply.forecasts.iter();
    let shown = shown.map(|one| (one.object.as_str(), one.kind.as_str()));
    shown.collect()
}

#[test]
fn the_likeliest_come_first_and_no_more_than_asked_for() {
    let foreseer = mix();
    let all = forecasts(&foreseer, NOW, (None, None), None, 50);
    let order = [
        ("busy.db", "access"),
        ("calm.db", "access"),
        ("calm.db", "backup"),
    ];
    assert_eq!(shown(&all), order);
    assert_eq!((all.now, all.bin_seconds, all.within), (NOW, 300, 3_600));
    assert_eq!(
        (all.horizons, all.model.as_str()),
        (vec![900, 3_600], "rules")
    );
    assert_eq!((all.found, all.left_out), (3, 0));
    let some = forecasts(&foreseer, NOW, (None, None), Some(60), 1);
    assert_eq!(
        (shown(&some), some.found, some.within),
        (vec![order[0]], 3, 900)
    );
    let one = &some.forecasts[0];
    assert_eq!((one.issued, one.expires), (Some(NOW), Some(NOW + 300)));
    assert_eq!(one.model.as_deref(), Some("rules"));
    assert!(
        one.chances[0] > 0.9 && one.chances[1] >= one.chances[0],
        "{one:?}"
    );
    assert!(one.hits.judged > 30 && one.hits.happened == one.hits.judged);
    assert!(one.hits.brier.is_some_and(|brier| brier < 0.2), "{one:?}");
}

#[test]
fn an_object_or_a_kind_is_asked_for() {
    let foreseer = mix();
    let calm = object("calm.db");
    let of_calm = forecasts(&foreseer, NOW, (Some(&calm), None), None, 50);
    assert_eq!(
        shown(&of_calm),
        [("calm.db", "access"), ("calm.db", "backup")]
    );
    let backups = forecasts(&foreseer, NOW, (None, Some(Kind::Backup)), None, 50);
    assert_eq!(shown(&backups), [("calm.db", "backup")]);
    let neither = forecasts(&foreseer, NOW, (Some(&object("node")), None), None, 50);
    assert_eq!(shown(&neither), []);
}

#[test]
fn a_hint_goes_first_until_it_ends_even_for_what_was_never_seen() {
    let mut foreseer = mix();
    let tell = |foreseer: &mut Foreseer, chance, until| {
        let chance = Chance::new(chance).expect("a chance");
        hint(foreseer, NOW, &target("new.db"), chance, until)
    };
    let said = tell(&mut foreseer, 1.0, Until::After(7_200)).expect("taken");
    let Reply::Done(done) = said else {
        panic!("{said:?}")
    };
    assert_eq!(done.detail, "access of new.db is taken to be 100 % for 2 h");
    let first = |now| {
        forecasts(&foreseer, now, (None, None), Some(900), 1)
            .forecasts
            .remove(0)
    };
    let hinted = first(NOW);
    assert_eq!(
        (hinted.object.as_str(), hinted.chances),
        ("new.db", vec![1.0, 1.0])
    );
    let hint = HintReply {
        chance: 1.0,
        until: NOW + 7_200,
    };
    assert_eq!((hinted.hint, hinted.issued), (Some(hint), None));
    assert_eq!(first(NOW + 7_200).object, "busy.db", "it is over");
    for wrong in [
        Until::At(NOW),
        Until::At(0),
        Until::At(i64::MAX),
        Until::At(i64::MIN),
    ] {
        let refused = tell(&mut foreseer, 1.0, wrong).expect_err("says nothing");
        assert_eq!(refused.status(), 400, "{wrong:?}");
    }
}

#[test]
fn hints_are_refused_when_there_is_no_room() {
    let mut foreseer = mix();
    let chance = Chance::new(0.5).expect("a chance");
    let mut tell = |number: u32| {
        let target = target(&format!("#{number}"));
        hint(&mut foreseer, NOW, &target, chance, Until::After(60))
    };
    let refused = (0..10_000).find_map(|number| tell(number).err());
    assert_eq!(refused.expect("it is bounded").status(), 429);
}

#[test]
fn an_object_is_explained_kind_by_kind() {
    let reply = explain(&mix(), NOW, &object("calm.db")).expect("known");
    assert_eq!((reply.object.as_str(), reply.ahead), ("calm.db", 3_600));
    let kinds: Vec<&str> = reply
        .targets
        .iter()
        .map(|one| one.forecast.kind.as_str())
        .collect();
    assert_eq!(kinds, ["access", "backup"]);
    let access = &reply.targets[0];
    assert_eq!(access.own, access.forecast.chances);
    assert_eq!(access.last, Some(31 * STEP), "the bin that began at 30");
    assert!(
        access.rate.is_some_and(|rate| (0.05..0.2).contains(&rate)),
        "{access:?}"
    );
    assert!(
        access
            .values
            .iter()
            .any(|one| one.name == "ewma" && one.says.is_some())
    );
    let weights: f64 = access.values.iter().map(|one| one.weighs).sum();
    assert!((weights - 1.0).abs() < 1e-6, "{weights}");
    assert!(
        access.sentences[0].contains("because it happens in"),
        "{access:?}"
    );
    assert!(
        access
            .sentences
            .iter()
            .any(|one| one.contains("said to be likelier than not"))
    );
}

#[test]
fn what_does_not_weigh_is_not_named() {
    let named = |kind| {
        let reply = explain(&foreseer(kind), NOW, &object("busy.db")).expect("known");
        let values = reply.targets[0].values.iter().map(|one| one.name.clone());
        values.collect::<Vec<String>>()
    };
    assert_eq!(named(ModelKind::Naive), ["last"]);
    assert_eq!(named(ModelKind::MovingAverage), ["ewma"]);
    assert_eq!(named(ModelKind::Rnn), ["ewma", "rnn"]);
    assert_eq!(named(ModelKind::Mix).len(), model::fleet::MEMBERS);
}

#[test]
fn an_object_that_is_not_known_is_told_from_one_that_is() {
    let problem = explain(&mix(), NOW, &object("clam.db")).expect_err("not known");
    assert_eq!(problem.status(), 404);
    assert_eq!(
        problem.detail,
        "nothing is foretold of clam.db here; did you mean calm.db?"
    );
    let strange = explain(&mix(), NOW, &object("#zzz")).expect_err("not known");
    assert_eq!(strange.detail, "nothing is foretold of #zzz here");
}

/// With files in a directory, which has to be kept.
fn foresight(kind: ModelKind) -> (tempfile::TempDir, Foresight) {
    let dir = tempfile::tempdir().expect("a directory");
    let ring = std::sync::Arc::new(|| ());
    let mut foresight = Foresight::open(settings(kind), dir.path(), 1 << 20, ring).expect("files");
    // Nobody learns before it is asked for.
    foresight.foreseer_mut().lessons(0);
    for bin in bins() {
        foresight.take(&bin, 1);
    }
    (dir, foresight)
}

fn model_of(foresight: &mut Foresight) -> ModelReply {
    match answer(foresight, NOW, Query::Model) {
        Ok(Reply::Model(reply)) => *reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_without_learning_says_so() {
    let (_dir, mut mix) = foresight(ModelKind::Mix);
    let shown = model_of(&mut mix);
    assert_eq!(
        (shown.kind.as_str(), shown.champion.version.as_str()),
        ("mix", "rules")
    );
    assert_eq!(
        (shown.champion.from, shown.champion.members.len()),
        (None, 0)
    );
    assert_eq!((shown.targets, shown.targets_max), (3, 100));
    assert!(shown.replay_bytes > 0);
    assert_eq!(
        (shown.challenger, shown.trial, shown.previous),
        (None, None, None)
    );
    assert_eq!(shown.training.next, Some(NOW), "it is over due");
    assert_eq!(shown.training.why, "it is learned anew every 1 h");
    let (_dir, mut naive) = foresight(ModelKind::Naive);
    let shown = model_of(&mut naive).training;
    assert_eq!(shown.next, None);
    assert_eq!(shown.why, "model.kind = \"naive\" learns nothing");
    let refused = answer(&mut naive, NOW, Query::Train).expect_err("nothing to learn");
    assert_eq!(refused.status(), 412);
}

#[test]
fn a_training_that_is_asked_for_begins_and_ends() {
    let (_dir, mut foresight) = foresight(ModelKind::Mix);
    let before = model_of(&mut foresight).training;
    assert_eq!(
        (before.asked, before.began, before.last),
        (false, None, None)
    );
    answer(&mut foresight, NOW, Query::Train).expect("there is something to learn");
    let runs = model_of(&mut foresight).training;
    assert_eq!((runs.asked, runs.began), (false, Some(NOW)));
    assert!(
        runs.doing.is_some() && runs.next == Some(NOW + 3_600),
        "{runs:?}"
    );
    answer(&mut foresight, NOW, Query::Train).expect("once more");
    let asked = model_of(&mut foresight).training;
    assert_eq!((asked.asked, asked.next), (true, Some(NOW)));
    assert_eq!(asked.why, "an operator asked for it");
    while foresight.training().is_some() {
        std::thread::sleep(std::time::Duration::from_millis(5));
        foresight.poll(NOW + 7);
    }
    let ended = model_of(&mut foresight).training;
    assert_eq!(
        (ended.asked, ended.last),
        (true, Some(NOW + 7)),
        "one waits yet"
    );
    assert!(ended.outcome.is_some());
}

#[test]
fn there_may_be_nothing_to_go_back_to() {
    let (_dir, mut foresight) = foresight(ModelKind::Mix);
    let refused = answer(&mut foresight, NOW, Query::RollBackModel);
    assert_eq!(refused.expect_err("nobody spoke before").status(), 412);
}

#[test]
fn a_challenger_and_who_spoke_before_are_shown() {
    let (_dir, mut foresight) = foresight(ModelKind::Mix);
    let schema = settings(ModelKind::Mix).schema;
    let blank = || Learned::blank(ModelKind::Mix, schema.clone());
    let foreseer = foresight.foreseer_mut();
    foreseer.challenge(blank(), NOW);
    foreseer.remember(blank());
    let shown = model_of(&mut foresight);
    assert!(shown.challenger.is_some());
    let trial = shown.trial.expect("it is tried");
    assert_eq!(
        (trial.blocks, trial.blocks_min, trial.events_min),
        (0, 7, 200)
    );
    assert_eq!(trial.block_seconds, 86_400);
    assert!(shown.previous.is_some());
    let Ok(Reply::Done(done)) = answer(&mut foresight, NOW, Query::RollBackModel) else {
        panic!("there is one before")
    };
    assert_eq!(done.detail, "rules speaks from now on");
    let Ok(Reply::ModelLog(log)) = answer(&mut foresight, NOW, Query::ModelLog { limit: 9 }) else {
        panic!("a log")
    };
    let told = log
        .entries
        .iter()
        .map(|entry| (entry.at, entry.what.as_str()));
    assert_eq!(told.collect::<Vec<_>>(), [(NOW, "rolled-back")]);
}

#[test]
fn every_question_has_its_answer() {
    let (_dir, mut foresight) = foresight(ModelKind::Mix);
    let mut ask = |query| answer(&mut foresight, NOW, query);
    let all = Query::Forecasts {
        object: None,
        kind: None,
        within: None,
        limit: 2,
    };
    assert!(matches!(ask(all), Ok(Reply::Forecasts(reply)) if reply.forecasts.len() == 2));
    let object = object("busy.db");
    let explain = ask(Query::Explain { object });
    assert!(matches!(explain, Ok(Reply::Explain(reply)) if reply.object == "busy.db"));
    let hint = Query::Hint {
        target: target("busy.db"),
        chance: Chance::new(0.5).expect("a chance"),
        until: Until::After(60),
    };
    assert!(matches!(ask(hint), Ok(Reply::Done(_))));
    assert_eq!(ask(Query::Status).expect_err("of others").status(), 500);
}
