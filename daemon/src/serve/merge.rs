//! One answer out of every shard's: lists joined, counts added up, problems weighed.

use super::problem::Problem;
use super::reply::{PeerReply, PeerState, Reply, StatusReply};

/// One answer out of every shard's.
///
/// Lists are joined, counts added up; a shard that does not know the thing is overruled by one
/// that does; any other problem wins over every answer.
pub fn merge(answers: Vec<Result<Reply, Problem>>) -> Result<Reply, Problem> {
    let nobody = Problem::not_ready("no shard is running");
    let mut whole: Result<Reply, Problem> = Err(nobody);
    for (index, answer) in answers.into_iter().enumerate() {
        whole = match (whole, answer) {
            (_, answer) if index == 0 => answer,
            (Ok(left), Ok(right)) => Ok(join(left, right)),
            (Err(problem), Ok(reply)) | (Ok(reply), Err(problem)) => {
                if problem.kind.is_unknown() {
                    Ok(reply)
                } else {
                    Err(problem)
                }
            }
            (Err(left), Err(right)) => Err(if left.kind.is_unknown() { right } else { left }),
        };
    }
    whole
}

fn join(left: Reply, right: Reply) -> Reply {
    match (left, right) {
        (Reply::Partitions(mut list), Reply::Partitions(more)) => {
            list.extend(more);
            list.sort_by(|a, b| a.name.cmp(&b.name));
            Reply::Partitions(list)
        }
        (Reply::Moves(mut list), Reply::Moves(more)) => {
            list.extend(more);
            list.sort_by_key(|one| one.id);
            Reply::Moves(list)
        }
        (Reply::Peers(list), Reply::Peers(more)) => Reply::Peers(join_peers(list, more)),
        (Reply::Status(left), Reply::Status(right)) => {
            Reply::Status(Box::new(join_status(*left, *right)))
        }
        (left, _) => left,
    }
}

fn join_status(mut left: StatusReply, right: StatusReply) -> StatusReply {
    left.ready &= right.ready;
    left.shards += right.shards;
    left.partitions += right.partitions;
    left.owned += right.owned;
    left.shadowed += right.shadowed;
    left.lag_bytes_max = left.lag_bytes_max.max(right.lag_bytes_max);
    left.uptime_seconds = left.uptime_seconds.max(right.uptime_seconds);
    left.refused.extend(right.refused);
    left.refused.sort_by(|a, b| a.name.cmp(&b.name));
    for link in right.links {
        match left.links.iter_mut().find(|known| known.peer == link.peer) {
            Some(known) => {
                known.state = worse(known.state, link.state);
                known.rtt_us = known.rtt_us.max(link.rtt_us);
            }
            None => left.links.push(link),
        }
    }
    left.links.sort_by(|a, b| a.peer.cmp(&b.peer));
    left.kernel.extend(right.kernel);
    left
}

fn join_peers(mut list: Vec<PeerReply>, more: Vec<PeerReply>) -> Vec<PeerReply> {
    for peer in more {
        match list.iter_mut().find(|known| known.name == peer.name) {
            Some(known) => {
                known.state = worse(known.state, peer.state);
                known.rtt_us = known.rtt_us.max(peer.rtt_us);
                known.bytes_out += peer.bytes_out;
                known.bytes_in += peer.bytes_in;
                known.reason = known.reason.take().or(peer.reason);
                if let Some(path) = peer.path {
                    known.join_path(path);
                }
            }
            None => list.push(peer),
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list
}

/// A peer is as well as the worst of its links.
fn worse(left: PeerState, right: PeerState) -> PeerState {
    match (left, right) {
        (PeerState::Refused, _) | (_, PeerState::Refused) => PeerState::Refused,
        (PeerState::Down, _) | (_, PeerState::Down) => PeerState::Down,
        (PeerState::Up, PeerState::Up) => PeerState::Up,
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::MoveId;
    use super::super::reply::{MoveReply, PartitionReply};
    use super::*;

    fn named(name: &str) -> PartitionReply {
        PartitionReply {
            name: name.into(),
            ..PartitionReply::default()
        }
    }

    #[test]
    fn lists_of_shards_become_one_ordered_list() {
        let left = Ok(Reply::Partitions(vec![named("b"), named("d")]));
        let right = Ok(Reply::Partitions(vec![named("a"), named("c")]));
        let Ok(Reply::Partitions(all)) = merge(vec![left, right]) else {
            panic!("a list")
        };
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_shard_that_does_not_know_a_move_is_overruled() {
        let unknown = || Err(Problem::unknown_move(MoveId(7)));
        let known = Ok(Reply::Move(MoveReply {
            id: MoveId(7),
            ..MoveReply::default()
        }));
        let whole = merge(vec![unknown(), known.clone(), unknown()]);
        assert_eq!(whole, known);
        assert_eq!(merge(vec![unknown(), unknown()]), unknown());
    }

    #[test]
    fn a_node_is_ready_when_every_shard_is() {
        let part = |ready, owned| {
            Ok(Reply::Status(Box::new(StatusReply {
                ready,
                owned,
                shards: 1,
                ..StatusReply::default()
            })))
        };
        let Ok(Reply::Status(whole)) = merge(vec![part(true, 2), part(false, 3)]) else {
            panic!("a status")
        };
        assert_eq!((whole.ready, whole.owned, whole.shards), (false, 5, 2));
    }

    #[test]
    fn a_failed_shard_is_not_hidden_by_the_others() {
        let failed = Err(Problem::internal("shard 1 panicked"));
        let fine = Ok(Reply::Moves(vec![]));
        assert_eq!(merge(vec![fine, failed.clone()]), failed);
    }
}
