//! Shadows fed with real SQLite transactions: they equal their source at every step, and stock
//! SQLite opens what they land as.

use std::os::unix::fs::MetadataExt;

use foreshadow_io::Kind;
use foreshadow_io::engine::shadow::{Found, Opened, Shadow, Stage};
use wal::digest::PageHash;
use wal::{Digest, Epoch, Lsn, Position};

use crate::shadow_history::{History, copy_dir, image_content, paths, stock_content};

fn reopened(dir: &std::path::Path) -> (Shadow, Found) {
    match Shadow::open(&paths(dir)).expect("open") {
        Opened::Shadow(shadow, found) => (*shadow, found),
        Opened::Promoted(epoch) => panic!("promoted in {epoch}"),
    }
}

#[test]
fn a_filled_shadow_equals_its_source_after_every_delta() {
    for page_size in [512, 1024, 4096, 65_536] {
        let history = History::lively(page_size);
        let dir = tempfile::tempdir().expect("tempdir");
        let mut shadow = history.shadow(dir.path(), 0);
        for (step, delta) in history.deltas(0).iter().enumerate() {
            let position = shadow.apply(delta).expect("apply");
            assert_eq!(position, history.position(step + 1));
            history.assert_same(&shadow, step + 1);
            if step % 4 == 3 {
                let task = shadow.checkpoint_task().expect("something to copy");
                shadow.checkpoint_done(task.run()).expect("checkpoint");
                history.assert_same(&shadow, step + 1);
            }
        }
    }
}

#[test]
fn deltas_applied_while_a_checkpoint_runs_are_kept() {
    let history = History::lively(1024);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 0);
    let deltas = history.deltas(0);
    for (round, chunk) in deltas.chunks(3).enumerate() {
        shadow.apply(&chunk[0]).expect("apply");
        let task = shadow.checkpoint_task().expect("something to copy");
        assert!(shadow.checkpoint_task().is_none(), "one at a time");
        let mut chunk = chunk[1..].iter();
        if let Some(during) = chunk.next() {
            shadow.apply(during).expect("apply while it waits");
        }
        let done = task.run();
        for after in chunk {
            shadow.apply(after).expect("apply after it ran");
        }
        let checkpointed = shadow.checkpoint_done(done).expect("done");
        assert_eq!(checkpointed, history.position(round * 3 + 1));
        history.assert_same(&shadow, (round * 3 + 3).min(deltas.len()));
    }
    drop(shadow);
    let (shadow, found) = reopened(dir.path());
    let Found::At(position) = found else {
        panic!("{found:?}")
    };
    history.assert_same(&shadow, (position.lsn.0 - 1000) as usize);
}

#[test]
fn a_large_log_behind_a_checkpoint_waits_for_the_next_one() {
    let history = History::lively(512);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 0);
    let deltas = history.deltas(0);
    shadow.apply(&deltas[0]).expect("apply");
    let task = shadow.checkpoint_task().expect("something to copy");
    for delta in &deltas[1..] {
        shadow.apply(delta).expect("apply");
    }
    let frames = shadow.wal_frames();
    shadow.checkpoint_done(task.run()).expect("done");
    assert_eq!(shadow.wal_frames(), frames, "too many to move");
    history.assert_same(&shadow, history.last());
    let task = shadow.checkpoint_task().expect("the rest");
    shadow.checkpoint_done(task.run()).expect("done");
    assert_eq!(shadow.wal_frames(), 0);
    history.assert_same(&shadow, history.last());
}

#[test]
fn a_delta_that_starts_elsewhere_is_refused_and_an_old_one_ignored() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 3);
    let error = shadow.apply(&history.delta(4, 5)).expect_err("a gap");
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(
        shadow.apply(&history.delta(1, 2)).expect("old"),
        history.position(3)
    );
    assert_eq!(
        shadow.apply(&history.delta(3, 4)).expect("next"),
        history.position(4)
    );
    history.assert_same(&shadow, 4);
}

#[test]
fn a_delta_with_another_digest_is_refused_and_the_shadow_compared_anew() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 3);
    let wrong = Position {
        digest: Digest(1),
        ..history.position(4)
    };
    let error = shadow
        .apply(&history.delta_claiming(3, 4, wrong))
        .expect_err("another digest");
    assert_eq!(error.kind(), Kind::Corrupt);
    history.assert_same(&shadow, 3);
    assert_eq!(shadow.position(), None, "nothing is promised any more");
    assert_eq!(
        shadow
            .apply(&history.delta(3, 4))
            .expect_err("suspect")
            .kind(),
        Kind::Refused
    );
    shadow.refill().expect("refill");
    history.fill(&mut shadow, 5);
    history.assert_same(&shadow, 5);
    shadow.apply(&history.delta(5, 6)).expect("follow again");
}

#[test]
fn a_shadow_that_was_away_gets_only_the_pages_that_differ() {
    let history = History::lively(1024);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 2);
    for delta in &history.deltas(2)[..4] {
        shadow.apply(delta).expect("apply");
    }
    drop(shadow);
    let (mut shadow, found) = reopened(dir.path());
    assert_eq!(
        found,
        Found::At(history.position(2)),
        "no checkpoint was made"
    );
    shadow.refill().expect("refill");
    let target = 3;
    let sent = history.pages(target, shadow.hashes()).len();
    let all = history.pages(target, &[]).len();
    assert!(sent < all, "{sent} frames of {all}");
    history.fill(&mut shadow, target);
    history.assert_same(&shadow, target);
}

#[test]
fn a_filling_shadow_keeps_its_pages_over_a_stop() {
    let history = History::lively(1024);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = Shadow::create(&paths(dir.path()), &history.spec()).expect("create");
    let frames = history.pages(9, &[]);
    for frame in &frames[..frames.len() / 2] {
        shadow.write_pages(frame).expect("write");
    }
    let hashes = shadow.hashes().to_vec();
    drop(shadow);
    let (mut shadow, found) = reopened(dir.path());
    assert_eq!((found, shadow.position()), (Found::Filling, None));
    assert_eq!(shadow.hashes(), hashes);
    history.fill(&mut shadow, 10);
    history.assert_same(&shadow, 10);
}

#[test]
fn pages_that_do_not_add_up_are_no_position() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = Shadow::create(&paths(dir.path()), &history.spec()).expect("create");
    let frames = history.pages(9, &[]);
    for frame in &frames[1..] {
        shadow.write_pages(frame).expect("write");
    }
    let error = shadow
        .complete(history.position(9), history.page_count(9))
        .expect_err("a hole");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(shadow.position(), None);
    assert_eq!(
        Shadow::stage(&paths(dir.path())).expect("stage"),
        Stage::Filling
    );
    history.fill(&mut shadow, 9);
    history.assert_same(&shadow, 9);
}

#[test]
fn a_database_file_that_changed_behind_our_back_is_noticed() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("tempdir");
    let shadow = history.shadow(dir.path(), 8);
    drop(shadow);
    let path = paths(dir.path());
    let mut bytes = std::fs::read(path.database()).expect("read");
    bytes[4096 + 100] ^= 4;
    std::fs::write(path.database(), &bytes).expect("damage");
    let (mut shadow, found) = reopened(dir.path());
    assert_eq!(found, Found::Damaged(history.position(8)));
    assert_eq!(
        history.pages(8, shadow.hashes()).len(),
        2,
        "one page and the end"
    );
    history.fill(&mut shadow, 8);
    history.assert_same(&shadow, 8);
}

#[test]
fn stock_sqlite_sees_exactly_the_landed_position() {
    for page_size in [512, 4096, 65_536] {
        let history = History::lively(page_size);
        let dir = tempfile::tempdir().expect("tempdir");
        let mut shadow = history.shadow(dir.path(), 1);
        let deltas = history.deltas(1);
        let (early, late) = deltas.split_at(deltas.len() - 5);
        for delta in early {
            shadow.apply(delta).expect("apply");
        }
        shadow.prepare_landing(Epoch(2)).expect("prepare");
        assert!(shadow.wal_frames() >= 1, "a warm -wal");
        assert!(
            shadow.checkpoint_task().is_none(),
            "the database file stays at the base"
        );
        for delta in late {
            shadow.apply(delta).expect("apply while landing");
        }
        let started = std::time::Instant::now();
        let position = shadow.land_sync().expect("sync");
        println!(
            "page size {page_size}: landing sync {:?}",
            started.elapsed()
        );
        assert_eq!(position, history.position(history.last()));
        assert_eq!(
            stock_content(dir.path()),
            image_content(&history.images[history.last()])
        );
        shadow.promote(Epoch(2)).expect("promote");
        assert!(matches!(
            Shadow::open(&paths(dir.path())).expect("open"),
            Opened::Promoted(Epoch(2))
        ));
    }
}

#[test]
fn an_abandoned_landing_goes_on_following() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 3);
    let deltas = history.deltas(3);
    shadow.apply(&deltas[0]).expect("apply");
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    shadow.prepare_landing(Epoch(2)).expect("again");
    assert_eq!(
        shadow
            .prepare_landing(Epoch(3))
            .expect_err("another")
            .kind(),
        Kind::Refused
    );
    shadow.apply(&deltas[1]).expect("apply");
    assert_eq!(
        shadow.abandon_landing().expect("abandon"),
        history.position(5)
    );
    assert_eq!(
        Shadow::stage(&paths(dir.path())).expect("stage"),
        Stage::At(history.position(4))
    );
    for delta in &deltas[2..] {
        shadow.apply(delta).expect("apply");
    }
    let task = shadow.checkpoint_task().expect("something to copy");
    shadow.checkpoint_done(task.run()).expect("checkpoint");
    history.assert_same(&shadow, history.last());
    drop(shadow);
    let (shadow, found) = reopened(dir.path());
    assert_eq!(found, Found::At(history.position(history.last())));
    history.assert_same(&shadow, history.last());
}

#[test]
fn a_landing_found_after_a_crash_is_settled_by_its_digest_or_abandoned() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 3);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    for delta in &history.deltas(3)[..4] {
        shadow.apply(delta).expect("apply");
    }
    shadow.land_sync().expect("sync");
    drop(shadow);
    let copy = tempfile::tempdir().expect("tempdir");
    copy_dir(dir.path(), copy.path());

    let (mut shadow, found) = reopened(dir.path());
    let (base, digest) = (history.position(3), history.digest(7));
    assert_eq!(
        found,
        Found::Landing {
            epoch: Epoch(2),
            base,
            digest
        }
    );
    assert_eq!(shadow.position(), None, "the lsn is not in the files");
    let wrong = shadow
        .settle(history.position(6))
        .expect_err("another digest");
    assert_eq!(wrong.kind(), Kind::Corrupt);
    shadow.settle(history.position(7)).expect("settle");
    history.assert_same(&shadow, 7);
    shadow.apply(&history.delta(7, 8)).expect("go on landing");
    shadow.land_sync().expect("sync");
    assert_eq!(stock_content(dir.path()), image_content(&history.images[8]));

    let (mut shadow, _) = reopened(copy.path());
    assert_eq!(shadow.abandon_landing().expect("abandon"), base);
    history.assert_same(&shadow, 3);
    Shadow::mark_promoted(&paths(dir.path()), Epoch(2)).expect("exchanged before the crash");
    Shadow::mark_promoted(&paths(dir.path()), Epoch(2)).expect("again");
    assert!(Shadow::mark_promoted(&paths(copy.path()), Epoch(2)).is_err());
}

#[test]
fn a_reverse_shadow_is_made_of_pages_with_or_without_a_seed() {
    let history = History::lively(1024);
    let dir = tempfile::tempdir().expect("tempdir");
    let seed = dir.path().join("old.db");
    std::fs::write(&seed, &history.images[14]).expect("write the seed");
    let history = std::sync::Arc::new(history);
    let step = 20;
    for (name, seed) in [("bare", None), ("seeded", Some(seed))] {
        let generation = dir.path().join(name);
        std::fs::create_dir(&generation).expect("create");
        let source = history.clone();
        let read = move |page: u32, into: &mut [u8]| {
            into.copy_from_slice(source.page(step, page));
            Ok(())
        };
        let (position, pages) = (history.position(step), history.page_count(step));
        let task = Shadow::from_live(
            &paths(&generation),
            &history.spec(),
            position,
            pages,
            Box::new(read),
        );
        let task = seed.into_iter().fold(task, |task, seed| task.seed(seed));
        let progress = task.progress();
        let mut shadow = std::thread::spawn(|| task.run())
            .join()
            .expect("join")
            .expect("run");
        assert_eq!(progress.pages(), u64::from(pages));
        history.assert_same(&shadow, step);
        shadow
            .apply(&history.delta(step, step + 1))
            .expect("follow");
        let mode = std::fs::metadata(shadow.paths().database())
            .expect("stat")
            .mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}

#[test]
fn a_frame_of_another_partition_or_page_size_is_refused() {
    let history = History::lively(4096);
    let small = History::lively(1024);
    let dir = tempfile::tempdir().expect("tempdir");
    let mut shadow = history.shadow(dir.path(), 3);
    let error = shadow.apply(&small.delta(3, 4)).expect_err("1 KiB pages");
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(shadow.position(), Some(history.position(3)));
}

#[test]
fn the_lock_page_is_neither_hashed_nor_written() {
    // A sparse database of just over 1 GiB: with 65,536-byte pages the lock page is 16,385.
    let size: u32 = 65_536;
    let dir = tempfile::tempdir().expect("tempdir");
    let spec = foreshadow_io::engine::shadow::ShadowSpec {
        partition: crate::shadow_history::PARTITION,
        page_size: size,
        attributes: foreshadow_io::engine::shadow::Attributes::own(0o600),
    };
    let position = |lsn, digest| Position {
        epoch: Epoch(1),
        lsn: Lsn(lsn),
        digest,
    };
    let image = vec![7; size as usize];
    let head = |at, flags| wal::delta::PagesHead {
        partition: spec.partition,
        at,
        page_size: size,
        page_count: 16_386,
        flags,
    };
    let mut encoder = wal::delta::Encoder::new(1);
    let error = encoder
        .pages(
            &head(Position::default(), wal::frame::Flags::NONE),
            &[(16_385, &image)],
        )
        .expect_err("the lock page does not travel");
    assert_eq!(error.kind(), wal::Kind::Corrupt);
    let frame = encoder
        .pages(
            &head(Position::default(), wal::frame::Flags::NONE),
            &[(16_386, &image)],
        )
        .expect("encode");
    let mut shadow = Shadow::create(&paths(dir.path()), &spec).expect("create");
    shadow.write_pages(&frame).expect("write");
    let digest = Digest::of(&[PageHash::of(16_386, &image)]);
    assert_eq!(shadow.digest(), digest);
    drop(shadow);
    let (shadow, _) = reopened(dir.path());
    assert_eq!(shadow.page_count(), 16_386);
    assert_eq!(shadow.hashes()[16_384], PageHash::ABSENT);
    assert_ne!(
        shadow.hashes()[0],
        PageHash::ABSENT,
        "a hole is a page of zeros"
    );
    assert_eq!(position(0, digest).digest, digest);
}
