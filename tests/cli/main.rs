//! The command line and the socket, against real daemons: exit codes, words for people, JSON for
//! programs, and who may ask.
//!
//! | module | what is asked |
//! |---|---|
//! | [`alone`] | verbs that need no daemon, and any verb without one |
//! | [`verbs`] | everything about a node and its partitions |
//! | [`moves`] | move, cancel, rollback, promote |
//! | [`logs`] | native logs: found, mirrored, moved |
//! | [`http`] | the same by raw HTTP, probes and metrics |
//! | [`access`] | who may use the socket |
//! | [`dump`] | the files of a daemon that worked |
//! | [`observe`] | accesses from every source, changes, moves, memory |
//! | [`rest`] | partitions at rest |

mod access;
mod alone;
#[path = "../cluster.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod cluster;
#[path = "../command.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod command;
mod dump;
mod http;
mod logs;
mod moves;
mod observe;
mod predict;
mod rest;
mod verbs;

use serde_json::Value;

/// Every one of these fields must be there.
#[track_caller]
fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "no {field} in {value:#}");
    }
}

/// The first member of a list.
#[track_caller]
fn first(value: &Value) -> &Value {
    let list = value.as_array();
    list.and_then(|list| list.first())
        .unwrap_or_else(|| panic!("not a list with members: {value:#}"))
}
