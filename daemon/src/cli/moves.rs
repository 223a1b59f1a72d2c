//! Waiting for a move: a live line on a terminal, a line per step elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::ask::Ask;
use super::client::{Answer, Client, Failure};
use super::exit::Exit;
use super::render;
use crate::serve::query::MoveId;
use crate::serve::reply::{MoveReply, MoveState};

/// How often a move is looked at: a move that is ready takes some tens of milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much longer than the daemon's own limit to wait for its verdict.
const GRACE: Duration = Duration::from_secs(15);
/// A rollback's limit is the daemon's.
pub const ROLLBACK_WAIT: Duration = Duration::from_secs(60);

/// Waits until the move is over; prints its progress, then its end.
pub async fn wait(
    client: &Client,
    id: MoveId,
    limit: Duration,
    json: bool,
) -> Result<Exit, Failure> {
    let deadline = Instant::now() + limit + GRACE;
    let mut progress = Progress::new(json);
    loop {
        match look(client, id).await {
            Ok((answer, reply)) if reply.state.is_final() => {
                progress.end();
                print_end(&answer, &reply, json);
                let done = reply.state == MoveState::Done;
                return Ok(if done { Exit::Ok } else { Exit::RolledBack });
            }
            Ok((_, reply)) => progress.show(&reply),
            // The daemon may be restarting: the move goes on or is taken back when it is there.
            Err(Failure::Unreachable { .. }) if Instant::now() < deadline => {}
            Err(failure) => {
                progress.end();
                return Err(failure);
            }
        }
        if Instant::now() >= deadline {
            progress.end();
            eprintln!("foreshadow: move {id} goes on; `foreshadow list` shows where it ends");
            return Ok(Exit::Error);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(client: &Client, id: MoveId) -> Result<(Answer, MoveReply), Failure> {
    let ask = Ask::about_move(id.0);
    let answer = client.send(ask.method, &ask.target, ask.body).await?;
    let reply = answer.read()?;
    Ok((answer, reply))
}

fn print_end(answer: &Answer, reply: &MoveReply, json: bool) {
    if json {
        print!("{}", answer.text);
    } else {
        println!("{}", render::one_move(reply));
    }
}

/// What has been shown of a move so far.
struct Progress {
    kind: Kind,
    steps_shown: usize,
}

#[derive(PartialEq)]
enum Kind {
    Silent,
    Lines,
    Live,
}

impl Progress {
    fn new(json: bool) -> Progress {
        let kind = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Kind::Silent,
            (false, true) => Kind::Live,
            (false, false) => Kind::Lines,
        };
        Progress {
            kind,
            steps_shown: 0,
        }
    }

    fn show(&mut self, reply: &MoveReply) {
        match self.kind {
            Kind::Silent => {}
            Kind::Live => {
                print!("\r\x1b[K{}", render::one_move(reply));
                // A terminal that is gone will be noticed at the end.
                let _ = std::io::stdout().flush();
            }
            Kind::Lines => {
                for step in reply.steps.iter().skip(self.steps_shown) {
                    println!("{:8.1} ms  {}", step.at_ms, step.name);
                }
                self.steps_shown = self.steps_shown.max(reply.steps.len());
            }
        }
    }

    fn end(&self) {
        if self.kind == Kind::Live {
            print!("\r\x1b[K");
        }
    }
}
