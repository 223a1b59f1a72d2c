//! A native log from outside: its control page says what is acknowledged, and what a peer has on
//! stable storage. Both are single words, read from mapped memory; nothing is locked.

use std::path::Path;

use wal::Lsn;
use wal::log::Control;

use crate::cli::demo::clock::now_ns;
use crate::cli::demo::sampler::{Look, Probe};

struct Page {
    control: Control,
    counted: Lsn,
}

/// Maps the control page of a log.
pub fn open(log: &Path) -> Option<Box<dyn Probe>> {
    let control = Control::open(log).ok()?;
    let counted = control.word().lsn;
    Some(Box::new(Page { control, counted }))
}

impl Probe for Page {
    fn appended(&mut self) -> Option<u64> {
        let lsn = self.control.word().lsn;
        let before = std::mem::replace(&mut self.counted, lsn);
        Some(lsn.0.saturating_sub(before.0))
    }

    fn look(&mut self) -> Option<Look> {
        let word = self.control.word();
        Some(Look {
            incarnation: (u64::from(word.epoch), 0),
            published: word.lsn.0,
            seen_ns: now_ns(),
            durable: self.control.mirrored().0,
        })
    }
}

#[cfg(test)]
mod tests {
    use wal::Epoch;
    use wal::log::{Appender, Kind, Options};

    use super::*;
    use crate::cli::demo::engine::Engine;
    use crate::cli::demo::sampler::{Log, Measured};

    struct Fixture {
        _dir: tempfile::TempDir,
        appender: Appender,
        log: Log,
        measured: Measured,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("tenant.log");
        let appender = Appender::open(&path, &Options::default()).expect("opened");
        let mut log = Log::new(Engine::Native, "tenant.log", path, 4096).expect("valid");
        log.follow(&[]);
        let measured = Measured::default();
        log.look(&measured);
        Fixture {
            _dir: dir,
            appender,
            log,
            measured,
        }
    }

    impl Fixture {
        fn append(&mut self) -> Lsn {
            self.appender.append(Kind(3), b"row").expect("appended");
            self.log.look(&self.measured);
            self.appender.position()
        }
    }

    #[test]
    fn a_record_lags_until_a_peer_has_it() {
        let mut fixture = fixture();
        let first = fixture.append();
        fixture.append();
        assert!(fixture.measured.lags_ms().is_empty(), "no peer has any");
        fixture.appender.control().set_mirrored(first);
        fixture.log.look(&fixture.measured);
        assert_eq!(fixture.measured.lags_ms().len(), 1, "one of two");
        fixture.log.count(&fixture.measured);
        fixture.log.count(&fixture.measured);
        assert_eq!(fixture.measured.raw_wal_bytes(), 2 * 4096);
    }

    #[test]
    fn a_new_epoch_forgets_what_waited() {
        let mut fixture = fixture();
        let end = fixture.append();
        let control = fixture.appender.control();
        control.seal();
        control.grant(Epoch(2), end).expect("granted");
        control.set_mirrored(end);
        fixture.log.look(&fixture.measured);
        assert!(fixture.measured.lags_ms().is_empty());
    }
}
