//! Why a forecast is what it is, in words that a person understands.
//!
//! Only what is known is said: an input's clause tells what the input is, and whether it raises or
//! lowers the chance is the regression's word, the one member whose reasons are a sum.

use super::forecasts::{ChancesReply, ExplainReply, HitsReply, InputReply, ReasonsReply};

/// What an input adds to the logarithm of the odds has to be this much to be worth a word.
const WORTH: f32 = 0.1;
/// Clauses for, and clauses against.
const CLAUSES_MAX: usize = 2;
/// A member that lies nearer to what the mix says did not move it.
const MOVED: f32 = 0.02;

/// All that is to be said of `reasons`, which are of the object of `reply`, within the horizon of
/// this index.
pub fn sentences(reply: &ExplainReply, reasons: &ReasonsReply, horizon: usize) -> Vec<String> {
    let mut all = vec![outlook(reply, reasons, horizon)];
    all.extend(members(reasons, horizon));
    all.extend(value(reply, reasons));
    all.push(hits(reply, &reasons.forecast.hits));
    if reasons.forecast.control {
        all.push("Nobody acts on it: it is in the control set.".to_owned());
    }
    all
}

/// A share of 1: one decimal where it matters.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let near = (0.0..9.95).contains(&percent) || (percent > 99.0 && percent < 100.0);
    match near && percent != 0.0 {
        true => format!("{percent:.1} %"),
        false => format!("{percent:.0} %"),
    }
}

/// A length of time in its two largest units.
pub fn lasting(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (length, unit) in units {
        let count = rest / length;
        if count == 0 && !parts.is_empty() {
            break;
        }
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        }
        rest %= length;
        if parts.len() == 2 {
            break;
        }
    }
    match parts.is_empty() {
        true => "0 s".to_owned(),
        false => parts.join(" "),
    }
}

fn between(from: i64, to: i64) -> String {
    lasting(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

fn seconds(horizon: Option<&u32>) -> String {
    lasting(u64::from(horizon.copied().unwrap_or(0)))
}

fn share(share: f32) -> String {
    percent(f64::from(share))
}

/// `a`, `a and b`, `a, b and c`.
fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn outlook(reply: &ExplainReply, reasons: &ReasonsReply, horizon: usize) -> String {
    let said = reasons.forecast.chances.get(horizon).copied();
    let Some(chance) = said else {
        return "Nothing is known of it yet.".to_owned();
    };
    let word = match chance {
        0.9.. => "Very likely",
        0.6.. => "Likely",
        0.4.. => "As likely as not",
        0.1.. => "Unlikely",
        _ => "Very unlikely",
    };
    let within = seconds(reply.horizons.get(horizon));
    let why = match &reasons.forecast.hint {
        Some(hint) => {
            let model = match reasons.own.get(horizon) {
                Some(own) => format!("by itself the model says {}", share(*own)),
                None => "the model knows nothing of it".to_owned(),
            };
            let left = between(reply.now, hint.until);
            format!(", because a hint says so for another {left}; {model}")
        }
        None => causes(reply, reasons),
    };
    format!("{word} ({} within {within}){why}.", share(chance))
}

/// What raises the chance, and what holds it back.
fn causes(reply: &ExplainReply, reasons: &ReasonsReply) -> String {
    let topics = topics(&reasons.inputs);
    let clauses = |sign: f32| {
        let mut fit: Vec<&InputReply> = topics.iter().filter(|t| t.adds * sign > WORTH).collect();
        fit.sort_by(|one, two| two.adds.abs().total_cmp(&one.adds.abs()));
        let fit = fit.into_iter().take(CLAUSES_MAX);
        let fit: Vec<String> = fit.map(|input| clause(reply, reasons, input)).collect();
        list(&fit)
    };
    let (raises, lowers) = (clauses(1.0), clauses(-1.0));
    match (raises.is_empty(), lowers.is_empty()) {
        (false, false) => format!(", because {raises}; it is held back because {lowers}"),
        (false, true) => format!(", because {raises}"),
        (true, false) => format!("; it is held back because {lowers}"),
        (true, true) => rates(reply, reasons),
    }
}

fn rates(reply: &ExplainReply, reasons: &ReasonsReply) -> String {
    let Some(rate) = reasons.rate else {
        return String::new();
    };
    let bin = lasting(u64::from(reply.bin_seconds));
    let akin = reasons.akin.map(share);
    let akin = akin.map_or_else(String::new, |akin| {
        format!(", and in {akin} to what is akin")
    });
    format!(
        ", because it happens in {} of bins of {bin}{akin}",
        share(rate)
    )
}

/// Inputs, those that mean one thing taken together.
fn topics(inputs: &[InputReply]) -> Vec<InputReply> {
    let mut topics: Vec<InputReply> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let name = input.name.split(" (").next().unwrap_or_default();
        match topics.iter_mut().find(|topic| topic.name == name) {
            Some(topic) => topic.adds += input.adds,
            None => topics.push(InputReply {
                name: name.to_owned(),
                ..input.clone()
            }),
        }
    }
    topics
}

/// What an input says, as a clause. The names are those of `model::learned::input_name`.
fn clause(reply: &ExplainReply, reasons: &ReasonsReply, input: &InputReply) -> String {
    let (is, often) = (input.is, share(input.is));
    let level = |high, low, usual| match is {
        0.5.. => high,
        _ if is <= -0.5 => low,
        _ => usual,
    };
    match input.name.as_str() {
        "happened just now" if is > 0.5 => "it happened just now".to_owned(),
        "happened just now" => "it did not happen just now".to_owned(),
        "how often lately" => format!("lately it happened in {often} of bins"),
        "how often ever" => format!("it happens in {often} of all bins"),
        "how often at this time of day" => {
            format!("it happens in {often} of bins at this time of day")
        }
        "how often within the longest horizon's time of day" => {
            let longest = seconds(reply.horizons.last());
            format!("it happens in {often} of bins in the {longest} that come")
        }
        "how often for what is akin" => format!("it happens in {often} of bins to what is akin"),
        "time since it happened last" => match reasons.last {
            Some(last) => format!("it happened {} ago", between(last, reply.now)),
            None => "it never happened".to_owned(),
        },
        "time between the last two" => "of how far the last two times lay apart".to_owned(),
        "distance to the limit" => {
            let side = if is < 0.0 { "above" } else { "below" };
            let far = is.abs();
            format!("its number is usually {far:.1} deviations {side} the limit")
        }
        "hour" => "of the hour of the day".to_owned(),
        "weekday" => "of the day of the week".to_owned(),
        "change since the bin before" => {
            let went = level("rose", "fell", "stayed as it was");
            format!("its number {went} since the bin before")
        }
        "bins since a value was there" => "of how old its newest number is".to_owned(),
        "deviation against level" => "of how much its number varies".to_owned(),
        name => {
            let level = level("high", "low", "as usual");
            format!("its number is {level} ({name})")
        }
    }
}

/// What each member says, and who moved the mix.
fn members(reasons: &ReasonsReply, horizon: usize) -> Option<String> {
    let own = *reasons.own.get(horizon)?;
    let said = |member: &ChancesReply| Some((member.name.clone(), *member.chances.get(horizon)?));
    let said: Vec<(String, f32)> = reasons.chances.iter().filter_map(said).collect();
    if said.len() < 2 {
        return None;
    }
    let each: Vec<String> = said
        .iter()
        .map(|(name, chance)| format!("{name} says {}", share(*chance)))
        .collect();
    let most = said.iter().max_by(|(_, one), (_, two)| {
        let off = |chance: &f32| (chance - own).abs();
        off(one).total_cmp(&off(two))
    });
    let moved = most.filter(|(_, chance)| (chance - own).abs() > MOVED);
    let moved = moved.map_or_else(String::new, |(name, chance)| {
        let way = if *chance > own { "raises" } else { "lowers" };
        format!("; {name} {way} it most")
    });
    Some(format!("Asked one by one, {}{moved}.", list(&each)))
}

fn value(reply: &ExplainReply, reasons: &ReasonsReply) -> Option<String> {
    let value = reasons.forecast.value?;
    let ahead = lasting(u64::from(reply.ahead));
    let known = reasons.values.iter();
    let known = known.filter_map(|member| Some((member, member.says?)));
    let most = known.max_by(|(one, _), (two, _)| one.weighs.total_cmp(&two.weighs));
    let most = most.map_or_else(String::new, |(member, says)| {
        let weighs = percent(member.weighs);
        let says = number(says);
        format!(
            "; most weight has {} ({weighs}), which says {says}",
            member.name
        )
    });
    let value = number(value);
    Some(format!(
        "The number expected {ahead} from now is {value}{most}."
    ))
}

/// A number in about three digits.
pub fn number(value: f32) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.01.. => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

fn hits(reply: &ExplainReply, hits: &HitsReply) -> String {
    let times = |count: u64| match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let did = |count: u64| match count {
        0 => "never happened".to_owned(),
        count => format!("happened {}", times(count)),
    };
    if hits.judged == 0 {
        return "No forecast of it could be judged yet.".to_owned();
    }
    let within = seconds(reply.horizons.first());
    let said = match hits.said {
        0 => "It was never said to be likelier than not".to_owned(),
        said => format!(
            "It was said to be likelier than not {}, and {}",
            times(said),
            did(hits.right)
        ),
    };
    format!(
        "{said}; it {} in all, by {} forecasts within {within} that could be judged.",
        did(hits.happened),
        hits.judged
    )
}

#[cfg(test)]
mod tests;
