//! What arrives over the network: strangers, liars, broken bytes, and peers that leave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use foreshadow::cli::demo::harness::{Cluster, Options, Outcome, Writers};
use serde_json::Value;
use wal::lsn::{Epoch, Lsn, Position};
use wal::message::{Attributes, Hello, Message, Standing};
use wal::{Digest, PartitionId, PartitionName};

use crate::cluster::{LIMIT, moves_on, options, tenants, until};
use crate::fake::{Conversation, Fake, Manner, Step, hello, introduce, name_for, record};
use crate::{ALL, MOMENT, OTHER, applications, goes_on, logs, text};

/// The partition that the fake is offered too, and moved to.
const MOVED: &str = "tenant01.db";

/// Two real nodes and one peer of node-a that this test plays.
struct Stage {
    cluster: Cluster,
    writers: Writers,
    listener: TcpListener,
    name: String,
}

impl Stage {
    /// `dialled`: node-a calls the fake; else the fake calls node-a.
    fn set(dialled: bool) -> Stage {
        let options = Stage::options();
        let tenants = tenants(2, 2);
        let mut cluster = Cluster::prepare(&options).expect("prepared");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let name = name_for("node-a", dialled);
        let port = listener.local_addr().expect("bound").port();
        introduce(&cluster, "node-a", &name, port);
        cluster.create_tenants(&tenants).expect("made");
        cluster.start_all().expect("every daemon is ready");
        cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
        let writers = applications(&cluster);
        Stage {
            cluster,
            writers,
            listener,
            name,
        }
    }

    /// Both peers of node-a get a shadow; a broken link is tried again soon.
    fn options() -> Options {
        options(2)
            .tweak("[ship]", "copies", "2")
            .tweak("[ship]", "reconnect_min", "\"20ms\"")
            .tweak("[ship]", "reconnect_max", "\"100ms\"")
    }

    /// What node-a says of the fake.
    fn seen(&self) -> Value {
        let peers = self.cluster.node("node-a").expect("there").get("/v1/peers");
        let peers = peers.expect("node-a answers");
        let mut peers = peers.as_array().expect("a list").iter();
        let fake = peers.find(|peer| peer["name"] == self.name.as_str());
        fake.expect("a configured peer").clone()
    }

    /// Waits until node-a says why the fake is not connected.
    fn seen_with(&self, words: &str) {
        until(&format!("the reason says {words:?}"), || {
            let seen = self.seen();
            (seen["state"] != "up" && text(&seen["reason"]).contains(words)).then_some(())
        });
    }

    fn end(self) {
        goes_on(self.cluster, self.writers);
    }
}

/// There and back: the healthy peer is not held up by the other one.
fn other_moves(stage: &mut Stage) {
    for _ in 0..2 {
        stage
            .cluster
            .wait_for_shadows(LIMIT)
            .expect("a ready shadow");
        moves_on(&mut stage.cluster, OTHER);
    }
}

#[test]
fn a_peer_that_leaves_in_any_step_costs_only_what_was_between_the_two() {
    let mut stage = Stage::set(true);
    for step in [Step::Offer, Step::Pages, Step::LastPages, Step::Delta] {
        let fake = Fake::listen(&stage.listener, &stage.name, step, Manner::Leave);
        until(&format!("the fake gets {step:?}"), || {
            fake.has_reached().then_some(())
        });
        stage.seen_with("");
        let progress = stage.cluster.wait_for_progress(&ALL, LIMIT);
        progress.unwrap_or_else(|error| panic!("left at {step:?}: {error}"));
        drop(fake);
    }
    other_moves(&mut stage);
    stage.end();
}

#[test]
fn a_target_that_leaves_before_it_is_ready_leaves_the_source_serving() {
    let mut stage = Stage::set(true);
    for step in [Step::Prepare, Step::Finish] {
        let fake = Fake::listen(&stage.listener, &stage.name, step, Manner::Leave);
        let name = stage.name.clone();
        let report = stage.cluster.move_partition(MOVED, &name, LIMIT);
        let report = report.expect("the move ends");
        let Outcome::Aborted(reason) = &report.outcome else {
            panic!("left at {step:?}: {report:?}");
        };
        assert!(fake.has_reached(), "{step:?}: {reason}");
        assert!(reason.contains("link"), "left at {step:?}: {reason}");
        let owner = stage.cluster.owner_of(MOVED).expect("one owner");
        assert_eq!(owner, "node-a");
    }
    other_moves(&mut stage);
    stage.end();
}

#[test]
fn a_target_that_falls_silent_in_the_pause_costs_no_more_than_the_pause_timeout() {
    let mut stage = Stage::set(true);
    let fake = Fake::listen(&stage.listener, &stage.name, Step::Finish, Manner::Silence);
    let name = stage.name.clone();
    let report = stage.cluster.move_partition(MOVED, &name, LIMIT);
    let report = report.expect("the move ends");
    assert!(matches!(report.outcome, Outcome::Aborted(_)), "{report:?}");
    assert!(fake.has_reached(), "{report:?}");
    let at = |name: &str| {
        let step = report.steps.iter().find(|step| step.name == name);
        step.unwrap_or_else(|| panic!("no {name} in {report:?}"))
            .at_ms
    };
    let paused = at("aborted") - at("freezing");
    // pause_timeout is 250 ms; the machine may be busy with something else for as long again.
    assert!((200.0..750.0).contains(&paused), "{paused} ms: {report:?}");
    assert_eq!(stage.cluster.owner_of(MOVED).expect("one owner"), "node-a");
    drop(fake);
    other_moves(&mut stage);
    stage.end();
}

#[test]
fn a_peer_that_answers_the_call_with_garbage_is_called_again_and_harms_nobody() {
    let mut stage = Stage::set(true);
    let mut greeting = Message::Hello(hello(&stage.name)).seal().bytes().to_vec();
    let whole = greeting.clone();
    let flip_at = greeting.len() - 3;
    greeting[flip_at] ^= 4;
    let mut long = whole.clone();
    long[40..56].fill(0xff);
    for bytes in [
        Vec::new(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(9),
        vec![0; 300],
        greeting,
        long,
        whole[..whole.len() / 2].to_vec(),
    ] {
        let said = bytes.clone();
        let fake = Fake::serve(&stage.listener, move |mut stream, reached, _| {
            let mut first = [0; 16];
            // The caller may have given up by itself; then it calls again.
            let _ = stream
                .read(&mut first)
                .and_then(|_| stream.write_all(&said));
            reached.store(true, Ordering::Relaxed);
        });
        until("the fake is called", || fake.has_reached().then_some(()));
        stage.seen_with("");
        assert_ne!(stage.seen()["state"], "up", "{bytes:?}");
    }
    stage.seen_with("greeting");
    other_moves(&mut stage);
    stage.end();
}

/// Greets well, then says `bytes` and stays until the daemon closes the connection.
fn said_after_the_greeting(stage: &Stage, bytes: &[u8]) {
    let said = bytes.to_vec();
    let ours = hello(&stage.name);
    let fake = Fake::serve(&stage.listener, move |stream, reached, end| {
        let Ok(mut conversation) = Conversation::answer(stream, &ours) else {
            return;
        };
        let _ = conversation.send(&said);
        while !end.load(Ordering::Relaxed) {
            match conversation.hear() {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        reached.store(!end.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    until("node-a closes the connection", || {
        fake.has_reached().then_some(())
    });
}

#[test]
fn bytes_that_are_no_frames_end_the_link_and_nothing_else() {
    let mut stage = Stage::set(true);
    let ping = record(&Message::Ping { nonce: 7 });
    let mut flipped = ping.clone();
    let last = flipped.len() - 5;
    flipped[last] ^= 0x20;
    let mut version = ping.clone();
    version[8] ^= 0x7f;
    let oversized = u32::MAX.to_le_bytes().to_vec();
    let empty = 0u32.to_le_bytes().to_vec();
    let mut squeezed = (100u32 << 1 | 1).to_le_bytes().to_vec();
    squeezed.extend_from_slice(&[0xa5; 100]);
    let mut unequal = ((ping.len() as u32 + 9) << 1).to_le_bytes().to_vec();
    unequal.extend_from_slice(&ping[4..]);
    unequal.extend_from_slice(&[0; 20]);
    for (what, bytes) in [
        ("a flipped bit", flipped),
        ("another version", version),
        ("an oversized length", oversized),
        ("an empty record", empty),
        ("no compressed stream", squeezed),
        ("two lengths that differ", unequal),
        ("plain garbage", vec![0x5a; 4096]),
    ] {
        said_after_the_greeting(&stage, &bytes);
        until(&format!("{what}: node-a says why"), || {
            let seen = stage.seen();
            (seen["state"] == "down" && !text(&seen["reason"]).is_empty()).then_some(())
        });
        println!("{what}: {}", text(&stage.seen()["reason"]));
    }
    other_moves(&mut stage);
    stage.end();
}

#[test]
fn a_peer_of_another_cluster_is_refused_by_name_in_both_directions() {
    let foreign = |name: &str| Hello {
        cluster: "elsewhere".to_owned(),
        ..hello(name)
    };
    let stage = Stage::set(true);
    let ours = foreign(&stage.name);
    let fake = Fake::serve(&stage.listener, move |stream, _, _| {
        // Refused or not, the connection ends here.
        let _ = Conversation::answer(stream, &ours).and_then(|mut one| one.hear());
    });
    stage.seen_with("belongs to cluster \"elsewhere\", this node to \"demo\"");
    assert_eq!(stage.seen()["state"], "refused");
    drop(fake);
    let port = stage.cluster.node("node-a").expect("there").place.port;
    let (_, answer) = Conversation::call(port, &foreign(&stage.name)).expect("answered");
    let Message::Refuse { reason } = answer else {
        panic!("{answer:?}")
    };
    assert!(
        reason.contains("\"elsewhere\"") && reason.contains("\"demo\""),
        "{reason}"
    );
    logs(&stage.cluster, "node-a", "belongs to cluster \"elsewhere\"");
    stage.end();
}

#[test]
fn a_caller_that_is_no_peer_is_refused_with_the_reason() {
    let stage = Stage::set(false);
    let port = stage.cluster.node("node-a").expect("there").place.port;
    let known = hello(&stage.name);
    let cases = [
        (hello("mallory"), "mallory is not a configured peer"),
        (
            Hello {
                version: 999,
                ..known.clone()
            },
            "speaks protocol 999",
        ),
        (
            Hello {
                lanes: 7,
                ..known.clone()
            },
            "counts 7 lanes",
        ),
        (
            Hello {
                name: "x".repeat(3000),
                ..hello("mallory")
            },
            "is not a configured peer",
        ),
    ];
    for (ours, words) in cases {
        let (_, answer) = Conversation::call(port, &ours).expect("answered");
        let Message::Refuse { reason } = answer else {
            panic!("{answer:?}")
        };
        assert!(reason.contains(words), "{reason}");
    }
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 500]] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        stream.write_all(bytes).expect("writes");
    }
    // One that says nothing at all and stays.
    let silent = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stage
        .cluster
        .wait_for_progress(&ALL, LIMIT)
        .expect("they go on");
    drop(silent);
    stage.end();
}

/// A position that nobody ever reached.
const FAR: Position = Position {
    epoch: Epoch(99),
    lsn: Lsn(u64::MAX - 1),
    digest: Digest(7),
};
/// A partition that nobody has.
const NOWHERE: PartitionId = PartitionId(0xdead);

/// What no honest peer would say, about a partition that it has and some that nobody has.
fn lies() -> Vec<Message> {
    let partition = PartitionName::new(MOVED).expect("a name").id();
    let mut lies = lies_about_copies(partition);
    lies.extend(lies_about_moves(partition, FAR.epoch));
    lies.extend([
        lying_offer("../../etc/passwd", 4096),
        lying_offer("", 4096),
        lying_offer("odd.db", 0),
        lying_offer("odd.db", 4095),
    ]);
    lies.push(Message::Refuse {
        reason: "because".to_owned(),
    });
    lies
}

fn lying_offer(name: &str, page_size: u32) -> Message {
    Message::Offer {
        partition: PartitionName::new(name).map_or(NOWHERE, |name| name.id()),
        name: name.to_owned(),
        at: FAR,
        page_size,
        attributes: Attributes::default(),
    }
}

fn lies_about_copies(partition: PartitionId) -> Vec<Message> {
    let hashes = |first, hashes| Message::Hashes {
        partition,
        first,
        hashes,
        last: true,
    };
    let ack = |partition| Message::Ack {
        partition,
        durable: FAR,
    };
    vec![
        ack(partition),
        ack(NOWHERE),
        Message::Stand {
            partition,
            standing: Standing::At(FAR),
        },
        hashes(900, vec![1; 9]),
        hashes(0, Vec::new()),
        Message::Lost {
            partition,
            reason: "x".repeat(4000),
        },
        Message::Discard { partition },
        Message::Discard { partition: NOWHERE },
    ]
}

fn lies_about_moves(partition: PartitionId, epoch: Epoch) -> Vec<Message> {
    let (lsn, position) = (FAR.lsn, FAR);
    vec![
        Message::Prepared { partition, epoch },
        Message::Ready {
            partition,
            epoch,
            position,
        },
        Message::Serving {
            partition,
            epoch,
            lsn,
        },
        Message::Grant { partition, epoch },
        Message::Grant {
            partition: NOWHERE,
            epoch,
        },
        Message::Finish {
            partition,
            epoch,
            position,
        },
        Message::Abort { partition, epoch },
    ]
}

#[test]
fn a_peer_that_says_what_cant_be_true_is_not_believed() {
    let mut stage = Stage::set(false);
    let port = stage.cluster.node("node-a").expect("there").place.port;
    for lie in lies() {
        let (mut conversation, answer) =
            Conversation::call(port, &hello(&stage.name)).expect("answered");
        assert!(matches!(answer, Message::Hello(_)), "{answer:?}");
        conversation.say(&lie).expect("said");
        std::thread::sleep(Duration::from_millis(50));
        let node = stage.cluster.node_mut("node-a").expect("there");
        assert!(node.is_running(), "node-a died of {lie:?}");
        let owner = stage.cluster.owner_of(MOVED).expect("one owner");
        assert_eq!(owner, "node-a", "{lie:?}");
    }
    std::thread::sleep(MOMENT);
    assert!(!std::path::Path::new("/etc/passwd-wal").exists());
    other_moves(&mut stage);
    moves_on(&mut stage.cluster, MOVED);
    stage.end();
}
