//! Who foretells, put together for people; and what people ask of models.

use std::sync::Arc;

use model::drift::DRIFTED;
use model::fleet::LEARNED;
use model::learned::{Learned, ODDS_MEMBERS};

use super::{called, horizons, version};
use crate::predict::contest::{Decision, What, version_of};
use crate::predict::{Foreseer, Occasion};
use crate::serve::models::{
    DriftReply, LearnedReply, LogEntry, LogReply, ModelReply, TrainingReply, TrialReply,
};
use crate::serve::problem::Problem;
use crate::serve::reply::Reply;
use crate::serve::sentence::{lasting, percent};

/// Who foretells. Whoever trains says `began`, `ended`, `last` and `outcome` of `training`; the
/// rest of it is filled in here.
pub fn model(
    foreseer: &Foreseer,
    now: i64,
    training: TrainingReply,
    replay_bytes: u64,
) -> ModelReply {
    let (settings, contest) = (foreseer.settings(), foreseer.contest());
    let challenger = contest.challenger();
    let block_seconds = settings.block as u64 * u64::from(settings.schema.step);
    let drift = foreseer.drift().map(|(input, index)| DriftReply {
        input: input.to_owned(),
        index,
        index_max: DRIFTED,
    });
    let (next, why) = next(foreseer, now);
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
        training: TrainingReply {
            asked: foreseer.is_asked(),
            next,
            why,
            ..training
        },
        drift,
        targets: foreseer.targets() as u64,
        targets_max: settings.targets_max as u64,
        left_out: foreseer.left_out(),
        replay_bytes,
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
        version: version(version_of(learned)),
        kind: learned.kind.name().to_owned(),
        from: is.then_some(learned.window.0),
        to: is.then_some(learned.window.1),
        examples: learned.examples,
        members: values.into_iter().chain(chances).collect(),
    }
}

/// The newest decisions, oldest first.
pub fn log<'a>(decisions: impl DoubleEndedIterator<Item = &'a Decision>, limit: usize) -> LogReply {
    let mut entries: Vec<LogEntry> = decisions.rev().take(limit).map(entry).collect();
    entries.reverse();
    LogReply { entries }
}

/// A decision for people.
pub fn entry(decision: &Decision) -> LogEntry {
    let champion = version(decision.champion);
    let (what, text) = match &decision.what {
        What::Challenged {
            challenger,
            examples,
        } => {
            let challenger = version(*challenger);
            let text =
                format!("{challenger} was learned from {examples} examples and is tried beside it");
            ("challenged", text)
        }
        What::Promoted { gain, low, high } => {
            let gain = gained(*gain, *low, *high);
            ("promoted", format!("the challenger takes over: {gain}"))
        }
        What::Dismissed { gain, low, high } => {
            let gain = gained(*gain, *low, *high);
            ("dismissed", format!("the challenger is let go: {gain}"))
        }
        What::Deposed { worse } => {
            let text = format!(
                "the champion lost {worse:.2} times what saying how often it happens would have \
                 lost"
            );
            ("deposed", text)
        }
        What::RolledBack => ("rolled-back", "an operator went back to it".to_owned()),
    };
    LogEntry {
        at: decision.at,
        what: what.to_owned(),
        champion,
        text,
    }
}

fn gained(gain: f64, low: f64, high: f64) -> String {
    let percent = |share: f64| percent(share).replace(" %", "");
    format!(
        "it loses {} % less, 95 % sure between {} and {}",
        percent(gain),
        percent(low),
        percent(high)
    )
}

/// Asks for a training.
pub fn train(foreseer: &mut Foreseer) -> Result<Reply, Problem> {
    if !foreseer.learns() {
        let kind = foreseer.settings().kind.name();
        let why = format!("model.kind = \"{kind}\" learns nothing; write kind = \"mix\"");
        return Err(Problem::precondition(why));
    }
    foreseer.ask_for_training();
    Ok(Reply::done(
        "a training is asked for; `foreshadow model show` tells when it is over",
    ))
}

/// Goes back to the model before this one; whoever keeps models is to keep the decision.
pub fn roll_back(foreseer: &mut Foreseer, now: i64) -> Result<(Decision, Reply), Problem> {
    let decision = foreseer.roll_back(now).ok_or_else(|| {
        Problem::precondition("there is no model before this one; `foreshadow model show` tells")
    })?;
    let speaks = version(decision.champion);
    let reply = Reply::done(format!("{speaks} speaks from now on"));
    Ok((decision, reply))
}
