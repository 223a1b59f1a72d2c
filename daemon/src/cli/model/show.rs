//! Who foretells, for people: the champion, the challenger, and when is learned again.

use std::fmt::Write;

use crate::cli::forecast::when;
use crate::cli::render::{bytes, table};
use crate::serve::models::{LearnedReply, LogReply, ModelReply, TrainingReply};
use crate::serve::sentence::lasting;

pub fn model(reply: &ModelReply) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out += &text;
        out.push('\n');
    };
    line(format!("champion: {}", learned(&reply.champion)));
    match (&reply.challenger, &reply.trial) {
        (Some(challenger), Some(trial)) => {
            line(format!("challenger: {}", learned(challenger)));
            line(format!(
                "trial: {} of {} blocks of {}, at least {} events",
                trial.blocks,
                trial.blocks_min,
                lasting(trial.block_seconds),
                trial.events_min
            ));
        }
        _ => line("challenger: none".to_owned()),
    }
    let previous = reply.previous.as_ref().map(learned);
    line(format!(
        "previous: {}",
        previous.as_deref().unwrap_or("none")
    ));
    line(format!(
        "training: {}",
        training(&reply.training, reply.now)
    ));
    if let Some(drift) = &reply.drift {
        line(format!(
            "drift: {} moved most, {:.2} (learned anew above {:.2})",
            drift.input, drift.index, drift.index_max
        ));
    }
    let horizons: Vec<String> = reply.horizons.iter().copied().map(lasting_of).collect();
    line(format!(
        "horizons: {}, bins of {}",
        horizons.join(", "),
        lasting_of(reply.bin_seconds)
    ));
    let left_out = match reply.left_out {
        0 => String::new(),
        count => format!(", {count} found no room; see model.targets"),
    };
    line(format!(
        "targets: {} of {}{left_out}",
        reply.targets, reply.targets_max
    ));
    line(format!("kept on disk: {}", bytes(reply.replay_bytes)));
    out
}

fn lasting_of(seconds: u32) -> String {
    lasting(u64::from(seconds))
}

fn learned(one: &LearnedReply) -> String {
    let mut text = format!("{} ({})", one.version, one.kind);
    if let (Some(from), Some(to)) = (one.from, one.to) {
        // Writing to a String does not fail.
        let _ = write!(
            text,
            ", {} examples of {} to {}: {}",
            one.examples,
            when(from),
            when(to),
            one.members.join(", ")
        );
    }
    text
}

fn training(one: &TrainingReply, now: i64) -> String {
    let mut parts = Vec::new();
    if let Some(began) = one.began {
        let doing = one.doing.as_deref();
        let doing = doing.map_or_else(String::new, |doing| format!(" ({doing})"));
        parts.push(format!("runs for {}{doing}", since(began, now)));
    }
    if let Some(next) = one.next {
        let left = match next > now {
            true => format!("in {}", since(now, next)),
            false => "now".to_owned(),
        };
        parts.push(format!("next {left}, {}", one.why));
    } else {
        parts.push(one.why.clone());
    }
    if let (Some(last), Some(outcome)) = (one.last, &one.outcome) {
        parts.push(format!("last {} ago: {outcome}", since(last, now)));
    }
    parts.join("; ")
}

fn since(from: i64, to: i64) -> String {
    lasting(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

pub fn log(reply: &LogReply) -> String {
    if reply.entries.is_empty() {
        return "nothing was learned yet\n".to_owned();
    }
    let rows: Vec<Vec<String>> = reply
        .entries
        .iter()
        .map(|entry| {
            vec![
                when(entry.at),
                entry.what.clone(),
                entry.champion.clone(),
                entry.text.clone(),
            ]
        })
        .collect();
    table(&["TIME", "WHAT", "CHAMPION", "WHY"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::models::{DriftReply, LogEntry, TrialReply};

    fn one(version: &str) -> LearnedReply {
        LearnedReply {
            version: version.to_owned(),
            kind: "mix".to_owned(),
            from: Some(1_700_000_000),
            to: Some(1_700_086_400),
            examples: 5_000,
            members: vec!["values/trees".to_owned(), "chances/lstm".to_owned()],
        }
    }

    #[test]
    fn a_model_reads_as_a_page() {
        let reply = ModelReply {
            now: 1_700_100_000,
            kind: "mix".to_owned(),
            bin_seconds: 300,
            horizons: vec![900, 3_600],
            champion: one("aa"),
            challenger: Some(one("bb")),
            trial: Some(TrialReply {
                blocks: 3,
                blocks_min: 7,
                events_min: 200,
                block_seconds: 86_400,
            }),
            previous: None,
            training: TrainingReply {
                asked: false,
                began: Some(1_700_099_970),
                doing: Some("trees".to_owned()),
                last: Some(1_700_078_400),
                outcome: Some("bb is tried".to_owned()),
                next: Some(1_700_121_600),
                why: "it is learned anew every 6 h".to_owned(),
            },
            drift: Some(DriftReply {
                input: "value now".to_owned(),
                index: 0.123,
                index_max: 0.25,
            }),
            targets: 12,
            targets_max: 4_096,
            left_out: 5,
            replay_bytes: 2_048,
        };
        let learned = "5000 examples of 2023-11-14 22:13 to 2023-11-15 22:13: values/trees, \
                       chances/lstm";
        assert_eq!(
            model(&reply),
            format!(
                "champion: aa (mix), {learned}\n\
                 challenger: bb (mix), {learned}\n\
                 trial: 3 of 7 blocks of 1 d, at least 200 events\n\
                 previous: none\n\
                 training: runs for 30 s (trees); next in 6 h, it is learned anew every 6 h; \
                 last 6 h ago: bb is tried\n\
                 drift: value now moved most, 0.12 (learned anew above 0.25)\n\
                 horizons: 15 min, 1 h, bins of 5 min\n\
                 targets: 12 of 4096, 5 found no room; see model.targets\n\
                 kept on disk: 2.0 KiB\n"
            )
        );
    }

    #[test]
    fn rules_that_learn_nothing_say_so() {
        let reply = ModelReply {
            champion: LearnedReply {
                version: "rules".to_owned(),
                kind: "naive".to_owned(),
                ..LearnedReply::default()
            },
            training: TrainingReply {
                why: "model.kind = \"naive\" learns nothing".to_owned(),
                ..TrainingReply::default()
            },
            ..ModelReply::default()
        };
        let text = model(&reply);
        assert!(text.starts_with("champion: rules (naive)\nchallenger: none\nprevious: none\n"));
        assert!(
            text.contains("training: model.kind = \"naive\" learns nothing\n"),
            "{text}"
        );
    }

    #[test]
    fn a_log_reads_as_a_table() {
        let entry = LogEntry {
            at: 1_700_000_000,
            what: "promoted".to_owned(),
            champion: "bb".to_owned(),
            text: "the challenger takes over".to_owned(),
        };
        let entries = vec![entry];
        assert_eq!(
            log(&LogReply { entries }),
            "TIME              WHAT      CHAMPION  WHY\n\
             2023-11-14 22:13  promoted  bb        the challenger takes over\n"
        );
        assert_eq!(log(&LogReply::default()), "nothing was learned yet\n");
    }
}
