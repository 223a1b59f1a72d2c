//! Every metric: name, kind, unit and meaning, declared once; and how Prometheus reads them.

use std::sync::OnceLock;

use metrics::Unit;
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// Above so many partitions a series per partition costs more than it tells.
pub const LABELLED_PARTITIONS_MAX: usize = 1000;

/// One metric. Use: `metrics::counter!(metric::SWITCHOVER_TOTAL.name, "result" => "done")`.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// What it counts, and its labels.
    pub help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:ident, $unit:ident, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: $kind, unit: Unit::$unit, help: $help };
        )*
        /// Every metric.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics_table! {
    TAIL_LAG_SECONDS = "foreshadow_tail_lag_seconds", Gauge, Seconds,
        "How long a commit may have waited to be noticed; worst of the last second {shard}";
    SHADOW_LAG_BYTES = "foreshadow_shadow_lag_bytes", Gauge, Bytes,
        "Bytes that a shadow is behind its source; worst one {shard}";
    SHADOW_WARM_RATIO = "foreshadow_shadow_warm_ratio", Gauge, Count,
        "Share of the shadows that could take over now";
    DELTA_BYTES_TOTAL = "foreshadow_delta_bytes_total", Counter, Bytes,
        "Bytes {dir: in|out, stage: encoded|wire, peer, lane, shard}";
    SWITCHOVER_PAUSE_SECONDS = "foreshadow_switchover_pause_seconds", Histogram, Seconds,
        "How long writers were held by a move";
    SWITCHOVER_TOTAL = "foreshadow_switchover_total", Counter, Count,
        "Moves {result: done|aborted}";
    VERIFY_FAILURES_TOTAL = "foreshadow_verify_failures_total", Counter, Count,
        "Copies that could not be kept or differed from their source";
    DISK_FULL = "foreshadow_disk_full", Gauge, Count,
        "1 while a write failed for lack of space";
    FENCING_TOKEN = "foreshadow_fencing_token", Gauge, Count,
        "Epoch under which a partition is served here {partition}";
    PARTITIONS = "foreshadow_partitions", Gauge, Count,
        "Partitions {role: owner|shadow|remote|refused, shard}";
    PEER_UP = "foreshadow_peer_up", Gauge, Count,
        "1 while a link to a peer stands {peer, lane}";
    ACCESS_EVENTS_TOTAL = "foreshadow_access_events_total", Counter, Count,
        "Access events that were counted {source}";
    ACCESS_MALFORMED_TOTAL = "foreshadow_access_malformed_total", Counter, Count,
        "Lines that were no access event {source}";
    OBSERVE_BYTES = "foreshadow_observe_bytes", Gauge, Bytes,
        "Memory of what is observed, of observe.max_bytes";
    OBSERVE_DROPPED_TOTAL = "foreshadow_observe_dropped_total", Counter, Count,
        "Hand-overs to the observe thread that found its queue full";
    FORECASTS = "foreshadow_forecasts", Gauge, Count,
        "Targets in the book of forecasts";
    FORECAST_BRIER = "foreshadow_forecast_brier", Gauge, Count,
        "Mean squared error of chances within the shortest horizon since the start; 0 is perfect";
    MODEL_TRAININGS_TOTAL = "foreshadow_model_trainings_total", Counter, Count,
        "Trainings that ended";
    BUILD_INFO = "foreshadow_build_info", Gauge, Count,
        "Always 1 {version, node}";
}

/// Pauses are milliseconds, lags microseconds: bounds from 50 us to 10 s, in steps of about 2.
const SECONDS_BUCKETS: &[f64] = &[
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 10.0,
];

/// Reads the metrics out.
#[derive(Clone, Debug)]
pub struct Meter(PrometheusHandle);

impl Meter {
    /// Makes this process's metrics readable. Once per process; a second time changes nothing.
    pub fn install(node: &str) -> Meter {
        static METER: OnceLock<Meter> = OnceLock::new();
        let install = || {
            let (recorder, meter) = Meter::new();
            metrics::set_global_recorder(recorder).expect("nobody else records metrics");
            describe(node);
            meter
        };
        METER.get_or_init(install).clone()
    }

    fn new() -> (PrometheusRecorder, Meter) {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds, SECONDS_BUCKETS)
            .expect("the list of buckets is not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        (recorder, Meter(handle))
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// To be called every few seconds, or histograms hoard their samples.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn describe(node: &str) {
    for metric in METRICS {
        match metric.kind {
            Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let info = metrics::gauge!(BUILD_INFO.name, "version" => version, "node" => node.to_owned());
    info.set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for metric in METRICS {
            assert!(metric.name.starts_with("foreshadow_"), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Counter, "{}", metric.name);
            let named = |unit| metric.name.trim_end_matches("_total").ends_with(unit);
            assert_eq!(
                named("_seconds"),
                metric.unit == Unit::Seconds,
                "{}",
                metric.name
            );
            assert_eq!(
                named("_bytes"),
                metric.unit == Unit::Bytes,
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn what_is_counted_is_rendered() {
        let (recorder, meter) = Meter::new();
        metrics::with_local_recorder(&recorder, || {
            describe("node-a");
            metrics::counter!(SWITCHOVER_TOTAL.name, "result" => "done").increment(2);
            metrics::histogram!(SWITCHOVER_PAUSE_SECONDS.name).record(0.003);
        });
        let text = meter.render();
        for line in [
            "foreshadow_switchover_total{result=\"done\"} 2",
            "foreshadow_switchover_pause_seconds_bucket{le=\"0.004\"} 1",
            "foreshadow_switchover_pause_seconds_bucket{le=\"0.002\"} 0",
            "# TYPE foreshadow_switchover_pause_seconds histogram",
            concat!(
                "foreshadow_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\",node=\"node-a\"} 1"
            ),
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
