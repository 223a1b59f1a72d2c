//! What is asked about forecasts and models, and what an outside oracle tells.

use std::sync::Arc;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Request;
use crate::observe::Subject;
use crate::observe::access::{KEY_LEN_MAX, WORD_LEN_MAX};
use crate::predict::target::{Kind, Target, subject};
use crate::serve::problem::Problem;
use crate::serve::query::{Chance, Query, Until};
use crate::units::parse_span;

/// Members of a list when the asker does not say.
const LIMIT: usize = 50;
/// Longest object: a partition, a separator and a key.
const OBJECT_LEN_MAX: usize = WORD_LEN_MAX + 1 + KEY_LEN_MAX;
/// Longest time that is asked about or told of, in seconds: a year.
const SECONDS_MAX: u32 = 366 * 86_400;

pub fn all(request: &Request<'_>) -> Result<Query, Problem> {
    let parameter = |name: &str| request.parameters.get(name).map(String::as_str);
    Ok(Query::Forecasts {
        object: parameter("object").map(object).transpose()?,
        kind: parameter("kind").map(kind).transpose()?,
        within: parameter("within")
            .map(|text| lasting("within", text))
            .transpose()?,
        limit: request.limit(LIMIT)?,
    })
}

pub fn explain(request: &Request<'_>) -> Result<Query, Problem> {
    let object = object(&request.parts[0])?;
    Ok(Query::Explain { object })
}

pub fn log(request: &Request<'_>) -> Result<Query, Problem> {
    let limit = request.limit(LIMIT)?;
    Ok(Query::ModelLog { limit })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HintBody {
    object: String,
    kind: Option<String>,
    region: Option<String>,
    chance: f64,
    until: When,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Seconds(f64),
    Text(String),
}

pub fn hint(request: &Request<'_>) -> Result<Query, Problem> {
    let body: HintBody = request.json()?;
    let chance = Chance::new(body.chance).ok_or_else(|| {
        Problem::bad_request(format!("chance is {}: 0 to 1 is accepted", body.chance))
    })?;
    let region = body.region.map(region).transpose()?;
    let kind = body.kind.as_deref().map_or(Ok(Kind::Access), kind)?;
    let target = Target {
        subject: object(&body.object)?,
        kind,
        region,
    };
    Ok(Query::Hint {
        target,
        chance,
        until: until(body.until)?,
    })
}

fn object(text: &str) -> Result<Subject, Problem> {
    let fits = text.len() <= OBJECT_LEN_MAX;
    subject(text).filter(|_| fits).ok_or_else(|| {
        let text: String = text.chars().take(WORD_LEN_MAX).collect();
        Problem::bad_request(format!(
            "{text:?} is no object: write node, a partition, partition/segment/NUMBER, \
             partition#key or #key"
        ))
    })
}

fn kind(text: &str) -> Result<Kind, Problem> {
    Kind::named(text).ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        Problem::bad_request(format!("kind is {text}: one of {names} is accepted"))
    })
}

fn region(text: String) -> Result<Arc<str>, Problem> {
    if (1..=WORD_LEN_MAX).contains(&text.len()) {
        return Ok(text.into());
    }
    let why = format!("region is empty, or longer than {WORD_LEN_MAX} bytes");
    Err(Problem::bad_request(why))
}

/// A length of time, in seconds.
fn lasting(name: &str, text: &str) -> Result<u32, Problem> {
    let span = parse_span(text);
    let span = span.map_err(|error| Problem::bad_request(format!("{name}: {error}")))?;
    let seconds = u32::try_from(span.0 / 1_000_000_000).ok();
    let refused = || Problem::bad_request(format!("{name} is {text}: write 1s to 366d"));
    seconds
        .filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
        .ok_or_else(refused)
}

fn until(when: When) -> Result<Until, Problem> {
    let text = match when {
        When::Seconds(seconds) if seconds.is_finite() => return Ok(Until::At(seconds as i64)),
        When::Seconds(_) => String::new(),
        When::Text(text) => text,
    };
    if let Ok(seconds) = text.parse() {
        return Ok(Until::At(seconds));
    }
    if let Ok(time) = OffsetDateTime::parse(&text, &Rfc3339) {
        return Ok(Until::At(time.unix_timestamp()));
    }
    lasting("until", &text).map(Until::After).map_err(|_| {
        Problem::bad_request(format!(
            "until is {text:?}: write a time as in 2026-01-31T18:00:00Z, seconds since 1970, or \
             how long from now, as in 2h"
        ))
    })
}
