//! Our reading of SQLite's files against SQLite itself.

mod support;

use foreshadow_wal::sqlite::{
    Checksum, DatabaseHeader, FIRST_REGION_PAGES, INDEX_HEADER_LEN, IndexHeader, REGION_LEN,
    REGION_PAGES, Salts, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WalFrameHeader, WalHeader,
    WordOrder, checksum, clear_beyond, frame_of, frame_offset, insert, lock_page, page_of_frame,
    region_base, region_of,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::{Database, Log};

/// More frames than the first region and one more hold, with many pages written repeatedly.
fn busy_database(page_size: u32) -> Database {
    let database = Database::accounts(page_size, 2_000, 100);
    for round in 0..200 {
        let part = round % 30;
        database.execute(&format!(
            "UPDATE account SET balance=balance+1 WHERE id%30={part}"
        ));
    }
    database
}

/// The index that SQLite should have written for `log`.
fn rebuilt_index(log: &Log) -> Vec<Vec<u8>> {
    let last = log.frames.len() as u32;
    let mut regions = vec![vec![0; REGION_LEN]; region_of(last) + 1];
    for ((head, _), frame) in log.frames.iter().zip(1..) {
        let region = region_of(frame);
        insert(region, &mut regions[region], frame, head.page).expect("room for a frame");
    }
    regions
}

#[test]
fn the_whole_chain_of_a_real_log_holds_at_every_page_size() {
    for page_size in [512, 1024, 4096, 65_536] {
        let database = Database::accounts(page_size, 500, 100);
        let log = database.log();
        assert_eq!(log.header.page_size, page_size);
        assert_eq!(log.header.order, WordOrder::NATIVE);
        let header = IndexHeader::parse_pair(&database.index()).expect("an index at rest");
        assert_eq!(
            header.max_frame as usize,
            log.frames.len(),
            "frames up to mxFrame"
        );
        let (last, _) = log.frames.last().expect("a frame");
        assert_eq!(header.frame_checksum, last.checksum);
        assert_eq!(header.page_count, last.commit_pages);
        assert_eq!(header.salts, log.header.salts);
        assert_eq!(header.page_size, page_size);
        assert_eq!(header.order, log.header.order);
    }
}

/// Recovery of an empty log leaves the page size zero; such an index is sound, not damaged.
#[test]
fn an_index_of_an_empty_log_has_no_page_size() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("idle.db");
    let open = || rusqlite::Connection::open(&path).expect("the database");
    open()
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x);")
        .expect("a table");
    let reader = open();
    reader
        .query_row("SELECT count(*) FROM t", [], |_| Ok(()))
        .expect("a read");
    let index = std::fs::read(dir.path().join("idle.db-shm")).expect("the index");
    let header = IndexHeader::parse_pair(&index).expect("a sound index");
    assert_eq!((header.max_frame, header.page_size), (0, 0));
    assert_eq!(
        IndexHeader::parse(&header.encode()).expect("our own"),
        header
    );
}

#[test]
fn commits_in_the_log_equal_the_growth_of_the_change_counter() {
    let database = Database::accounts(4096, 100, 100);
    let before = IndexHeader::parse_pair(&database.index())
        .expect("an index")
        .change;
    let commits = database.log().transactions().len();
    for n in 0..17 {
        database.execute(&format!("UPDATE account SET balance={n} WHERE id=3"));
    }
    let after = IndexHeader::parse_pair(&database.index())
        .expect("an index")
        .change;
    assert_eq!(after.wrapping_sub(before), 17);
    assert_eq!(database.log().transactions().len(), commits + 17);
}

#[test]
fn every_page_is_found_in_a_real_index_and_ours_equals_it() {
    let database = busy_database(512);
    let (log, index) = (database.log(), database.index());
    let last = log.frames.len() as u32;
    assert!(
        last > FIRST_REGION_PAGES + REGION_PAGES,
        "three regions, {last} frames"
    );
    let newest: BTreeMap<u32, u32> = log
        .frames
        .iter()
        .zip(1..)
        .map(|((head, _), frame)| (head.page, frame))
        .collect();
    let regions: Vec<&[u8]> = index.chunks_exact(REGION_LEN).collect();
    let find = |page: u32| {
        (0..=region_of(last)).rev().find_map(|region| {
            frame_of(region, regions[region], page, 1, last).expect("a sound index")
        })
    };
    for (page, frame) in &newest {
        assert_eq!(find(*page), Some(*frame), "page {page}");
    }
    assert_eq!(find(1_000_000), None);
    for (at, ours) in rebuilt_index(&log).iter().enumerate() {
        let skip = if at == 0 { 136 } else { 0 };
        assert!(
            ours[skip..] == regions[at][skip..],
            "region {at} differs from SQLite's"
        );
    }
}

#[test]
fn headers_are_encoded_as_sqlite_does() {
    let database = Database::accounts(1024, 100, 100);
    let index = database.index();
    let header = IndexHeader::parse_pair(&index).expect("an index");
    assert_eq!(header.encode()[..], index[..INDEX_HEADER_LEN]);
    let log = database.log();
    let again = WalHeader::new(log.header.order, 1024, 0, log.header.salts);
    assert_eq!(WalHeader::parse(&again.encode()).expect("our own"), again);
    assert_eq!(again, log.header);
    let mut seed = log.header.checksum;
    for (head, image) in &log.frames {
        let ours = WalFrameHeader::new(&log.header, seed, head.page, head.commit_pages, image);
        assert_eq!(ours.encode(), head.encode());
        seed = head.checksum;
    }
}

#[test]
fn sqlite_reads_a_log_that_we_wrote() {
    for order in [WordOrder::Little, WordOrder::Big] {
        let source = Database::accounts(4096, 300, 100);
        source.checkpoint();
        source.execute("UPDATE account SET balance=4711 WHERE id=42");
        let log = source.log();
        let header = WalHeader::new(order, 4096, 9, Salts([123, 456]));
        let mut bytes = header.encode().to_vec();
        let mut seed = header.checksum;
        for (head, image) in &log.frames {
            let ours = WalFrameHeader::new(&header, seed, head.page, head.commit_pages, image);
            seed = ours.checksum;
            bytes.extend_from_slice(&ours.encode());
            bytes.extend_from_slice(image);
        }
        assert_eq!(
            bytes.len() as u64,
            frame_offset(log.frames.len() as u32 + 1, 4096)
        );
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("copy.db");
        std::fs::write(&path, source.file()).expect("the database");
        std::fs::write(dir.path().join("copy.db-wal"), bytes).expect("the log");
        let copy = rusqlite::Connection::open(&path).expect("the copy");
        let balance: i64 = copy
            .query_row("SELECT balance FROM account WHERE id=42", [], |row| {
                row.get(0)
            })
            .expect("a row");
        assert_eq!(balance, 4711, "{order:?}");
    }
}

#[test]
fn a_flipped_bit_ends_the_chain() {
    let database = Database::accounts(512, 50, 100);
    let log = database.log();
    let (head, image) = &log.frames[0];
    assert!(head.holds(&log.header, log.header.checksum, image));
    for bit in (0..image.len() * 8).step_by(13) {
        let mut damaged = image.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !head.holds(&log.header, log.header.checksum, &damaged),
            "bit {bit}"
        );
    }
    for bit in 0..WAL_FRAME_HEADER_LEN * 8 {
        let mut bytes = head.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let damaged = WalFrameHeader::parse(&bytes).expect("24 bytes");
        assert!(
            !damaged.holds(&log.header, log.header.checksum, image),
            "header bit {bit}"
        );
    }
    for bit in 0..WAL_HEADER_LEN * 8 {
        let mut bytes = log.header.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(WalHeader::parse(&bytes).is_err(), "log header bit {bit}");
    }
    let index = database.index();
    for bit in 0..INDEX_HEADER_LEN * 8 {
        let mut bytes = index.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(IndexHeader::parse_pair(&bytes).is_none(), "index bit {bit}");
        assert!(IndexHeader::parse(&bytes).is_err(), "index bit {bit}");
    }
}

#[test]
fn the_database_header_says_what_sqlite_set() {
    for page_size in [512, 4096, 65_536] {
        let database = Database::accounts(page_size, 100, 100);
        database.checkpoint();
        let file = database.file();
        let header = DatabaseHeader::parse(&file).expect("a database");
        assert_eq!(header.page_size, page_size);
        assert!(header.is_wal());
        assert_eq!(header.page_count as usize, file.len() / page_size as usize);
        assert!(header.page_count_holds());
        assert_eq!(header.reserved, 0);
    }
    assert!(DatabaseHeader::parse(&[0; 100]).is_err());
    assert!(DatabaseHeader::parse(b"SQLite format 3\0").is_err());
}

#[test]
fn the_lock_page_is_the_one_at_one_gibibyte() {
    assert_eq!(lock_page(4096), Some(262_145));
    assert_eq!(lock_page(65_536), Some(16_385));
    assert_eq!(lock_page(512), Some(2_097_153));
    assert_eq!(lock_page(0), None);
    assert_eq!(lock_page(1000), None);
}

#[test]
fn regions_follow_one_another_without_gap() {
    let ends = [
        1,
        FIRST_REGION_PAGES,
        FIRST_REGION_PAGES + 1,
        FIRST_REGION_PAGES + REGION_PAGES,
    ];
    assert_eq!(ends.map(region_of), [0, 0, 1, 1]);
    for region in 1..9 {
        assert_eq!(region_of(region_base(region)), region - 1);
        assert_eq!(region_of(region_base(region) + 1), region);
    }
}

#[test]
fn sums_continue_from_their_seed_in_both_orders() {
    let bytes: Vec<u8> = (0..=255).collect();
    for order in [WordOrder::Little, WordOrder::Big] {
        let whole = checksum(order, Checksum::default(), &bytes);
        let half = checksum(order, Checksum::default(), &bytes[..64]);
        assert_eq!(checksum(order, half, &bytes[64..]), whole);
    }
    // One pair of words by hand: 1, then 2 + 1.
    let pair = [1, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(
        checksum(WordOrder::Little, Checksum::default(), &pair),
        Checksum([1, 3])
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn lookups_agree_with_a_map_after_inserts_and_rollbacks(
        steps in prop::collection::vec(
            (1_u32..60, prop::option::weighted(0.1, 0_u32..200)),
            1..300,
        ),
        first in any::<bool>(),
    ) {
        let region = usize::from(!first);
        let base = region_base(region);
        let mut bytes = vec![0xff; REGION_LEN];
        let mut pages: Vec<u32> = Vec::new();
        for (page, rollback) in steps {
            if let Some(keep) = rollback.filter(|_| !pages.is_empty()) {
                // As a writer does that finds frames of one that died: the list is not touched
                // until the next insert, or is cleared at once.
                pages.truncate(keep as usize % pages.len() + 1);
                if keep % 2 == 0 {
                    clear_beyond(region, &mut bytes, base + pages.len() as u32).expect("clears");
                }
            }
            pages.push(page);
            insert(region, &mut bytes, base + pages.len() as u32, page).expect("inserts");
        }
        let last = base + pages.len() as u32;
        for page in 1..61 {
            let newest = pages.iter().rposition(|other| *other == page)
                .map(|at| base + at as u32 + 1);
            prop_assert_eq!(frame_of(region, &bytes, page, 1, last).expect("sound"), newest);
            let early = base + pages.len() as u32 / 2;
            let newest = pages[..pages.len() / 2].iter().rposition(|other| *other == page)
                .map(|at| base + at as u32 + 1);
            prop_assert_eq!(frame_of(region, &bytes, page, 1, early).expect("sound"), newest);
        }
        for (at, page) in pages.iter().enumerate() {
            let frame = base + at as u32 + 1;
            prop_assert_eq!(page_of_frame(region, &bytes, frame).expect("in the region"), *page);
        }
    }

    #[test]
    fn arbitrary_regions_and_headers_never_panic(
        seed in any::<u64>(), page in any::<u32>(), frame in any::<u32>(), region in 0_usize..3,
        head in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut state = seed | 1;
        let mut bytes: Vec<u8> = (0..REGION_LEN).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        }).collect();
        let _may_be_refused = frame_of(region, &bytes, page, 0, u32::MAX);
        let _may_be_refused = page_of_frame(region, &bytes, frame);
        let _may_be_refused = insert(region, &mut bytes, frame, page);
        let near = region_base(region).saturating_add(frame % 5000);
        let _may_be_refused = insert(region, &mut bytes, near, page);
        let _may_be_refused = clear_beyond(region, &mut bytes, frame);
        let _may_be_refused = frame_of(region, &bytes[..100], page, 0, 1);
        let _may_be_refused = DatabaseHeader::parse(&head);
        let _may_be_refused = WalHeader::parse(&head);
        let _may_be_refused = WalFrameHeader::parse(&head);
        let _may_be_refused = IndexHeader::parse(&head);
        prop_assert!(region_of(frame) <= 1 + u32::MAX as usize / REGION_PAGES as usize);
    }
}
