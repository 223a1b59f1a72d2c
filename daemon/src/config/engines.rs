//! `[[engine.sqlite]]` and `[[engine.native]]`: directories that exist, on one filesystem, apart
//! from each other.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use wal::{Engine, Span};

use super::EngineConfig;
use super::raw::{self, Value};
use super::units::Size;
use super::values::{At, Checker};

impl Checker<'_> {
    pub fn engines(&mut self, raw: raw::Engine) -> Vec<EngineConfig> {
        let sqlite = raw.sqlite.into_iter().map(|one| {
            let at = one.span();
            (Engine::Sqlite, at, one.into_inner())
        });
        let native = raw.native.into_iter().map(|one| {
            let at = one.span();
            (Engine::Native, at, one.into_inner().into())
        });
        let mut engines: Vec<(Range<usize>, EngineConfig)> = Vec::new();
        let (mut any, sections) = (false, sqlite.chain(native));
        for (engine, at, one) in sections.collect::<Vec<_>>() {
            any = true;
            if let Some(engine) = self.engine(engine, at.clone(), one) {
                engines.push((at, engine));
            }
        }
        if !any {
            let help = "add [[engine.sqlite]] with dir = \"/srv/tenants/live\"";
            self.refuse(
                "engine",
                None,
                "is missing: there is nothing to look after",
                help,
            );
        }
        for (index, (at, engine)) in engines.iter().enumerate() {
            for (_, other) in engines.iter().take(index) {
                self.check_apart(at.clone(), engine, other);
            }
        }
        engines.into_iter().map(|(_, engine)| engine).collect()
    }

    fn engine(
        &mut self,
        engine: Engine,
        at: Range<usize>,
        raw: raw::Sqlite,
    ) -> Option<EngineConfig> {
        let key = |name: &str| format!("engine.{engine}.{name}");
        let Some(dir) = raw.dir else {
            let help = "add dir = \"/srv/tenants/live\": where they are";
            self.refuse(&key("dir"), Some(at), "is missing", help);
            return None;
        };
        let dir_at = dir.span();
        let dir = self.path_of(&key("dir"), Some(dir))?;
        if !dir.is_dir() {
            let why = format!("{} is not a directory", dir.display());
            let help = "create it, or name the directory where they are";
            self.refuse(&key("dir"), Some(dir_at), why, help);
        }
        let default = EngineConfig::of(engine, dir);
        let generations_at = raw.generations.as_ref().map(|value| value.span());
        let generations = self
            .path_of(&key("generations"), raw.generations)
            .unwrap_or_else(|| default.generations.clone());
        self.check_generations(
            &key("generations"),
            generations_at,
            &default.dir,
            &generations,
        );
        let sweep = (Span::micros(20), Span::secs(1));
        let rest = (Span::millis(100), Span::secs(86_400));
        let mut span = |name, value, default, range| self.span(&key(name), value, default, range);
        Some(EngineConfig {
            engine,
            sweep_hot: span("sweep_hot", raw.sweep_hot, default.sweep_hot, sweep),
            sweep_warm: span("sweep_warm", raw.sweep_warm, default.sweep_warm, sweep),
            sweep_cold: span("sweep_cold", raw.sweep_cold, default.sweep_cold, sweep),
            idle_after: span("idle_after", raw.idle_after, default.idle_after, rest),
            wal_bytes_max: self.size(
                &key("max_wal"),
                raw.max_wal,
                default.wal_bytes_max,
                (Size::mib(1), Size::mib(64 << 10)),
            ),
            lease: self.lease(raw.lease, default.lease),
            lease_guard: raw
                .lease_guard
                .map_or(default.lease_guard, |value| value.into_inner()),
            pattern: self
                .pattern(&key("pattern"), raw.pattern)
                .unwrap_or(default.pattern),
            recursive: raw
                .recursive
                .map_or(default.recursive, |value| value.into_inner()),
            watch: raw.watch.map_or(default.watch, |value| value.into_inner()),
            dir: default.dir,
            generations,
        })
    }

    /// Long beside what a busy machine does to a thread, short beside what a person waits for.
    fn lease(&mut self, value: Value<String>, default: Span) -> Span {
        let range = (Span::millis(200), Span::secs(300));
        self.span("engine.sqlite.lease", value, default, range)
    }

    fn pattern(&mut self, key: &str, value: Value<String>) -> Option<String> {
        let value = value?;
        let at = value.span();
        let pattern = self.expand(key, value);
        if pattern.is_empty() || pattern.contains('/') {
            let why = format!("{pattern:?} is no pattern of file names");
            let help = "write a file name with * and ?, as in \"*.db\"; see also recursive";
            self.refuse(key, Some(at), why, help);
        }
        Some(pattern)
    }

    /// A generation is reached by exchanging names, which a filesystem only does within itself.
    fn check_generations(&mut self, key: &str, at: At, dir: &Path, generations: &Path) {
        let device = |path: &Path| {
            let existing = path.ancestors().find(|path| path.exists())?;
            std::fs::metadata(existing)
                .ok()
                .map(|metadata| metadata.dev())
        };
        if dir.starts_with(generations) {
            let why = format!("{} holds dir itself", generations.display());
            self.refuse(key, at, why, "choose a directory beside dir");
        } else if dir.is_dir() && device(dir) != device(generations) {
            let why = format!(
                "{} is not on the filesystem of {}",
                generations.display(),
                dir.display()
            );
            let help = "copies are put in place by exchanging names: use one filesystem for both";
            self.refuse(key, at, why, help);
        }
    }

    /// Two engines that see the same files would fight over them.
    fn check_apart(&mut self, at: Range<usize>, engine: &EngineConfig, other: &EngineConfig) {
        let nested = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
        let pairs = [
            ("dir", &engine.dir, &other.dir),
            ("generations", &engine.generations, &other.dir),
            ("generations", &other.generations, &engine.dir),
            ("generations", &engine.generations, &other.generations),
        ];
        let clash = pairs.into_iter().find(|(_, a, b)| nested(a, b));
        if let Some((key, a, b)) = clash {
            let why = format!("{} and {} overlap", a.display(), b.display());
            let help = "give every [[engine.…]] section directories of its own";
            self.refuse(
                &format!("engine.{}.{key}", engine.engine),
                Some(at),
                why,
                help,
            );
        }
    }
}
