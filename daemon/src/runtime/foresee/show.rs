//! What is foretold, put together for people; and what an outside oracle tells.
//!
//! | module | what it shows |
//! |---|---|
//! | [`models`] | who foretells, and what became of models |

pub mod models;

use model::chance::{chance, within};
use model::fleet::member_name;
use model::learned::{Kind as ModelKind, ODDS_MEMBERS};

use super::Foresight;
use super::store::name_of;
use crate::observe::Subject;
use crate::predict::book::{Full, Hint, Hits, Page};
use crate::predict::target::{Kind, Target, Written};
use crate::predict::{Foreseer, Reasons};
use crate::serve::forecasts::{
    ChancesReply, ExplainReply, ForecastReply, ForecastsReply, HintReply, HitsReply, InputReply,
    ReasonsReply, ValueReply, horizon,
};
use crate::serve::models::LogReply;
use crate::serve::problem::{Problem, ProblemKind};
use crate::serve::query::{Chance, Query, Until};
use crate::serve::reply::Reply;
use crate::serve::sentence::{lasting, percent, sentences};

/// Longest time for which a hint may hold, in seconds: a year.
const HINT_MAX: i64 = 366 * 86_400;
/// How like a name has to be to be offered instead of another.
const LIKE: f64 = 0.7;

/// Answers what is asked about forecasts and models.
pub fn answer(foresight: &mut Foresight, now: i64, query: Query) -> Result<Reply, Problem> {
    let foreseer = foresight.foreseer();
    match query {
        Query::Forecasts {
            object,
            kind,
            within,
            limit,
        } => {
            let reply = forecasts(foreseer, now, (object.as_ref(), kind), within, limit);
            Ok(Reply::Forecasts(Box::new(reply)))
        }
        Query::Explain { object } => {
            let reply = explain(foreseer, now, &object)?;
            Ok(Reply::Explain(Box::new(reply)))
        }
        Query::Hint {
            target,
            chance,
            until,
        } => hint(foresight.foreseer_mut(), now, &target, chance, until),
        Query::Model => Ok(Reply::Model(Box::new(models::model(foresight, now)))),
        Query::ModelLog { limit } => Ok(Reply::ModelLog(LogReply {
            entries: foresight.store().entries(limit),
        })),
        Query::Train => models::train(foresight, now),
        Query::RollBackModel => models::roll_back(foresight, now),
        other => Err(Problem::internal(format!("nobody answers {other:?}"))),
    }
}

/// What comes, the likeliest within so many seconds first.
pub fn forecasts(
    foreseer: &Foreseer,
    now: i64,
    (object, kind): (Option<&Subject>, Option<Kind>),
    within: Option<u32>,
    limit: usize,
) -> ForecastsReply {
    let horizons = horizons(foreseer);
    let at = horizon(&horizons, within.unwrap_or_else(|| ahead(foreseer)));
    let wanted = |target: &Target| {
        object.is_none_or(|object| *object == target.subject)
            && kind.is_none_or(|kind| kind == target.kind)
    };
    let mut found: Vec<ForecastReply> = foreseer
        .pages(wanted)
        .map(|(target, page)| forecast(target, page, now, horizons.len()))
        .collect();
    // Those that are alike stay in the order of the book.
    found.sort_by(|one, two| {
        let chance = |one: &ForecastReply| one.chances.get(at).copied().unwrap_or(0.0);
        chance(two).total_cmp(&chance(one))
    });
    let count = found.len();
    found.truncate(limit);
    ForecastsReply {
        now,
        bin_seconds: foreseer.settings().schema.step,
        within: horizons.get(at).copied().unwrap_or(0),
        horizons,
        model: name_of(foreseer.contest().version()),
        forecasts: found,
        found: count as u64,
        left_out: foreseer.left_out(),
    }
}

/// Why what is foretold of an object is what it is.
pub fn explain(foreseer: &Foreseer, now: i64, object: &Subject) -> Result<ExplainReply, Problem> {
    let horizons = horizons(foreseer);
    let name = Written(object).to_string();
    let pages = foreseer.pages(|target| target.subject == *object);
    let mut targets: Vec<ReasonsReply> = pages
        .map(|(target, page)| ReasonsReply {
            forecast: forecast(target, page, now, horizons.len()),
            ..reasons(foreseer, target)
        })
        .collect();
    if targets.is_empty() {
        let nearest = nearest(foreseer, &name);
        return Err(Problem::unknown_object(&name, nearest.as_deref()));
    }
    let at = horizon(&horizons, ahead(foreseer));
    let reply = ExplainReply {
        now,
        bin_seconds: foreseer.settings().schema.step,
        ahead: ahead(foreseer),
        horizons,
        object: name,
        targets: Vec::new(),
    };
    for target in &mut targets {
        target.sentences = sentences(&reply, target, at);
    }
    Ok(ExplainReply { targets, ..reply })
}

/// Takes in what an outside oracle says.
pub fn hint(
    foreseer: &mut Foreseer,
    now: i64,
    target: &Target,
    chance: Chance,
    until: Until,
) -> Result<Reply, Problem> {
    let until = until.at(now);
    let left = until.saturating_sub(now);
    if !(1..=HINT_MAX).contains(&left) {
        let why = "until is over, or more than a year away: the hint would say nothing";
        return Err(Problem::bad_request(why));
    }
    let chance = chance.get();
    foreseer
        .hint(target, Hint { chance, until })
        .map_err(|Full| {
            let why = "there is no room for hints about more that was never seen";
            Problem::new(ProblemKind::Throttled, why)
        })?;
    let region = target.region.as_deref();
    Ok(Reply::done(format!(
        "{} of {}{} is taken to be {} for {}",
        target.kind.name(),
        Written(&target.subject),
        region.map_or_else(String::new, |region| format!(" from {region}")),
        percent(f64::from(chance)),
        lasting(left.unsigned_abs())
    )))
}

/// The horizons, in seconds.
pub fn horizons(foreseer: &Foreseer) -> Vec<u32> {
    let schema = &foreseer.settings().schema;
    let seconds = |bins: &usize| seconds(*bins, schema.step);
    schema.horizons.bins().iter().map(seconds).collect()
}

/// How many seconds ahead values are foretold.
fn ahead(foreseer: &Foreseer) -> u32 {
    let schema = &foreseer.settings().schema;
    seconds(schema.ahead, schema.step)
}

fn seconds(bins: usize, step: u32) -> u32 {
    u32::try_from(bins).map_or(u32::MAX, |bins| bins.saturating_mul(step))
}

fn forecast(target: &Target, page: &Page, now: i64, horizons: usize) -> ForecastReply {
    let said = page.forecast.as_ref();
    let hint = page.hint_at(now);
    let chances = match hint {
        // There may be nothing but the hint, which then stands for every horizon.
        Some(hint) => vec![hint.chance; horizons],
        None => page.chances(now),
    };
    ForecastReply {
        object: Written(&target.subject).to_string(),
        kind: target.kind.name().to_owned(),
        region: target.region.as_deref().map(str::to_owned),
        chances,
        value: said.and_then(|said| said.value),
        issued: said.map(|said| said.issued),
        expires: said.map(|said| said.expires),
        model: said.map(|said| name_of(said.model)),
        control: page.control,
        hint: hint.map(|Hint { chance, until }| HintReply { chance, until }),
        hits: hits(&page.hits),
    }
}

fn hits(hits: &Hits) -> HitsReply {
    HitsReply {
        judged: hits.judged,
        happened: hits.happened,
        said: hits.said,
        right: hits.right,
        brier: (hits.judged > 0).then(|| hits.lost / hits.judged as f64),
    }
}

/// All but the forecast and the sentences.
fn reasons(foreseer: &Foreseer, target: &Target) -> ReasonsReply {
    let Some(known) = foreseer.reasons(target) else {
        return ReasonsReply::default();
    };
    let kind = foreseer.contest().champion().kind;
    ReasonsReply {
        own: known.outlook.chances.clone(),
        values: values(&known, kind),
        chances: chances(&known, kind),
        inputs: inputs(&known),
        rate: Some(known.rate),
        akin: Some(known.akin),
        last: known.last,
        ..ReasonsReply::default()
    }
}

/// The network without gates stands where the LSTM does.
fn called(name: &str, kind: ModelKind) -> String {
    match (name, kind) {
        ("lstm", ModelKind::Rnn) => "rnn".to_owned(),
        (name, _) => name.to_owned(),
    }
}

fn values(known: &Reasons, kind: ModelKind) -> Vec<ValueReply> {
    let members = known.outlook.members.iter().zip(&known.weights).enumerate();
    let members = members.map(|(at, (says, weighs))| ValueReply {
        name: called(member_name(at), kind),
        says: says.filter(|says| says.is_finite()),
        weighs: *weighs,
    });
    // The mix alone weighs; of the others one speaks.
    match kind {
        ModelKind::Mix => members.collect(),
        ModelKind::Naive => members.filter(|one| one.name == "last").collect(),
        ModelKind::MovingAverage => members.filter(|one| one.name == "ewma").collect(),
        ModelKind::Lstm | ModelKind::Rnn => {
            let spoken = |one: &ValueReply| ["ewma", "lstm", "rnn"].contains(&one.name.as_str());
            members.filter(spoken).collect()
        }
    }
}

fn chances(known: &Reasons, kind: ModelKind) -> Vec<ChancesReply> {
    let members = ODDS_MEMBERS.iter().zip(&known.outlook.logits);
    members
        .filter_map(|(name, logits)| {
            let hazards = logits.as_ref()?.iter().map(|logit| chance(*logit));
            Some(ChancesReply {
                name: called(name, kind),
                chances: within(&hazards.collect::<Vec<f32>>()),
            })
        })
        .collect()
}

fn inputs(known: &Reasons) -> Vec<InputReply> {
    let named = known.inputs.iter().zip(&known.given);
    let mut all: Vec<InputReply> = named
        .map(|((name, adds), is)| InputReply {
            name: (*name).to_owned(),
            is: *is,
            adds: *adds,
        })
        .collect();
    all.sort_by(|one, two| two.adds.abs().total_cmp(&one.adds.abs()));
    all
}

/// The object whose name is most like `name`, if one is.
fn nearest(foreseer: &Foreseer, name: &str) -> Option<String> {
    let known = foreseer.pages(|_| true);
    let known = known.map(|(target, _)| Written(&target.subject).to_string());
    let scored = known.map(|known| (strsim::jaro_winkler(name, &known), known));
    let best = scored.max_by(|(one, _), (two, _)| one.total_cmp(two));
    best.filter(|(score, _)| *score > LIKE)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests;
