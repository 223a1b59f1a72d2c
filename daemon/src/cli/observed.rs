//! What is seen on a node, for people: a line on the node, and a table of everything else.

use std::fmt::Write;

use super::render::{bytes, table};
use crate::serve::observed::{AccessReply, ChangeReply, KeyReply, ObservedReply};

pub fn observed(reply: &ObservedReply) -> String {
    let mut out = format!(
        "for {} s, in {} of memory\n",
        reply.seconds,
        bytes(reply.bytes)
    );
    if !reply.node.is_empty() {
        let _ = writeln!(out, "node: {}", load(reply)); // Writing to a String does not fail.
    }
    if !reply.partitions.is_empty() {
        let head = [
            "PARTITION",
            "COMMITS",
            "PAGES",
            "BYTES",
            "UPDATE",
            "SEGMENTS",
        ];
        out += &table(&head, &rows(&reply.partitions, change));
    }
    if !reply.keys.is_empty() {
        let head = ["KEY", "PARTITION", "ACCESSES", "ERROR", "BYTES", "REGIONS"];
        out += &table(&head, &rows(&reply.keys, key));
        let _ = writeln!(out, "any other key: {} accesses at most", reply.others_max);
    }
    for past in &reply.history {
        let _ = writeln!(out, "{} {} {}", past.at, past.partition, past.what);
    }
    let head = [
        "SOURCE",
        "ACCEPTED",
        "MALFORMED",
        "PASSED OVER",
        "LATE",
        "EARLY",
    ];
    out + &table(&head, &rows(&reply.sources, source))
}

fn rows<T>(list: &[T], row: impl Fn(&T) -> Vec<String>) -> Vec<Vec<String>> {
    list.iter().map(row).collect()
}

fn load(reply: &ObservedReply) -> String {
    let part = |(name, value): (&String, &f64)| match name.starts_with("link_") {
        true => format!("{name} {}/s", bytes(*value as u64)),
        false => format!("{name} {:.1} %", value * 100.0),
    };
    let parts: Vec<String> = reply.node.iter().map(part).collect();
    parts.join(", ")
}

fn change(one: &ChangeReply) -> Vec<String> {
    vec![
        one.partition.clone(),
        one.commits.to_string(),
        one.pages.to_string(),
        bytes(one.bytes),
        bytes(one.update_size as u64),
        one.segments.to_string(),
    ]
}

fn key(one: &KeyReply) -> Vec<String> {
    let regions: Vec<String> = one
        .regions
        .iter()
        .map(|(region, count)| format!("{region} {count}"))
        .collect();
    let name = |name: &Option<String>, none: &str| name.clone().unwrap_or_else(|| none.to_owned());
    vec![
        name(&one.key, "(all)"),
        name(&one.partition, "-"),
        one.count.to_string(),
        one.error.to_string(),
        bytes(one.bytes),
        regions.join(", "),
    ]
}

fn source(one: &AccessReply) -> Vec<String> {
    vec![
        one.source.clone(),
        one.accepted.to_string(),
        one.malformed.to_string(),
        one.passed_over.to_string(),
        one.late.to_string(),
        one.early.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_reads_as_tables() {
        let reply = ObservedReply {
            seconds: 60,
            bytes: 2048,
            node: [("cpu".to_owned(), 0.25), ("link_sent".to_owned(), 2048.0)].into(),
            partitions: vec![ChangeReply {
                partition: "t.db".to_owned(),
                commits: 7,
                pages: 9,
                bytes: 500,
                update_size: 48.0,
                segments: 2,
            }],
            keys: vec![KeyReply {
                partition: Some("t.db".to_owned()),
                count: 3,
                regions: [("eu".to_owned(), 2)].into(),
                ..KeyReply::default()
            }],
            sources: vec![AccessReply {
                source: "http".to_owned(),
                accepted: 3,
                ..AccessReply::default()
            }],
            ..ObservedReply::default()
        };
        assert_eq!(
            observed(&reply),
            "for 60 s, in 2.0 KiB of memory\n\
             node: cpu 25.0 %, link_sent 2.0 KiB/s\n\
             PARTITION  COMMITS  PAGES  BYTES  UPDATE  SEGMENTS\n\
             t.db       7        9      500 B  48 B    2\n\
             KEY    PARTITION  ACCESSES  ERROR  BYTES  REGIONS\n\
             (all)  t.db       3         0      0 B    eu 2\n\
             any other key: 0 accesses at most\n\
             SOURCE  ACCEPTED  MALFORMED  PASSED OVER  LATE  EARLY\n\
             http    3         0          0            0     0\n"
        );
    }
}
