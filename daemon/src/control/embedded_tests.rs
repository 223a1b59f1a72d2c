//! The embedded coordinator under several processes, kills and cuts at every byte.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use wal::{Epoch, NodeId, PartitionName};

use super::super::coordinator::{Act, Holder};
use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn name(text: &str) -> PartitionName {
    PartitionName::new(text).expect("valid")
}

fn pass(from: Holder, to: Holder) -> Act {
    Act::Pass { expected: from, to }
}

#[test]
fn what_one_daemon_writes_another_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut one = Embedded::open(dir.path()).expect("opens");
    let mut two = Embedded::open(dir.path()).expect("opens");
    let record = one.claim(&name("t.db"), A).expect("claims");
    assert_eq!((record.owner, record.epoch), (A, Epoch(1)));
    assert_eq!(
        two.claim(&name("t.db"), B).expect("answers").owner,
        A,
        "the first claim counts"
    );
    let seen = two.changes(Revision(0)).expect("reads");
    assert_eq!(seen, std::slice::from_ref(&record));
    let epoch = one.reserve(&name("t.db"), A).expect("reserves");
    let to = Holder { node: B, epoch };
    let passed = one
        .pass(&name("t.db"), record.holder(), to)
        .expect("asks")
        .expect("passes");
    assert_eq!((passed.owner, passed.previous), (B, Some(A)));
    assert_eq!(
        two.changes(seen[0].revision).expect("reads"),
        std::slice::from_ref(&passed)
    );
    assert_eq!(two.owner(name("t.db").id()).expect("reads"), Some(passed));
}

#[test]
fn a_group_is_answered_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Embedded::open(dir.path()).expect("opens");
    let request = |text: &str, act| Request {
        name: name(text),
        act,
    };
    let (first, second) = (
        Holder {
            node: A,
            epoch: Epoch(1),
        },
        Holder {
            node: B,
            epoch: Epoch(2),
        },
    );
    let answers = daemon.submit(&[
        request("t.db", Act::Claim { node: A }),
        request("t.db", Act::Reserve { node: A }),
        request("t.db", pass(first, second)),
        request(
            "t.db",
            pass(
                first,
                Holder {
                    node: A,
                    epoch: Epoch(2),
                },
            ),
        ),
        request("u.db", Act::Reserve { node: A }),
    ]);
    let answers = answers.expect("durable");
    assert_eq!(answers[2].as_ref().expect("passes").owner, B);
    assert!(
        matches!(answers[3], Err(Conflict::Owner(_))),
        "the second pass must lose"
    );
    assert!(matches!(answers[4], Err(Conflict::Unknown(_))));
}

#[test]
fn a_log_cut_at_any_byte_recovers_a_prefix_and_never_gives_an_epoch_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Embedded::open(dir.path()).expect("opens");
    let mut ends = vec![(0, HEADER_LEN)];
    daemon.claim(&name("t.db"), A).expect("claims");
    ends.push((1, daemon.read_len));
    for _ in 0..3 {
        let epoch = daemon.reserve(&name("t.db"), A).expect("reserves");
        ends.push((epoch.0, daemon.read_len));
    }
    let bytes = std::fs::read(log_path(dir.path())).expect("reads");
    for cut in HEADER_LEN..=bytes.len() {
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::write(log_path(copy.path()), &bytes[..cut]).expect("writes");
        let mut recovered = Embedded::open(copy.path()).expect("a torn tail is tolerated");
        recovered.claim(&name("t.db"), A).expect("claims");
        let known = ends
            .iter()
            .rfind(|(_, end)| *end <= cut)
            .expect("the header is whole")
            .0;
        let next = recovered.reserve(&name("t.db"), A).expect("reserves");
        assert_eq!(next.0, known.max(1) + 1, "cut at {cut}");
        let mut fresh = Embedded::open(copy.path()).expect("opens");
        assert_eq!(
            fresh.list().expect("reads")[0].reserved,
            next,
            "the tail was cut off"
        );
    }
}

#[test]
fn a_damaged_log_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Embedded::open(dir.path()).expect("opens");
    daemon.claim(&name("t.db"), A).expect("claims");
    daemon.reserve(&name("t.db"), A).expect("reserves");
    daemon.reserve(&name("t.db"), A).expect("reserves");
    let path = log_path(dir.path());
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[HEADER_LEN + 30] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let error = Embedded::open(dir.path()).expect_err("damaged").to_string();
    let place = format!("coordinator: {} is damaged at byte 24: ", path.display());
    assert!(error.starts_with(&place), "{error}");
}

#[test]
fn a_long_log_is_compacted_and_read_on_by_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut one = Embedded::open(dir.path()).expect("opens");
    let mut two = Embedded::open(dir.path()).expect("opens");
    one.claim(&name("t.db"), A).expect("claims");
    two.list().expect("reads");
    let request = Request {
        name: name("t.db"),
        act: Act::Reserve { node: A },
    };
    let count = COMPACT_LEN_MIN / 60 + 10;
    one.submit(&vec![request; count]).expect("reserves");
    let len = std::fs::metadata(log_path(dir.path()))
        .expect("there")
        .len();
    assert!(len < 1000, "{len} bytes are left");
    assert_eq!(two.list().expect("reads"), one.list().expect("reads"));
    assert_eq!(
        two.reserve(&name("t.db"), A).expect("reserves"),
        Epoch(count as u64 + 2)
    );
    assert_eq!(
        one.reserve(&name("t.db"), A).expect("reserves"),
        Epoch(count as u64 + 3)
    );
}

/// What one competitor did: epochs reserved, and epochs from which it passed ownership on.
#[derive(Default)]
struct Deeds {
    reserved: Vec<u64>,
    passed_from: Vec<u64>,
}

/// Claims, then takes over and reserves as long as it can; `told` hears every deed.
fn compete(dir: &Path, node: NodeId, rounds: u64, told: &mut dyn FnMut(&str, u64)) {
    let mut daemon = Embedded::open(dir).expect("opens");
    let name = name("contended.db");
    daemon.claim(&name, node).expect("claims");
    for _ in 0..rounds {
        let seen = daemon
            .owner(name.id())
            .expect("reads")
            .expect("claimed")
            .holder();
        let mut ask = |act| {
            let name = name.clone();
            daemon.one(Request { name, act }).expect("asks")
        };
        let expected = seen;
        let Ok(record) = ask(Act::Seize { expected, node }) else {
            continue;
        };
        told("passed", seen.epoch.0);
        told("reserved", record.epoch.0);
        // Somebody may have taken over meanwhile.
        if let Ok(record) = ask(Act::Reserve { node }) {
            told("reserved", record.reserved.0);
        }
    }
}

const CHILD_DIR: &str = "FORESHADOW_TEST_COORDINATOR_DIR";
const CHILD_NODE: &str = "FORESHADOW_TEST_COORDINATOR_NODE";

/// Run by the tests below as a process of its own; by itself it competes with nobody.
#[test]
fn a_lone_competitor_wins_every_round() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        let node = std::env::var(CHILD_NODE)
            .expect("set")
            .parse()
            .expect("a number");
        compete(
            Path::new(&dir),
            NodeId(node),
            u64::MAX,
            &mut |deed, epoch| {
                println!("{deed} {epoch}");
            },
        );
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut won = 0;
    compete(dir.path(), A, 10, &mut |deed, _| {
        won += u64::from(deed == "passed")
    });
    assert_eq!(won, 10);
}

fn competitor(dir: &Path, node: u32) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "control::embedded::tests::a_lone_competitor_wins_every_round",
        ])
        .arg("--nocapture")
        .env(CHILD_DIR, dir)
        .env(CHILD_NODE, node.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

fn deeds_of(child: Child, deeds: &mut Deeds) {
    let output = child.wait_with_output().expect("ends");
    let text = String::from_utf8(output.stdout).expect("text");
    // A killed process may leave half a line.
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    for line in whole.lines() {
        match line.split_once(' ') {
            Some(("reserved", epoch)) => deeds.reserved.push(epoch.parse().expect("a number")),
            Some(("passed", epoch)) => deeds.passed_from.push(epoch.parse().expect("a number")),
            _ => {}
        }
    }
}

#[test]
fn killed_processes_never_share_an_epoch_and_never_pass_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut deeds = Deeds::default();
    for round in 0..4u32 {
        let children: Vec<Child> = (0..3)
            .map(|index| competitor(dir.path(), round * 10 + index + 1))
            .collect();
        for (index, mut child) in children.into_iter().enumerate() {
            std::thread::sleep(Duration::from_millis(150 + 37 * index as u64));
            child.kill().expect("kill -9");
            deeds_of(child, &mut deeds);
        }
    }
    for (what, epochs) in [
        ("reserved", &deeds.reserved),
        ("passed from", &deeds.passed_from),
    ] {
        let distinct: BTreeSet<u64> = epochs.iter().copied().collect();
        assert!(!epochs.is_empty(), "nothing was {what}");
        assert_eq!(distinct.len(), epochs.len(), "an epoch was {what} twice");
    }
    let mut after = Embedded::open(dir.path()).expect("recovers");
    let record = after.list().expect("reads").remove(0);
    let highest = deeds.reserved.iter().max().expect("some");
    assert!(
        record.reserved.0 >= *highest,
        "an epoch that was given out is remembered"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Instances of one directory, used in any order, behave as one plain map.
    #[test]
    fn many_instances_are_one_map(
        steps in proptest::collection::vec((0usize..3, 0u8..6, 0u64..6), 1..40),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut instances: Vec<Embedded> =
            (0..3).map(|_| Embedded::open(dir.path()).expect("opens")).collect();
        let mut model: Option<OwnerRecord> = None;
        for (who, what, epoch) in steps {
            let node = NodeId(who as u32 + 1);
            let holder = model.as_ref().map_or(Holder { node, epoch: Epoch(1) }, |r| r.holder());
            let act = match what {
                0 => Act::Claim { node },
                1 => Act::Reserve { node },
                2 => pass(holder, Holder { node, epoch: Epoch(epoch) }),
                3 => pass(Holder { node, epoch: Epoch(epoch) }, holder),
                4 => Act::Seize { expected: holder, node },
                _ => Act::Seize { expected: Holder { node, epoch: Epoch(epoch) }, node },
            };
            let request = Request { name: name("t.db"), act };
            let revision = model.as_ref().map_or(Revision(0), |record| record.revision);
            let expected = decide(model.as_ref(), &request, Revision(revision.0 + 1));
            let answer = instances[who].one(request).expect("durable");
            match expected {
                Err(conflict) => prop_assert_eq!(answer, Err(conflict)),
                Ok(new) => {
                    model = new.or(model);
                    prop_assert_eq!(answer.ok(), model.clone());
                }
            }
        }
    }
}
