//! `foreshadow model eval`.

use std::io::Write;

use model::evaluate::{Occasion, Plan, Report, Skills, evaluate};
use model::lstm::Training;
use model::score::{Chances, Summary};
use serde_json::{Value, json};

use super::super::args::EvalArgs;
use super::super::exit::Exit;
use super::super::render::table;
use super::plot;
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
    Learn(#[from] model::learned::Error),
    #[error("{series} series, and none of them is long enough to be scored; {least} bins are")]
    TooShort { series: usize, least: usize },
    #[error(transparent)]
    Plot(#[from] plot::Error),
}

/// A series that is shorter is not scored: there would be nothing to learn from.
const LEAST_BINS: usize = 100;
/// Of the chances that are likeliest, the share whose precision is told: what one can afford.
const BUDGET: f64 = 0.1;

fn score(arguments: &EvalArgs) -> Result<(Trace, Report), Error> {
    let mut trace = trace::read_all(&arguments.trace, arguments.bin)?;
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
        kind: arguments.kind,
        rounds: arguments.rounds.into(),
        occasion: match trace.accesses {
            true => Occasion::Any,
            false => Occasion::Rare(0.1),
        },
        training: Training {
            seed: arguments.seed,
            ..Training::default()
        },
        ..Plan::new(arguments.horizon)
    };
    let report = evaluate(&trace.series, &plan, tell)?;
    let report = report.ok_or(Error::TooShort {
        series: all,
        least: LEAST_BINS,
    })?;
    if let Some(file) = &arguments.plot {
        plot::draw(file, &report)?;
        tell(&format!("drawn: {}", file.display()));
    }
    Ok((trace, report))
}

fn percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

fn as_text(trace: &Trace, report: &Report) -> String {
    let mut text = String::new();
    if trace.bad > 0 {
        text += &format!("{} of {} rows were left out\n", trace.bad, trace.rows);
    }
    text += &format!(
        "Values, {} series, {} forecasts: 1 - error / that of seasonal naive, and of EWMA\n",
        report.series, report.bins
    );
    let value_row = |skills: &Skills| {
        let (seasonal, ewma) = (skills.vs_seasonal.as_ref()?, skills.vs_ewma.as_ref()?);
        let of = |summary: &Summary| [summary.median, summary.mean, summary.worst].map(percent);
        let mut row = vec![skills.name.clone()];
        row.extend(of(seasonal));
        row.extend(of(ewma));
        row.push(format!("{:.0} %", ewma.share_won * 100.0));
        Some(row)
    };
    let header = [
        "", "SEASONAL", "MEAN", "WORST", "EWMA", "MEAN", "WORST", "WON",
    ];
    let rows: Vec<_> = report.skills.iter().filter_map(value_row).collect();
    text += &table(&header, &rows);
    if let Some(marginal) = report.lstm_marginal {
        text += &format!(
            "The LSTM lowers the mix's error by {}.\n",
            percent(marginal)
        );
    }
    for (at, within) in report.within.iter().enumerate() {
        let scored = |skills: &Skills| {
            let chances = skills
                .chances
                .get(at)
                .filter(|chances| !chances.is_empty())?;
            Some((skills.name.clone(), chances.clone()))
        };
        let scored: Vec<_> = report.skills.iter().filter_map(scored).collect();
        let Some((_, first)) = scored.first() else {
            continue;
        };
        let (count, rate) = (first.len(), first.rate() * 100.0);
        text += &format!(
            "\nChances within {}, {count} forecasts, {rate:.1} % happened\n",
            duration(*within)
        );
        let rows: Vec<_> = scored
            .iter()
            .map(|(name, chances)| chance_row(name, chances))
            .collect();
        text += &table(&["", "BRIER", "SKILL", "OFF BY", "AUC", "AT 10 %"], &rows);
    }
    text + "\nSKILL against always saying how often it happened; OFF BY: calibration error;\n\
            AT 10 %: how many of the tenth that was said to be likeliest happened.\n"
}

fn chance_row(name: &str, chances: &Chances) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.4}", chances.brier()),
        percent(chances.brier_skill(chances.rate())),
        format!("{:.4}", chances.calibration_error()),
        chances
            .area_under_curve()
            .map_or("-".to_owned(), |area| format!("{area:.3}")),
        format!("{:.1} %", chances.precision_at(BUDGET) * 100.0),
    ]
}

/// A horizon as people write it.
pub fn duration(seconds: u32) -> String {
    match seconds {
        s if s.is_multiple_of(86_400) => format!("{} d", s / 86_400),
        s if s.is_multiple_of(3_600) => format!("{} h", s / 3_600),
        s if s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

fn as_json(report: &Report) -> Value {
    let mut members = serde_json::Map::new();
    for skills in report.skills.iter().filter(|skills| skills.name != "mix") {
        members.insert(skills.name.clone(), skills_json(skills, &report.within));
    }
    let mix = report.skills.iter().find(|skills| skills.name == "mix");
    json!({
        "mix": mix.map(|mix| skills_json(mix, &report.within)),
        "members": members,
        "lstm_marginal": report.lstm_marginal,
        "series": report.series,
        "forecasts": report.bins,
    })
}

/// Skills of values, and of chances within the shortest horizon, the one that was asked for; those
/// of the others are below `within`.
fn skills_json(skills: &Skills, within: &[u32]) -> Value {
    let (seasonal, ewma) = (&skills.vs_seasonal, &skills.vs_ewma);
    let first = skills.chances.first().filter(|chances| !chances.is_empty());
    let horizons = within
        .iter()
        .zip(&skills.chances)
        .map(|(seconds, chances)| (seconds.to_string(), chances_json(Some(chances))));
    let mut all = json!({
        "skill_vs_seasonal_median": seasonal.map(|summary| summary.median),
        "skill_vs_ewma_median": ewma.map(|summary| summary.median),
        "skill_mean": seasonal.map(|summary| summary.mean),
        "skill_worst": seasonal.map(|summary| summary.worst),
        "share_won": ewma.map(|summary| summary.share_won),
        "within": horizons.collect::<serde_json::Map<_, _>>(),
    });
    if let (Value::Object(all), Value::Object(of_chances)) = (&mut all, chances_json(first)) {
        all.extend(of_chances);
    }
    all
}

fn chances_json(chances: Option<&Chances>) -> Value {
    json!({
        "brier": chances.map(Chances::brier),
        "brier_skill": chances.map(|chances| chances.brier_skill(chances.rate())),
        "ece": chances.map(Chances::calibration_error),
        "auc": chances.and_then(Chances::area_under_curve),
        "precision_at_10_percent": chances.map(|chances| chances.precision_at(BUDGET)),
    })
}
