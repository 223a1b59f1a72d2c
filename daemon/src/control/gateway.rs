//! The way of a question from the control thread to the shards, and of the answer back.
//!
//! Invariants: the queue is bounded, a full one is told to the asker; every question is answered,
//! if only by a timeout or by the news that whoever held it is gone.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::serve::problem::{Problem, ProblemKind};
use crate::serve::query::Query;
use crate::serve::reply::Reply;

/// Questions waiting for the shards, at most: more askers than this are turned away.
const QUESTIONS_MAX: usize = 1024;
/// A shard that steps at all answers within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Comparing or copying a whole partition takes its time.
const PATIENCE_LONG: Duration = Duration::from_secs(600);

/// The asking end.
#[derive(Clone, Debug)]
pub struct Gateway {
    questions: flume::Sender<Question>,
}

/// A query and where its answer goes.
#[derive(Debug)]
pub struct Question {
    pub query: Query,
    pub answer: Answer,
}

/// Takes the answer to one question. Dropping it tells the asker that nobody will answer.
#[derive(Debug)]
pub struct Answer(oneshot::Sender<Result<Reply, Problem>>);

impl Answer {
    /// Gives the answer; an asker who has left is no matter.
    pub fn give(self, answer: Result<Reply, Problem>) {
        // The asker closed the connection: there is nobody left to tell.
        let _ = self.0.send(answer);
    }
}

impl Gateway {
    /// Both ends.
    pub fn pair() -> (Gateway, flume::Receiver<Question>) {
        let (questions, asked) = flume::bounded(QUESTIONS_MAX);
        (Gateway { questions }, asked)
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, query: Query) -> Result<Reply, Problem> {
        let patience = patience(&query);
        let (give, answer) = oneshot::channel();
        match self.questions.try_send(Question {
            query,
            answer: Answer(give),
        }) {
            Ok(()) => {}
            Err(flume::TrySendError::Full(_)) => {
                let detail = format!("{QUESTIONS_MAX} questions are waiting; ask again");
                return Err(Problem::new(ProblemKind::Throttled, detail));
            }
            Err(flume::TrySendError::Disconnected(_)) => {
                return Err(Problem::not_ready("the daemon is stopping"));
            }
        }
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Problem::internal(
                "the question was lost: a shard has failed",
            )),
            Err(_) => {
                let seconds = patience.as_secs();
                Err(Problem::not_ready(format!(
                    "no answer within {seconds} s: a shard is stuck"
                )))
            }
        }
    }
}

fn patience(query: &Query) -> Duration {
    match query {
        Query::Verify { .. } | Query::Sync { .. } => PATIENCE_LONG,
        _ => PATIENCE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn an_answer_finds_its_asker() {
        let (gateway, asked) = Gateway::pair();
        std::thread::spawn(move || {
            let question = asked.recv().expect("a question");
            assert_eq!(question.query, Query::Peers);
            question.answer.give(Ok(Reply::Peers(vec![])));
        });
        assert_eq!(
            block_on(gateway.ask(Query::Peers)),
            Ok(Reply::Peers(vec![]))
        );
    }

    #[test]
    fn a_question_that_is_dropped_is_told() {
        let (gateway, asked) = Gateway::pair();
        std::thread::spawn(move || drop(asked.recv()));
        let problem = block_on(gateway.ask(Query::Peers)).expect_err("nobody answers");
        assert_eq!(problem.status(), 500);
    }

    #[test]
    fn a_full_queue_turns_askers_away() {
        let (gateway, asked) = Gateway::pair();
        for _ in 0..QUESTIONS_MAX {
            let (give, _) = oneshot::channel();
            let question = Question {
                query: Query::Peers,
                answer: Answer(give),
            };
            gateway.questions.send(question).expect("room");
        }
        assert_eq!(
            block_on(gateway.ask(Query::Peers))
                .expect_err("full")
                .status(),
            429
        );
        drop(asked);
        assert_eq!(
            block_on(gateway.ask(Query::Peers))
                .expect_err("gone")
                .status(),
            503
        );
    }
}
