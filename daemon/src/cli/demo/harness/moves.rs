//! Moves, asked for and followed over the daemons' sockets, exactly as an operator would.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Cluster, Error, pause};
use crate::cli::demo::clock::now_ns;
use crate::cli::demo::http::percent;

/// A move that has been asked for.
#[derive(Clone, Debug)]
pub struct PendingMove {
    pub id: String,
    pub partition: String,
    pub tenant: u32,
    pub from: String,
    pub to: String,
    pub started_ns: u64,
}

/// What became of a move.
#[derive(Clone, Debug)]
pub struct MoveReport {
    pub id: String,
    pub partition: String,
    pub tenant: u32,
    pub from: String,
    pub to: String,
    pub outcome: Outcome,
    /// The pause as the daemon measured it.
    pub write_pause_ms: Option<f64>,
    pub steps: Vec<Step>,
    /// From before the request until after the end was seen, CLOCK_MONOTONIC.
    pub started_ns: u64,
    pub ended_ns: u64,
}

/// How a move ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    Aborted(String),
    /// The daemon that was asked doesn't know the move any more: it died since.
    Forgotten,
}

/// A step of a move, with its time since the move began.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    pub name: String,
    pub at_ms: f64,
}

impl MoveReport {
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }
}

impl Cluster {
    /// Moves a partition and waits for the end, whichever it is.
    pub fn move_partition(
        &mut self,
        partition: &str,
        to: &str,
        limit: Duration,
    ) -> Result<MoveReport, Error> {
        let pending = self.begin_move(partition, to)?;
        self.finish_move(&pending, limit)
    }

    /// Asks the owner to move a partition; it goes on by itself.
    pub fn begin_move(&mut self, partition: &str, to: &str) -> Result<PendingMove, Error> {
        let body = json!({ "partition": partition, "to": to });
        self.begin(partition, to, "/v1/moves", &body)
    }

    /// Moves a partition back to where it came from and waits for the end.
    pub fn rollback(&mut self, partition: &str, limit: Duration) -> Result<MoveReport, Error> {
        let target = format!("/v1/partitions/{}/rollback", percent(partition));
        let pending = self.begin(partition, "", &target, &json!({}))?;
        self.finish_move(&pending, limit)
    }

    /// One look at a move; `None` while it goes on or its daemon doesn't answer.
    pub fn poll_move(&self, pending: &PendingMove) -> Result<Option<MoveReport>, Error> {
        let target = format!("/v1/moves/{}", percent(&pending.id));
        let Ok(answer) = self.node(&pending.from)?.ask("GET", &target, None) else {
            return Ok(None);
        };
        let outcome = match (answer.status, answer.body["state"].as_str()) {
            (200, Some("done")) => Outcome::Done,
            (200, Some("aborted")) => Outcome::Aborted(text(&answer.body["reason"])),
            (404, _) => Outcome::Forgotten,
            _ => return Ok(None),
        };
        Ok(Some(report(pending, outcome, &answer.body)))
    }

    /// Waits for the end of a move.
    pub fn finish_move(
        &mut self,
        pending: &PendingMove,
        limit: Duration,
    ) -> Result<MoveReport, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(report) = self.poll_move(pending)? {
                return Ok(report);
            }
            if Instant::now() > deadline {
                let (id, name, to) = (&pending.id, &pending.partition, &pending.to);
                let last = self.state_of(pending);
                return Err(Error::new(format!(
                    "move {id} of {name} to {to} has no end after {limit:?}: {last}"
                )));
            }
            pause(5);
        }
    }

    /// What the asked daemon says about a move, as it says it.
    fn state_of(&self, pending: &PendingMove) -> String {
        let target = format!("/v1/moves/{}", percent(&pending.id));
        let answer = self
            .node(&pending.from)
            .and_then(|node| node.ask("GET", &target, None));
        answer.map_or_else(|error| error.to_string(), |answer| answer.body.to_string())
    }

    fn begin(
        &mut self,
        partition: &str,
        to: &str,
        target: &str,
        body: &Value,
    ) -> Result<PendingMove, Error> {
        let tenant = self.tenant(partition)?.number;
        let from = self.owner_of(partition)?;
        self.keep_evidence(partition)?;
        let started_ns = now_ns();
        let answer = self.node(&from)?.ask("POST", target, Some(body))?;
        let id = text(&answer.body["id"]);
        if answer.status != 202 || id.is_empty() {
            let (status, body) = (answer.status, answer.body);
            return Err(Error::new(format!(
                "POST {target} at {from}: {status} {body}"
            )));
        }
        let (partition, to) = (partition.to_owned(), to.to_owned());
        Ok(PendingMove {
            id,
            partition,
            tenant,
            from,
            to,
            started_ns,
        })
    }
}

fn report(pending: &PendingMove, outcome: Outcome, body: &Value) -> MoveReport {
    let steps = body["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| Step {
            name: text(&step["name"]),
            at_ms: step["at_ms"].as_f64().unwrap_or(0.0),
        });
    let to = body["to"].as_str().unwrap_or(&pending.to);
    MoveReport {
        id: pending.id.clone(),
        partition: pending.partition.clone(),
        tenant: pending.tenant,
        from: pending.from.clone(),
        to: to.to_owned(),
        outcome,
        write_pause_ms: body["write_pause_ms"].as_f64(),
        steps: steps.collect(),
        started_ns: pending.started_ns,
        ended_ns: now_ns(),
    }
}

/// A JSON string or number as text; ids may be either.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
