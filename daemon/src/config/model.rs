//! `[model]` and `[model.healthy]`: who foretells, how far ahead, and when it is learned anew.

use model::learned::{Kind, Schema};
use model::trial::Rules;
use wal::Span;

use super::ObserveConfig;
use super::raw::{self, Value};
use super::units::{Rate, Share, Size, parse_span, print_span};
use super::values::{Checker, SPAN_HELP};
use crate::predict::Settings;
use crate::predict::target::Healthy;

const SECOND: Span = Span::secs(1);
const HOUR: Span = Span::secs(3_600);
const DAY: Span = Span::secs(86_400);
/// What is remembered of a target is a week: farther ahead nothing can be known.
const HORIZON_MAX: Span = Span::secs(7 * 86_400);
/// Horizons, at most: each is one more number in every forecast.
const HORIZONS_MAX: usize = 8;

/// `[model]`: how is foretold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelConfig {
    /// Which forecasters speak.
    pub kind: Kind,
    /// How far ahead values are foretold, and chances that are asked for without a horizon.
    pub horizon: Span,
    /// Chances are foretold within each of them.
    pub horizons: Vec<Span>,
    pub training_interval: Span,
    /// For how long a forecast holds.
    pub prediction_interval: Span,
    /// Objects, kinds and regions of which is foretold.
    pub targets: u32,
    /// On disk: bins that were seen, for the next start.
    pub replay: Size,
    /// Share of the objects on which nobody acts.
    pub control_share: Share,
    /// A trial is judged by what was lost in such stretches of time.
    pub trial_block: Span,
    pub trial_blocks: u32,
    pub trial_events: u32,
    pub healthy: HealthyConfig,
}

/// `[model.healthy]`: above this it is an overload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthyConfig {
    pub cpu: Share,
    pub memory: Share,
    pub io: Share,
    pub pressure: Share,
    /// Of one partition.
    pub changes: Rate,
}

impl ModelConfig {
    /// How to predict from bins of this length.
    pub fn settings(&self, bin_seconds: u32) -> Settings {
        let horizons: Vec<u32> = self.horizons.iter().copied().map(seconds).collect();
        let schema = Schema::new(bin_seconds, seconds(self.horizon), &horizons);
        let schema = schema.expect("a configuration has a horizon");
        let block = (seconds(self.trial_block) / schema.step).max(1);
        Settings {
            kind: self.kind,
            schema,
            targets_max: self.targets as usize,
            interval: seconds(self.prediction_interval),
            training_interval: seconds(self.training_interval),
            control_share: self.control_share.get(),
            healthy: Healthy {
                cpu: self.healthy.cpu.get(),
                memory: self.healthy.memory.get(),
                io: self.healthy.io.get(),
                pressure: self.healthy.pressure.get(),
                changes: self.healthy.changes.0 as f64,
            },
            rules: Rules {
                blocks: self.trial_blocks as usize,
                events: u64::from(self.trial_events),
                ..Rules::default()
            },
            block: block as usize,
        }
    }

    /// What holds when the file says nothing, with bins of this length.
    fn of_bins(bin: Span) -> ModelConfig {
        // A day has no whole number of odd bins.
        let trial_block = Span((DAY.0 / bin.0.max(1)).max(1) * bin.0);
        ModelConfig {
            kind: Kind::default(),
            horizon: HOUR,
            horizons: [900, 3_600, 21_600, 86_400].map(Span::secs).into(),
            training_interval: Span::secs(21_600),
            prediction_interval: bin,
            targets: 2_048,
            replay: Size::mib(64),
            control_share: Share::percent(5),
            trial_block,
            trial_blocks: 7,
            trial_events: 200,
            healthy: HealthyConfig::default(),
        }
    }
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        ModelConfig::of_bins(ObserveConfig::default().bin)
    }
}

impl Default for HealthyConfig {
    fn default() -> HealthyConfig {
        HealthyConfig {
            cpu: Share::percent(85),
            memory: Share::percent(95),
            io: Share::percent(90),
            pressure: Share::percent(40),
            changes: Rate(16 << 20),
        }
    }
}

fn seconds(span: Span) -> u32 {
    u32::try_from(span.0 / SECOND.0).unwrap_or(u32::MAX)
}

impl Checker<'_> {
    pub fn model(&mut self, raw: raw::Model, bin: Span) -> ModelConfig {
        let default = ModelConfig::of_bins(bin);
        let replay = (Size::mib(1), Size::mib(16 << 10));
        let training = (Span::secs(60), Span::secs(30 * 86_400));
        ModelConfig {
            kind: self.model_kind(raw.kind),
            horizon: self.span(
                "model.horizon",
                raw.horizon,
                default.horizon,
                (SECOND, HORIZON_MAX),
            ),
            horizons: self.horizons(raw.horizons, default.horizons),
            training_interval: self.span(
                "model.training_interval",
                raw.training_interval,
                default.training_interval,
                training,
            ),
            prediction_interval: self.span(
                "model.prediction_interval",
                raw.prediction_interval,
                default.prediction_interval,
                (SECOND, DAY),
            ),
            targets: self.number(
                "model.targets",
                raw.targets,
                default.targets,
                (1, 1_000_000),
            ),
            replay: self.size("model.replay", raw.replay, default.replay, replay),
            control_share: self.share(
                "model.control_share",
                raw.control_share,
                default.control_share,
                (Share::NONE, Share::percent(50)),
            ),
            trial_block: self.trial_block(raw.trial_block, default.trial_block, bin),
            trial_blocks: self.number(
                "model.trial_blocks",
                raw.trial_blocks,
                default.trial_blocks,
                (2, 64),
            ),
            trial_events: self.number(
                "model.trial_events",
                raw.trial_events,
                default.trial_events,
                (0, 1_000_000),
            ),
            healthy: self.healthy(raw.healthy),
        }
    }

    fn model_kind(&mut self, value: Value<String>) -> Kind {
        let Some(value) = value else {
            return Kind::default();
        };
        let (at, text) = (value.span(), self.expand("model.kind", value));
        Kind::named(&text).unwrap_or_else(|| {
            let help = format!("write one of {}", Kind::NAMES.join(", "));
            self.refuse(
                "model.kind",
                Some(at),
                format!("{text:?} is not known"),
                help,
            );
            Kind::default()
        })
    }

    fn horizons(
        &mut self,
        value: Value<Vec<toml::Spanned<String>>>,
        default: Vec<Span>,
    ) -> Vec<Span> {
        let Some(value) = value else { return default };
        let (at, list) = (value.span(), value.into_inner());
        if !(1..=HORIZONS_MAX).contains(&list.len()) {
            let why = format!("has {} members", list.len());
            let help = format!("write 1 to {HORIZONS_MAX} of them, as in [\"15min\", \"1h\"]");
            self.refuse("model.horizons", Some(at), why, help);
            return default;
        }
        let within = (SECOND, HORIZON_MAX);
        list.into_iter()
            .map(|one| self.span("model.horizons", Some(one), HOUR, within))
            .collect()
    }

    fn trial_block(&mut self, value: Value<String>, default: Span, bin: Span) -> Span {
        let Some(value) = value else { return default };
        let (at, text) = (value.span(), self.expand("model.trial_block", value));
        let max = Span::secs(30 * 86_400);
        match parse_span(&text) {
            Ok(block) if block >= bin && block <= max && block.0.is_multiple_of(bin.0) => {
                return block;
            }
            Ok(block) => {
                let (bin, max) = (print_span(bin), print_span(max));
                let why = format!("{} is no whole number of bins", print_span(block));
                let help = format!("write a multiple of observe.bin = {bin}, up to {max}");
                self.refuse("model.trial_block", Some(at), why, help);
            }
            Err(error) => self.refuse_unit("model.trial_block", at, &error, SPAN_HELP),
        }
        default
    }

    fn healthy(&mut self, raw: raw::Healthy) -> HealthyConfig {
        let default = HealthyConfig::default();
        let some = (Share::LEAST, Share::ALL);
        HealthyConfig {
            cpu: self.share("model.healthy.cpu", raw.cpu, default.cpu, some),
            memory: self.share("model.healthy.memory", raw.memory, default.memory, some),
            io: self.share("model.healthy.io", raw.io, default.io, some),
            pressure: self.share(
                "model.healthy.pressure",
                raw.pressure,
                default.pressure,
                some,
            ),
            changes: self.changes(raw.changes, default.changes),
        }
    }

    fn changes(&mut self, value: Value<String>, default: Rate) -> Rate {
        let at = value.as_ref().map(|value| value.span());
        if at.is_none() {
            return default;
        }
        let (key, errors) = ("model.healthy.changes", self.errors.len());
        let rate = self.rate(key, value);
        if rate == Rate::UNLIMITED && self.errors.len() == errors {
            let help = "write bytes a second, as in \"16MiB\"";
            self.refuse(key, at, "is 0: then everything were an overload", help);
        }
        rate
    }
}
