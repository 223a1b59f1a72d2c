//! What comes and why, for people: a table, and a page per object.

use std::fmt::Write;

use time::OffsetDateTime;

use super::render::table;
use crate::serve::forecasts::{
    ChancesReply, ExplainReply, ForecastReply, ForecastsReply, HitsReply, InputReply, ReasonsReply,
    ValueReply,
};
use crate::serve::sentence::{lasting, number, percent};

/// Inputs and members of values that a page shows; JSON has them all.
const ROWS_MAX: usize = 8;

pub fn forecasts(reply: &ForecastsReply) -> String {
    if reply.forecasts.is_empty() {
        return "nothing is foretold; `foreshadow observed` shows what is seen\n".to_owned();
    }
    let horizons = horizons(&reply.horizons);
    let mut head = vec!["OBJECT", "KIND", "REGION"];
    head.extend(horizons.iter().map(String::as_str));
    head.extend(["EXPECTED", "RIGHT", "HAPPENED"]);
    let rows: Vec<Vec<String>> = reply.forecasts.iter().map(row).collect();
    let mut out = table(&head, &rows);
    let shown = reply.forecasts.len() as u64;
    if reply.forecasts.iter().any(|one| one.hint.is_some()) {
        out += "* a hint says so, not the model\n";
    }
    if shown < reply.found {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{shown} of {}; --limit shows more", reply.found);
    }
    if reply.left_out > 0 {
        let _ = writeln!(out, "{} found no room; see model.targets", reply.left_out);
    }
    out
}

fn horizons(seconds: &[u32]) -> Vec<String> {
    let name = |seconds: &u32| lasting(u64::from(*seconds)).to_uppercase();
    seconds.iter().map(name).collect()
}

fn row(one: &ForecastReply) -> Vec<String> {
    let mark = if one.hint.is_some() { "*" } else { "" };
    let control = if one.control { " (control)" } else { "" };
    let chances = one.chances.iter();
    let chances = chances.map(|chance| format!("{}{mark}", percent(f64::from(*chance))));
    let mut row = vec![
        format!("{}{control}", one.object),
        one.kind.clone(),
        one.region.clone().unwrap_or_else(|| "-".to_owned()),
    ];
    row.extend(chances);
    row.push(one.value.map_or_else(|| "-".to_owned(), number));
    row.extend(hits(&one.hits));
    row
}

/// How often it was right when it said that it is likelier than not, and how often it happened.
fn hits(hits: &HitsReply) -> [String; 2] {
    let of = |part: u64, whole: u64| match whole {
        0 => "-".to_owned(),
        whole => format!("{part} of {whole}"),
    };
    [of(hits.right, hits.said), of(hits.happened, hits.judged)]
}

pub fn explanation(reply: &ExplainReply) -> String {
    let pages = reply.targets.iter().map(|target| page(reply, target));
    pages.collect::<Vec<String>>().join("\n")
}

fn page(reply: &ExplainReply, reasons: &ReasonsReply) -> String {
    let one = &reasons.forecast;
    let region = one.region.as_ref();
    let region = region.map_or_else(String::new, |region| format!(" from {region}"));
    let mut out = format!("{}: {}{region}\n", one.object, one.kind);
    for sentence in &reasons.sentences {
        let _ = writeln!(out, "  {sentence}"); // Writing to a String does not fail.
    }
    if let Some(brier) = one.hits.brier {
        let _ = writeln!(
            out,
            "  Brier score {brier:.3}; 0 is best, 0.25 is a coin's."
        );
    }
    let horizons = horizons(&reply.horizons);
    let mut head = vec!["CHANCES"];
    head.extend(horizons.iter().map(String::as_str));
    let mut rows: Vec<Vec<String>> = reasons.chances.iter().map(member).collect();
    if !rows.is_empty() {
        rows.push(chances("together", &reasons.own));
        out += &table(&head, &rows);
    }
    let inputs = reasons.inputs.iter().filter(|input| input.adds != 0.0);
    let rows: Vec<Vec<String>> = inputs.take(ROWS_MAX).map(input).collect();
    if !rows.is_empty() {
        out += &table(&["INPUT", "IS", "ADDS"], &rows);
    }
    let mut values: Vec<&ValueReply> = reasons.values.iter().collect();
    values.retain(|member| member.says.is_some());
    values.sort_by(|one, two| two.weighs.total_cmp(&one.weighs));
    let rows: Vec<Vec<String>> = values.into_iter().take(ROWS_MAX).map(value).collect();
    if !rows.is_empty() {
        out += &table(&["EXPECTED BY", "SAYS", "WEIGHS"], &rows);
    }
    out
}

fn member(one: &ChancesReply) -> Vec<String> {
    chances(&one.name, &one.chances)
}

fn chances(name: &str, chances: &[f32]) -> Vec<String> {
    let chances = chances.iter().map(|chance| percent(f64::from(*chance)));
    std::iter::once(name.to_owned()).chain(chances).collect()
}

fn input(one: &InputReply) -> Vec<String> {
    let adds = format!("{:+.2}", one.adds);
    vec![one.name.clone(), number(one.is), adds]
}

fn value(one: &ValueReply) -> Vec<String> {
    let says = one.says.map_or_else(|| "-".to_owned(), number);
    vec![one.name.clone(), says, percent(one.weighs)]
}

/// A time, to the minute, UTC.
pub fn when(seconds: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return seconds.to_string();
    };
    let (date, hour, minute) = (time.date(), time.hour(), time.minute());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::forecasts::HintReply;

    fn one(object: &str) -> ForecastReply {
        ForecastReply {
            object: object.to_owned(),
            kind: "access".to_owned(),
            chances: vec![0.004, 0.825],
            value: Some(12.34),
            ..ForecastReply::default()
        }
    }

    #[test]
    fn what_comes_reads_as_a_table() {
        let reply = ForecastsReply {
            horizons: vec![900, 3_600],
            forecasts: vec![
                ForecastReply {
                    region: Some("eu".to_owned()),
                    chances: vec![0.9, 0.9],
                    value: None,
                    hint: Some(HintReply {
                        chance: 0.9,
                        until: 5,
                    }),
                    ..one("new.db")
                },
                ForecastReply {
                    control: true,
                    hits: HitsReply {
                        judged: 40,
                        happened: 9,
                        said: 10,
                        right: 8,
                        brier: None,
                    },
                    ..one("a.db")
                },
            ],
            found: 7,
            left_out: 3,
            ..ForecastsReply::default()
        };
        assert_eq!(
            forecasts(&reply),
            "OBJECT          KIND    REGION  15 MIN  1 H    EXPECTED  RIGHT    HAPPENED\n\
             new.db          access  eu      90 %*   90 %*  -         -        -\n\
             a.db (control)  access  -       0.4 %   82 %   12.3      8 of 10  9 of 40\n\
             * a hint says so, not the model\n\
             2 of 7; --limit shows more\n\
             3 found no room; see model.targets\n"
        );
        let none = forecasts(&ForecastsReply::default());
        assert!(none.starts_with("nothing is foretold"), "{none}");
    }

    #[test]
    fn reasons_read_as_a_page() {
        let chances = |name: &str, chances: &[f32]| ChancesReply {
            name: name.to_owned(),
            chances: chances.to_vec(),
        };
        let input = |name: &str, is, adds| InputReply {
            name: name.to_owned(),
            is,
            adds,
        };
        let value = |name: &str, says, weighs| ValueReply {
            name: name.to_owned(),
            says,
            weighs,
        };
        let reasons = ReasonsReply {
            forecast: ForecastReply {
                region: Some("eu".to_owned()),
                hits: HitsReply {
                    brier: Some(0.1),
                    ..HitsReply::default()
                },
                ..one("a.db")
            },
            own: vec![0.2, 0.5],
            chances: vec![chances("logistic", &[0.1, 0.25])],
            inputs: vec![
                input("value now", 2.0, -0.5),
                input("one bin ago", 0.0, 0.0),
            ],
            values: vec![
                value("last", Some(3.0), 0.25),
                value("trees", None, 0.9),
                value("ewma", Some(5.0), 0.75),
            ],
            sentences: vec!["It is so.".to_owned()],
            ..ReasonsReply::default()
        };
        let reply = ExplainReply {
            horizons: vec![900, 3_600],
            targets: vec![reasons.clone(), ReasonsReply::default()],
            ..ExplainReply::default()
        };
        assert_eq!(
            explanation(&reply),
            "a.db: access from eu\n  \
               It is so.\n  \
               Brier score 0.100; 0 is best, 0.25 is a coin's.\n\
             CHANCES   15 MIN  1 H\n\
             logistic  10 %    25 %\n\
             together  20 %    50 %\n\
             INPUT      IS    ADDS\n\
             value now  2.00  -0.50\n\
             EXPECTED BY  SAYS  WEIGHS\n\
             ewma         5.00  75 %\n\
             last         3.00  25 %\n\
             \n: \n"
        );
    }

    #[test]
    fn a_time_is_said_to_the_minute() {
        assert_eq!(when(1_700_000_000), "2023-11-14 22:13");
        assert_eq!(when(i64::MAX), i64::MAX.to_string());
    }
}
