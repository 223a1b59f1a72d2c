//! `foreshadow model eval`.

use std::io::Write;

use model::evaluate::{Plan, Report, Skills, Trained, evaluate};
use model::lstm::Training;
use serde_json::{Value, json};

use super::super::args::EvalArgs;
use super::super::exit::Exit;
use super::super::render::table;
use super::trace::{self, Trace};

pub fn run(arguments: &EvalArgs, json: bool) -> Exit {
    match score(arguments) {
        Ok((trace, report)) => {
            let text = match json {
                true => format!("{}\n", as_json(&report)),
                false => as_text(&trace, &report),
            };
            // A pipe that was closed has nobody to tell.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Exit::Ok
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "foreshadow: {error}");
            Exit::Error
        }
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Trace(#[from] trace::Error),
    #[error(transparent)]
    Training(#[from] model::evaluate::Error),
    #[error("{series} series, and none of them is long enough to be scored; {least} bins are")]
    TooShort { series: usize, least: usize },
}

/// A series that is shorter is not scored: there would be nothing to learn from.
const LEAST_BINS: usize = 100;

fn score(arguments: &EvalArgs) -> Result<(Trace, Report), Error> {
    let mut trace = trace::read(&arguments.trace, arguments.bin)?;
    let all = trace.series.len();
    trace
        .series
        .retain(|series| series.values.len() >= LEAST_BINS);
    let tell = |what: &str| {
        let _ = writeln!(std::io::stderr(), "{what}");
    };
    tell(&format!(
        "{} series, {} rows",
        trace.series.len(),
        trace.rows
    ));
    let plan = Plan {
        horizon: arguments.horizon,
        training: Training {
            seed: arguments.seed,
            ..Training::default()
        },
        ..Plan::default()
    };
    let trained = Trained::on(&trace.series, &plan, tell)?;
    let report = evaluate(&trace.series, &plan, &trained);
    let report = report.ok_or(Error::TooShort {
        series: all,
        least: LEAST_BINS,
    })?;
    Ok((trace, report))
}

fn as_text(trace: &Trace, report: &Report) -> String {
    let percent = |share: f64| format!("{:+.1} %", share * 100.0);
    let row = |skills: &Skills| {
        let (seasonal, ewma) = (&skills.vs_seasonal, &skills.vs_ewma);
        vec![
            skills.name.clone(),
            percent(seasonal.median),
            percent(seasonal.mean),
            percent(seasonal.worst),
            percent(ewma.median),
            percent(ewma.mean),
            percent(ewma.worst),
            format!("{:.0} %", ewma.share_won * 100.0),
        ]
    };
    let header = [
        "", "SEASONAL", "MEAN", "WORST", "EWMA", "MEAN", "WORST", "WON",
    ];
    let rows: Vec<_> = report.skills.iter().map(row).collect();
    let mut text = format!(
        "{} series, {} forecasts; skill = 1 - error / that of seasonal naive and of EWMA, median\n",
        report.series, report.bins
    );
    if trace.bad > 0 {
        text += &format!("{} of {} rows were left out\n", trace.bad, trace.rows);
    }
    text += &table(&header, &rows);
    if let Some(marginal) = report.lstm_marginal {
        text += &format!("the LSTM lowers the mix's error by {}\n", percent(marginal));
    }
    text
}

fn as_json(report: &Report) -> Value {
    let of = |skills: &Skills| {
        json!({
            "skill_vs_seasonal_median": skills.vs_seasonal.median,
            "skill_vs_ewma_median": skills.vs_ewma.median,
            "skill_mean": skills.vs_seasonal.mean,
            "skill_worst": skills.vs_seasonal.worst,
            "share_won": skills.vs_ewma.share_won,
        })
    };
    let mut members = serde_json::Map::new();
    for skills in report.skills.iter().filter(|skills| skills.name != "mix") {
        members.insert(skills.name.clone(), of(skills));
    }
    let mix = report.skills.iter().find(|skills| skills.name == "mix");
    json!({
        "mix": mix.map(of),
        "members": members,
        "lstm_marginal": report.lstm_marginal,
        "series": report.series,
        "forecasts": report.bins,
    })
}
