//! Writers, ledger and verifier on plain files, without any daemon: what the demo claims must be
//! able to fail.

mod native;
mod sqlite;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::acks;
use super::create;
use super::engine::Engine;
use super::harness::python_script;
use super::plan::{
    CreatePlan, DatabasePlan, OneWriter, Pace, Tally, Verdict, VerifyPlan, VerifyTenant, WriterPlan,
};
use super::verify::judge;
use super::writer::run_while;

/// Where a tenant begins, and where it is moved to.
const OLD: &str = "old";
const NEW: &str = "new";

/// What is some rows of a writer, and how long they may take on a busy machine.
const ROWS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// One tenant on plain files, with a route.
struct Ground {
    engine: Engine,
    dir: tempfile::TempDir,
}

impl Ground {
    fn new(engine: Engine) -> Ground {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for part in ["routes", "acks"] {
            fs::create_dir(dir.path().join(part)).expect("made");
        }
        let ground = Ground { engine, dir };
        let database = DatabasePlan {
            path: ground.database(OLD),
            page_size: 4096,
            accounts: 500,
        };
        let plan = CreatePlan {
            engine,
            stage: ground.path("stage"),
            databases: vec![database],
        };
        create::run(&plan).expect("made");
        fs::create_dir(ground.path(NEW)).expect("made");
        ground.route_to(OLD);
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the tenant lies at a place.
    fn database(&self, place: &str) -> PathBuf {
        self.path(place).join(self.name())
    }

    /// The partition's name, and that of its route.
    fn name(&self) -> String {
        format!("tenant.{}", self.engine.suffix())
    }

    fn route_to(&self, place: &str) {
        let new = self.path("route.new");
        std::os::unix::fs::symlink(self.database(place), &new).expect("linked");
        fs::rename(new, self.path("routes").join(self.name())).expect("renamed");
    }

    fn writers(&self, numbers: &[u32]) -> WriterPlan {
        let one = |writer: &u32| OneWriter {
            writer: *writer,
            tenant: 7,
            file: self.name(),
            accounts: 500,
            pace: Pace::ThinkUs(500),
        };
        WriterPlan {
            engine: self.engine,
            routes: self.path("routes"),
            acks: self.path("acks"),
            tally: self.path("tally.json"),
            library: native::library(),
            seed: 1,
            busy_ms: 5000,
            synchronous: "NORMAL".to_owned(),
            writers: numbers.iter().map(one).collect(),
        }
    }

    /// Some rows by two writers, and nothing else.
    fn written(engine: Engine) -> Ground {
        let ground = Ground::new(engine);
        let written = run_while(&ground.writers(&[1, 2]), || ground.wait_for_rows(&[1, 2]));
        written.expect("written");
        ground
    }

    /// Waits until each of these writers was told of some more rows.
    fn wait_for_rows(&self, writers: &[u32]) {
        let journal = |writer: &u32| self.path(&format!("acks/{writer}.ack"));
        let count = |writer: &u32| acks::read(&journal(writer)).expect("read").len();
        let wanted: Vec<usize> = writers.iter().map(|writer| count(writer) + ROWS).collect();
        let until = Instant::now() + PATIENCE;
        while writers.iter().zip(&wanted).any(|(w, n)| count(w) < *n) {
            assert!(Instant::now() < until, "a writer does not go on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn verdict(&self, owner: &str, evidence: &[&str]) -> Verdict {
        self.verdict_with(owner, evidence, None)
    }

    fn verdict_with(&self, owner: &str, evidence: &[&str], digest: Option<&str>) -> Verdict {
        let tenant = VerifyTenant {
            tenant: 7,
            name: self.name(),
            database: self.database(owner),
            digest: digest.map(str::to_owned),
            evidence: evidence.iter().map(|place| self.database(place)).collect(),
            copies: Vec::new(),
        };
        let plan = VerifyPlan {
            engine: self.engine,
            acks: self.path("acks"),
            scratch: self.path("scratch"),
            verdict: self.path("verdict.json"),
            tenants: vec![tenant],
        };
        judge(&plan).expect("judged")
    }

    /// As if writer 1 had been killed after it committed, within the write of the last record.
    fn cut_last_acknowledgement(&self) {
        let journal = self.path("acks/1.ack");
        let whole = fs::read(&journal).expect("read");
        fs::write(&journal, &whole[..whole.len() - 3]).expect("written");
    }

    /// What is acknowledged so far.
    fn acked(&self) -> u64 {
        acks::counts(&self.path("acks")).values().sum()
    }

    /// Writes in Python, if it can, while `rest` runs.
    fn write_in_python(&self, plan: &WriterPlan, rest: impl FnOnce()) -> Option<Tally> {
        let Some(python) = self.engine.python(&native::binary()) else {
            rest();
            return None;
        };
        let script = python_script(self.engine, self.dir.path()).expect("written");
        let file = self.path("python.plan");
        fs::write(&file, serde_json::to_vec(plan).expect("json")).expect("written");
        let mut command = Command::new(python);
        command.arg(script).arg(file).stdin(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        rest();
        child.stdin.take().expect("piped").flush().expect("flushed");
        assert!(child.wait().expect("waited").success());
        let json = fs::read(&plan.tally).expect("a tally");
        Some(serde_json::from_slice(&json).expect("json"))
    }
}
