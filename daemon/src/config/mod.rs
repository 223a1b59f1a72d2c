//! The configuration: one TOML file, checked once, plain numbers afterwards.
//!
//! | module | what it does |
//! |---|---|
//! | [`units`] | "64MiB", "50ms", 0.05 |
//! | `raw` | the file as written: every key optional, every value with its place |
//! | `check` | raw -> [`Config`], the only door: sections and their bounds |
//! | `engines` | the same for `[[engine.sqlite]]` and `[[engine.native]]` |
//! | `observe` | `[observe]` and `[[observe.follow]]` |
//! | `model` | `[model]` and `[model.healthy]` |
//! | `values` | one value: expanded, parsed, or refused with its place |
//! | [`error`] | what is wrong, where, and what to do |
//!
//! Invariant: a [`Config`] that exists is within its bounds; nothing checks it again.

mod check;
mod engines;
pub mod error;
mod model;
mod observe;
mod raw;
mod values;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use wal::{Engine, NodeId, Span};

pub use error::{Error, Errors};
pub use model::{HealthyConfig, ModelConfig};
pub use observe::{Feed, Follow, Format, ObserveConfig};
pub use units::{Rate, Share, Size};

use crate::serve::query::NodeName;
pub use crate::units;

/// Where the daemon looks without `--config`.
pub const CONFIG_PATH: &str = "/etc/foreshadow/foreshadow.toml";
/// Where the daemon listens and the command line asks, unless told otherwise.
pub const SOCKET_PATH: &str = "/run/foreshadow/foreshadow.sock";

/// Everything that can be set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    pub node: NodeConfig,
    pub peers: Vec<PeerConfig>,
    pub engines: Vec<EngineConfig>,
    pub ship: ShipConfig,
    pub switch: SwitchConfig,
    pub coordinator: CoordinatorConfig,
    pub routing: RoutingConfig,
    pub serve: ServeConfig,
    pub observe: ObserveConfig,
    pub model: ModelConfig,
    pub log: LogConfig,
}

/// `[node]`: who this daemon is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    pub name: NodeName,
    pub id: NodeId,
    /// Peers of another cluster are refused.
    pub cluster: NodeName,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    /// Where peers connect.
    pub listen: SocketAddr,
    pub shards: u16,
    /// Links that leave the machine may go unencrypted.
    pub insecure: bool,
}

/// `[[peer]]`: another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerConfig {
    pub name: NodeName,
    pub id: NodeId,
    pub address: Address,
    /// Its number of shards, where it differs from this node's.
    pub shards: Option<u16>,
}

/// `host:port`, resolved when it is dialled.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address(String);

/// `[[engine.sqlite]]`, `[[engine.native]]`: a directory of partitions of one engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    pub engine: Engine,
    pub dir: PathBuf,
    /// Shell pattern of file names: `*`, `?`.
    pub pattern: String,
    pub recursive: bool,
    /// Notice new and removed files at once.
    pub watch: bool,
    /// Where landed and shadow copies live; on the same filesystem as `dir`.
    pub generations: PathBuf,
    /// The sidecar gives its pin up rather than let a -wal grow beyond this.
    pub wal_bytes_max: Size,
    pub sweep_hot: Span,
    pub sweep_warm: Span,
    pub sweep_cold: Span,
    /// A database without commits for so long turns cold.
    pub idle_after: Span,
    /// Applications that loaded the lease guard write only while this daemon vouches for it.
    pub lease_guard: bool,
    /// For how long it vouches each time.
    pub lease: Span,
}

/// `[ship]`: how changes travel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShipConfig {
    /// Shadows per partition kept by themselves; 0 = only by command.
    pub copies: u16,
    /// Token bucket of bulk copies.
    pub rate_max: Rate,
    /// Per partition, on disk: how long a peer may be away and still resume.
    pub delta_log: Size,
    /// Per shard, on disk.
    pub journal: Size,
    /// Unacknowledged bytes per partition and peer.
    pub window: Size,
    pub reconnect_min: Span,
    pub reconnect_max: Span,
}

/// `[switch]`: how partitions move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwitchConfig {
    /// A move whose estimated pause is above this is not begun.
    pub pause_max: Span,
    /// A pause that lasts longer is given up, before the commit point.
    pub pause_timeout: Span,
    pub keep_reverse_shadow: bool,
    /// How long readers of the old copy may go on; 0: they are sent away at the fence.
    pub stale_reads: Span,
}

/// `[coordinator]`: who remembers the owners.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CoordinatorConfig {
    /// A directory shared by all daemons of one machine.
    Embedded { dir: PathBuf },
}

/// `[routing]`: how applications find a partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoutingConfig {
    /// `<dir>/<partition>` is a symlink to the live database at its owner.
    pub dir: Option<PathBuf>,
}

/// `[serve]`: who may ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServeConfig {
    /// A group allowed on the socket besides root and the daemon's own user.
    pub group: Option<String>,
    /// Where load balancers ask.
    pub http: Option<SocketAddr>,
}

/// `[log]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// A level, or directives: `info,foreshadow::ship=debug`.
    pub level: String,
}

impl Config {
    /// Reads and checks the file at `path`, with the process's environment.
    pub fn load(path: &Path) -> Result<Config, Errors> {
        let text = std::fs::read_to_string(path).map_err(|e| Errors::unreadable(path, &e))?;
        Config::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// Checks `text` as the file at `path`; `environment` expands `${NAME}`.
    ///
    /// Directories named in it must exist where they have to.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, Errors> {
        check::config(path, text, environment)
    }

    /// The peer with this id.
    pub fn peer(&self, id: NodeId) -> Option<&PeerConfig> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// The name of this node or a peer.
    pub fn name_of(&self, id: NodeId) -> Option<&NodeName> {
        if id == self.node.id {
            return Some(&self.node.name);
        }
        self.peer(id).map(|peer| &peer.name)
    }

    /// What is allowed but probably not meant.
    pub fn warnings(&self) -> Vec<String> {
        let CoordinatorConfig::Embedded { dir } = &self.coordinator;
        let away = self.peers.iter().filter(|peer| !peer.address.is_loopback());
        away.map(|peer| {
            format!(
                "peer {} is not on this machine, and coordinator.kind = \"embedded\" only \
                 remembers owners for daemons that share {}",
                peer.name,
                dir.display()
            )
        })
        .collect()
    }

    /// This configuration with what can be taken over from `new` without a restart.
    #[must_use]
    pub fn reloaded(&self, new: &Config) -> Config {
        let mut reloaded = self.clone();
        let added = new.peers.iter().filter(|peer| self.peer(peer.id).is_none());
        reloaded.peers.extend(added.cloned());
        reloaded.ship.rate_max = new.ship.rate_max;
        reloaded.log = new.log.clone();
        reloaded
    }

    /// The sections whose change needs a restart; the others are taken over by a reload.
    pub fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let peers_kept = self.peers.iter().all(|peer| new.peers.contains(peer));
        let rate_max = self.ship.rate_max;
        let ship_same = self.ship
            == ShipConfig {
                rate_max,
                ..new.ship.clone()
            };
        [
            ("node", self.node == new.node),
            ("peer (removed or changed)", peers_kept),
            ("engine", self.engines == new.engines),
            ("ship (except max_bytes_per_sec)", ship_same),
            ("switch", self.switch == new.switch),
            ("coordinator", self.coordinator == new.coordinator),
            ("routing", self.routing == new.routing),
            ("serve", self.serve == new.serve),
            ("observe", self.observe == new.observe),
            ("model", self.model == new.model),
        ]
        .into_iter()
        .filter_map(|(section, same)| (!same).then_some(section))
        .collect()
    }
}

impl Address {
    /// Accepts `host:port`; `None` otherwise.
    pub fn new(text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        (!host.is_empty() && port != 0).then(|| Address(text.to_owned()))
    }

    /// The addresses that the host's name means now; blocks on DNS.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok(self.0.to_socket_addrs()?.collect())
    }

    /// Traffic to it can't leave the machine.
    pub fn is_loopback(&self) -> bool {
        match self.0.parse::<SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) => self
                .0
                .rsplit_once(':')
                .is_some_and(|(host, _)| host == "localhost"),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EngineConfig {
    /// The settings of a directory about which nothing more is said.
    pub fn of(engine: Engine, dir: PathBuf) -> EngineConfig {
        let pattern = match engine {
            Engine::Sqlite => "*.db",
            Engine::Native => "*.log",
        };
        EngineConfig {
            engine,
            generations: dir.join(".gen"),
            dir,
            pattern: pattern.to_owned(),
            recursive: false,
            watch: true,
            wal_bytes_max: Size::mib(64),
            sweep_hot: Span::micros(100),
            sweep_warm: Span::millis(1),
            sweep_cold: Span::millis(5),
            idle_after: Span::secs(10),
            lease_guard: false,
            lease: Span::secs(3),
        }
    }
}

impl Default for ShipConfig {
    fn default() -> ShipConfig {
        ShipConfig {
            copies: 1,
            rate_max: Rate::UNLIMITED,
            delta_log: Size::mib(64),
            journal: Size::mib(256),
            window: Size::mib(4),
            reconnect_min: Span::millis(50),
            reconnect_max: Span::secs(5),
        }
    }
}

impl Default for SwitchConfig {
    fn default() -> SwitchConfig {
        SwitchConfig {
            pause_max: Span::millis(50),
            pause_timeout: Span::millis(250),
            keep_reverse_shadow: true,
            stale_reads: Span::ZERO,
        }
    }
}

impl Default for CoordinatorConfig {
    fn default() -> CoordinatorConfig {
        CoordinatorConfig::Embedded {
            dir: "/var/lib/foreshadow/coordinator".into(),
        }
    }
}

impl Default for ServeConfig {
    fn default() -> ServeConfig {
        ServeConfig {
            group: Some("foreshadow".to_owned()),
            http: None,
        }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            level: "info".to_owned(),
        }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod observe_tests;
#[cfg(test)]
mod tests;
