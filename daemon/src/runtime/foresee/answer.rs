//! Questions of people to whoever foresees.

use model::drift::DRIFTED;
use model::fleet::LEARNED;
use model::learned::{Learned, ODDS_MEMBERS};

use super::Foresight;
use super::show::{self, version};
use crate::predict::Occasion;
use crate::predict::contest::version_of;
use crate::serve::models::{
    DriftReply, LearnedReply, LogReply, ModelReply, TrainingReply, TrialReply,
};
use crate::serve::problem::{Problem, ProblemKind};
use crate::serve::query::Query;
use crate::serve::reply::Reply;

impl Foresight {
    /// The answer to a question of people.
    pub fn answer(&mut self, now: i64, query: Query) -> Result<Reply, Problem> {
        match query {
            Query::Forecasts {
                object,
                kind,
                within,
                limit,
            } => {
                let wanted = (object.as_ref(), kind);
                let reply = show::forecasts(&self.foreseer, now, wanted, within, limit);
                Ok(Reply::Forecasts(Box::new(reply)))
            }
            Query::Explain { object } => {
                let reply = show::explain(&self.foreseer, now, &object)?;
                Ok(Reply::Explain(Box::new(reply)))
            }
            Query::Hint {
                target,
                chance,
                until,
            } => show::hint(&mut self.foreseer, now, &target, chance, until),
            Query::Model => Ok(Reply::Model(Box::new(self.model(now)))),
            Query::ModelLog { limit } => Ok(Reply::ModelLog(LogReply {
                entries: self.store.entries(limit),
            })),
            Query::Train => self.ask_for_training(now),
            Query::RollBackModel => match self.roll_back(now) {
                true => {
                    let champion = version(self.foreseer.contest().version());
                    Ok(Reply::done(format!("{champion} speaks from now on")))
                }
                false => Err(Problem::new(
                    ProblemKind::Precondition,
                    "there is no model before this one to go back to",
                )),
            },
            // The control thread knows who answers what.
            other => Err(Problem::internal(format!(
                "{other:?} is not for the observer"
            ))),
        }
    }

    fn ask_for_training(&mut self, now: i64) -> Result<Reply, Problem> {
        if !self.foreseer.learns() {
            let kind = self.foreseer.settings().kind.name();
            let why = format!("model.kind = {kind:?} learns nothing: there is nothing to train");
            return Err(Problem::new(ProblemKind::Precondition, why));
        }
        if self.training.is_some() {
            return Ok(Reply::done("a training runs already".to_owned()));
        }
        self.foreseer.ask_for_training();
        self.train(now);
        Ok(Reply::done(match &self.training {
            Some(_) => "training begins".to_owned(),
            None => "training begins when what was seen before is known again".to_owned(),
        }))
    }

    fn model(&self, now: i64) -> ModelReply {
        let (foreseer, contest) = (&self.foreseer, self.foreseer.contest());
        let settings = foreseer.settings();
        let step = settings.schema.step;
        let (rules, challenger) = (contest.rules(), contest.challenger());
        ModelReply {
            now,
            kind: settings.kind.name().to_owned(),
            bin_seconds: step,
            horizons: show::horizons(foreseer),
            champion: learned(contest.champion()),
            challenger: challenger.map(|(challenger, _)| learned(challenger)),
            trial: challenger.map(|(_, blocks)| TrialReply {
                blocks: blocks as u64,
                blocks_min: rules.blocks as u64,
                events_min: rules.events,
                block_seconds: settings.block as u64 * u64::from(step),
            }),
            previous: contest.previous().map(|previous| learned(previous)),
            training: self.training_reply(now),
            drift: foreseer.drift().map(|(input, index)| DriftReply {
                input: input.to_owned(),
                index,
                index_max: DRIFTED,
            }),
            targets: foreseer.targets() as u64,
            targets_max: settings.targets_max as u64,
            left_out: foreseer.left_out(),
            replay_bytes: self.replay.bytes(),
        }
    }

    fn training_reply(&self, now: i64) -> TrainingReply {
        let why = match (&self.training, self.foreseer.occasion(now)) {
            (Some(run), _) => run.doing(),
            (None, Some(Occasion::Asked)) => "an operator asked for it".to_owned(),
            (None, Some(Occasion::Drifted { input, index })) => {
                format!("{input} moved by {index:.2} since the model learned")
            }
            (None, Some(Occasion::Due)) => "it is due with the next bin".to_owned(),
            (None, None) => "it is learned anew at regular intervals".to_owned(),
        };
        TrainingReply {
            asked: self.foreseer.occasion(now) == Some(Occasion::Asked),
            began: self.training.as_ref().map(|run| run.began()),
            ended: self.trainings,
            last: self.ended.as_ref().map(|ended| ended.at),
            outcome: self.ended.as_ref().map(|ended| ended.text.clone()),
            next: self
                .foreseer
                .training_due()
                .map(|next| next.max(self.not_before)),
            why,
        }
    }
}

fn learned(learned: &Learned) -> LearnedReply {
    let has_learned = learned.examples > 0;
    let values = learned.values.iter().flat_map(|_| LEARNED);
    let odds = learned.odds.iter().flat_map(|_| ODDS_MEMBERS);
    LearnedReply {
        version: version(version_of(learned)),
        kind: learned.kind.name().to_owned(),
        from: has_learned.then_some(learned.window.0),
        to: has_learned.then_some(learned.window.1),
        examples: learned.examples,
        members: values
            .map(|name| format!("{name} of values"))
            .chain(odds.map(|name| format!("{name} of chances")))
            .collect(),
    }
}
