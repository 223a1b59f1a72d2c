//! The configuration file as it is written: every key optional, every value with its place.
//!
//! Keys are declared here once; their meaning, default and bounds are in `mod.rs` and `check.rs`.

use serde::Deserialize;
use toml::Spanned;

/// A value and where it stands.
pub type Value<T> = Option<Spanned<T>>;

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub node: Node,
    pub peer: Vec<Spanned<Peer>>,
    pub engine: Engine,
    pub ship: Ship,
    pub switch: Switch,
    pub coordinator: Coordinator,
    pub routing: Routing,
    pub serve: Serve,
    pub observe: Observe,
    pub model: Model,
    pub log: Log,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    pub name: Value<String>,
    pub cluster: Value<String>,
    pub state_dir: Value<String>,
    pub socket: Value<String>,
    pub listen: Value<String>,
    pub shards: Value<u64>,
    pub insecure: Value<bool>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Peer {
    pub name: Value<String>,
    pub address: Value<String>,
    pub shards: Value<u64>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    pub sqlite: Vec<Spanned<Sqlite>>,
    pub native: Vec<Spanned<Native>>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Sqlite {
    pub dir: Value<String>,
    pub pattern: Value<String>,
    pub recursive: Value<bool>,
    pub watch: Value<bool>,
    pub generations: Value<String>,
    pub max_wal: Value<String>,
    pub sweep_hot: Value<String>,
    pub sweep_warm: Value<String>,
    pub sweep_cold: Value<String>,
    pub idle_after: Value<String>,
    pub lease_guard: Value<bool>,
    pub lease: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Native {
    pub dir: Value<String>,
    pub pattern: Value<String>,
    pub recursive: Value<bool>,
    pub watch: Value<bool>,
    pub generations: Value<String>,
    pub sweep_hot: Value<String>,
    pub sweep_warm: Value<String>,
    pub sweep_cold: Value<String>,
    pub idle_after: Value<String>,
}

impl From<Native> for Sqlite {
    /// The keys that both have; the others are not said.
    fn from(native: Native) -> Sqlite {
        Sqlite {
            dir: native.dir,
            pattern: native.pattern,
            recursive: native.recursive,
            watch: native.watch,
            generations: native.generations,
            sweep_hot: native.sweep_hot,
            sweep_warm: native.sweep_warm,
            sweep_cold: native.sweep_cold,
            idle_after: native.idle_after,
            ..Sqlite::default()
        }
    }
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Ship {
    pub copies: Value<u64>,
    pub max_bytes_per_sec: Value<String>,
    pub delta_log: Value<String>,
    pub journal: Value<String>,
    pub window: Value<String>,
    pub reconnect_min: Value<String>,
    pub reconnect_max: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Switch {
    pub max_pause: Value<String>,
    pub pause_timeout: Value<String>,
    pub keep_reverse_shadow: Value<bool>,
    pub stale_reads: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Coordinator {
    pub kind: Value<String>,
    pub dir: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Routing {
    pub dir: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    pub group: Value<String>,
    pub http: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Observe {
    pub bin: Value<String>,
    pub load_every: Value<String>,
    pub max_bytes: Value<String>,
    pub top: Value<u64>,
    pub segments: Value<bool>,
    pub socket: Value<String>,
    pub follow: Vec<Spanned<Follow>>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Follow {
    pub path: Value<String>,
    pub socket: Value<String>,
    pub format: Value<String>,
    pub key: Value<String>,
    pub user: Value<String>,
    pub region: Value<String>,
    pub partition: Value<String>,
    pub partition_suffix: Value<String>,
    pub task: Value<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    pub kind: Value<String>,
    pub horizon: Value<String>,
    pub horizons: Value<Vec<Spanned<String>>>,
    pub training_interval: Value<String>,
    pub prediction_interval: Value<String>,
    pub targets: Value<u64>,
    pub replay: Value<String>,
    pub control_share: Value<f64>,
    pub trial_block: Value<String>,
    pub trial_blocks: Value<u64>,
    pub trial_events: Value<u64>,
    pub healthy: Healthy,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Healthy {
    pub cpu: Value<f64>,
    pub memory: Value<f64>,
    pub io: Value<f64>,
    pub pressure: Value<f64>,
    pub changes: Value<String>,
}
