//! Carries questions to the shards and puts their answers together.

use std::path::Path;
use std::sync::{Arc, Mutex};

use wal::ShardIndex;

use super::discover;
use super::mail::{Mail, Mailbox};
use super::observe;
use super::setup::Setup;
use crate::control::gateway::{Answer, Question};
use crate::event::Event;
use crate::serve::problem::Problem;
use crate::serve::query::{Query, Scope};
use crate::serve::reply::{Reply, merge};

/// Runs until the control thread is gone.
pub fn run(setup: &Setup, shards: &[Mailbox], questions: &flume::Receiver<Question>) {
    while let Ok(Question { query, answer }) = questions.recv() {
        match query {
            Query::AddPartition { path } => answer.give(add(setup, shards, &path)),
            query if query.scope() == Scope::Observer => {
                // Who asks is told when there is no room.
                let _ = setup.observer.post(observe::Mail::Ask(query, answer));
            }
            query => pass_on(shards, query, answer),
        }
    }
}

fn pass_on(shards: &[Mailbox], query: Query, answer: Answer) {
    match query.scope() {
        Scope::Partition(name) => {
            let shard = ShardIndex::of(name.id(), shards.len() as u16);
            let give = Box::new(move |reply| answer.give(reply));
            shards[usize::from(shard.0)].post(Mail::Ask(query, give));
        }
        Scope::Node | Scope::Control | Scope::Observer => {
            let gathering = Arc::new(Mutex::new(Gathering::new(shards.len(), answer)));
            for (index, shard) in shards.iter().enumerate() {
                let gathering = Arc::clone(&gathering);
                let take = Box::new(move |reply| Gathering::take(&gathering, index, reply));
                shard.post(Mail::Ask(query.clone(), take));
            }
        }
    }
}

/// Answers of shards that came so far.
struct Gathering {
    answers: Vec<Option<Result<Reply, Problem>>>,
    to: Option<Answer>,
}

impl Gathering {
    fn new(shards: usize, to: Answer) -> Gathering {
        Gathering {
            answers: vec![None; shards],
            to: Some(to),
        }
    }

    fn take(gathering: &Mutex<Gathering>, index: usize, answer: Result<Reply, Problem>) {
        let mut gathering = gathering
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        gathering.answers[index] = Some(answer);
        if gathering.answers.iter().all(Option::is_some)
            && let Some(to) = gathering.to.take()
        {
            to.give(merge(gathering.answers.drain(..).flatten().collect()));
        }
    }
}

/// Looks at a database that discovery did not find.
fn add(setup: &Setup, shards: &[Mailbox], path: &str) -> Result<Reply, Problem> {
    let Some((_, name)) = setup.name_at(Path::new(path)) else {
        let dirs: Vec<String> = setup
            .places
            .iter()
            .map(|place| place.config.dir.display().to_string())
            .collect();
        let detail = format!(
            "{path} is not below a configured directory ({})",
            dirs.join(", ")
        );
        return Err(Problem::precondition(detail));
    };
    if let Err(error) = std::fs::metadata(path) {
        return Err(Problem::precondition(format!(
            "{path} can't be opened: {error}"
        )));
    }
    discover::tell(shards, &name, Event::Found { name: name.clone() });
    Ok(Reply::done(format!(
        "{name} is being attached; `foreshadow list` tells"
    )))
}
