//! What `[model]` means, and the exact words for what is wrong with it.

use model::learned::Kind;
use wal::Span;

use super::model::*;
use super::tests::{RIGHT, parse_in, wrong_after_right};
use super::units::{Rate, Share, Size};
use crate::predict::target::Healthy;

fn right(text: &str) -> ModelConfig {
    let dir = tempfile::tempdir().expect("a directory");
    let config = parse_in(dir.path(), &format!("{RIGHT}{text}"));
    config.expect("right").model
}

#[test]
fn everything_is_foretold_unless_told_otherwise() {
    assert_eq!(right(""), ModelConfig::default());
    let settings = right("").settings(300);
    assert_eq!(settings.kind, Kind::Mix);
    assert_eq!((settings.schema.step, settings.schema.ahead), (300, 12));
    assert_eq!(settings.schema.horizons.bins(), [3, 12, 72, 288]);
    assert_eq!(
        (settings.interval, settings.training_interval),
        (300, 21_600)
    );
    assert_eq!((settings.targets_max, settings.block), (2_048, 288));
    assert_eq!((settings.rules.blocks, settings.rules.events), (7, 200));
    assert_eq!(settings.control_share, 0.05);
    assert_eq!(settings.healthy, Healthy::default());
}

#[test]
fn what_is_counted_in_bins_follows_their_length() {
    let model = right("[observe]\nbin = \"7s\"\n");
    assert_eq!(model.prediction_interval, Span::secs(7));
    assert_eq!(
        model.trial_block,
        Span::secs(86_394),
        "the whole bins of a day"
    );
    assert_eq!(model.settings(7).block, 12_342);
    let odd = right("[observe]\nbin = \"1h\"\n[model]\ntrial_block = \"6h\"\n");
    assert_eq!(odd.settings(3_600).block, 6);
}

#[test]
fn everything_can_be_set() {
    let model = right(
        "[model]\nkind = \"moving-average\"\nhorizon = \"2h\"\nhorizons = [\"30min\"]\n\
         training_interval = \"1min\"\nprediction_interval = \"1s\"\ntargets = 7\n\
         replay = \"1MiB\"\ncontrol_share = 0\ntrial_block = \"10min\"\ntrial_blocks = 2\n\
         trial_events = 3\n[model.healthy]\ncpu = 1\nmemory = 0.5\nio = 0.25\n\
         pressure = 0.125\nchanges = \"1MiB/s\"\n",
    );
    let healthy = HealthyConfig {
        cpu: Share::ALL,
        memory: Share::percent(50),
        io: Share::percent(25),
        pressure: Share::new(0.125).expect("a share"),
        changes: Rate(1 << 20),
    };
    assert_eq!(
        model,
        ModelConfig {
            kind: Kind::MovingAverage,
            horizon: Span::secs(7_200),
            horizons: vec![Span::secs(1_800)],
            training_interval: Span::secs(60),
            prediction_interval: Span::secs(1),
            targets: 7,
            replay: Size::mib(1),
            control_share: Share::NONE,
            trial_block: Span::secs(600),
            trial_blocks: 2,
            trial_events: 3,
            healthy,
        }
    );
    let settings = model.settings(300);
    assert_eq!((settings.kind, settings.interval), (Kind::MovingAverage, 1));
    assert_eq!(
        (settings.block, settings.rules.blocks, settings.rules.events),
        (2, 2, 3)
    );
    assert_eq!(settings.schema.horizons.bins(), [6]);
    assert_eq!(settings.healthy.changes, (1 << 20) as f64);
    assert_eq!(
        (settings.healthy.cpu, settings.healthy.pressure),
        (1.0, 0.125)
    );
    assert_eq!((settings.targets_max, settings.control_share), (7, 0.0));
}

#[test]
fn what_is_wrong_is_said() {
    for (text, words) in [
        ("kind = \"magic\"", "model.kind: \"magic\" is not known"),
        (
            "kind = \"magic\"",
            "write one of mix, lstm, rnn, moving-average, naive",
        ),
        ("horizon = \"0\"", "model.horizon: 0 is out of bounds"),
        ("horizon = \"8d\"", "help: write 1s to 7d"),
        ("horizons = []", "model.horizons: has 0 members"),
        (
            "horizons = [\"1h\", \"9d\"]",
            "6:19: model.horizons: 9d is out of bounds",
        ),
        (
            "horizons = [\"1s\",\"2s\",\"3s\",\"4s\",\"5s\",\"6s\",\"7s\",\"8s\",\"9s\"]",
            "has 9 members",
        ),
        ("horizons = \"1h\"", "model.horizons: invalid type"),
        ("training_interval = \"1s\"", "help: write 1min to 30d"),
        ("prediction_interval = \"2d\"", "help: write 1s to 1d"),
        ("targets = 0", "model.targets: 0 is out of bounds"),
        ("targets = 1000001", "help: write 1 to 1000000"),
        ("replay = \"1KiB\"", "help: write 1MiB to 16GiB"),
        (
            "control_share = 0.6",
            "model.control_share: 0.6 is out of bounds",
        ),
        ("control_share = nan", "help: write 0 to 0.5"),
        ("control_share = -0.1", "-0.1 is out of bounds"),
        ("trial_block = \"7min\"", "7min is no whole number of bins"),
        (
            "trial_block = \"1min\"",
            "write a multiple of observe.bin = 5min",
        ),
        ("trial_block = \"0\"", "is no whole number of bins"),
        ("trial_blocks = 1", "help: write 2 to 64"),
        ("trial_events = 4294967296", "help: write 0 to 1000000"),
        ("kinds = \"mix\"", "did you mean kind?"),
        (
            "[model.healthy]\ncpu = 0",
            "model.healthy.cpu: 0 is out of bounds",
        ),
        (
            "[model.healthy]\nmemory = 1.01",
            "model.healthy.memory: 1.01",
        ),
        ("[model.healthy]\nio = inf", "model.healthy.io: inf"),
        (
            "[model.healthy]\npressure = -1",
            "model.healthy.pressure: -1",
        ),
        (
            "[model.healthy]\nchanges = \"0\"",
            "model.healthy.changes: is 0",
        ),
        (
            "[model.healthy]\nchanges = \"fast\"",
            "does not begin with a number",
        ),
        ("[model.healthy]\ncpus = 1", "did you mean cpu?"),
    ] {
        let said = wrong_after_right(&format!("[model]\n{text}\n"));
        assert!(said.contains(words), "{text}:\n{said}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let said = wrong_after_right("[model]\nkind = \"magic\"\ntargets = 0\ntrial_blocks = 0\n");
    for key in ["model.kind", "model.targets", "model.trial_blocks"] {
        assert!(said.contains(key), "{key}:\n{said}");
    }
}
