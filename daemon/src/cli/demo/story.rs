//! The order of events that the demo plays: start, fill shadows, write, move there and back, kill a
//! daemon in mid-move, roll back, stop, compare, check.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::now_ns;
use super::harness::{Cluster, Error, Load, MoveReport, Options, Outcome, Pace, Tally, Tenant};
use super::harness::{Program, Verdict, kill_children};
use super::random::{Random, zipf_shares};
use super::report::{Facts, Report};
use super::sampler::Sampler;
use super::view::Stage;
use super::{DemoArgs, acks, view};

/// Tenants whose writers loop without waiting for arrivals: only they feel every pause.
const DENSE_TENANTS: usize = 2;

/// How long such a writer thinks between an acknowledgement and its next transaction.
const THINK_US: u64 = 2000;

/// Tenants with a writer in several processes.
const SHARED_TENANTS: usize = 4;

/// Skew of the load over the tenants.
const ZIPF_EXPONENT: f64 = 1.2;

/// Tenants whose databases appear only after the daemons have started.
const LATE_TENANTS: usize = 2;

/// Arrivals a second above which a silent writer is a stuck writer.
const BUSY_RATE: f64 = 2.0;

/// Longer than a daemon tries by itself, so that its reason for giving up is heard.
const MOVE_LIMIT: Duration = Duration::from_secs(40);
const SHADOW_LIMIT: Duration = Duration::from_secs(40);
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

/// How long a killed daemon stays dead.
const DEAD: Duration = Duration::from_millis(500);

/// Plays the demo, prints its table or its JSON object; failure if any promise was broken.
pub fn run(args: &DemoArgs, json: bool) -> ExitCode {
    let mut story = match Story::begin(args, json) {
        Ok(story) => story,
        Err(error) => return fail(&error, json),
    };
    let result = story.play();
    story.stage.end();
    if args.keep || !matches!(&result, Ok(report) if report.is_clean()) {
        story.cluster.keep();
        eprintln!("files are in {}", story.cluster.root().display());
    }
    match result {
        Ok(report) if json => println!("{}", report.json()),
        Ok(report) => print!("\n{}", report.table()),
        Err(error) => return fail(&error, json),
    }
    story.exit
}

fn fail(error: &Error, json: bool) -> ExitCode {
    if json {
        println!(
            "{}",
            serde_json::json!({ "clean": false, "error": error.to_string() })
        );
    }
    eprintln!("foreshadow demo: {error}");
    ExitCode::FAILURE
}

struct Story {
    args: DemoArgs,
    random: Random,
    stage: Arc<Stage>,
    cluster: Cluster,
    began: Instant,
    moves: Vec<MoveReport>,
    /// Windows that are not steady: moves, kills, restarts.
    windows: Vec<(u64, u64)>,
    aborted: Vec<String>,
    killed: Option<String>,
    /// Writers that write often enough to be waited for.
    busy: Vec<u32>,
    exit: ExitCode,
}

impl Story {
    fn begin(args: &DemoArgs, json: bool) -> Result<Story, Error> {
        let options = Options {
            root: args.root.clone(),
            nodes: usize::from(args.nodes),
            engine: args.engine,
            keep: args.keep,
            seed: args.seed,
            ..Options::default()
        };
        let cluster = Cluster::prepare(&options)?;
        end_on_signal(cluster.root().to_owned(), args.keep)?;
        let stage = Stage::open(&cluster, json);
        Ok(Story {
            args: args.clone(),
            random: Random::new(args.seed),
            stage,
            cluster,
            began: Instant::now(),
            moves: Vec::new(),
            windows: Vec::new(),
            aborted: Vec::new(),
            killed: None,
            busy: Vec::new(),
            exit: ExitCode::FAILURE,
        })
    }

    fn play(&mut self) -> Result<Report, Error> {
        self.start()?;
        let load = self.load();
        self.busy = writers_of(&load, |pace| match pace {
            Pace::Rate(rate) => rate > BUSY_RATE,
            Pace::ThinkUs(_) => true,
        });
        let mut writers = self.cluster.start_writers(&load)?;
        let wire_before = self.cluster.wire_bytes();
        let cpu_before = self.cluster.cpu_seconds();
        let loaded = Instant::now();
        let sampler = Sampler::start(&self.cluster, SHARED_TENANTS);
        self.stage.measured(&sampler.measured);
        self.under_load(loaded)?;
        writers.check()?;
        self.stage.phase("stopping the writers");
        let measured = Arc::clone(&sampler.measured);
        let loaded = loaded.elapsed();
        let tallies = writers.stop()?;
        drop(sampler);
        self.stage
            .phase("waiting until every shadow has caught up, comparing digests");
        self.cluster.settle(SETTLE_LIMIT);
        let wire_bytes = self.cluster.wire_bytes() - wire_before;
        let cpu_seconds = self.cluster.cpu_seconds() - cpu_before;
        self.cluster.stop()?;
        self.stage.phase("checking every acknowledged row");
        let verdict = self.cluster.verify()?;
        let facts = Facts {
            engine: self.args.engine,
            nodes: self.cluster.nodes.len(),
            tenants: self.cluster.tenants.len(),
            moves: std::mem::take(&mut self.moves),
            aborted: std::mem::take(&mut self.aborted),
            killed: self.killed.take(),
            windows: std::mem::take(&mut self.windows),
            dense: writers_of(&load, |pace| matches!(pace, Pace::ThinkUs(_))),
            journals: acks::read_all(&self.cluster.acks())?,
            lags_ms: measured.lags_ms(),
            wire_bytes,
            raw_wal_bytes: measured.raw_wal_bytes(),
            cpu_seconds,
            loaded,
            seconds: self.began.elapsed(),
            seed: self.args.seed,
        };
        Ok(self.close(facts, verdict, tallies))
    }

    fn close(&mut self, facts: Facts, verdict: Verdict, tallies: Vec<Tally>) -> Report {
        let report = Report::new(facts, verdict, tallies, u64::from(self.args.moves));
        if report.is_clean() {
            self.exit = ExitCode::SUCCESS;
        }
        report
    }

    fn start(&mut self) -> Result<(), Error> {
        let tenants = self.tenants();
        let (early, late) = tenants.split_at(tenants.len() - LATE_TENANTS);
        self.stage.phase("making databases");
        self.cluster.create_tenants(early)?;
        self.stage.phase("starting daemons");
        self.cluster.start_all()?;
        self.cluster.create_tenants(late)?;
        self.stage.phase("filling shadows");
        self.cluster.wait_for_shadows(SHADOW_LIMIT)
    }

    /// Most tenants begin on the first node, some on the others; 1 to 8 MB, mostly small.
    fn tenants(&mut self) -> Vec<Tenant> {
        let mut tenants = Vec::new();
        for number in 0..u32::from(self.args.tenants) {
            let node = match number % 6 {
                4 => 1,
                5 => 2 % self.cluster.nodes.len(),
                _ => 0,
            };
            let megabytes = 1.0 + 7.0 * self.random.unit().powi(3);
            let node = &self.cluster.nodes[node].place.name;
            tenants.push(Tenant::of(self.args.engine, number, node, megabytes));
        }
        tenants
    }

    fn load(&self) -> Load {
        let mut programs = vec![Program::Bundled; 3];
        if self.cluster.python().is_some() {
            programs.extend([Program::Python; 2]);
        }
        let mut load = Load::new(&programs);
        let last = programs.len() - 1;
        let shares = zipf_shares(self.cluster.tenants.len(), ZIPF_EXPONENT);
        for (index, tenant) in self.cluster.tenants.iter().enumerate() {
            let rate = f64::from(self.args.rate) * shares[index];
            if index < DENSE_TENANTS {
                load.add(index, tenant, Pace::ThinkUs(THINK_US));
                load.add(last - index, tenant, Pace::ThinkUs(THINK_US));
            } else if index < SHARED_TENANTS {
                load.add(index, tenant, Pace::Rate(rate / 2.0));
                load.add(index + 2, tenant, Pace::Rate(rate / 2.0));
            } else {
                load.add(index, tenant, Pace::Rate(rate));
            }
        }
        load
    }

    /// Everything that happens while the writers write. What is left of the time is left quiet.
    fn under_load(&mut self, loaded: Instant) -> Result<(), Error> {
        let end = loaded + Duration::from_secs(u64::from(self.args.seconds));
        let whole = end - loaded;
        let quiet = whole / 6;
        self.stage.phase("writing, nothing moves");
        sleep_until(loaded + quiet);
        let moves = u32::from(self.args.moves);
        let kill_at = loaded + quiet + (whole - quiet) * 2 / 3;
        let each = (whole - quiet) / (moves + 3);
        for number in 0..moves {
            let late = Instant::now() > kill_at;
            if self.killed.is_none() && (late || number == moves * 2 / 3) {
                self.kill_in_mid_move()?;
            }
            if Instant::now() > end {
                break;
            }
            self.one_move(number)?;
            sleep_until((loaded + quiet + each * (number + 1)).min(end));
        }
        if self.killed.is_none() {
            self.kill_in_mid_move()?;
        }
        self.one_rollback()?;
        sleep_until(end);
        self.wait_for_progress()
    }

    /// Mostly the hottest tenants, there and back; every fourth move takes another one.
    fn one_move(&mut self, number: u32) -> Result<(), Error> {
        let index = match number % 4 {
            3 => self.random.below(self.cluster.tenants.len() as u64) as usize,
            n => (n as usize / 2) % self.cluster.tenants.len(),
        };
        let name = self.cluster.tenants[index].name.clone();
        let from = self.cluster.owner_of(&name)?;
        let to = self.other_node(&from);
        self.stage
            .phase(&format!("moving {name} from {from} to {to}"));
        let began_ns = now_ns();
        let result = self.cluster.move_partition(&name, &to, MOVE_LIMIT);
        self.ended(began_ns, &name, &to, result);
        Ok(())
    }

    fn one_rollback(&mut self) -> Result<(), Error> {
        let Some(last) = self.moves.iter().rev().find(|report| report.is_done()) else {
            return Ok(());
        };
        let (name, to) = (last.partition.clone(), last.from.clone());
        self.stage.phase(&format!("rolling {name} back to {to}"));
        let began_ns = now_ns();
        let result = self.cluster.rollback(&name, MOVE_LIMIT);
        self.ended(began_ns, &name, &to, result);
        Ok(())
    }

    fn ended(&mut self, began_ns: u64, name: &str, to: &str, result: Result<MoveReport, Error>) {
        self.windows.push((began_ns, now_ns()));
        let what = match result {
            Ok(report) if report.is_done() => {
                let pause = report.write_pause_ms.map(|ms| format!("{ms:.1} ms"));
                let (from, to) = (&report.from, &report.to);
                let pause = pause.unwrap_or_else(|| "done".to_owned());
                self.stage
                    .event(&format!("{name}  {from} -> {to}  {pause}"));
                self.moves.push(report);
                return;
            }
            Ok(MoveReport {
                outcome: Outcome::Aborted(reason),
                ..
            }) => reason,
            Ok(_) => "forgotten by its daemon".to_owned(),
            Err(error) => error.to_string(),
        };
        let line = format!("{name} to {to}: {what}");
        self.stage.event(&format!("not moved: {line}"));
        self.aborted.push(line);
    }

    /// Begins a move, kills one of the two daemons a few milliseconds later, starts it again and
    /// waits until the partition has one owner and its writers go on.
    fn kill_in_mid_move(&mut self) -> Result<(), Error> {
        let name = self.cluster.tenants[DENSE_TENANTS].name.clone();
        let from = self.cluster.owner_of(&name)?;
        let to = self.other_node(&from);
        let victim = if self.random.below(2) == 0 {
            from.clone()
        } else {
            to.clone()
        };
        self.stage.phase(&format!(
            "killing {victim} while {name} moves from {from} to {to}"
        ));
        let began_ns = now_ns();
        if let Err(error) = self.cluster.begin_move(&name, &to) {
            self.aborted.push(format!("{name} to {to}: {error}"));
        }
        std::thread::sleep(Duration::from_micros(self.random.below(30_000)));
        self.cluster.kill9(&victim)?;
        std::thread::sleep(DEAD);
        self.cluster.restart(&victim)?;
        let owner = self.cluster.wait_for_one_owner(&name, MOVE_LIMIT)?;
        self.wait_for_progress()?;
        self.windows.push((began_ns, now_ns()));
        let line = format!("{name}  {from} -> {to}, kill -9 of {victim}: {owner} owns it");
        self.stage.event(&line);
        self.killed = Some(line);
        Ok(())
    }

    /// Every writer that writes often must get at least one more acknowledgement.
    fn wait_for_progress(&self) -> Result<(), Error> {
        self.cluster
            .wait_for_progress(&self.busy, Duration::from_secs(15))
    }

    fn other_node(&mut self, node: &str) -> String {
        let others = self.cluster.nodes.iter().map(|other| &other.place.name);
        let others: Vec<&String> = others.filter(|other| *other != node).collect();
        others[self.random.below(others.len() as u64) as usize].clone()
    }
}

fn writers_of(load: &Load, wanted: impl Fn(Pace) -> bool) -> Vec<u32> {
    let all = load.processes.iter().flat_map(|(_, writers)| writers);
    let some = all.filter(|one| wanted(one.pace));
    some.map(|one| one.writer).collect()
}

fn sleep_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// On ctrl-c or SIGTERM: every child is killed by its number, the files go, and so do we.
fn end_on_signal(root: std::path::PathBuf, keep: bool) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Error::new(format!("listen for signals: {error}")))?;
    std::thread::spawn(move || {
        let signals = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted,
                _ = terminate.recv() => Ok(()),
            }
        });
        if signals.is_ok() {
            kill_children();
            view::leave();
            if !keep {
                // What can't be removed is only litter in a temporary directory.
                let _ = std::fs::remove_dir_all(&root);
            }
            std::process::exit(130);
        }
    });
    Ok(())
}
