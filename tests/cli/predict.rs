//! What a real daemon foretells: from the first bin, after a restart, with hints, with a model that
//! it learned, and with one that is damaged.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use foreshadow::cli::demo::harness::{Cluster, Node};
use foreshadow::observe::Subject;
use foreshadow::predict::Seen;
use foreshadow::predict::target::{Kind, Target};
use foreshadow::runtime::foresee::replay::Replay;
use serde_json::Value;

use crate::cluster::{options, tenants, until};
use crate::command::{ask, foreshadow};
use crate::http::request;

const MODEL: &str = "[observe]\nbin = \"1s\"\nload_every = \"1s\"\n[model]\nhorizon = \"2s\"\n\
                     horizons = [\"2s\", \"10s\"]\ntraining_interval = \"30d\"\n";

fn model_dir(node: &Node) -> PathBuf {
    node.place.state().join("model")
}

/// A cluster of one node that foretells from bins of a second; `before` is done before its start.
fn with(before: impl Fn(&Node)) -> Cluster {
    let mut cluster = Cluster::prepare(&options(1)).expect("prepared");
    let path = cluster.nodes[0].place.config();
    let text = fs::read_to_string(&path).expect("it was just written");
    fs::write(&path, text + MODEL).expect("written");
    cluster.create_tenants(&tenants(1, 1)).expect("a database");
    before(&cluster.nodes[0]);
    cluster.start_all().expect("ready");
    cluster
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs() as i64
}

/// Ten minutes of seconds that ended just now: `#even` is asked for in every other one, `#rare` in
/// every fiftieth.
fn past(node: &Node) {
    let dir = model_dir(node).join("replay");
    let mut replay = Replay::open(&dir, 1 << 20).expect("a directory");
    let target = |key: &str| Target {
        subject: Subject::Record {
            partition: None,
            key: Arc::from(key),
        },
        kind: Kind::Access,
        region: None,
    };
    let end = now();
    for begin in end - 600..end {
        let numbers = [("even", 2), ("rare", 50), ("third", 3)].map(|(key, every)| {
            let happened = begin % every == 0;
            (target(key), f32::from(u8::from(happened)))
        });
        let seen = Seen {
            begin,
            seconds: 1,
            missed: 0,
            numbers: numbers.into(),
        };
        replay.append(&seen).expect("written");
    }
}

fn forecast(node: &Node, object: &str) -> Option<Value> {
    let object = object.replace('#', "%23");
    let reply = node.get(&format!("/v1/forecasts?object={object}")).ok()?;
    reply["forecasts"].as_array()?.first().cloned()
}

#[test]
fn it_foretells_from_the_first_bin_and_takes_hints() {
    let cluster = with(|_| {});
    let node = &cluster.nodes[0];
    let lines = "{\"key\":\"hot\"}\n{\"key\":\"user:7\",\"region\":\"eu\"}\n";
    let hot = until("a forecast", || {
        request(node, "POST", "/v1/access", lines);
        forecast(node, "#hot")
    });
    assert_eq!(
        (&hot["kind"], &hot["model"]),
        (&"access".into(), &"rules".into()),
        "{hot}"
    );
    let chances = hot["chances"].as_array().expect("chances");
    assert!(chances[0].as_f64() > Some(0.1) && chances[1].as_f64() >= chances[0].as_f64());
    until("a forecast of the node", || forecast(node, "node"));
    let all = ask(node, &["forecast"]).exits(0);
    for word in ["#hot", "#user:7", "eu", "node", "overload"] {
        assert!(all.out.contains(word), "{word} is not in\n{}", all.out);
    }
    let why = ask(node, &["explain", "#hot"]).exits(0);
    assert!(why.out.contains("happen"), "{}", why.out);
    ask(node, &["explain", "#hott"])
        .exits(1)
        .complains(&["#hott", "#hot"]);
    ask(node, &["hint", "#hot", "--chance", "0.93", "--until", "1h"]).exits(0);
    let hinted = forecast(node, "#hot").expect("a forecast");
    assert!(
        (hinted["chances"][0].as_f64().expect("a chance") - 0.93).abs() < 1e-6,
        "{hinted}"
    );
    ask(node, &["hint", "#hot", "--chance", "1.5", "--until", "1h"]).exits(2);
    let back = ask(node, &["model", "rollback"]);
    assert_ne!(back.code, 0, "there is nothing to go back to: {back:#?}");
}

#[test]
fn what_was_seen_before_is_learned_from_and_the_model_survives() {
    let mut cluster = with(past);
    until("what was seen before the start", || {
        forecast(&cluster.nodes[0], "#even")
    });
    let trained = ask(&cluster.nodes[0], &["model", "train", "--wait"]).exits(0);
    let node = &cluster.nodes[0];
    let shown = ask(node, &["model", "show", "--json"]).exits(0).json();
    let challenger = shown["challenger"]["version"]
        .as_str()
        .expect("a challenger")
        .to_owned();
    assert_eq!(challenger.len(), 16, "{shown}\n{trained:#?}");
    assert!(
        shown["challenger"]["examples"].as_u64() > Some(1_000),
        "{shown}"
    );
    let log = ask(node, &["model", "log"]).exits(0);
    assert!(
        log.out.contains("challenged") && log.out.contains(&challenger),
        "{}",
        log.out
    );
    cluster.kill9("node-a").expect("killed");
    cluster.restart("node-a").expect("it starts again");
    let node = &cluster.nodes[0];
    let shown = ask(node, &["model", "show", "--json"]).exits(0).json();
    assert_eq!(
        shown["challenger"]["version"],
        challenger.as_str(),
        "after kill -9"
    );
    until("what was seen before the kill", || forecast(node, "#even"));
}

#[test]
fn a_damaged_or_foreign_model_is_refused_and_told_and_rules_speak() {
    let cluster = with(|node| {
        let dir = model_dir(node);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("champion.model"), b"FSMODEL\nand what is no model").expect("written");
        fs::write(dir.join("previous.model"), b"something else").expect("written");
    });
    let node = &cluster.nodes[0];
    let shown = ask(node, &["model", "show", "--json"]).exits(0).json();
    assert_eq!(shown["champion"]["version"], "rules", "{shown}");
    let dir = model_dir(node);
    assert!(dir.join("champion.refused").exists() && dir.join("previous.refused").exists());
    let log = fs::read_to_string(node.place.log()).expect("a log");
    for word in [
        "refused and set aside",
        "champion.model",
        "not a model of Foreshadow",
    ] {
        assert!(log.contains(word), "{word} is not in the log");
    }
}

/// Hours of three items with a daily peak, as a trace.
fn trace() -> String {
    let mut text = String::from("time,item,value\n");
    for hour in 0..24 * 30_u32 {
        for item in 0..3 {
            let peak = if hour % 24 == 6 + item { 20 } else { 0 };
            let value = peak + hour * (item + 7) * 7_919 % 11;
            text += &format!("{},item{item},{value}\n", hour * 3600);
        }
    }
    text
}

#[test]
fn an_evaluation_says_and_draws_how_good_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, plot) = (dir.path().join("trace.csv"), dir.path().join("plot.svg"));
    fs::write(&file, trace()).expect("written");
    let path = |path: &PathBuf| path.to_str().expect("text").to_owned();
    let (file, plot) = (path(&file), path(&plot));
    let arguments = ["model", "eval", "--rounds", "1", "--json", "--trace", &file];
    let said = foreshadow(&[&arguments[..], &["--plot", &plot]].concat())
        .exits(0)
        .json();
    let mix = said["mix"].as_object().expect("the mix");
    for key in [
        "skill_vs_seasonal_median",
        "skill_vs_ewma_median",
        "skill_mean",
        "skill_worst",
        "share_won",
        "brier_skill",
        "ece",
        "auc",
    ] {
        assert!(mix[key].is_f64(), "{key}: {said}");
        assert!(said["members"]["lstm"].get(key).is_some(), "{key}: {said}");
    }
    assert!(said["lstm_marginal"].is_f64());
    assert!(
        mix["brier_skill"].as_f64() > Some(0.3),
        "a peak at six is foretold: {said}"
    );
    let drawn = fs::read_to_string(plot).expect("drawn");
    assert!(drawn.starts_with("<svg") && drawn.contains("what was foretold"));
    let nowhere = foreshadow(&["model", "eval", "--trace", "/nowhere.csv"]).exits(1);
    nowhere.complains(&["/nowhere.csv"]);
}
