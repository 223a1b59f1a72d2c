//! A tenant's log, with accounts and no row.

use std::fs;
use std::path::Path;

use wal::PartitionName;
use wal::log::{Appender, Kind, Options, Result};

use super::record::{self, ACCOUNT, FOUNDING};
use crate::cli::demo::harness::Error;
use crate::cli::demo::plan::DatabasePlan;

/// Small: four free slots of every log are kept filled, and a demo has many logs.
const SEGMENT_BYTES: u32 = 1 << 20;

/// Accounts in one batch, which has to fit a segment.
const BATCH: u64 = 2000;

/// Makes a log under the id of the partition that it will be, and leaves nothing beside it.
pub fn create(path: &Path, plan: &DatabasePlan) -> std::result::Result<(), Error> {
    let failed = |what: &str| Error::new(format!("make {}: {what}", plan.path.display()));
    let name = plan.path.file_name().and_then(|name| name.to_str());
    let name = name.and_then(PartitionName::new);
    let name = name.ok_or_else(|| failed("that is no partition's name"))?;
    let options = Options {
        id: name.id(),
        segment_bytes: SEGMENT_BYTES,
        ..Options::default()
    };
    fill(path, &options, plan.accounts).map_err(|error| failed(&error.to_string()))?;
    let mut lock = path.as_os_str().to_owned();
    lock.push("-appender");
    fs::remove_file(&lock).map_err(|error| Error::at("remove", Path::new(&lock), error))
}

fn fill(path: &Path, options: &Options, accounts: u64) -> Result<()> {
    let appender = Appender::open(path, options)?;
    appender.append(FOUNDING, &accounts.to_le_bytes())?;
    let mut next = 1;
    while next <= accounts {
        let last = accounts.min(next + BATCH - 1);
        let payloads: Vec<Vec<u8>> = (next..=last).map(record::account).collect();
        let records: Vec<(Kind, &[u8])> = payloads.iter().map(|p| (ACCOUNT, &p[..])).collect();
        appender.append_batch(&records, |_| ())?;
        next = last + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wal::log::Control;

    use super::*;
    use crate::cli::demo::create::run;
    use crate::cli::demo::engine::Engine;
    use crate::cli::demo::native::verify::read;
    use crate::cli::demo::plan::CreatePlan;

    #[test]
    fn a_log_appears_whole_with_nothing_beside_it_and_takes_more() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("live/tenant.log");
        let database = DatabasePlan {
            path: path.clone(),
            page_size: 4096,
            accounts: 9000,
        };
        let plan = CreatePlan {
            engine: Engine::Native,
            stage: dir.path().join("stage"),
            databases: vec![database],
        };
        run(&plan).expect("made");
        for (part, files) in [("live", 1), ("stage", 0)] {
            let entries = fs::read_dir(dir.path().join(part)).expect("listed");
            assert_eq!(entries.count(), files, "{part}");
        }
        let control = Control::open(&path).expect("opened");
        let name = PartitionName::new("tenant.log").expect("a name");
        assert_eq!(control.id(), name.id());
        assert!((900_000..1_300_000).contains(&control.word().lsn.0));
        let found = read(&path, true).expect("read");
        assert!(found.complaints.is_empty() && found.rows.is_empty());
        Appender::open(&path, &Options::default()).expect("it goes on");
    }
}
