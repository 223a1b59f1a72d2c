//! Waiting for a training: asked for, then looked at until it is over.

use std::time::Duration;

use crate::cli::ask::Ask;
use crate::cli::client::{Client, Failure};
use crate::cli::exit::Exit;
use crate::serve::models::{ModelReply, TrainingReply};

/// How often is looked: a training takes seconds to minutes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Asks for a training, and stays until it is over.
pub async fn train(client: &Client, ask: Ask, json: bool) -> Result<Exit, Failure> {
    let before = look(client).await?.0.training.ended;
    client.send(ask.method, &ask.target, ask.body).await?;
    loop {
        let (reply, text) = look(client).await?;
        if is_over(&reply.training, before) {
            let text = if json { text } else { outcome(&reply) };
            super::super::print(&text);
            return Ok(Exit::Ok);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(client: &Client) -> Result<(ModelReply, String), Failure> {
    let ask = Ask::about_model();
    let answer = client.send(ask.method, &ask.target, ask.body).await?;
    Ok((answer.read()?, answer.text))
}

/// One that ran when it was asked is not the one that was asked for. A daemon that was started
/// again has forgotten that it was asked, and counts anew.
fn is_over(training: &TrainingReply, before: u64) -> bool {
    let forgotten = training.ended < before;
    let idle = !training.asked && training.began.is_none();
    idle && (training.ended > before || forgotten)
}

fn outcome(reply: &ModelReply) -> String {
    let outcome = reply.training.outcome.as_deref();
    format!("{}\n", outcome.unwrap_or("the training is over"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_is_over_when_the_one_asked_for_has_ended() {
        let training = |asked, began, ended| TrainingReply {
            asked,
            began,
            ended,
            ..TrainingReply::default()
        };
        let over = |training| is_over(&training, 3);
        assert!(!over(training(true, None, 3)), "it did not begin");
        assert!(!over(training(true, Some(1), 3)), "another one runs");
        assert!(!over(training(true, None, 4)), "the other one ended");
        assert!(!over(training(false, Some(2), 4)), "it runs");
        assert!(!over(training(false, None, 3)), "it was not heard yet");
        assert!(over(training(false, None, 5)));
        assert!(
            over(training(false, None, 0)),
            "the daemon was started again"
        );
    }
}
