//! Answers for people: tables and sentences. JSON is never rendered, it is printed as it came.

use std::fmt::Write;

use crate::serve::reply::{
    EventReply, MoveReply, MoveState, PartitionReply, PeerReply, PlanReply, ShadowReply,
    ShadowState, StatusReply, VerifiedReply,
};

/// Columns of equal width, the first row being their names.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "{cell:width$}  "); // Writing to a String does not fail.
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// A size in about three digits.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

pub fn status(reply: &StatusReply) -> String {
    let state = if reply.ready { "ready" } else { "not ready" };
    let mut out = format!(
        "{} of cluster {}, version {}: {state}, up {}\n",
        reply.node,
        reply.cluster,
        reply.version,
        duration(reply.uptime_seconds)
    );
    let _ = writeln!(
        out,
        "partitions: {} ({} owned, {} shadowed), {} shards, {} of lag at most",
        reply.partitions,
        reply.owned,
        reply.shadowed,
        reply.shards,
        bytes(reply.lag_bytes_max)
    );
    for link in &reply.links {
        let rtt = rtt(link.rtt_us);
        let _ = writeln!(out, "link to {}: {}{rtt}", link.peer, word(&link.state));
    }
    for refused in &reply.refused {
        let _ = writeln!(out, "refused: {}: {}", refused.name, refused.reason);
    }
    out
}

pub fn partitions(list: &[PartitionReply]) -> String {
    if list.is_empty() {
        return "no partitions; `foreshadow check-config` shows where they are looked for\n".into();
    }
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|one| {
            vec![
                one.name.clone(),
                word(&one.role),
                one.owner.clone().unwrap_or_else(|| "-".into()),
                one.epoch.to_string(),
                one.lsn.to_string(),
                bytes(one.bytes),
                if one.tier.is_empty() {
                    "-".into()
                } else {
                    one.tier.clone()
                },
                shadows(&one.shadows),
            ]
        })
        .collect();
    let head = [
        "NAME", "ROLE", "OWNER", "EPOCH", "LSN", "SIZE", "TIER", "SHADOWS",
    ];
    let mut out = table(&head, &rows);
    for one in list {
        if let Some(reason) = &one.reason {
            let _ = writeln!(out, "{}: {reason}", one.name);
        }
        for shadow in &one.shadows {
            if let Some(reason) = &shadow.reason {
                let _ = writeln!(out, "{} at {}: {reason}", one.name, shadow.node);
            }
        }
    }
    out
}

fn shadows(list: &[ShadowReply]) -> String {
    let kept = list.iter().filter(|one| one.state != ShadowState::None);
    let text: Vec<String> = kept
        .map(|one| match one.state {
            ShadowState::Streaming if one.lag_lsn == 0 => format!("{} (level)", one.node),
            ShadowState::Streaming => format!("{} ({} behind)", one.node, bytes(one.lag_bytes)),
            state => format!("{} ({})", one.node, word(&state)),
        })
        .collect();
    if text.is_empty() {
        "-".into()
    } else {
        text.join(", ")
    }
}

pub fn peers(list: &[PeerReply]) -> String {
    if list.is_empty() {
        return "no peers are configured\n".into();
    }
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|one| {
            let path = one.path.as_ref();
            let rate = path.and_then(|path| path.rate_bytes_per_second);
            vec![
                one.name.clone(),
                word(&one.state),
                one.address.clone(),
                one.rtt_us.map_or("-".into(), |us| format!("{us} us")),
                bytes(one.bytes_out),
                bytes(one.bytes_in),
                rate.map_or("-".into(), |rate| format!("{}/s", bytes(rate))),
                path.map_or("-".into(), |path| path.codec.clone()),
                path.map_or("-".into(), |path| path.zero_copy.clone()),
                one.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let head = [
        "NAME",
        "STATE",
        "ADDRESS",
        "RTT",
        "SENT",
        "RECEIVED",
        "RATE",
        "CODEC",
        "ZERO-COPY",
        "",
    ];
    table(&head, &rows)
}

/// One line about a move, for the live view and for its end.
pub fn one_move(reply: &MoveReply) -> String {
    let route = format!("{}: {} -> {}", reply.partition, reply.from, reply.to);
    match reply.state {
        MoveState::Done => {
            let pause = reply
                .write_pause_ms
                .map_or("unknown".into(), |ms| format!("{ms:.1} ms"));
            format!(
                "{route}: done; writers paused for {pause}, epoch {}",
                reply.epoch
            )
        }
        MoveState::Aborted => {
            let reason = reply.reason.as_deref().unwrap_or("no reason is known");
            format!(
                "{route}: given up, {} serves as before: {reason}",
                reply.from
            )
        }
        state => {
            let pages = reply
                .pages_left
                .map_or(String::new(), |n| format!(", {n} pages left"));
            let estimate = reply.estimate_ms;
            let pause = estimate.map_or(String::new(), |ms| format!(", pause of about {ms:.1} ms"));
            format!("{route}: {}{pages}{pause}", state.word())
        }
    }
}

pub fn moves(list: &[MoveReply]) -> String {
    list.iter()
        .map(|one| format!("{}  {}\n", one.id, one_move(one)))
        .collect()
}

pub fn plan(reply: &PlanReply) -> String {
    let pause = reply
        .estimate_ms
        .map_or("of unknown length".into(), |ms| format!("of {ms:.1} ms"));
    let mut out = format!(
        "{}: {} -> {}: a pause {pause} (at most {:.1} ms allowed), {} to ship: ",
        reply.partition,
        reply.from,
        reply.to,
        reply.max_pause_ms,
        bytes(reply.lag_bytes)
    );
    match (&reply.reason, reply.possible) {
        (Some(reason), false) => out.push_str(&format!("not possible now: {reason}")),
        (None, false) => out.push_str("not possible now"),
        (_, true) => out.push_str("possible"),
    }
    out.push('\n');
    out
}

pub fn verified(reply: &VerifiedReply) -> String {
    let mut out = format!("{} at {}\n", reply.partition, reply.position);
    for one in &reply.shadows {
        let equal = if one.equal { "equal" } else { "DIFFERENT" };
        let _ = writeln!(
            out,
            "  {}: {equal}, {} pages {}",
            one.node, one.pages, one.detail
        );
    }
    out
}

pub fn event(reply: &EventReply) -> String {
    let seconds = reply.at_ms / 1000;
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let partition = reply
        .partition
        .as_deref()
        .map_or(String::new(), |name| format!(" {name}"));
    let ms = reply.at_ms % 1000;
    format!(
        "{h:02}:{m:02}:{s:02}.{ms:03}Z {}{partition}: {}\n",
        reply.kind, reply.text
    )
}

/// A variant as its JSON word.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn rtt(us: Option<u64>) -> String {
    us.map_or(String::new(), |us| format!(", {us} us there and back"))
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (d, h, m, s) = (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, ..) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::reply::Role;

    #[test]
    fn a_list_of_partitions_reads_as_a_table() {
        let shadow = |node: &str, state, lag_lsn| ShadowReply {
            node: node.into(),
            state,
            lag_lsn,
            lag_bytes: lag_lsn * 60,
            ..ShadowReply::default()
        };
        let owned = PartitionReply {
            name: "tenant1.db".into(),
            role: Role::Owner,
            owner: Some("node-a".into()),
            epoch: 3,
            lsn: 1200,
            bytes: 3 << 20,
            engine: "sqlite".into(),
            tier: "hot".into(),
            shadows: vec![
                shadow("node-b", ShadowState::Streaming, 0),
                shadow("node-c", ShadowState::Filling, 0),
                shadow("node-d", ShadowState::None, 0),
            ],
            ..PartitionReply::default()
        };
        let refused = PartitionReply {
            name: "odd.db".into(),
            role: Role::Refused,
            reason: Some("journal_mode is delete".into()),
            ..PartitionReply::default()
        };
        assert_eq!(
            partitions(&[owned, refused]),
            "NAME        ROLE     OWNER   EPOCH  LSN   SIZE     TIER  SHADOWS\n\
             tenant1.db  owner    node-a  3      1200  3.0 MiB  hot   \
             node-b (level), node-c (filling)\n\
             odd.db      refused  -       0      0     0 B      -     -\n\
             odd.db: journal_mode is delete\n"
        );
    }

    #[test]
    fn a_move_ends_in_one_sentence() {
        let reply = MoveReply {
            partition: "t.db".into(),
            from: "a".into(),
            to: "b".into(),
            state: MoveState::Done,
            write_pause_ms: Some(3.0625),
            epoch: 4,
            ..MoveReply::default()
        };
        assert_eq!(
            one_move(&reply),
            "t.db: a -> b: done; writers paused for 3.1 ms, epoch 4"
        );
        let aborted = MoveReply {
            state: MoveState::Aborted,
            reason: Some("the estimate is 80 ms".into()),
            ..reply
        };
        let expected = "t.db: a -> b: given up, a serves as before: the estimate is 80 ms";
        assert_eq!(one_move(&aborted), expected);
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(90_000.0), "1 d 1 h");
    }
}
