//! Who foretells, put together for people; and what people ask of models.

use std::sync::Arc;

use model::drift::DRIFTED;
use model::fleet::LEARNED;
use model::learned::{Learned, ODDS_MEMBERS};

use super::{called, horizons};
use crate::predict::contest::version_of;
use crate::predict::{Foreseer, Occasion};
use crate::runtime::foresee::Foresight;
use crate::runtime::foresee::store::name_of;
use crate::runtime::foresee::training::Run;
use crate::serve::models::{DriftReply, LearnedReply, ModelReply, TrainingReply, TrialReply};
use crate::serve::problem::Problem;
use crate::serve::reply::Reply;
use crate::serve::sentence::lasting;

/// Who foretells, who would like to, and when is learned again.
pub fn model(foresight: &Foresight, now: i64) -> ModelReply {
    let foreseer = foresight.foreseer();
    let (settings, contest) = (foreseer.settings(), foreseer.contest());
    let challenger = contest.challenger();
    let block_seconds = settings.block as u64 * u64::from(settings.schema.step);
    let drift = foreseer.drift().map(|(input, index)| DriftReply {
        input: input.to_owned(),
        index,
        index_max: DRIFTED,
    });
    ModelReply {
        now,
        kind: settings.kind.name().to_owned(),
        bin_seconds: settings.schema.step,
        horizons: horizons(foreseer),
        champion: learned(contest.champion()),
        challenger: challenger.map(|(challenger, _)| learned(challenger)),
        trial: challenger.map(|(_, blocks)| TrialReply {
            blocks: blocks as u64,
            blocks_min: settings.rules.blocks as u64,
            events_min: settings.rules.events,
            block_seconds,
        }),
        previous: contest.previous().map(learned),
        training: training(foresight, now),
        drift,
        targets: foreseer.targets() as u64,
        targets_max: settings.targets_max as u64,
        left_out: foreseer.left_out(),
        replay_bytes: foresight.replay_bytes(),
    }
}

fn training(foresight: &Foresight, now: i64) -> TrainingReply {
    let (next, why) = next(foresight.foreseer(), now);
    let (run, ended) = (foresight.training(), foresight.ended());
    TrainingReply {
        asked: foresight.foreseer().is_asked(),
        began: run.map(Run::began),
        doing: run.map(Run::doing),
        last: ended.map(|ended| ended.at),
        outcome: ended.map(|ended| ended.text.clone()),
        next,
        why,
    }
}

/// When is learned next, and why.
fn next(foreseer: &Foreseer, now: i64) -> (Option<i64>, String) {
    let settings = foreseer.settings();
    match foreseer.occasion(now) {
        Some(Occasion::Asked) => (Some(now), "an operator asked for it".to_owned()),
        Some(Occasion::Drifted { input, index }) => {
            let why = format!("an input has moved since the model learned: {input} ({index:.2})");
            (Some(now), why)
        }
        Some(Occasion::Due) | None => match foreseer.training_due() {
            Some(due) => {
                let every = lasting(u64::from(settings.training_interval));
                (
                    Some(due.max(now)),
                    format!("it is learned anew every {every}"),
                )
            }
            None => {
                let kind = settings.kind.name();
                (None, format!("model.kind = \"{kind}\" learns nothing"))
            }
        },
    }
}

/// What was learned.
fn learned(learned: &Arc<Learned>) -> LearnedReply {
    let of = |what: &'static str, names: &[&str], is: bool| {
        let names = names.iter().filter(|_| is);
        let name = |name: &&str| format!("{what}/{}", called(name, learned.kind));
        names.map(name).collect::<Vec<String>>()
    };
    let values = of("values", &LEARNED, learned.values.is_some());
    let chances = of("chances", &ODDS_MEMBERS, learned.odds.is_some());
    let is = !values.is_empty() || !chances.is_empty();
    LearnedReply {
        version: name_of(version_of(learned)),
        kind: learned.kind.name().to_owned(),
        from: is.then_some(learned.window.0),
        to: is.then_some(learned.window.1),
        examples: learned.examples,
        members: values.into_iter().chain(chances).collect(),
    }
}

/// Learns anew as soon as what was seen is known.
pub fn train(foresight: &mut Foresight, now: i64) -> Result<Reply, Problem> {
    let foreseer = foresight.foreseer_mut();
    if !foreseer.learns() {
        let kind = foreseer.settings().kind.name();
        let why = format!("model.kind = \"{kind}\" learns nothing; write kind = \"mix\"");
        return Err(Problem::precondition(why));
    }
    foreseer.ask_for_training();
    foresight.train(now);
    Ok(Reply::done(
        "a training is asked for; `foreshadow model show` tells when it is over",
    ))
}

/// Goes back to the model before this one.
pub fn roll_back(foresight: &mut Foresight, now: i64) -> Result<Reply, Problem> {
    if !foresight.roll_back(now) {
        let why = "there is no model before this one; `foreshadow model show` tells";
        return Err(Problem::precondition(why));
    }
    let speaks = name_of(foresight.foreseer().contest().version());
    Ok(Reply::done(format!("{speaks} speaks from now on")))
}
