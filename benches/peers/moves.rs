//! The longest time between two commits of one paced writer while its database of 32 MB goes
//! elsewhere, and that no acknowledged update was lost on the way.
//!
//! Ours: `move`. Litestream has no move; an operator's own is played kindly: the writer holds by
//! itself, `litestream sync -wait` says when the replica has all, the follower (or a restore)
//! catches up and ends, the writer opens the copy. No fence, no route, no proof: none of them is in
//! its figure. At its kindest the control socket is asked without starting a program for it.
//! PostgreSQL: the primary is stopped (fast), its standby promoted, the writer tries both.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Error, percentile};

use crate::application::{Commit, now_ns};
use crate::litestream::{Litestream, Tuning};
use crate::postgres::{Client, Server};
use crate::report::short;
use crate::sqlite::{self, N_AT_FIRST, Plan, ROWS_PER_MEGABYTE, Work, Writer};
use crate::table::{Row, System, Table};
use crate::{Scene, clear, ours, progress};

const ROWS: u64 = 32 * ROWS_PER_MEGABYTE;
const NAME: &str = "tenant00.db";
/// 500 a second; a gap has at least these 2 ms.
const EVERY_US: u64 = 2000;
/// The writer before a move and after it.
const STEADY: Duration = Duration::from_millis(1200);
const MOVE_LIMIT: Duration = Duration::from_secs(20);
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// Ours at most these shares of Litestream's gap, by default and at its best.
const BAR_DEFAULT: f64 = 1.0 / 50.0;
const BAR_TUNED: f64 = 1.0 / 8.0;

/// How a move with Litestream is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// A follower, and the command line.
    Follow,
    /// A follower, and the control socket.
    FollowBySocket,
    /// No follower: restored when everybody waits.
    Restore,
}

type Gaps = Option<Vec<f64>>;

pub fn measure(table: &mut Table, scene: &Scene<'_>) {
    let seed = scene.stage.path().join("moves-seed.db");
    if table.take("moves", sqlite::create(&seed, ROWS)).is_none() {
        return;
    }
    progress("moves: ours");
    let ours = of_ours(scene, &seed, scene.pick(30, 8));
    let ours = table.take("moves, ours", ours);
    let mut litestream = |tuning, how, rounds| {
        let what = format!("moves: litestream, {tuning:?}, {how:?}");
        progress(&what);
        let gaps = (0..rounds).map(|_| litestream_move(scene, &seed, tuning, how));
        let gaps = gaps.collect::<Result<Vec<_>, _>>();
        table.take(&what, gaps)
    };
    let default = litestream(Tuning::Default, How::Follow, scene.pick(10, 3));
    let tuned = litestream(Tuning::Fast, How::Follow, scene.pick(10, 3));
    let by_socket = litestream(Tuning::Fast, How::FollowBySocket, scene.pick(10, 3));
    let restored = litestream(Tuning::Default, How::Restore, scene.pick(5, 2));
    progress("moves: postgres");
    let postgres = of_postgres(scene, scene.pick(8, 3));
    let postgres = table.take("moves, postgres", postgres);
    for (share, what) in [(0.5, "p50"), (1.0, "worst")] {
        let cell = |gaps: &Gaps| gaps.clone().map(|mut gaps| percentile(&mut gaps, share));
        let name = format!("gap of a writer across a move, {what}");
        let row = Row::new(&name, "ms")
            .cell(System::Ours, cell(&ours))
            .cell(System::Litestream, cell(&default))
            .cell(System::LitestreamTuned, cell(&tuned))
            .cell(System::Postgres, cell(&postgres));
        let name = format!("the same, Litestream asked by its socket, {what}");
        let kindest = Row::new(&name, "ms")
            .cell(System::Ours, cell(&ours))
            .cell(System::LitestreamTuned, cell(&by_socket));
        let name = format!("the same, Litestream without a follower, {what}");
        let restored = Row::new(&name, "ms")
            .cell(System::Ours, cell(&ours))
            .cell(System::Litestream, cell(&restored));
        let with_bars = |row: Row| match what {
            "p50" => row.bar(System::LitestreamTuned, BAR_TUNED),
            _ => row,
        };
        table.row(match what {
            "p50" => with_bars(row).bar(System::Litestream, BAR_DEFAULT),
            _ => row,
        });
        table.row(with_bars(kindest));
        table.row(restored);
    }
    for (name, gaps) in [
        ("ours", ours),
        ("litestream", default),
        ("litestream 50 ms", tuned),
        ("litestream 50 ms by socket", by_socket),
        ("postgres", postgres),
    ] {
        let gaps: Vec<String> = gaps.iter().flatten().map(|gap| short(*gap)).collect();
        table.note(&format!(
            "{name}, {} moves, ms: {}",
            gaps.len(),
            gaps.join(" ")
        ));
    }
}

fn plan(scene: &Scene<'_>, database: &Path) -> Plan {
    Plan {
        database: database.to_owned(),
        work: Work::Update(ROWS),
        every_us: EVERY_US,
        count: 0,
        log: scene.stage.path().join("moves.log"),
    }
}

/// The longest time from one commit to the next that touches the window.
fn gap_ms(commits: &[Commit], from_ns: u64, until_ns: u64) -> Result<f64, Error> {
    let pairs = commits
        .windows(2)
        .map(|pair| (pair[0].end_ns, pair[1].end_ns));
    let touching = pairs.filter(|(end, next)| *end <= until_ns && *next >= from_ns);
    let gap = touching.map(|(end, next)| next - end).max();
    let gap = gap.ok_or_else(|| Error::new("no commits around a move"))?;
    Ok(gap as f64 / 1e6)
}

/// What was acknowledged must be there.
fn judge(acked: usize, there: u64) -> Result<(), Error> {
    match acked as u64 == there {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{acked} updates acknowledged, {there} there"
        ))),
    }
}

fn of_ours(scene: &Scene<'_>, seed: &Path, moves: usize) -> Result<Vec<f64>, Error> {
    let mut cluster = ours::start_with(scene, "moves-ours", seed)?;
    let route = cluster.routes().join(NAME);
    let mut writer = Writer::start(&plan(scene, &route))?;
    writer.go()?;
    let mut windows = Vec::new();
    for number in 0..moves {
        std::thread::sleep(STEADY / 2);
        windows.push(one_move(&mut cluster, number)?);
    }
    std::thread::sleep(STEADY);
    let commits = writer.stop()?;
    judge(
        commits.len(),
        sqlite::updates(&route, &plan(scene, &route).log)?,
    )?;
    cluster.stop()?;
    let gaps = windows
        .iter()
        .map(|(from, until)| gap_ms(&commits, *from, *until));
    gaps.collect()
}

/// A move to the other node; when it began and ended.
fn one_move(cluster: &mut Cluster, number: usize) -> Result<(u64, u64), Error> {
    let names = [0, 1].map(|node| cluster.nodes[node].place.name.clone());
    let (from, to) = (&names[number % 2], &names[(number + 1) % 2]);
    ours::wait_for_shadow(cluster, from, NAME)?;
    let moved = cluster.move_partition(NAME, to, MOVE_LIMIT)?;
    match moved.is_done() {
        true => Ok((moved.started_ns, moved.ended_ns)),
        false => Err(Error::new(format!("move {number}: {:?}", moved.outcome))),
    }
}

fn litestream_move(scene: &Scene<'_>, seed: &Path, tuning: Tuning, how: How) -> Result<f64, Error> {
    let dir = scene.dir("moves-litestream")?;
    scene.dir("moves-litestream/live")?;
    let (database, moved) = (dir.join("live").join(NAME), dir.join("moved.db"));
    ours::put(seed, &database)?;
    let litestream = Litestream::start(scene.peers.litestream()?, &dir, tuning)?;
    litestream.wait_for_replica(NAME)?;
    let follower = match how {
        How::Follow | How::FollowBySocket => Some(litestream.follow(NAME, &moved)?),
        How::Restore => None,
    };
    if let Some(follower) = &follower {
        follower.wait_for(litestream.sync(NAME)?)?;
    }
    let route = dir.join("route.db");
    lead(&route, &database)?;
    let mut writer = Writer::start(&plan(scene, &route))?;
    writer.go()?;
    // Moves begin at any moment of a polling interval.
    std::thread::sleep(STEADY + Duration::from_nanos(now_ns() % 1_000_000_000));
    let from_ns = now_ns();
    writer.hold()?;
    let txid = match how {
        How::Follow | How::Restore => litestream.sync_by_command(NAME)?,
        How::FollowBySocket => litestream.sync(NAME)?,
    };
    match follower {
        Some(follower) => {
            follower.wait_for(txid)?;
            follower.stop()?;
        }
        None => litestream.restore(NAME, &moved)?,
    }
    lead(&route, &moved)?;
    writer.resume()?;
    let until_ns = now_ns();
    std::thread::sleep(STEADY);
    let commits = writer.stop()?;
    judge(
        commits.len(),
        sqlite::updates(&moved, &plan(scene, &moved).log)?,
    )?;
    litestream.stop()?;
    clear(&dir);
    gap_ms(&commits, from_ns, until_ns)
}

fn lead(route: &Path, to: &Path) -> Result<(), Error> {
    let part = route.with_extension("part");
    symlink(to, &part).map_err(|error| Error::at("link", &part, error))?;
    std::fs::rename(&part, route).map_err(|error| Error::at("rename", &part, error))
}

fn of_postgres(scene: &Scene<'_>, moves: usize) -> Result<Vec<f64>, Error> {
    let dir = scene.dir("moves-postgres")?;
    let mut primary = Server::create(scene.peers.postgres()?, &dir.join("0"))?;
    primary.fill(ROWS)?;
    let (mut gaps, mut acked) = (Vec::new(), 0);
    for number in 1..=moves {
        let standby = primary.standby(&dir.join(number.to_string()))?;
        let old = dir.join((number - 1).to_string());
        let (gap, commits) = switch(primary, &standby)?;
        gaps.push(gap);
        acked += commits;
        primary = standby;
        clear(&old);
    }
    let sum = format!("SELECT sum(n - {N_AT_FIRST}) FROM docs");
    let there = primary.connect()?.value(&sum)?;
    let there = there.parse().map_err(|_| Error::new("no sum"))?;
    judge(acked, there)?;
    primary.stop()?;
    clear(&dir);
    Ok(gaps)
}

/// Stops the primary and promotes its standby under a writer; the writer's gap and commits.
fn switch(primary: Server, standby: &Server) -> Result<(f64, usize), Error> {
    let sockets = [primary.socket(), standby.socket()];
    let stop = AtomicBool::new(false);
    let mut operator = standby.connect()?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_at_either(&sockets, &stop));
        std::thread::sleep(STEADY);
        let from_ns = now_ns();
        let switched = primary.stop().and_then(|()| {
            // Not to wait for it: the writer itself finds out soonest.
            operator.query("SELECT pg_promote(false)")
        });
        std::thread::sleep(STEADY);
        let until_ns = now_ns();
        stop.store(true, Ordering::Relaxed);
        let commits = writing.join().expect("it only writes");
        switched?;
        let commits = commits?;
        let gap = gap_ms(&commits, from_ns, until_ns)?;
        Ok((gap, commits.len()))
    })
}

/// Commits every 2 ms at whichever server takes it.
fn write_at_either(
    sockets: &[std::path::PathBuf; 2],
    stop: &AtomicBool,
) -> Result<Vec<Commit>, Error> {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
    let work = Work::Update(ROWS);
    let mut client = Client::open(&sockets[0], work)?;
    let mut commits: Vec<Commit> = Vec::new();
    let mut due = now_ns();
    while !stop.load(Ordering::Relaxed) {
        let start_ns = now_ns();
        let mut tries = 0;
        let mut commit = client.transact();
        while let Err(error) = commit {
            if now_ns() - start_ns > WRITE_LIMIT.as_nanos() as u64 {
                return Err(error);
            }
            std::thread::sleep(Duration::from_micros(500));
            tries += 1;
            commit = Client::open(&sockets[tries % 2], work).and_then(|opened| {
                client = opened;
                client.transact()
            });
        }
        commits.extend(commit);
        due = (due + EVERY_US * 1000).max(start_ns);
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
    }
    Ok(commits)
}
