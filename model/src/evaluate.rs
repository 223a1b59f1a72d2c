//! An honest score: everything walks forward through series, learns from what lies behind, and is
//! compared with rules that anybody could use.
//!
//! The first part of every series is only learned from. What comes after it is foretold, in rounds:
//! before each of them the members learn anew from all that was seen by then, as the daemon does.

use std::sync::Arc;

use crate::chance::{Calibrator, chance, within};
use crate::fleet::{Fleet, MEMBERS, Outlook, happened_in, member_name};
use crate::learn::{Lesson, learn};
use crate::learned::{Error, Kind, Learned, ODDS_MEMBERS, Schema};
use crate::lstm::Training;
use crate::mix::Hedge;
use crate::score::{Chances, Errors, Summary};
use crate::series::Series;

/// What it is that happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Occasion {
    /// The value goes above what it was above in this share of the part that is learned from.
    Rare(f64),
    /// There is anything at all.
    Any,
}

/// How to evaluate.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    pub kind: Kind,
    /// How far ahead values are foretold, seconds.
    pub horizon: u32,
    /// Within what chances are, seconds.
    pub horizons: Vec<u32>,
    pub occasion: Occasion,
    /// The first part of every series, from which is only learned.
    pub train_share: f64,
    /// How often is learned.
    pub rounds: usize,
    pub training: Training,
}

impl Plan {
    /// An hour and what goes with it, or another `horizon`, seconds.
    pub fn new(horizon: u32) -> Plan {
        let times = |times: u32| horizon.saturating_mul(times);
        Plan {
            kind: Kind::Mix,
            horizon,
            horizons: vec![horizon, times(2), times(6), times(24)],
            occasion: Occasion::Rare(0.1),
            train_share: 0.6,
            rounds: 4,
            training: Training::default(),
        }
    }
}

/// Bins before the part that is scored at which what was learned is taken over: the networks are
/// asked only after they have seen some.
const AHEAD_OF_TIME: usize = 16;

/// A round is walked through in parts; after each it is calibrated anew.
const PARTS: usize = 8;

/// Skills of one forecaster over all series.
#[derive(Clone, Debug)]
pub struct Skills {
    pub name: String,
    /// Of values; `None` for who foretells none.
    pub vs_seasonal: Option<Summary>,
    pub vs_ewma: Option<Summary>,
    /// Of chances within each horizon; none for who foretells none.
    pub chances: Vec<Chances>,
}

/// A forecast and what came, to be drawn.
#[derive(Clone, Default, Debug)]
pub struct Drawn {
    pub name: String,
    /// (seconds, value that came, value that was foretold)
    pub points: Vec<(i64, f32, f32)>,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Report {
    pub series: usize,
    pub bins: u64,
    /// Every member, then the rate and the members of chances, then the mix.
    pub skills: Vec<Skills>,
    /// By how much the LSTM lowers the mix's error, median over series.
    pub lstm_marginal: Option<f64>,
    /// The series of median skill.
    pub drawn: Drawn,
    /// Seconds of each horizon within which chances were scored.
    pub within: Vec<u32>,
}

/// Forecasters of chances that are scored: the rate, the members, the mix.
const CHANCES: usize = ODDS_MEMBERS.len() + 2;

/// One series on its way.
struct Runner<'a> {
    series: &'a Series,
    limit: f32,
    happened: Vec<Option<bool>>,
    fleet: Fleet,
    /// The mix as it would be without the LSTM.
    without: Hedge,
    errors: Errors,
    points: Vec<(i64, f32, f32)>,
    /// The next bin.
    at: usize,
}

impl<'a> Runner<'a> {
    fn new(series: &'a Series, plan: &Plan, blank: &Arc<Learned>) -> Runner<'a> {
        let limit = match plan.occasion {
            Occasion::Any => 0.0,
            Occasion::Rare(share) => quantile(learn_part(series, plan.train_share), 1.0 - share),
        };
        let mut fleet = Fleet::new(Arc::clone(blank));
        fleet.add(series.start, limit);
        Runner {
            series,
            limit,
            happened: happened_in(&fleet, &series.values),
            fleet,
            without: Hedge::new(MEMBERS - 1, blank.schema.ahead),
            errors: Errors::new(MEMBERS + 2),
            points: Vec::new(),
            at: 0,
        }
    }

    /// Takes over what was learned of the bins before `until`.
    fn adopt(&mut self, learned: &Arc<Learned>, until: usize) {
        // The first time what comes before has to be walked through, too.
        self.walk(until.saturating_sub(AHEAD_OF_TIME), None);
        self.fleet.adopt(Arc::clone(learned));
        self.walk(until, None);
    }

    /// Walks on to bin `until`, and adds to what is scored.
    fn walk(&mut self, until: usize, mut scored: Option<&mut Scored>) {
        let schema = self.fleet.learned().schema.clone();
        for at in self.at..until {
            self.at = at + 1;
            let value = self.series.values[at];
            self.fleet.step(&[value]);
            let outlook = self.fleet.outlook(0);
            let others = &outlook.members[..MEMBERS - 1];
            self.without
                .observe(Some(value).filter(|v| v.is_finite()), others.to_vec());
            let Some(all) = scored.as_deref_mut() else {
                continue;
            };
            let truth = self.series.values.get(at + schema.ahead).copied();
            if let (Some(truth), Some(mix)) = (truth, outlook.value) {
                // Who can't say anything yet is counted as the mix.
                let members = outlook.members.iter().map(|said| said.unwrap_or(mix));
                let without = self.without.mix(others).unwrap_or(mix);
                let said: Vec<f32> = members.chain([mix, without]).collect();
                self.errors.add(&said, truth);
                let time = self.series.start + (at + schema.ahead) as i64 * i64::from(schema.step);
                self.points.push((time, truth, mix));
            }
            let truths = schema.horizons.truths(&self.happened[at + 1..]);
            let rate = self.fleet.occurrences(0).rate();
            let said = said_of(outlook, within(&schema.horizons.hazards_at(rate)));
            for (all, said) in all.iter_mut().zip(said) {
                for ((chances, said), truth) in all.iter_mut().zip(said).zip(&truths) {
                    if let Some(happened) = truth {
                        chances.add(said, *happened);
                    }
                }
            }
        }
    }
}

/// Of each forecaster of chances, within each horizon.
type Scored = Vec<Vec<Chances>>;

/// What each forecaster of chances says; who can't is counted as the mix.
fn said_of(outlook: &Outlook, rate: Vec<f32>) -> Vec<Vec<f32>> {
    let mix = &outlook.chances;
    let members = outlook.logits.iter().map(|logits| match logits {
        Some(logits) => within(
            &logits
                .iter()
                .map(|logit| chance(*logit))
                .collect::<Vec<_>>(),
        ),
        None => mix.clone(),
    });
    std::iter::once(rate)
        .chain(members)
        .chain([mix.clone()])
        .collect()
}

fn learn_part(series: &Series, share: f64) -> &[f32] {
    let count = (series.values.len() as f64 * share) as usize;
    &series.values[..count.min(series.values.len())]
}

/// What a share of `values` is not above; of nothing, no number.
fn quantile(values: &[f32], share: f64) -> f32 {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f32::NAN)
}

/// Walks through all series. `told` hears what is done. `None` if nothing could be scored.
pub fn evaluate(
    series: &[Series],
    plan: &Plan,
    mut told: impl FnMut(&str),
) -> Result<Option<Report>, Error> {
    let Some(first) = series.first() else {
        return Ok(None);
    };
    let Some(schema) = Schema::new(first.step, plan.horizon, &plan.horizons) else {
        return Ok(None);
    };
    let blank = Arc::new(Learned::blank(plan.kind, schema.clone()));
    let mut runners: Vec<Runner<'_>> = series
        .iter()
        .filter(|series| series.step == first.step)
        .map(|series| Runner::new(series, plan, &blank))
        .collect();
    let mut chances = vec![vec![Chances::default(); schema.horizons.count()]; CHANCES];
    let mut calibrator = Calibrator::default();
    for round in 0..plan.rounds.max(1) {
        let share = |round: usize| {
            let done = round as f64 / plan.rounds.max(1) as f64;
            plan.train_share + (1.0 - plan.train_share) * done
        };
        let lessons: Vec<Lesson<'_>> = runners
            .iter()
            .map(|runner| Lesson {
                series: runner.series,
                limit: runner.limit,
                until: learn_part(runner.series, share(round)).len(),
            })
            .collect();
        let mut tell = |what: &str| {
            told(&format!("round {} of {}: {what}", round + 1, plan.rounds));
            true
        };
        let learned = learn(plan.kind, &schema, &lessons, &plan.training, &mut tell)?;
        let Some(learned) = learned.map(Arc::new) else {
            return Ok(None);
        };
        let untils: Vec<usize> = lessons.iter().map(|lesson| lesson.until).collect();
        for (runner, until) in runners.iter_mut().zip(untils) {
            runner.adopt(&learned, until);
        }
        for part in 0..PARTS {
            let end =
                share(round) + (share(round + 1) - share(round)) * (part + 1) as f64 / PARTS as f64;
            let calibrations = learned
                .odds
                .as_ref()
                .map(|odds| calibrator.fit(&odds.calibrations));
            for runner in &mut runners {
                if let Some(calibrations) = &calibrations {
                    runner.fleet.calibrate(calibrations.clone());
                }
                let end = learn_part(runner.series, end).len();
                runner.walk(end, Some(&mut chances));
                for judged in runner.fleet.take_judged() {
                    calibrator.add(judged);
                }
            }
        }
    }
    for runner in &mut runners {
        runner.walk(runner.series.values.len(), Some(&mut chances));
    }
    let seconds = schema
        .horizons
        .bins()
        .iter()
        .map(|bins| *bins as u32 * schema.step);
    Ok(report(&mut runners, chances, seconds.collect()))
}

fn report(runners: &mut Vec<Runner<'_>>, chances: Scored, within: Vec<u32>) -> Option<Report> {
    runners.retain(|runner| runner.errors.count() > 0);
    let place = |wanted: &str| (0..MEMBERS).find(|member| member_name(*member) == wanted);
    let (seasonal, ewma) = (place("seasonal")?, place("ewma")?);
    let (mix, without) = (MEMBERS, MEMBERS + 1);
    let summary = |member: usize, reference: usize| {
        let skills = runners
            .iter()
            .map(|runner| runner.errors.skill(member, reference));
        Summary::of(&skills.collect::<Vec<_>>())
    };
    let mut skills: Vec<Skills> = Vec::new();
    for (member, name) in (0..MEMBERS).map(member_name).chain(["mix"]).enumerate() {
        skills.push(Skills {
            name: name.to_owned(),
            vs_seasonal: Some(summary(member, seasonal)?),
            vs_ewma: Some(summary(member, ewma)?),
            chances: Vec::new(),
        });
    }
    let names = ["rate"].into_iter().chain(ODDS_MEMBERS).chain(["mix"]);
    for (name, chances) in names.zip(chances) {
        match skills.iter_mut().find(|skills| skills.name == name) {
            Some(skills) => skills.chances = chances,
            None => skills.insert(
                skills.len() - 1,
                Skills {
                    name: name.to_owned(),
                    vs_seasonal: None,
                    vs_ewma: None,
                    chances,
                },
            ),
        }
    }
    let marginal: Vec<f64> = runners
        .iter()
        .map(|runner| runner.errors.skill(mix, without))
        .collect();
    // The one in the middle is neither the best nor the worst that could be shown.
    let mut order: Vec<usize> = (0..runners.len()).collect();
    let skill = |at: &usize| runners[*at].errors.skill(mix, ewma);
    order.sort_by(|one, other| skill(one).total_cmp(&skill(other)));
    let middle = *order.get(order.len() / 2)?;
    Some(Report {
        series: runners.len(),
        bins: runners.iter().map(|runner| runner.errors.count()).sum(),
        skills,
        lstm_marginal: Summary::of(&marginal).map(|summary| summary.median),
        drawn: Drawn {
            name: runners[middle].series.name.clone(),
            points: std::mem::take(&mut runners[middle].points),
        },
        within,
    })
}
