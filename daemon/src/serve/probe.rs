//! The yes-or-no questions of load balancers, for the optional TCP listener.
//!
//! A probe is read from a request, asks one [`Query`] of the daemon and judges the answer: the
//! status code is the answer, the text is for people. Nothing else is reachable over TCP.

use wal::PartitionName;

use super::http::parameters;
use super::problem::{Problem, ProblemKind};
use super::query::Query;
use super::reply::{Reply, Role};

/// A question of a load balancer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// The daemon's threads answer.
    Health,
    /// The daemon serves, and no shadow lags by more than so many bytes.
    Ready {
        lag_bytes_max: Option<u64>,
    },
    /// This node is where the partition's applications should write.
    Primary {
        partition: PartitionName,
    },
    Metrics,
}

impl Probe {
    /// What `GET target` asks.
    pub fn read(method: &str, target: &str) -> Result<Probe, Problem> {
        if !matches!(method, "GET" | "HEAD" | "OPTIONS") {
            let detail = format!("probes answer GET, not {method}");
            return Err(Problem::new(ProblemKind::WrongMethod, detail));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parameters = parameters(query)?;
        match path {
            "/healthz" => Ok(Probe::Health),
            "/readyz" => {
                let lag = parameters.remove("lag").map(|text| {
                    let bytes = text.parse();
                    bytes.map_err(|_| Problem::bad_request(format!("lag is {text}: bytes needed")))
                });
                Ok(Probe::Ready {
                    lag_bytes_max: lag.transpose()?,
                })
            }
            "/primary" => {
                let name = parameters.remove("partition").unwrap_or_default();
                let partition = PartitionName::new(&name).ok_or_else(|| {
                    Problem::bad_request("which partition? /primary?partition=NAME")
                })?;
                Ok(Probe::Primary { partition })
            }
            "/metrics" => Ok(Probe::Metrics),
            _ => {
                let detail = format!("{path}: /healthz, /readyz, /primary and /metrics are here");
                Err(Problem::new(ProblemKind::UnknownRoute, detail))
            }
        }
    }

    /// What has to be asked to answer this probe.
    pub fn query(&self) -> Query {
        match self {
            Probe::Health | Probe::Ready { .. } => Query::Status,
            Probe::Primary { partition } => Query::Partitions {
                name: Some(partition.clone()),
            },
            Probe::Metrics => Query::Metrics,
        }
    }

    /// Yes with a text, or no with the reason.
    pub fn judge(&self, answer: Result<Reply, Problem>) -> Result<String, Problem> {
        match (self, answer?) {
            (Probe::Ready { lag_bytes_max }, Reply::Status(status)) => {
                if !status.ready {
                    return Err(Problem::not_ready("the node is still starting or draining"));
                }
                match lag_bytes_max {
                    Some(max) if status.lag_bytes_max > *max => {
                        let lag = status.lag_bytes_max;
                        Err(Problem::not_ready(format!(
                            "a shadow lags by {lag} bytes, over {max}"
                        )))
                    }
                    _ => Ok(format!("ready, {} bytes of lag\n", status.lag_bytes_max)),
                }
            }
            (Probe::Primary { partition }, Reply::Partitions(list)) => {
                let one = list.iter().find(|one| one.name == partition.as_str());
                match one {
                    None => Err(Problem::unknown_partition(partition)),
                    Some(one) if one.role == Role::Owner => Ok(format!("{partition} is here\n")),
                    Some(one) => {
                        let owner = one.owner.as_deref().unwrap_or("another node");
                        Err(Problem::not_ready(format!(
                            "{partition} is served by {owner}"
                        )))
                    }
                }
            }
            _ => Ok("ok\n".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::{PartitionReply, StatusReply};
    use super::*;

    fn status(ready: bool, lag_bytes_max: u64) -> Result<Reply, Problem> {
        let reply = StatusReply {
            ready,
            lag_bytes_max,
            ..StatusReply::default()
        };
        Ok(Reply::Status(Box::new(reply)))
    }

    fn probe(target: &str) -> Probe {
        Probe::read("GET", target).expect(target)
    }

    #[test]
    fn probes_read_as_what_they_ask() {
        let partition = PartitionName::new("a.db").expect("valid");
        assert_eq!(probe("/healthz"), Probe::Health);
        assert_eq!(
            probe("/readyz"),
            Probe::Ready {
                lag_bytes_max: None
            }
        );
        assert_eq!(
            probe("/readyz?lag=4096"),
            Probe::Ready {
                lag_bytes_max: Some(4096)
            }
        );
        assert_eq!(
            probe("/primary?partition=a.db"),
            Probe::Primary { partition }
        );
        assert!(
            Probe::read("GET", "/v1/status").is_err(),
            "commands are not for TCP"
        );
        assert!(Probe::read("POST", "/healthz").is_err());
    }

    #[test]
    fn a_node_that_lags_is_not_ready_for_who_asks_for_less() {
        let ask = probe("/readyz?lag=100");
        assert!(ask.judge(status(true, 100)).is_ok());
        assert_eq!(ask.judge(status(true, 101)).expect_err("lag").status(), 503);
        assert_eq!(
            ask.judge(status(false, 0)).expect_err("starting").status(),
            503
        );
    }

    #[test]
    fn only_the_owner_is_primary() {
        let ask = probe("/primary?partition=a.db");
        let partition = |role| {
            let reply = PartitionReply {
                name: "a.db".into(),
                role,
                ..PartitionReply::default()
            };
            Ok(Reply::Partitions(vec![reply]))
        };
        assert!(ask.judge(partition(Role::Owner)).is_ok());
        assert_eq!(
            ask.judge(partition(Role::Shadow))
                .expect_err("shadow")
                .status(),
            503
        );
        assert_eq!(
            ask.judge(Ok(Reply::Partitions(vec![])))
                .expect_err("none")
                .status(),
            404
        );
    }
}
