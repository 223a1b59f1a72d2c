//! From the file as written to a checked [`Config`]: every bound, in one place.
//!
//! Checking goes on after an error with the default in its place, so that one run tells everything
//! that is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use wal::{NodeId, Span};

use super::error::Errors;
use super::raw::{self, Value};
use super::units::Size;
use super::values::{At, Checker, placeholder};
use super::{
    Address, Config, CoordinatorConfig, LogConfig, NodeConfig, PeerConfig, RoutingConfig,
    ServeConfig, ShipConfig, SwitchConfig,
};
use crate::serve::query::NodeName;

/// More shards than this never helped anyone: each is a busy thread.
const SHARDS_MAX: u64 = 64;
/// Shards when the file does not say, at most.
const SHARDS_AUTO_MAX: usize = 4;
/// Copies kept of each partition, at most: a fan-out above this needs a tree.
const COPIES_MAX: u64 = 16;

/// Reads, checks and completes `text`.
pub(super) fn config(
    file: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Errors> {
    let mut checker = Checker {
        file,
        text,
        environment,
        errors: Vec::new(),
    };
    let raw = match toml::from_str::<raw::Raw>(text) {
        Ok(raw) => raw,
        Err(error) => {
            checker.refuse_syntax(&error);
            return Err(Errors(checker.errors));
        }
    };
    let config = checker.config(raw);
    if checker.errors.is_empty() {
        Ok(config)
    } else {
        Err(Errors(checker.errors))
    }
}

impl Checker<'_> {
    fn config(&mut self, raw: raw::Raw) -> Config {
        let node = self.node(raw.node);
        let peers = self.peers(&node, raw.peer);
        let engines = self.engines(raw.engine);
        let observe = self.observe(raw.observe);
        Config {
            path: self.file.to_owned(),
            peers,
            engines,
            ship: self.ship(raw.ship),
            switch: self.switch(raw.switch),
            coordinator: self.coordinator(raw.coordinator),
            routing: RoutingConfig {
                dir: self.path_of("routing.dir", raw.routing.dir),
            },
            serve: self.serve(raw.serve),
            model: self.model(raw.model, observe.bin),
            observe,
            log: self.log(raw.log),
            node,
        }
    }

    fn node(&mut self, raw: raw::Node) -> NodeConfig {
        let name = match raw.name {
            Some(value) => self.name("node.name", value),
            None => {
                let help = "add name = \"node-a\" to [node]: a name of its own for each daemon";
                self.refuse("node.name", None, "is missing", help);
                placeholder()
            }
        };
        let cluster = match raw.cluster {
            Some(value) => self.name("node.cluster", value),
            None => NodeName::new("foreshadow").expect("a valid name"),
        };
        let insecure = raw.insecure.is_some_and(|value| value.into_inner());
        let listen_at = raw.listen.as_ref().map(|value| value.span());
        let listen = self
            .socket_address("node.listen", raw.listen)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7401)));
        if !listen.ip().is_loopback() && !insecure {
            self.refuse_plaintext("node.listen", listen_at);
        }
        let state_dir = self
            .path_of("node.state_dir", raw.state_dir.clone())
            .unwrap_or("/var/lib/foreshadow".into());
        self.check_creatable(
            "node.state_dir",
            raw.state_dir.map(|value| value.span()),
            &state_dir,
        );
        NodeConfig {
            id: name.id(),
            name,
            cluster,
            state_dir,
            socket: self
                .path_of("node.socket", raw.socket)
                .unwrap_or_else(|| super::SOCKET_PATH.into()),
            listen,
            shards: self.shards("node.shards", raw.shards),
            insecure,
        }
    }

    fn shards(&mut self, key: &str, value: Value<u64>) -> u16 {
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        let auto = cores.min(SHARDS_AUTO_MAX) as u16;
        match value.map(|value| (value.span(), value.into_inner())) {
            None | Some((_, 0)) => auto,
            Some((_, count @ 1..=SHARDS_MAX)) => count as u16,
            Some((at, count)) => {
                let help = format!("write 1 to {SHARDS_MAX}, or 0 for one per core, at most 4");
                self.refuse(key, Some(at), format!("{count} is too many"), help);
                auto
            }
        }
    }

    fn peers(&mut self, node: &NodeConfig, raw: Vec<toml::Spanned<raw::Peer>>) -> Vec<PeerConfig> {
        let mut ids = BTreeMap::from([(node.id, node.name.clone())]);
        let mut peers = Vec::new();
        for peer in raw {
            let (at, peer) = (peer.span(), peer.into_inner());
            let (Some(name), Some(address)) = (peer.name, peer.address) else {
                let help = "each [[peer]] has name = \"node-b\" and address = \"10.0.0.2:7401\"";
                self.refuse("peer", Some(at), "has no name or no address", help);
                continue;
            };
            let (name_at, address_at) = (name.span(), address.span());
            let errors = self.errors.len();
            let name = self.name("peer.name", name);
            let id = name.id();
            if self.errors.len() == errors {
                self.check_new_name(&mut ids, &name, id, name_at);
            }
            let shards = peer
                .shards
                .map(|count| self.shards("peer.shards", Some(count)));
            if let Some(address) = self.address(address, node.insecure, address_at) {
                peers.push(PeerConfig {
                    name,
                    id,
                    address,
                    shards,
                });
            }
        }
        peers
    }

    fn check_new_name(
        &mut self,
        ids: &mut BTreeMap<NodeId, NodeName>,
        name: &NodeName,
        id: NodeId,
        at: Range<usize>,
    ) {
        let Some(other) = ids.insert(id, name.clone()) else {
            return;
        };
        let (why, help) = if other != *name {
            let why = format!("{name} and {other} have the same id {id}");
            (
                why,
                "rename one of them: ids are 32-bit hashes of names".to_owned(),
            )
        } else if ids.len() == 1 {
            let help = "list the other nodes only; the same file can't serve two nodes".to_owned();
            (format!("{name} is this node itself"), help)
        } else {
            (
                format!("{name} is listed twice"),
                "remove one of the two".to_owned(),
            )
        };
        self.refuse("peer.name", Some(at), why, help);
    }

    fn address(
        &mut self,
        value: toml::Spanned<String>,
        insecure: bool,
        at: Range<usize>,
    ) -> Option<Address> {
        let text = self.expand("peer.address", value);
        let Some(address) = Address::new(&text) else {
            let help = "write host:port, as in \"10.0.0.2:7401\"";
            self.refuse(
                "peer.address",
                Some(at),
                format!("{text:?} is no address"),
                help,
            );
            return None;
        };
        if !address.is_loopback() && !insecure {
            self.refuse_plaintext("peer.address", Some(at));
        }
        Some(address)
    }

    fn refuse_plaintext(&mut self, key: &str, at: At) {
        let why = "is not a loopback address, and links are not encrypted yet";
        let help = "write insecure = true in [node] if the network is trusted, or use 127.0.0.1";
        self.refuse(key, at, why, help);
    }

    fn ship(&mut self, raw: raw::Ship) -> ShipConfig {
        let default = ShipConfig::default();
        let reconnect = (Span::millis(1), Span::secs(3_600));
        let log = (Size::mib(1), Size::mib(1 << 20));
        let min_at = raw.reconnect_min.as_ref().map(|value| value.span());
        let ship = ShipConfig {
            copies: self.copies(raw.copies),
            rate_max: self.rate("ship.max_bytes_per_sec", raw.max_bytes_per_sec),
            delta_log: self.size("ship.delta_log", raw.delta_log, default.delta_log, log),
            journal: self.size("ship.journal", raw.journal, default.journal, log),
            window: self.size(
                "ship.window",
                raw.window,
                default.window,
                (Size::kib(64), Size::mib(1 << 10)),
            ),
            reconnect_min: self.span(
                "ship.reconnect_min",
                raw.reconnect_min,
                default.reconnect_min,
                reconnect,
            ),
            reconnect_max: self.span(
                "ship.reconnect_max",
                raw.reconnect_max,
                default.reconnect_max,
                reconnect,
            ),
        };
        if ship.reconnect_min > ship.reconnect_max {
            let help = "the wait grows from reconnect_min to reconnect_max: exchange them";
            self.refuse("ship.reconnect_min", min_at, "is above reconnect_max", help);
        }
        ship
    }

    fn copies(&mut self, value: Value<u64>) -> u16 {
        match value.map(|value| (value.span(), value.into_inner())) {
            None => ShipConfig::default().copies,
            Some((_, count @ 0..=COPIES_MAX)) => count as u16,
            Some((at, count)) => {
                let help = format!("write 0 to {COPIES_MAX}");
                self.refuse(
                    "ship.copies",
                    Some(at),
                    format!("{count} is too many"),
                    help,
                );
                0
            }
        }
    }

    fn switch(&mut self, raw: raw::Switch) -> SwitchConfig {
        let default = SwitchConfig::default();
        let pause = (Span::millis(1), Span::secs(60));
        let timeout_at = raw.pause_timeout.as_ref().map(|value| value.span());
        let switch = SwitchConfig {
            pause_max: self.span("switch.max_pause", raw.max_pause, default.pause_max, pause),
            pause_timeout: self.span(
                "switch.pause_timeout",
                raw.pause_timeout,
                default.pause_timeout,
                pause,
            ),
            keep_reverse_shadow: raw
                .keep_reverse_shadow
                .is_none_or(|value| value.into_inner()),
            stale_reads: self.span(
                "switch.stale_reads",
                raw.stale_reads,
                default.stale_reads,
                (Span::ZERO, Span::secs(3_600)),
            ),
        };
        if switch.pause_timeout < switch.pause_max {
            let help = "a pause that is allowed must be allowed to end: raise pause_timeout";
            self.refuse(
                "switch.pause_timeout",
                timeout_at,
                "is below max_pause",
                help,
            );
        }
        switch
    }

    fn coordinator(&mut self, raw: raw::Coordinator) -> CoordinatorConfig {
        if let Some(kind) = raw.kind {
            let (at, kind) = (kind.span(), self.expand("coordinator.kind", kind));
            if kind != "embedded" {
                let why = format!("{kind:?} is not known");
                self.refuse(
                    "coordinator.kind",
                    Some(at),
                    why,
                    "write kind = \"embedded\"",
                );
            }
        }
        let CoordinatorConfig::Embedded { dir: default } = CoordinatorConfig::default();
        let at = raw.dir.as_ref().map(|value| value.span());
        let dir = self.path_of("coordinator.dir", raw.dir).unwrap_or(default);
        self.check_creatable("coordinator.dir", at, &dir);
        CoordinatorConfig::Embedded { dir }
    }

    fn serve(&mut self, raw: raw::Serve) -> ServeConfig {
        let group = match raw.group {
            None => ServeConfig::default().group,
            Some(value) => {
                Some(self.expand("serve.group", value)).filter(|group| !group.is_empty())
            }
        };
        ServeConfig {
            group,
            http: self.socket_address("serve.http", raw.http),
        }
    }

    fn log(&mut self, raw: raw::Log) -> LogConfig {
        let Some(level) = raw.level else {
            return LogConfig::default();
        };
        let (at, level) = (level.span(), self.expand("log.level", level));
        if level.parse::<tracing_subscriber::EnvFilter>().is_err() || level.is_empty() {
            let help =
                "write error, warn, info, debug or trace, or \"info,foreshadow::ship=debug\"";
            self.refuse(
                "log.level",
                Some(at),
                format!("{level:?} is no level"),
                help,
            );
        }
        LogConfig { level }
    }
}
