//! The check of a moment by the daemons: they start on what was left, agree on one owner that
//! serves every acknowledged row, and a shadow stands at least where it said it was durable.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, MoveReport};

use crate::check::Found;
use crate::cuts::Cut;
use crate::disk;
use crate::ledger::{self, Met, Owed};
use crate::record::{DISKS, LIMIT, Promise, Recording, cluster, start};

/// Mounts what was left of the disks below `root`, starts the daemons and looks.
pub fn check(
    recording: &Recording,
    cut: &Cut,
    images: &[String],
    root: &Path,
    binary: &Path,
) -> Found {
    let mut found = Found::default();
    let mounted = match disk::mount_all(&DISKS, images, root) {
        Ok(mounted) => mounted,
        Err(error) => {
            found.wrong.push(error);
            return found;
        }
    };
    if let Err(error) = look(recording, cut, root, binary, &mut found) {
        found.wrong.push(error);
    }
    found.wrong.extend(disk::throw_away(mounted).err());
    found
}

fn look(
    recording: &Recording,
    cut: &Cut,
    root: &Path,
    binary: &Path,
    found: &mut Found,
) -> Result<(), String> {
    let said = |error: foreshadow::cli::demo::harness::Error| error.to_string();
    let mut cluster = cluster(binary, root)?;
    cluster.tenants.clone_from(&recording.tenants);
    // Alone first: what it says about its shadows is then from its own disk.
    let (first, second) = match cut.owed_ns.is_multiple_of(2) {
        true => ("node-a", "node-b"),
        false => ("node-b", "node-a"),
    };
    start(&mut cluster, &[first])?;
    promises(recording, cut, &cluster, first, found)?;
    start(&mut cluster, &[second])?;
    for tenant in &recording.tenants {
        let owed = Owed::at(cut, tenant.number, &recording.acks);
        let owner = serving(&cluster, &tenant.name, root)?;
        for node in &DISKS[..2] {
            let path = root.join(node).join("live").join(&tenant.name);
            let line = serves(&path, *node == owner, &owed);
            found.wrong.extend(
                line.into_iter()
                    .map(|line| format!("{} at {node}: {line}", tenant.name)),
            );
        }
        found.open += 1;
        found.rows += owed.rows;
    }
    cluster.wait_for_shadows(LIMIT).map_err(said)?;
    found.wrong.extend(cluster.settle(LIMIT));
    cluster.stop().map_err(said)
}

/// The owner, once its path takes writes: a source that finds its fence is listed as the owner
/// until its target has answered that it serves.
fn serving(cluster: &Cluster, partition: &str, root: &Path) -> Result<String, String> {
    let until = Instant::now() + LIMIT;
    loop {
        let owner = cluster.wait_for_one_owner(partition, LIMIT);
        let owner = owner.map_err(|error| format!("{error}\n{:#?}", cluster.views()))?;
        let met = ledger::meet(&root.join(&owner).join("live").join(partition));
        if !matches!(met, Ok(Met::Closed(_))) || Instant::now() > until {
            return Ok(owner);
        }
        sleep(Duration::from_millis(50));
    }
}

/// What is wrong with the path of a node that is or is not the owner. The owner's takes a row.
fn serves(path: &Path, owner: bool, owed: &Owed) -> Vec<String> {
    match (ledger::meet(path), owner) {
        (Err(error), _) => vec![error],
        (Ok(Met::Closed(_)), false) => Vec::new(),
        (Ok(Met::Closed(why)), true) => vec![format!("the owner takes no writes: {why}")],
        (Ok(Met::Writable(_)), false) => vec!["it takes writes and is not the owner".to_owned()],
        (Ok(Met::Writable(connection)), true) => {
            let mut wrong = ledger::judge(&connection, owed).unwrap_or_else(|error| vec![error]);
            let insert = "INSERT INTO ledger(writer, seq, generation, account, amount)
                VALUES(0, 1, 0, 1, 0); COMMIT";
            let wrote = connection.execute_batch(insert);
            wrong.extend(
                wrote
                    .err()
                    .map(|error| format!("the owner's first write: {error}")),
            );
            wrong
        }
    }
}

/// The newest promise about each shadow of this node that was heard before the moment.
fn promises(
    recording: &Recording,
    cut: &Cut,
    cluster: &Cluster,
    node: &str,
    found: &mut Found,
) -> Result<(), String> {
    let rows = cluster
        .node(node)
        .and_then(|node| node.get("/v1/partitions"));
    let rows = rows.map_err(|error| error.to_string())?;
    for tenant in &recording.tenants {
        let name = &tenant.name;
        let heard = |promise: &&Promise| {
            promise.at_ns < cut.owed_ns && promise.partition == *name && promise.node == node
        };
        let Some(newest) = recording.promises.iter().rfind(heard) else {
            continue;
        };
        // What a move made of the shadow since is judged by the owner alone.
        let moved = |one: &MoveReport| {
            one.partition == *name && one.ended_ns >= newest.at_ns && one.started_ns <= cut.begun_ns
        };
        if recording.moves.iter().any(moved) {
            continue;
        }
        found.promises += 1;
        let mut shadows = rows.as_array().into_iter().flatten();
        let shadow = shadows.find(|row| row["name"] == name.as_str() && row["role"] == "shadow");
        let number = |key: &str| shadow.and_then(|row| row[key].as_u64()).unwrap_or(0);
        let stands = (number("epoch"), number("lsn"));
        if stands < (newest.epoch, newest.lsn) {
            let said = (newest.epoch, newest.lsn);
            let line = format!("{name}: {node} stands at {stands:?}, said {said:?}: {rows}");
            found.wrong.push(line);
        }
    }
    Ok(())
}
