//! Moves back and forth under four unmodified writers: nothing may be lost, doubled or accepted
//! after the fence, and the writers' gaps are compared with their own steady commits and with the
//! disk.
//!
//! FORESHADOW_MOVES sets how many (default 200; a fifth of it in a closed loop).

#[allow(dead_code, reason = "every bench uses a part of it")]
mod application;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod bounds;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use application::now_ns;
use foreshadow::cli::demo::acks::{self, Ack};
use foreshadow::cli::demo::harness::{
    Cluster, Error, MoveReport, Outcome, Pace, Tally, Tenant, Verdict, four_writers, gaps_ms,
    percentile, steady_ms,
};
use report::{Bar, Bound, Figure, Report};
use stage::{Stage, has_ready_shadow, wait_for};

const NAME: &str = "tenant00.db";
const MEGABYTES: f64 = 4.0;
const MOVE_LIMIT: Duration = Duration::from_secs(20);
const SHADOW_LIMIT: Duration = Duration::from_secs(20);
/// Between two moves, so that there are steady commits to compare with.
const REST: Duration = Duration::from_millis(120);

/// How the four writers write, and how often they are moved meanwhile.
struct Load {
    name: &'static str,
    pace: Pace,
    moves: usize,
    /// No move begins later than this.
    time: Duration,
}

fn main() -> ExitCode {
    application::become_application();
    let moves = std::env::var("FORESHADOW_MOVES").ok();
    let moves = moves.and_then(|text| text.parse().ok()).unwrap_or(200);
    let loads = [
        // 400 transactions a second; a pause is felt by those who want to write in it.
        Load {
            name: "paced",
            pace: Pace::Rate(100.0),
            moves,
            time: Duration::from_secs(120),
        },
        // Everybody always wants to write: each pause is felt by all, and so is SQLite's own
        // back-off, moves or no moves.
        Load {
            name: "closed loop",
            pace: Pace::ThinkUs(2000),
            moves: moves / 5,
            time: Duration::from_secs(30),
        },
    ];
    let stage = Stage::new("switch");
    let mut report = Report::new("switch");
    report.note(&format!("on {}", stage.filesystem()));
    let options = stage.options("c", 2);
    let mut cluster = Cluster::start(&options).expect("two daemons");
    let tenants = [Tenant::new(0, "node-a", MEGABYTES)];
    cluster.create_tenants(&tenants).expect("a database");
    cluster.wait_for_shadows(SHADOW_LIMIT).expect("a shadow");
    let mut tallies = Vec::new();
    for load in &loads {
        let (played, tally) = play(&mut report, &mut cluster, load);
        figures(&mut report, &stage, load, &played);
        tallies.extend(tally);
    }
    cluster.settle(Duration::from_secs(15));
    cluster.stop().expect("two daemons end");
    let verdict = cluster.verify().expect("a verdict");
    if !judge(&mut report, &verdict, &tallies) {
        cluster.keep();
        report.note(&format!("files are in {}", cluster.root().display()));
        std::mem::forget(stage);
    }
    report.finish()
}

/// The moves that were made, the windows that are not steady, and what the writers were told.
#[derive(Default)]
struct Played {
    done: Vec<MoveReport>,
    windows: Vec<(u64, u64)>,
    aborted: Vec<String>,
    journals: Vec<Vec<Ack>>,
}

fn play(report: &mut Report, cluster: &mut Cluster, load: &Load) -> (Played, Vec<Tally>) {
    let begun_ns = now_ns();
    let four = four_writers(&cluster.tenants[0], load.pace);
    let writers = cluster.start_writers(&four).expect("four writers");
    std::thread::sleep(Duration::from_secs(3));
    let mut played = Played::default();
    let begun = Instant::now();
    while played.done.len() < load.moves && begun.elapsed() < load.time {
        if let Err(error) = one_move(cluster, &mut played) {
            report.fail(format!("move {}: {error}", played.done.len()));
            break;
        }
        std::thread::sleep(REST);
    }
    let (name, done, aborted) = (load.name, played.done.len(), played.aborted.len());
    let seconds = begun.elapsed().as_secs_f64();
    report.note(&format!(
        "{name}: {done} moves in {seconds:.0} s, {aborted} given up {:?}",
        played.aborted.first()
    ));
    std::thread::sleep(Duration::from_secs(2));
    let tallies = writers.stop().expect("the writers end");
    played.journals = acks::read_all(&cluster.acks()).expect("ack journals");
    for journal in &mut played.journals {
        journal.retain(|ack| ack.due_ns >= begun_ns);
    }
    (played, tallies)
}

fn one_move(cluster: &mut Cluster, played: &mut Played) -> Result<(), Error> {
    let from = cluster.owner_of(NAME)?;
    let mut names = cluster.nodes.iter().map(|node| &node.place.name);
    let to = names.find(|name| **name != from).cloned();
    let to = to.expect("a second node");
    wait_for("a ready shadow", SHADOW_LIMIT, || {
        has_ready_shadow(cluster, &from, NAME).then_some(())
    });
    let moved = cluster.move_partition(NAME, &to, MOVE_LIMIT)?;
    played.windows.push((moved.started_ns, moved.ended_ns));
    match &moved.outcome {
        Outcome::Done => played.done.push(moved),
        Outcome::Aborted(reason) => played.aborted.push(reason.clone()),
        Outcome::Forgotten => played.aborted.push("forgotten".to_owned()),
    }
    Ok(())
}

/// A move from when its freeze began: what came before made nobody wait.
fn frozen(moved: &MoveReport) -> MoveReport {
    let freezing = moved.steps.iter().find(|step| step.name == "freezing");
    let at_ms = freezing.map_or(0.0, |step| step.at_ms);
    let started_ns = moved.started_ns + (at_ms * 1e6) as u64;
    MoveReport {
        started_ns,
        ..moved.clone()
    }
}

fn figures(report: &mut Report, stage: &Stage, load: &Load, played: &Played) {
    let mut sync = bounds::fdatasync(stage.path(), 300);
    let mut trip = bounds::ping_pong(2000);
    let mut swap = bounds::exchange(stage.path(), 300);
    let mut floor = |share| {
        let (sync, trip) = (percentile(&mut sync, share), percentile(&mut trip, share));
        (2.0 * sync + trip + percentile(&mut swap, share)) / 1e3
    };
    let (name, asked) = (load.name, load.moves as f64);
    let moves = Figure(played.done.len() as f64, "moves");
    let bound = Bound(asked, "moves asked for");
    report.case(
        &format!("{name}: moves made"),
        moves,
        bound,
        Bar::AtLeast(asked),
    );
    let moves: Vec<MoveReport> = played.done.iter().map(frozen).collect();
    let mut gaps = gaps_ms(&played.journals, &moves.iter().collect::<Vec<_>>());
    let mut steady = steady_ms(&played.journals, &played.windows);
    let commit = percentile(&mut steady, 0.999);
    let what = "2 fdatasync + round trip + exchange";
    let shares = [("p50", 0.5, 8.0), ("p99", 0.99, 25.0)];
    for (tail, share, bar) in shares {
        let gap = Figure(percentile(&mut gaps, share), "ms");
        let case = format!("{name}: gap a writer saw, {tail}");
        report.case(&case, gap, Bound(floor(share), what), Bar::AtMost(bar));
        let bound = Bound(commit, "steady commit p99.9");
        report.case(&case, gap, bound, Bar::AtMost(3.0 * commit));
    }
    let pauses = played.done.iter().filter_map(|moved| moved.write_pause_ms);
    let mut pauses: Vec<f64> = pauses.collect();
    for (tail, share, _) in shares {
        let pause = Figure(percentile(&mut pauses, share), "ms");
        let case = format!("{name}: pause the daemon measured, {tail}");
        report.case(&case, pause, Bound(floor(share), what), Bar::None);
    }
    report.note(&format!(
        "{} gaps; steady commits: p50 {:.2}, p99 {:.2}, p99.9 {commit:.2} ms",
        gaps.len(),
        percentile(&mut steady, 0.5),
        percentile(&mut steady, 0.99),
    ));
    steps(report, &played.done);
}

/// Where the time of a move goes: the median time at which each step began.
fn steps(report: &Report, done: &[MoveReport]) {
    let Some(first) = done.first() else { return };
    let mut line = String::from("steps at (ms, p50/p99):");
    for (index, step) in first.steps.iter().enumerate() {
        let at = done.iter().filter_map(|moved| moved.steps.get(index));
        let mut at: Vec<f64> = at.map(|step| step.at_ms).collect();
        let (half, tail) = (percentile(&mut at, 0.5), percentile(&mut at, 0.99));
        line += &format!(" {} {half:.1}/{tail:.1}", step.name);
    }
    report.note(&line);
}

fn judge(report: &mut Report, verdict: &Verdict, tallies: &[Tally]) -> bool {
    let stuck: u64 = tallies.iter().map(|tally| tally.stuck).sum();
    let counts = [
        ("lost", verdict.lost),
        ("duplicated", verdict.duplicated),
        ("phantom", verdict.phantom),
        ("accepted after the fence", verdict.accepted_after_fence),
        ("integrity failures", verdict.integrity_failures),
        ("digest failures", verdict.digest_failures),
        ("stuck writers", stuck),
    ];
    let acked = Bound(verdict.acked as f64, "transactions acknowledged");
    for (name, count) in counts {
        report.case(name, Figure(count as f64, ""), acked, Bar::AtMost(0.0));
        if count > 0 {
            report.fail(format!("{count} {name}: {:?}", verdict.notes));
        }
    }
    let versions: Vec<&str> = tallies.iter().map(|tally| tally.version.as_str()).collect();
    report.note(&format!("writers used SQLite {versions:?}"));
    verdict.is_clean() && stuck == 0
}
