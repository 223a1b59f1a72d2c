//! `[[engine.sqlite]]`: directories that exist, on one filesystem, apart from each other.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use wal::Span;

use super::SqliteConfig;
use super::raw::{self, Value};
use super::units::Size;
use super::values::{At, Checker};

impl Checker<'_> {
    pub fn engines(&mut self, raw: Vec<toml::Spanned<raw::Sqlite>>) -> Vec<SqliteConfig> {
        if raw.is_empty() {
            let help = "add [[engine.sqlite]] with dir = \"/srv/tenants/live\"";
            self.refuse(
                "engine.sqlite",
                None,
                "is missing: there is nothing to look after",
                help,
            );
        }
        let mut engines: Vec<(Range<usize>, SqliteConfig)> = Vec::new();
        for one in raw {
            let (at, one) = (one.span(), one.into_inner());
            if let Some(engine) = self.engine(at.clone(), one) {
                engines.push((at, engine));
            }
        }
        for (index, (at, engine)) in engines.iter().enumerate() {
            for (_, other) in engines.iter().take(index) {
                self.check_apart(at.clone(), engine, other);
            }
        }
        engines.into_iter().map(|(_, engine)| engine).collect()
    }

    fn engine(&mut self, at: Range<usize>, raw: raw::Sqlite) -> Option<SqliteConfig> {
        let Some(dir) = raw.dir else {
            let help = "add dir = \"/srv/tenants/live\": where the databases are";
            self.refuse("engine.sqlite.dir", Some(at), "is missing", help);
            return None;
        };
        let dir_at = dir.span();
        let dir = self.path_of("engine.sqlite.dir", Some(dir))?;
        if !dir.is_dir() {
            let why = format!("{} is not a directory", dir.display());
            let help = "create it, or name the directory where the databases are";
            self.refuse("engine.sqlite.dir", Some(dir_at), why, help);
        }
        let default = SqliteConfig::of(dir);
        let generations_at = raw.generations.as_ref().map(|value| value.span());
        let generations = self
            .path_of("engine.sqlite.generations", raw.generations)
            .unwrap_or_else(|| default.generations.clone());
        self.check_generations(generations_at, &default.dir, &generations);
        let mut span = |key: &str, value, default, range| self.span(key, value, default, range);
        let second = Span::secs(1);
        let sweep = (Span::micros(20), second);
        Some(SqliteConfig {
            sweep_hot: span(
                "engine.sqlite.sweep_hot",
                raw.sweep_hot,
                default.sweep_hot,
                sweep,
            ),
            sweep_warm: span(
                "engine.sqlite.sweep_warm",
                raw.sweep_warm,
                default.sweep_warm,
                sweep,
            ),
            sweep_cold: span(
                "engine.sqlite.sweep_cold",
                raw.sweep_cold,
                default.sweep_cold,
                sweep,
            ),
            idle_after: span(
                "engine.sqlite.idle_after",
                raw.idle_after,
                default.idle_after,
                (Span::millis(100), Span::secs(86_400)),
            ),
            wal_bytes_max: self.size(
                "engine.sqlite.max_wal",
                raw.max_wal,
                default.wal_bytes_max,
                (Size::mib(1), Size::mib(64 << 10)),
            ),
            lease: self.lease(raw.lease, default.lease),
            lease_guard: raw
                .lease_guard
                .map_or(default.lease_guard, |value| value.into_inner()),
            pattern: self.pattern(raw.pattern).unwrap_or(default.pattern),
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

    fn pattern(&mut self, value: Value<String>) -> Option<String> {
        let value = value?;
        let at = value.span();
        let pattern = self.expand("engine.sqlite.pattern", value);
        if pattern.is_empty() || pattern.contains('/') {
            let why = format!("{pattern:?} is no pattern of file names");
            let help = "write a file name with * and ?, as in \"*.db\"; see also recursive";
            self.refuse("engine.sqlite.pattern", Some(at), why, help);
        }
        Some(pattern)
    }

    /// A generation is reached by exchanging names, which a filesystem only does within itself.
    fn check_generations(&mut self, at: At, dir: &Path, generations: &Path) {
        let device = |path: &Path| {
            let existing = path.ancestors().find(|path| path.exists())?;
            std::fs::metadata(existing)
                .ok()
                .map(|metadata| metadata.dev())
        };
        if dir.starts_with(generations) {
            let why = format!("{} holds dir itself", generations.display());
            self.refuse(
                "engine.sqlite.generations",
                at,
                why,
                "choose a directory beside dir",
            );
        } else if dir.is_dir() && device(dir) != device(generations) {
            let why = format!(
                "{} is not on the filesystem of {}",
                generations.display(),
                dir.display()
            );
            let help = "copies are put in place by exchanging names: use one filesystem for both";
            self.refuse("engine.sqlite.generations", at, why, help);
        }
    }

    /// Two engines that see the same files would fight over them.
    fn check_apart(&mut self, at: Range<usize>, engine: &SqliteConfig, other: &SqliteConfig) {
        let nested = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
        let pairs = [
            ("engine.sqlite.dir", &engine.dir, &other.dir),
            ("engine.sqlite.generations", &engine.generations, &other.dir),
            ("engine.sqlite.generations", &other.generations, &engine.dir),
            (
                "engine.sqlite.generations",
                &engine.generations,
                &other.generations,
            ),
        ];
        let clash = pairs.into_iter().find(|(_, a, b)| nested(a, b));
        if let Some((key, a, b)) = clash {
            let why = format!("{} and {} overlap", a.display(), b.display());
            let help = "give every [[engine.sqlite]] directories of its own";
            self.refuse(key, Some(at), why, help);
        }
    }
}
