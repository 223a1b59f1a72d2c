//! Files of a daemon that were damaged while it was dead: it comes up, believes nothing that it
//! can't prove, copies anew what it must, and no row is wrong. The live database is not touched
//! here: it belongs to the applications (damaged logs of theirs: tests/bad_input/write_ahead.rs).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foreshadow::cli::demo::harness::{Cluster, Pace, Place, four_writers};

use crate::cluster::{LIMIT, judged, moves_on, options, started, tenants};
use crate::look::{both_open, wrong_rows};
use crate::seed::{Dice, number};

const TENANT: &str = "tenant00.db";
const ALL: [u32; 4] = [1, 2, 3, 4];
/// Bytes of a block that a disk loses.
const BLOCK: usize = 4096;

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Deltas,
    Journal,
    Notes,
    Positions,
    Counter,
    Meta,
    Name,
    Copy,
    CopyLog,
}

const PARTS: [Part; 9] = [
    Part::Deltas,
    Part::Journal,
    Part::Notes,
    Part::Positions,
    Part::Counter,
    Part::Meta,
    Part::Name,
    Part::Copy,
    Part::CopyLog,
];

/// How.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Harm {
    Torn,
    Flipped,
    Zeroed,
    Grown,
}

const HARMS: [Harm; 4] = [Harm::Torn, Harm::Flipped, Harm::Zeroed, Harm::Grown];

impl Part {
    /// The files of this kind at a node.
    fn files(self, place: &Place) -> Vec<PathBuf> {
        let state = place.state();
        let copies = shadows(place);
        match self {
            Part::Deltas => below(&state.join("deltas")),
            Part::Journal => below(&state.join("journal-0")),
            Part::Notes => vec![state.join("switch.notes")],
            Part::Positions => vec![state.join("positions")],
            Part::Counter => vec![place.generations().join("counter")],
            Part::Meta => each(&copies, "shadow.meta"),
            Part::Name => each(&copies, "shadow.name"),
            Part::Copy => each(&copies, TENANT),
            Part::CopyLog => each(&copies, &format!("{TENANT}-wal")),
        }
    }

    /// At which of the two nodes it says most: the log is the owner's, the copy the other one's.
    fn is_owners(self, dice: &mut Dice) -> bool {
        match self {
            Part::Deltas => true,
            Part::Journal | Part::Meta | Part::Name | Part::Copy | Part::CopyLog => false,
            Part::Notes | Part::Positions | Part::Counter => dice.below(2) == 0,
        }
    }
}

impl Harm {
    fn done_to(self, bytes: &mut Vec<u8>, dice: &mut Dice) {
        let len = bytes.len().max(1) as u64;
        let at = dice.below(len) as usize;
        match self {
            Harm::Torn => bytes.truncate(at),
            Harm::Flipped => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
            Harm::Zeroed => {
                let from = at / BLOCK * BLOCK;
                let until = (from + BLOCK).min(bytes.len());
                bytes[from..until].fill(0);
            }
            Harm::Grown => bytes.extend((0..1000).map(|_| dice.below(256) as u8)),
        }
    }
}

fn each(dirs: &[PathBuf], file: &str) -> Vec<PathBuf> {
    let files = dirs.iter().map(|dir| dir.join(file));
    files.filter(|path| path.is_file()).collect()
}

/// Directories of copies that are shadows now.
fn shadows(place: &Place) -> Vec<PathBuf> {
    let live = place.live().join(TENANT).canonicalize().ok();
    let dirs = fs::read_dir(place.generations())
        .expect("a directory")
        .flatten();
    let dirs = dirs.map(|entry| entry.path());
    dirs.filter(|dir| {
        let left = dir.join("retired").exists() || !dir.join("shadow.meta").exists();
        !left && dir.join(TENANT).canonicalize().ok() != live
    })
    .collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(below(&path));
        } else if entry.metadata().is_ok_and(|meta| meta.len() > 0) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Waits for one owner and the other node's copy; the owner. What the owner saw before a kill may
/// say that its shadow is ready: the copy itself has to be there.
fn whole_again(cluster: &Cluster, said: &str) -> String {
    let owner = cluster.wait_for_one_owner(TENANT, LIMIT);
    let owner = owner.unwrap_or_else(|error| panic!("{said}: {error}"));
    let follows = cluster.wait_for_shadows(LIMIT);
    follows.unwrap_or_else(|error| panic!("{said}: {error}"));
    let other = match &*owner {
        "node-a" => "node-b",
        _ => "node-a",
    };
    let place = &cluster.node(other).expect("there").place;
    let began = Instant::now();
    while shadows(place).is_empty() {
        assert!(began.elapsed() < LIMIT, "{said}: no copy at {other}");
        std::thread::sleep(Duration::from_millis(10));
    }
    owner
}

/// Kills a node, damages a file of it and starts it again; what came of it, in words.
fn one_round(cluster: &mut Cluster, part: Part, harm: Harm, dice: &mut Dice) -> Option<String> {
    let owner = cluster.owner_of(TENANT).expect("one owner");
    let node = match (part.is_owners(dice), &*owner) {
        (true, _) => owner.clone(),
        (false, "node-a") => "node-b".to_owned(),
        (false, _) => "node-a".to_owned(),
    };
    cluster.kill9(&node).expect("killed");
    let place = cluster.node(&node).expect("there").place.clone();
    let files = part.files(&place);
    if files.is_empty() {
        cluster.restart(&node).expect("it starts");
        whole_again(cluster, "nothing to damage");
        return None;
    }
    let path = dice.pick(&files).clone();
    let before = fs::read(&path).expect("read");
    let mut bytes = before.clone();
    harm.done_to(&mut bytes, dice);
    fs::write(&path, &bytes).expect("damaged");
    let (was, is) = (before.len(), bytes.len());
    let said = format!("{harm:?} {} ({was} -> {is} bytes)", path.display());
    let came = match cluster.restart(&node) {
        Ok(()) => "comes up",
        // A number that was handed out must not come again: here a person has to look.
        Err(error) if part == Part::Counter => {
            let text = error.to_string();
            assert!(text.contains("counter"), "{said}: {text}");
            fs::write(&path, &before).expect("put back");
            cluster
                .restart(&node)
                .expect("it starts with what was there");
            "refused, and said which file"
        }
        Err(error) => panic!("{said}: {error}"),
    };
    let agreed = whole_again(cluster, &said);
    assert_eq!(agreed, owner, "{said}: a damaged file makes no owner");
    let goes_on = cluster.wait_for_progress(&ALL, LIMIT);
    goes_on.unwrap_or_else(|error| panic!("{said}: {error}"));
    let wrong = wrong_rows(cluster, TENANT, &ALL);
    assert!(wrong.is_empty(), "{said}: {wrong:#?}");
    assert!(!both_open(cluster, TENANT), "{said}: open at both nodes");
    Some(format!("{said} at {node}: {came}"))
}

#[test]
fn what_is_damaged_while_a_daemon_is_dead_is_found_out() {
    let mut dice = Dice::new("what_is_damaged");
    let rounds = number("FORESHADOW_ROUNDS", (PARTS.len() * HARMS.len()) as u64);
    let tenants = tenants(1, 2);
    let options = options(2)
        .tweak("[switch]", "max_pause", "\"500ms\"")
        .tweak("[switch]", "pause_timeout", "\"2s\"");
    let mut cluster = started(&options, &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(30.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    cluster.wait_for_progress(&ALL, LIMIT).expect("they write");
    let mut nothing = 0;
    for round in 0..rounds as usize {
        // Every part with every harm in turn.
        let part = PARTS[round % PARTS.len()];
        let harm = HARMS[(round + round / PARTS.len()) % HARMS.len()];
        match one_round(&mut cluster, part, harm, &mut dice) {
            Some(line) => println!("round {round:3}: {line}"),
            None => nothing += 1,
        }
        if round % 4 == 3 {
            // What was taken for whole has to hold: the next owner serves from it.
            moves_on(&mut cluster, TENANT);
            whole_again(&cluster, "moved");
        }
    }
    println!("in {nothing} of {rounds} rounds there was no such file");
    assert!(nothing * 4 <= rounds, "there was mostly nothing to damage");
    let verdict = judged(cluster, writers);
    println!(
        "{} rows, {} copies read",
        verdict.acked, verdict.copies_read
    );
}
