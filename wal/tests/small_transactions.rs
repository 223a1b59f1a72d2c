//! What a small update costs on a link: the promise of at most 100 bytes a transaction.

mod support;

use foreshadow_wal::compress::{RecordHead, Squeezer, Unsqueezer};
use foreshadow_wal::delta::{Decoder, DeltaHead, Encoder, PageEdit};
use foreshadow_wal::digest::PageHash;
use foreshadow_wal::frame::{Flags, Frame, HEADER_LEN};
use foreshadow_wal::{Digest, Epoch, Lsn, PartitionId, Position};
use support::Database;

const PAGE_SIZE: u32 = 4096;

/// Deltas of a database's transactions, one by one, as a source would send them.
fn deltas_of(database: &Database) -> Vec<Frame> {
    let file = database.file();
    let mut pages: Vec<Vec<u8>> = file
        .chunks_exact(PAGE_SIZE as usize)
        .map(<[u8]>::to_vec)
        .collect();
    let mut digest = pages.iter().zip(1..).fold(Digest(0), |digest, (page, n)| {
        digest.replace(PageHash(0), PageHash::of(n, page))
    });
    let mut encoder = Encoder::new(1);
    let mut frames = Vec::new();
    let log = database.log();
    for (count, transaction) in (40_000..).zip(log.transactions()) {
        let before = pages.clone();
        let mut edits = Vec::new();
        let from = Position {
            epoch: Epoch(7),
            lsn: Lsn(count),
            digest,
        };
        for (head, image) in transaction {
            let place = head.page as usize - 1;
            let old = PageHash::of(head.page, &before[place]);
            digest = digest.replace(old, PageHash::of(head.page, image));
            edits.push(PageEdit {
                page: head.page,
                before: Some(&before[place]),
                after: image,
            });
            pages[place].clone_from(image);
        }
        let head = DeltaHead {
            partition: PartitionId(0x1234_5678_9abc_def0),
            from,
            to: Position {
                epoch: Epoch(7),
                lsn: Lsn(count + 1),
                digest,
            },
            page_size: PAGE_SIZE,
            page_count: pages.len() as u32,
            flags: Flags::NONE,
        };
        frames.push(encoder.delta(&head, &edits, 16).expect("a small delta"));
    }
    frames
}

/// Bytes on the wire per frame, each flushed as a record of its own, after a warm-up.
fn squeezed_len(frames: &[Frame]) -> f64 {
    let (mut squeezer, mut unsqueezer) = (Squeezer::new(), Unsqueezer::new());
    let (mut wire, mut plain) = (Vec::new(), Vec::new());
    let mut total = 0;
    let warm = frames.len() / 10;
    for (at, frame) in frames.iter().enumerate() {
        wire.clear();
        plain.clear();
        squeezer
            .squeeze(frame.bytes(), &mut wire)
            .expect("squeezed");
        unsqueezer
            .unsqueeze(&wire, frame.len(), &mut plain)
            .expect("unsqueezed");
        assert_eq!(Frame::parse(&plain).expect("the same frame"), *frame);
        if at >= warm {
            total += RecordHead::LEN + wire.len();
        }
    }
    total as f64 / (frames.len() - warm) as f64
}

fn mean(frames: &[Frame], len: impl Fn(&Frame) -> usize) -> f64 {
    frames.iter().map(len).sum::<usize>() as f64 / frames.len() as f64
}

fn report(name: &str, frames: &[Frame]) -> f64 {
    let wire = squeezed_len(frames);
    let payload = mean(frames, |frame| frame.payload().len());
    let blob = mean(frames, |frame| {
        let pages = Decoder::page_numbers(frame).expect("a delta").len();
        frame.payload().len() - 72 - 4 * pages
    });
    println!(
        "{name}: blob {blob:.1}, payload {payload:.1}, frame {:.1}, on the wire {wire:.1} bytes",
        payload + HEADER_LEN as f64
    );
    wire
}

#[test]
fn a_one_integer_update_costs_at_most_100_bytes_on_the_wire() {
    let database = Database::accounts(PAGE_SIZE, 10_000, 90);
    database.checkpoint();
    for n in 0_u64..1000 {
        let row = n * 2_654_435_761 % 10_000 + 1;
        let value = n * 40_503 % 1_000_000;
        database.execute(&format!(
            "UPDATE account SET balance={value} WHERE id={row}"
        ));
    }
    let frames = deltas_of(&database);
    assert_eq!(frames.len(), 1000);
    assert!(
        frames
            .iter()
            .all(|frame| frame.header().plain_len == PAGE_SIZE),
        "one page each"
    );
    let wire = report("random rows", &frames);
    assert!(wire <= 100.0, "{wire:.1} bytes per transaction");
}

#[test]
fn updates_of_one_hot_row_cost_at_most_100_bytes_on_the_wire() {
    let database = Database::accounts(PAGE_SIZE, 10_000, 90);
    database.checkpoint();
    for n in 0_u64..1000 {
        database.execute(&format!(
            "UPDATE account SET balance={} WHERE id=77",
            n * 40_503
        ));
    }
    let wire = report("one hot row", &deltas_of(&database));
    assert!(wire <= 100.0, "{wire:.1} bytes per transaction");
}
