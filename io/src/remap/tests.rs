//! What the exchange promises, tried on real directories.

use wal::Engine;

use super::*;

struct Place {
    dir: tempfile::TempDir,
    remap: Remap,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::create_dir(dir.path().join("live")).expect("live");
    let remap =
        Remap::open(&dir.path().join("live"), &dir.path().join("gen")).expect("open the remap");
    Place { dir, remap }
}

fn name(text: &str) -> PartitionName {
    PartitionName::new(text).expect("a valid name")
}

/// A generation whose file holds `text`.
fn generation(remap: &mut Remap, of: &PartitionName, text: &str) -> Generation {
    let generation = remap.allocate(of).expect("allocate");
    std::fs::write(remap.path(generation, of), text).expect("write");
    generation
}

fn live_text(place: &Place, of: &str) -> String {
    std::fs::read_to_string(place.dir.path().join("live").join(of)).expect("read the live path")
}

#[test]
fn the_first_exchange_creates_and_the_next_replaces() {
    let mut place = place();
    let db = name("a.db");
    let one = generation(&mut place.remap, &db, "one");
    let two = generation(&mut place.remap, &db, "two");
    assert_eq!(place.remap.target(&db).expect("target"), Target::Nothing);
    assert_eq!(
        place.remap.exchange(&db, one).expect("exchange"),
        Exchanged::Created
    );
    assert_eq!(
        place.remap.exchange(&db, two).expect("exchange"),
        Exchanged::Replaced(one)
    );
    assert_eq!(live_text(&place, "a.db"), "two");
    assert_eq!(place.remap.points_to(&db).expect("target"), Some(two));
    place.remap.sync_dir(&db).expect("sync");
}

#[test]
fn a_link_that_was_prepared_is_used_or_replaced() {
    let mut place = place();
    let db = name("a.db");
    let one = generation(&mut place.remap, &db, "one");
    let two = generation(&mut place.remap, &db, "two");
    let inode = |place: &Place, of: &str| {
        let path = place.dir.path().join("live").join(of);
        std::os::unix::fs::MetadataExt::ino(&path.symlink_metadata().expect("a link"))
    };
    place.remap.prepare(&db, one).expect("prepare");
    place.remap.prepare(&db, one).expect("again");
    assert_eq!(place.remap.target(&db).expect("target"), Target::Nothing);
    let prepared = inode(&place, ".foreshadow-remap-a.db");
    place.remap.exchange(&db, one).expect("exchange");
    assert_eq!(inode(&place, "a.db"), prepared, "the link made before");
    place
        .remap
        .prepare(&db, one)
        .expect("of a landing given up");
    place.remap.exchange(&db, two).expect("exchange");
    assert_eq!(live_text(&place, "a.db"), "two");
    place.remap.prepare(&db, one).expect("of another");
    assert_eq!(place.remap.clean_all().expect("clean"), 1);
    assert_eq!(live_text(&place, "a.db"), "two");
}

#[test]
fn an_exchange_may_be_repeated() {
    let mut place = place();
    let db = name("a.db");
    let one = generation(&mut place.remap, &db, "one");
    place.remap.exchange(&db, one).expect("exchange");
    assert_eq!(
        place.remap.exchange(&db, one).expect("exchange"),
        Exchanged::Already
    );
}

#[test]
fn links_are_relative_so_that_the_tree_may_move() {
    let mut place = place();
    std::fs::create_dir(place.dir.path().join("live/sub")).expect("sub");
    let db = name("sub/a.db");
    let one = generation(&mut place.remap, &db, "one");
    place.remap.exchange(&db, one).expect("exchange");
    let link = std::fs::read_link(place.dir.path().join("live/sub/a.db")).expect("link");
    assert_eq!(
        link,
        Path::new("../../gen").join(one.to_string()).join("a.db")
    );
    assert_eq!(live_text(&place, "sub/a.db"), "one");
    assert_eq!(place.remap.points_to(&db).expect("target"), Some(one));
}

#[test]
fn a_generation_number_is_never_used_twice() {
    let mut place = place();
    let db = name("a.db");
    let first = place.remap.allocate(&db).expect("allocate");
    place.remap.remove(&db, first).expect("remove");
    let mut again = Remap::open(
        &place.dir.path().join("live"),
        &place.dir.path().join("gen"),
    )
    .expect("reopen");
    let second = again.allocate(&db).expect("allocate");
    assert!(second > first, "{second} after {first}");
    std::fs::remove_file(place.dir.path().join("gen/counter")).expect("lose the counter");
    let mut third = Remap::open(
        &place.dir.path().join("live"),
        &place.dir.path().join("gen"),
    )
    .expect("reopen");
    assert!(third.allocate(&db).expect("allocate") > second);
}

#[test]
fn a_path_is_never_pointed_at_nothing() {
    let mut place = place();
    let db = name("a.db");
    let empty = place.remap.allocate(&db).expect("allocate");
    let error = place.remap.exchange(&db, empty).expect_err("no file there");
    assert_eq!(error.kind(), Kind::Refused);
}

#[test]
fn the_live_generation_is_not_removed() {
    let mut place = place();
    let db = name("a.db");
    let one = generation(&mut place.remap, &db, "one");
    place.remap.exchange(&db, one).expect("exchange");
    assert_eq!(
        place.remap.remove(&db, one).expect_err("live").kind(),
        Kind::Refused
    );
    assert_eq!(live_text(&place, "a.db"), "one");
}

#[test]
fn a_plain_file_is_adopted_with_the_same_inodes() {
    let mut place = place();
    let db = name("a.db");
    let live = place.dir.path().join("live");
    for end in ["", "-wal", "-shm"] {
        std::fs::write(live.join(format!("a.db{end}")), format!("plain{end}")).expect("write");
    }
    let inode = std::fs::metadata(live.join("a.db")).expect("stat").ino();
    assert_eq!(place.remap.target(&db).expect("target"), Target::Plain);
    let generation = place.remap.adopt_plain(&db, Engine::Sqlite).expect("adopt");
    assert_eq!(
        place.remap.points_to(&db).expect("target"),
        Some(generation)
    );
    assert_eq!(
        std::fs::metadata(live.join("a.db")).expect("stat").ino(),
        inode
    );
    let adopted = place.remap.dir(generation);
    assert_eq!(
        std::fs::read_to_string(adopted.join("a.db-wal")).expect("read"),
        "plain-wal"
    );
    let old = std::fs::metadata(live.join("a.db-wal"))
        .expect("the old name stays")
        .ino();
    assert_eq!(
        old,
        std::fs::metadata(adopted.join("a.db-wal"))
            .expect("stat")
            .ino()
    );
    assert_eq!(
        place
            .remap
            .adopt_plain(&db, Engine::Sqlite)
            .expect("repeat"),
        generation
    );
}

#[test]
fn a_plain_file_without_its_siblings_is_not_adopted() {
    let mut place = place();
    std::fs::write(place.dir.path().join("live/a.db"), "plain").expect("write");
    let error = place
        .remap
        .adopt_plain(&name("a.db"), Engine::Sqlite)
        .expect_err("no -wal");
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.reason.contains("-wal"), "{error}");
}

#[test]
fn a_plain_file_is_not_exchanged_away() {
    let mut place = place();
    let db = name("a.db");
    std::fs::write(place.dir.path().join("live/a.db"), "plain").expect("write");
    let one = generation(&mut place.remap, &db, "one");
    assert_eq!(
        place.remap.exchange(&db, one).expect_err("plain").kind(),
        Kind::Refused
    );
    assert_eq!(live_text(&place, "a.db"), "plain");
}

#[test]
fn what_a_crash_left_is_cleaned_and_a_last_name_is_kept() {
    let place = place();
    let live = place.dir.path().join("live");
    std::os::unix::fs::symlink("../gen/9/a.db", live.join(".foreshadow-remap-a.db")).expect("link");
    assert_eq!(place.remap.clean_all().expect("clean"), 1);
    assert!(!live.join(".foreshadow-remap-a.db").is_symlink());
    std::fs::write(live.join(".foreshadow-remap-b.db"), "the only copy").expect("write");
    assert_eq!(
        place.remap.clean(&name("b.db")).expect_err("kept").kind(),
        Kind::Refused
    );
    assert!(live.join(".foreshadow-remap-b.db").is_file());
}

#[test]
fn a_symlink_that_leads_outside_is_refused() {
    let place = place();
    let outside = place.dir.path().join("outside");
    std::fs::create_dir(&outside).expect("outside");
    std::os::unix::fs::symlink(&outside, place.dir.path().join("live/sub")).expect("link");
    let error = place.remap.target(&name("sub/a.db")).expect_err("outside");
    assert_eq!(error.kind(), Kind::Refused);
    std::os::unix::fs::symlink("/etc/passwd", place.dir.path().join("live/p.db")).expect("link");
    assert!(matches!(
        place.remap.target(&name("p.db")).expect("target"),
        Target::Foreign(_)
    ));
}

#[test]
fn generations_on_another_filesystem_are_refused() {
    let (here, there) = (tempfile::tempdir().expect("tempdir"), Path::new("/dev/shm"));
    if device(here.path()).expect("stat") == device(there).expect("stat") {
        return; // One filesystem only: nothing to tell apart.
    }
    let other = tempfile::tempdir_in(there).expect("tempdir");
    let error = Remap::open(here.path(), other.path()).expect_err("two filesystems");
    assert_eq!(error.kind(), Kind::Refused);
}

#[test]
fn directories_of_a_name_are_made_when_first_needed_but_never_outside() {
    let mut place = place();
    let db = name("eu/berlin/a.db");
    let one = generation(&mut place.remap, &db, "one");
    place.remap.exchange(&db, one).expect("exchange");
    assert_eq!(live_text(&place, "eu/berlin/a.db"), "one");
    let outside = place.dir.path().join("outside");
    std::fs::create_dir(&outside).expect("outside");
    std::os::unix::fs::symlink(&outside, place.dir.path().join("live/us")).expect("link");
    let error = place
        .remap
        .allocate(&name("us/a/b.db"))
        .expect_err("outside");
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(std::fs::read_dir(&outside).expect("list").count(), 0);
}
