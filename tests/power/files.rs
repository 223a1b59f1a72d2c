//! The check of a moment by its files alone: applications start before any daemon does.
//!
//! At most one node's path of a database takes writes, and one that does holds every row that was
//! acknowledged. Neither may: then a move was under way, and only the daemons know its end.

use std::path::Path;

use crate::check::Found;
use crate::cuts::Cut;
use crate::disk;
use crate::ledger::{self, Met, Owed};
use crate::record::{DISKS, Recording};

/// Mounts what was left of the disks below `root` and looks.
pub fn check(recording: &Recording, cut: &Cut, images: &[String], root: &Path) -> Found {
    let mut found = Found::default();
    let mounted = match disk::mount_all(&DISKS[..2], images, root) {
        Ok(mounted) => mounted,
        Err(error) => {
            found.wrong.push(error);
            return found;
        }
    };
    for tenant in &recording.tenants {
        let owed = Owed::at(cut, tenant.number, &recording.acks);
        let mut open = Vec::new();
        for node in &DISKS[..2] {
            let path = root.join(node).join("live").join(&tenant.name);
            match ledger::meet(&path) {
                Ok(Met::Writable(connection)) => {
                    open.push(*node);
                    let judged = ledger::judge(&connection, &owed);
                    let judged = judged.unwrap_or_else(|error| vec![error]);
                    let named = |line| format!("{} at {node}: {line}", tenant.name);
                    found.wrong.extend(judged.into_iter().map(named));
                    found.rows += owed.rows;
                }
                Ok(Met::Closed(_)) => {}
                Err(error) => found
                    .wrong
                    .push(format!("{} at {node}: {error}", tenant.name)),
            }
        }
        found.open += open.len() as u64;
        if open.len() > 1 {
            found
                .wrong
                .push(format!("{} takes writes at {open:?}", tenant.name));
        }
    }
    found.wrong.extend(disk::throw_away(mounted).err());
    found
}
