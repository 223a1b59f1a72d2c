//! Questions and commands that people ask of this shard.

use wal::{NodeId, PartitionId, PartitionName, Span, Time};

use super::moves::parts_of;
use super::partition::{Partition, Role};
use super::{Shard, report};
use crate::effect::{Effect, Effects, EngineOperation, Note};
use crate::event::{Asked, Task, Ticket};
use crate::serve::problem::Problem;
use crate::serve::query::{MoveId, NodeName, Query};
use crate::serve::reply::{PlanReply, Reply, VerifiedReply, VerifiedShadow};
use crate::switch::estimate;

type Answer = Result<Reply, Problem>;

impl Shard {
    pub(super) fn on_asked(&mut self, now: Time, asked: Asked, query: Query, out: &mut Effects) {
        let reply = self.answer(now, query, out);
        out.push(Effect::Reply { asked, reply });
    }

    fn answer(&mut self, now: Time, query: Query, out: &mut Effects) -> Answer {
        match query {
            Query::Status => Ok(Reply::Status(Box::new(report::status(self)))),
            Query::Partitions { name: None } => Ok(Reply::Partitions(report::partitions(self))),
            Query::Partitions { name: Some(name) } => {
                let partition = self.find(&name)?;
                Ok(Reply::Partitions(vec![report::partition(self, partition)]))
            }
            Query::Peers => Ok(Reply::Peers(report::peers(self))),
            Query::Moves => {
                let moves = self.moves.iter().map(|entry| report::movement(self, entry));
                Ok(Reply::Moves(moves.collect()))
            }
            Query::Move { id } => {
                let entry = self
                    .moves
                    .get(id)
                    .ok_or_else(|| Problem::unknown_move(id))?;
                Ok(Reply::Move(report::movement(self, entry)))
            }
            Query::StartMove {
                partition,
                to,
                dry_run,
                timeout,
            } => self.start_move(now, &partition, &to, dry_run, timeout, out),
            Query::CancelMove { id } => self.cancel_move(now, id, out),
            Query::RemovePartition { partition } => self.remove(&partition, out),
            Query::AddShadow { partition, to } => self.wish(&partition, &to, true, out),
            Query::RemoveShadow { partition, node } => self.wish(&partition, &node, false, out),
            Query::Sync { partition } => self.sync(&partition, out),
            Query::Rollback { partition } => self.rollback(now, &partition, out),
            Query::Promote { partition, force } => self.promote(now, &partition, force, out),
            Query::Verify { partition } => self.verify(&partition),
            Query::AddPartition { .. }
            | Query::Version
            | Query::Info
            | Query::Events { .. }
            | Query::Access { .. }
            | Query::Observed { .. }
            | Query::Forecasts { .. }
            | Query::Explain { .. }
            | Query::Hint { .. }
            | Query::Model
            | Query::ModelLog { .. }
            | Query::Train
            | Query::RollBackModel
            | Query::Metrics => Err(Problem::internal("a shard was asked what others answer")),
        }
    }

    fn find(&self, name: &PartitionName) -> Result<&Partition, Problem> {
        self.partitions
            .get(&name.id())
            .ok_or_else(|| Problem::unknown_partition(name))
    }

    fn peer(&self, name: &NodeName) -> Result<NodeId, Problem> {
        let id = name.id();
        if id == self.settings.node {
            return Err(Problem::precondition(format!("{name} is this node")));
        }
        let known = self.settings.peers.contains_key(&id);
        if known {
            Ok(id)
        } else {
            Err(Problem::unknown_node(name))
        }
    }

    /// The partition, if it is served here and nothing is in its way.
    fn owned(&self, name: &PartitionName) -> Result<&Partition, Problem> {
        let partition = self.find(name)?;
        if partition.owner().is_some() {
            return Ok(partition);
        }
        let detail = match (&partition.role, partition.ownership) {
            (Role::Refused { reason, .. }, _) => format!("{name} is not attached: {reason}"),
            (Role::Attaching { .. } | Role::Claiming, _) => {
                format!("{name} is being attached; ask again in a moment")
            }
            (_, Some(ownership)) if ownership.owner != self.settings.node => {
                let owner = report::node_name(self, ownership.owner);
                format!("{name} is owned by {owner}; ask there")
            }
            _ => format!("{name} is not attached here"),
        };
        Err(Problem::precondition(detail))
    }

    fn start_move(
        &mut self,
        now: Time,
        name: &PartitionName,
        to: &NodeName,
        dry_run: bool,
        timeout: Span,
        out: &mut Effects,
    ) -> Answer {
        let target = self.peer(to)?;
        self.owned(name)?;
        if dry_run {
            return self.plan(name, target);
        }
        let id = name.id();
        if let Some(running) = self.moves.active(id) {
            return Err(Problem::busy(format!(
                "{name} is being moved by move {running}"
            )));
        }
        let serving = self
            .find(name)?
            .owner()
            .is_some_and(|owner| owner.source.is_serving());
        if !serving {
            return Err(Problem::busy(format!(
                "a switchover of {name} is being settled"
            )));
        }
        let move_id = self
            .moves
            .begin(now, id, self.settings.node, target, now + timeout);
        let partition = self.known(name.clone());
        partition.wishes.set(target, true);
        self.refresh_senders(id, out);
        Ok(Reply::accepted(move_id))
    }

    fn plan(&self, name: &PartitionName, to: NodeId) -> Answer {
        let partition = self.owned(name)?;
        let owner = partition.owner().expect("owned() said so");
        let parts = parts_of(owner, to, &self.links);
        let streaming = owner
            .senders
            .get(&to)
            .is_some_and(|sender| sender.is_streaming());
        let pause = estimate::pause(&parts);
        let max = self.settings.switch.pause_max;
        let reason = match (streaming, pause <= max) {
            (false, _) => Some("the target holds no streaming shadow; it is copied first".into()),
            (_, false) => Some("the estimated pause is above max_pause".to_owned()),
            _ => None,
        };
        Ok(Reply::Plan(PlanReply {
            partition: name.to_string(),
            from: self.settings.name.clone(),
            to: report::node_name(self, to),
            estimate_ms: Some(pause.as_millis_f64()),
            max_pause_ms: max.as_millis_f64(),
            lag_bytes: parts.bytes_left,
            possible: reason.is_none(),
            reason,
        }))
    }

    fn cancel_move(&mut self, now: Time, id: MoveId, out: &mut Effects) -> Answer {
        let entry = self
            .moves
            .get(id)
            .ok_or_else(|| Problem::unknown_move(id))?;
        if entry.stage.is_final() {
            return Err(Problem::precondition(format!(
                "move {id} is {}",
                entry.stage.word()
            )));
        }
        let partition_id = entry.partition;
        let Some((partition, _)) = self.entry(partition_id) else {
            return Err(Problem::unknown_move(id));
        };
        let Some(owner) = partition.owner_mut() else {
            return Err(Problem::precondition(format!(
                "move {id} was already granted"
            )));
        };
        if !owner.source.is_serving() {
            match owner.source.cancel("it was cancelled", out) {
                Ok(outcome) => partition.after_switch(outcome, out),
                Err(why) => {
                    let detail = format!("move {id} can't be cancelled: {why}");
                    return Err(Problem::precondition(detail));
                }
            }
        }
        self.moves.abort(now, partition_id, "it was cancelled");
        Ok(Reply::done(format!("move {id} was cancelled")))
    }

    fn rollback(&mut self, now: Time, name: &PartitionName, out: &mut Effects) -> Answer {
        let partition = self.owned(name)?;
        let previous = partition.ownership.and_then(|ownership| ownership.previous);
        let Some(previous) = previous else {
            let detail = format!("{name} was not moved here; there is nothing to roll back to");
            return Err(Problem::precondition(detail));
        };
        let to = report::node_name(self, previous);
        let to = NodeName::new(&to)
            .ok_or_else(|| Problem::precondition(format!("{to} is no configured peer any more")))?;
        self.start_move(
            now,
            name,
            &to,
            false,
            crate::serve::query::MOVE_TIMEOUT,
            out,
        )
    }

    fn wish(
        &mut self,
        name: &PartitionName,
        node: &NodeName,
        wanted: bool,
        out: &mut Effects,
    ) -> Answer {
        let peer = self.peer(node)?;
        self.owned(name)?;
        let id = name.id();
        if self.moves.active(id).is_some() && !wanted {
            return Err(Problem::busy(format!("{name} is being moved")));
        }
        self.known(name.clone()).wishes.set(peer, wanted);
        let ticket = Ticket {
            partition: id,
            task: Task::Record,
            number: u64::MAX,
        };
        out.push(Effect::Record {
            ticket,
            note: Note::Shadow { node: peer, wanted },
        });
        self.refresh_senders(id, out);
        let verb = if wanted {
            "is kept"
        } else {
            "is no longer kept"
        };
        Ok(Reply::done(format!("a shadow of {name} {verb} on {node}")))
    }

    fn sync(&mut self, name: &PartitionName, out: &mut Effects) -> Answer {
        self.owned(name)?;
        let id = name.id();
        self.refresh_senders(id, out);
        let owner = self.find(name)?.owner().expect("owned() said so");
        let behind: Vec<String> = owner
            .senders
            .values()
            .filter(|sender| sender.acknowledged().map(|at| at.lsn) != Some(owner.position.lsn))
            .map(|sender| report::node_name(self, sender.peer()))
            .collect();
        if behind.is_empty() {
            return Ok(Reply::done(format!(
                "{name}: every shadow stands at {}",
                owner.position
            )));
        }
        let detail = format!("{name} is on its way to {}; ask again", behind.join(", "));
        Err(Problem::not_ready(detail))
    }

    fn verify(&self, name: &PartitionName) -> Answer {
        let owner = self.owned(name)?.owner().expect("owned() said so");
        let shadows: Vec<VerifiedShadow> = owner
            .senders
            .values()
            .map(|sender| {
                let equal = sender.acknowledged().is_some_and(|at| {
                    at.lsn == owner.position.lsn && at.digest == owner.position.digest
                });
                let detail = match sender.acknowledged() {
                    Some(at) if equal => format!("equal at {at}"),
                    Some(at) if at.lsn < owner.position.lsn => format!("behind at {at}"),
                    Some(at) => format!("differs at {at}"),
                    None => "no position yet".to_owned(),
                };
                let pages = u64::from(owner.attachment.page_count);
                VerifiedShadow {
                    node: report::node_name(self, sender.peer()),
                    equal,
                    pages,
                    detail,
                }
            })
            .collect();
        Ok(Reply::Verified(VerifiedReply {
            partition: name.to_string(),
            position: owner.position.to_string(),
            equal: shadows.iter().all(|shadow| shadow.equal),
            shadows,
        }))
    }

    fn remove(&mut self, name: &PartitionName, out: &mut Effects) -> Answer {
        self.find(name)?;
        let id: PartitionId = name.id();
        if self.moves.active(id).is_some() {
            return Err(Problem::busy(format!(
                "{name} is being moved; cancel the move first"
            )));
        }
        let partition = self.known(name.clone());
        if partition.is_being_taken_over() {
            return Err(Problem::busy(format!("{name} is being taken over")));
        }
        if let Some(owner) = partition.owner_mut() {
            if !owner.source.is_serving() {
                return Err(Problem::busy(format!(
                    "a switchover of {name} is being settled"
                )));
            }
            for sender in owner.senders.values() {
                let message = wal::message::Message::Discard { partition: id };
                out.send(sender.link(), message);
            }
            partition.engine(Task::Attach, 0, EngineOperation::Detach, out);
        }
        let reason = "it was removed; `foreshadow add` attaches it again".to_owned();
        partition.role = Role::Refused {
            reason,
            retry_at: None,
        };
        Ok(Reply::done(format!(
            "{name} is left alone; its shadows were discarded"
        )))
    }

    /// Unplanned takeover: the coordinator's compare-and-set is the commit point.
    fn promote(
        &mut self,
        now: Time,
        name: &PartitionName,
        force: bool,
        out: &mut Effects,
    ) -> Answer {
        let partition = self.find(name)?;
        let Role::Shadow(shadow) = &partition.role else {
            return Err(Problem::precondition(format!(
                "{name} is not a shadow here"
            )));
        };
        // A second takeover would change the epoch under which the first one lands.
        if partition.is_being_taken_over() {
            return Err(Problem::busy(format!("{name} is being taken over already")));
        }
        let Some(applied) = shadow.receiver.applied() else {
            return Err(Problem::precondition(format!(
                "the shadow of {name} is not complete"
            )));
        };
        let Some(ownership) = partition.ownership else {
            return Err(Problem::precondition(format!(
                "the owner of {name} is not known"
            )));
        };
        let owner = ownership.owner;
        let reachable = self
            .lane_link(name.id(), owner)
            .and_then(|link| self.links.get(&link))
            .is_some_and(super::Link::is_up);
        if reachable && !force {
            let detail = format!(
                "{} is reachable: `foreshadow move` loses nothing; --force takes over anyway",
                report::node_name(self, owner)
            );
            return Err(Problem::precondition(detail));
        }
        if !shadow.target.is_following() && !force {
            let detail = "a switchover to this node is not settled: its source must be asked first";
            return Err(Problem::precondition(detail));
        }
        let partition = self.known(name.clone());
        partition.seize(now, ownership, out);
        Ok(Reply::done(format!(
            "taking {name} over at {applied}; `foreshadow events` tells"
        )))
    }
}
