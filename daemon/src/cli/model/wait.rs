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
    let asked_at = look(client).await?.0.now;
    client.send(ask.method, &ask.target, ask.body).await?;
    loop {
        let (reply, text) = look(client).await?;
        match progress(&reply.training, asked_at) {
            Progress::Runs => tokio::time::sleep(LOOK_EVERY).await,
            Progress::Over => {
                let outcome = reply.training.outcome.unwrap_or_default();
                let text = if json { text } else { format!("{outcome}\n") };
                super::super::print(&text);
                return Ok(Exit::Ok);
            }
            Progress::Forgotten => {
                eprintln!("foreshadow: the daemon was started again meanwhile; ask it once more");
                return Ok(Exit::Error);
            }
        }
    }
}

async fn look(client: &Client) -> Result<(ModelReply, String), Failure> {
    let ask = Ask::about_model();
    let answer = client.send(ask.method, &ask.target, ask.body).await?;
    Ok((answer.read()?, answer.text))
}

/// How far the training that was asked for has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Runs,
    Over,
    /// Nobody knows of it.
    Forgotten,
}

/// What was asked for is told as asked until it begins, and whatever ran before has ended by then.
fn progress(training: &TrainingReply, asked_at: i64) -> Progress {
    if training.asked || training.began.is_some() {
        return Progress::Runs;
    }
    match training.last.is_some_and(|last| last >= asked_at) {
        true => Progress::Over,
        false => Progress::Forgotten,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_is_over_when_the_one_asked_for_has_ended() {
        let come = |asked, began, last| {
            let training = TrainingReply {
                asked,
                began,
                last,
                ..TrainingReply::default()
            };
            progress(&training, 100)
        };
        assert_eq!(
            come(true, Some(50), None),
            Progress::Runs,
            "another one runs"
        );
        assert_eq!(
            come(true, None, Some(101)),
            Progress::Runs,
            "the other one ended"
        );
        assert_eq!(come(false, Some(102), Some(101)), Progress::Runs, "ours");
        assert_eq!(come(false, None, Some(100)), Progress::Over);
        assert_eq!(come(false, None, None), Progress::Forgotten);
        assert_eq!(come(false, None, Some(99)), Progress::Forgotten);
    }
}
