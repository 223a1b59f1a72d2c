//! What is said of forecasts, word by word.

use model::learned::{CHANCE_INPUTS, input_name};

use super::super::forecasts::{ForecastReply, HintReply, ValueReply};
use super::*;

fn input(name: &str, is: f32, adds: f32) -> InputReply {
    InputReply {
        name: name.to_owned(),
        is,
        adds,
    }
}

fn reply() -> ExplainReply {
    ExplainReply {
        now: 10_000,
        bin_seconds: 300,
        horizons: vec![900, 3_600],
        ahead: 3_600,
        ..ExplainReply::default()
    }
}

fn reasons() -> ReasonsReply {
    let chances = vec![0.5, 0.82];
    let member = |name: &str, chance| ChancesReply {
        name: name.to_owned(),
        chances: vec![0.0, chance],
    };
    ReasonsReply {
        own: chances.clone(),
        forecast: ForecastReply {
            chances,
            ..ForecastReply::default()
        },
        chances: vec![
            member("logistic", 0.75),
            member("trees", 0.81),
            member("lstm", 0.97),
        ],
        rate: Some(0.125),
        akin: Some(0.09),
        last: Some(10_000 - 2_400),
        ..ReasonsReply::default()
    }
}

fn first(reasons: &ReasonsReply) -> String {
    sentences(&reply(), reasons, 1).remove(0)
}

#[test]
fn a_forecast_names_what_raises_it_and_what_holds_it_back() {
    let mut reasons = reasons();
    reasons.inputs = vec![
        input("how often at this time of day", 0.6, 0.7),
        input("time since it happened last", 0.5, 1.5),
        input("how often ever", 0.3, 0.6),
        input("happened just now", 0.0, -0.4),
        input("value now", 2.0, 0.05),
    ];
    assert_eq!(
        first(&reasons),
        "Likely (82 % within 1 h), because it happened 40 min ago and it happens in 60 % of bins \
         at this time of day; it is held back because it did not happen just now."
    );
    reasons.inputs.truncate(1);
    assert_eq!(
        first(&reasons),
        "Likely (82 % within 1 h), because it happens in 60 % of bins at this time of day."
    );
    reasons.inputs = vec![input("one bin ago", -1.0, -0.2)];
    assert_eq!(
        first(&reasons),
        "Likely (82 % within 1 h); it is held back because its number is low (one bin ago)."
    );
}

#[test]
fn what_means_one_thing_counts_together() {
    let mut reasons = reasons();
    reasons.inputs = vec![
        input("hour (sine)", 0.5, 0.9),
        input("hour (cosine)", 0.5, -0.7),
        input("weekday (sine)", 0.5, 0.08),
        input("weekday (cosine)", 0.5, 0.08),
    ];
    assert_eq!(
        first(&reasons),
        "Likely (82 % within 1 h), because of the hour of the day and of the day of the week."
    );
}

#[test]
fn without_a_model_the_rate_speaks() {
    assert_eq!(
        first(&reasons()),
        "Likely (82 % within 1 h), because it happens in 12 % of bins of 5 min, and in 9.0 % to \
         what is akin."
    );
    let nothing = ReasonsReply::default();
    assert_eq!(first(&nothing), "Nothing is known of it yet.");
}

#[test]
fn a_hint_is_told_with_what_the_model_says() {
    let mut reasons = reasons();
    reasons.forecast.chances = vec![0.9, 0.9];
    reasons.forecast.hint = Some(HintReply {
        chance: 0.9,
        until: 17_200,
    });
    let hinted = "Very likely (90 % within 1 h), because a hint says so for another 2 h; ";
    let model = format!("{hinted}by itself the model says 82 %.");
    assert_eq!(first(&reasons), model);
    reasons.own.clear();
    assert_eq!(
        first(&reasons),
        format!("{hinted}the model knows nothing of it.")
    );
}

#[test]
fn the_member_that_moved_the_mix_is_named() {
    let mut reasons = reasons();
    let second = |reasons: &ReasonsReply| sentences(&reply(), reasons, 1).remove(1);
    assert_eq!(
        second(&reasons),
        "Asked one by one, logistic says 75 %, trees says 81 % and lstm says 97 %; lstm raises it \
         most."
    );
    reasons.chances[0].chances[1] = 0.1;
    assert!(second(&reasons).ends_with("; logistic lowers it most."));
    reasons.chances.truncate(1);
    assert_eq!(second(&reasons), "No forecast of it could be judged yet.");
}

#[test]
fn the_value_names_whose_word_weighs_most() {
    let mut reasons = reasons();
    let member = |name: &str, says, weighs| ValueReply {
        name: name.to_owned(),
        says,
        weighs,
    };
    reasons.forecast.value = Some(12.34);
    reasons.values = vec![
        member("ewma", Some(9.0), 0.2),
        member("seasonal", Some(140.0), 0.61),
        member("weekly", None, 0.9),
    ];
    let all = sentences(&reply(), &reasons, 1);
    let expected = "The number expected 1 h from now is 12.3; most weight has seasonal (61 %), \
                    which says 140.";
    assert_eq!(all[2], expected);
}

#[test]
fn past_forecasts_are_counted() {
    let last = |said, right, happened| {
        let mut reasons = reasons();
        reasons.forecast.hits = HitsReply {
            judged: 120,
            said,
            right,
            happened,
            brier: None,
        };
        reasons.chances.clear();
        sentences(&reply(), &reasons, 1).remove(1)
    };
    let tail = "by 120 forecasts within 15 min that could be judged.";
    assert_eq!(
        last(10, 8, 9),
        format!(
            "It was said to be likelier than not 10 times, and happened 8 times; it happened 9 \
             times in all, {tail}"
        )
    );
    assert_eq!(
        last(1, 0, 1),
        format!(
            "It was said to be likelier than not once, and never happened; it happened once in \
             all, {tail}"
        )
    );
    assert_eq!(
        last(0, 0, 0),
        format!("It was never said to be likelier than not; it never happened in all, {tail}")
    );
}

#[test]
fn the_control_set_is_told() {
    let mut reasons = reasons();
    reasons.forecast.control = true;
    let all = sentences(&reply(), &reasons, 1);
    assert!(all.iter().any(|one| one.contains("control set")), "{all:?}");
}

#[test]
fn every_input_has_words() {
    let reasons = ReasonsReply {
        last: None,
        ..reasons()
    };
    for at in 0..CHANCE_INPUTS {
        let mut words = std::collections::BTreeSet::new();
        for is in [-1.0, 0.0, 1.0] {
            let input = topics(&[input(input_name(at), is, 1.0)]).remove(0);
            let said = clause(&reply(), &reasons, &input);
            let begins = ["it ", "its ", "of ", "lately "]
                .iter()
                .any(|w| said.starts_with(w));
            assert!(begins, "{said}");
            words.insert(said);
        }
        assert!(!words.contains("its number is as usual (?)"), "{words:?}");
    }
    let occurs: Vec<&str> = (0..CHANCE_INPUTS).map(input_name).collect();
    for name in [
        "happened just now",
        "distance to the limit",
        "how often for what is akin",
    ] {
        assert!(occurs.contains(&name), "{name} is the model's word");
    }
}

#[test]
fn shares_times_and_numbers_are_short() {
    let said = [0.0, 0.004, 0.0951, 0.1, 0.825, 0.996, 1.0].map(percent);
    assert_eq!(
        said,
        ["0 %", "0.4 %", "9.5 %", "10 %", "82 %", "99.6 %", "100 %"]
    );
    let said = [0, 45, 60, 2_445, 3_600, 5_400, 86_400, 90_000, 86_430].map(lasting);
    let expected = [
        "0 s",
        "45 s",
        "1 min",
        "40 min 45 s",
        "1 h",
        "1 h 30 min",
        "1 d",
        "1 d 1 h",
        "1 d",
    ];
    assert_eq!(said, expected);
    let said = [0.0, 0.001, 0.5, 12.34, 1234.5].map(number);
    assert_eq!(said, ["0", "1.0e-3", "0.50", "12.3", "1234"]);
}
