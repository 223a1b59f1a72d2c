//! What the daemon counts on, whichever the engine: each test runs over every one of them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foreshadow_io::durable::Attributes;
use foreshadow_io::engine::shadow::{Shadow, ShadowPaths, ShadowSpec};
use foreshadow_io::engine::{
    Adopted, Alerts, Directory, Extent, Landed, Options, Source, Sweeper, is_tombstone, sibling,
    tombstone,
};
use foreshadow_io::remap::Remap;
use foreshadow_io::{Error, Kind};
use tempfile::TempDir;
use wal::delta::{DeltaHead, Encoder, PagesHead};
use wal::frame::{Flags, Frame};
use wal::{Engine, Epoch, Lsn, PartitionId, PartitionName, Position};

use crate::application::Application;

const BUDGET: Duration = Duration::from_secs(5);
const NEXT: Epoch = Epoch(2);

fn options(engine: Engine) -> Options {
    Options {
        engine,
        ..Options::default()
    }
}

fn scan(source: &mut Source) -> Adopted {
    let task = source.scan().expect("a task");
    let scan = task.run(&mut |_, _| ControlFlow::Continue(()));
    source.adopt(scan.expect("scanned")).expect("adopted")
}

fn attached(engine: Engine, path: &Path) -> Source {
    let mut source = Source::attach(path, &options(engine)).expect("attached");
    assert!(matches!(scan(&mut source), Adopted::Ready));
    source
}

/// A partition, its application, and directories to move it in.
struct Place {
    root: TempDir,
    engine: Engine,
    name: PartitionName,
    application: Application,
}

impl Place {
    fn new(engine: Engine) -> Place {
        let root = tempfile::tempdir().expect("a directory");
        for dir in ["live", "gen", "target"] {
            std::fs::create_dir(root.path().join(dir)).expect("a directory");
        }
        let name = PartitionName::new("tenant.log").expect("a name");
        let mut application = Application::new(engine, &root.path().join("live/tenant.log"));
        for value in 0..20 {
            application.write(value).expect("acknowledged");
        }
        Place {
            root,
            engine,
            name,
            application,
        }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("live/tenant.log")
    }

    fn attach(&self) -> Source {
        attached(self.engine, &self.path())
    }

    /// The digest that a scan of its own finds; no other source may be attached.
    fn digest(&self) -> wal::Digest {
        self.attach().digest()
    }
}

/// A shadow that follows a source.
struct Follower {
    shadow: Shadow,
    position: Position,
    encoder: Encoder,
}

impl Follower {
    fn new(place: &Place, source: &Source, dir: &Path) -> Follower {
        let spec = ShadowSpec {
            partition: place.name.id(),
            page_size: source.page_size(),
            attributes: Attributes::own(0o600),
        };
        let paths = ShadowPaths::new(dir, "tenant.log");
        let mut shadow = Shadow::create(&paths, &spec).expect("a shadow");
        let position = Position {
            epoch: Epoch(1),
            lsn: Lsn(1),
            digest: source.digest(),
        };
        let mut encoder = Encoder::new(1);
        let mut image = vec![0; source.page_size() as usize];
        for page in 1..=source.page_count() {
            source.read_page(page, &mut image).expect("a page");
            let head = PagesHead {
                partition: place.name.id(),
                at: position,
                page_size: source.page_size(),
                page_count: source.page_count(),
                flags: Flags::NONE,
            };
            let frame = encoder.pages(&head, &[(page, &image)]).expect("a frame");
            shadow.write_pages(&frame).expect("written");
        }
        let count = source.page_count();
        shadow.complete(position, count).expect("proven equal");
        Follower {
            shadow,
            position,
            encoder,
        }
    }

    /// Applies what was committed; how many commits.
    fn follow(&mut self, source: &mut Source) -> u64 {
        let begin = self.position.lsn;
        for (frame, to) in deltas(&mut self.encoder, source, self.position) {
            assert_eq!(self.shadow.apply(&frame).expect("applied"), to);
            self.position = to;
        }
        assert_eq!(self.shadow.digest(), source.digest());
        self.position.lsn.0 - begin.0
    }
}

fn deltas(encoder: &mut Encoder, source: &mut Source, at: Position) -> Vec<(Frame, Position)> {
    let (mut from, mut frames) = (at, Vec::new());
    while let Some(change) = source.poll(8).expect("readable") {
        let to = Position {
            lsn: from.lsn.after(change.commits()),
            digest: change.digest(),
            ..from
        };
        let head = DeltaHead {
            partition: PartitionName::new("tenant.log").expect("a name").id(),
            from,
            to,
            page_size: source.page_size(),
            page_count: change.page_count(),
            flags: Flags::NONE,
        };
        let frame = encoder.delta(&head, &change.edits(), 16);
        frames.push((frame.expect("a frame"), to));
        source.consume(&change);
        from = to;
    }
    frames
}

fn each(test: impl Fn(Engine)) {
    Engine::ALL.into_iter().for_each(test);
}

#[test]
fn every_commit_is_read_once_and_leads_to_the_digest_of_a_scan() {
    each(|engine| {
        let mut place = Place::new(engine);
        let mut source = place.attach();
        let dir = place.root.path().join("gen");
        let mut follower = Follower::new(&place, &source, &dir);
        assert!(!source.changed() && source.poll(8).expect("readable").is_none());
        let mut commits = 0;
        for value in 20..60 {
            place.application.write(value).expect("acknowledged");
            if value % 7 == 0 {
                assert!(source.changed());
                commits += follower.follow(&mut source);
                assert!(!source.changed());
            }
        }
        commits += follower.follow(&mut source);
        assert_eq!(commits, 40, "{engine}");
        let digest = source.digest();
        drop(source);
        assert_eq!(digest, place.digest(), "{engine}");
    });
}

#[test]
fn a_freeze_holds_writers_and_a_thaw_lets_them_go_on() {
    each(|engine| {
        let mut place = Place::new(engine);
        let mut source = place.attach();
        source.freeze(BUDGET).run().expect("frozen");
        place.application.begin(100);
        std::thread::sleep(Duration::from_millis(100));
        assert!(!source.changed(), "{engine}: nothing is acknowledged");
        source.thaw().expect("thawed");
        place.application.end().expect("acknowledged");
        assert!(source.changed());
        assert_eq!(place.application.read().last(), Some(&100), "{engine}");
    });
}

#[test]
fn a_fence_is_not_set_while_commits_are_unread_or_nothing_is_frozen() {
    each(|engine| {
        let mut place = Place::new(engine);
        let mut source = place.attach();
        let kind = |refused: Result<_, Error>| refused.map(drop).map_err(|error| error.kind());
        assert_eq!(kind(source.fence()), Err(Kind::Refused), "{engine}");
        place.application.write(20).expect("acknowledged");
        source.freeze(BUDGET).run().expect("frozen");
        assert_eq!(kind(source.fence()), Err(Kind::Retry), "{engine}");
        source.thaw().expect("thawed");
        place.application.write(21).expect("acknowledged");
    });
}

#[test]
fn a_fence_outlives_the_source_and_a_lift_ends_it() {
    each(|engine| {
        let mut place = Place::new(engine);
        let mut source = place.attach();
        source.freeze(BUDGET).run().expect("frozen");
        assert!(!source.is_fenced().expect("readable"));
        source.fence().expect("a task").run().expect("fenced");
        source.thaw().expect("nothing is left to thaw");
        place.application.write(20).expect_err("fenced");
        drop(source);
        place.application.reopen().write(21).expect_err("fenced");
        let mut source = place.attach();
        assert!(source.is_fenced().expect("readable"), "{engine}");
        source.freeze(BUDGET).run().ok();
        source.lift_fence().expect("a task").run().expect("lifted");
        source.thaw().expect("thawed");
        assert!(!source.is_fenced().expect("readable"), "{engine}");
        place.application.reopen().write(22).expect("acknowledged");
        let all: Vec<u64> = (0..20).chain([22]).collect();
        assert_eq!(place.application.read(), all, "{engine}");
    });
}

#[test]
fn at_rest_a_commit_is_noticed_and_nothing_is_missed() {
    each(|engine| {
        let mut place = Place::new(engine);
        let mut source = place.attach();
        let dir = place.root.path().join("gen");
        let mut follower = Follower::new(&place, &source, &dir);
        follower.follow(&mut source);
        let watch = source.cool().expect("cooled");
        watch.verify_names().expect("the same files");
        let (mut alerts, mut sweeper) = (Alerts::new().expect("inotify"), Sweeper::default());
        alerts.add(7, watch.touched()).expect("listened to");
        sweeper.add(7, &watch);
        let mut hits = Vec::new();
        sweeper.sweep(|key| hits.push(key));
        assert!(!watch.committed() && hits.is_empty());
        for value in 20..25 {
            place.application.write(value).expect("acknowledged");
        }
        assert!(watch.committed(), "{engine}");
        assert_eq!(alerts.take().expect("readable"), [7].into(), "{engine}");
        sweeper.sweep(|key| hits.push(key));
        sweeper.sweep(|key| hits.push(key));
        assert_eq!(hits, [7], "{engine}: once");
        let mut source = watch.upgrade(&options(engine)).expect("attached");
        assert_eq!(source.wants_scan(), None, "{engine}");
        assert_eq!(follower.follow(&mut source), 5, "{engine}");
    });
}

#[test]
fn a_copy_lands_with_everything_and_goes_on_where_it_landed() {
    each(|engine| {
        let mut place = Place::new(engine);
        let mut source = place.attach();
        let target = place.root.path().join("target");
        let mut remap = Remap::open(&target, &target.join(".gen")).expect("a directory");
        let generation = remap.allocate(&place.name).expect("a generation");
        let mut follower = Follower::new(&place, &source, &remap.dir(generation));
        place.application.write(20).expect("acknowledged");
        follower.follow(&mut source);
        follower.shadow.prepare_landing(NEXT).expect("prepared");
        place.application.write(21).expect("acknowledged");
        source.freeze(BUDGET).run().expect("frozen");
        follower.follow(&mut source);
        follower.shadow.land_sync().expect("synced");
        source.fence().expect("a task").run().expect("fenced");
        let extent = match engine {
            Engine::Sqlite => Extent::Frames(follower.shadow.wal_frames()),
            Engine::Native => {
                let task = follower.shadow.log_task(NEXT).expect("a task");
                let (first, lsn) = task.extent();
                assert_eq!(task.run().expect("a log"), lsn);
                Extent::Log(first, lsn)
            }
        };
        let hashes = follower.shadow.hashes().to_vec();
        let path = follower.shadow.paths().database().to_owned();
        let landed = Landed { hashes, extent };
        let landed = Source::attach_landed(&path, &options(engine), landed);
        let mut landed = landed.expect("attached");
        assert_eq!(landed.digest(), source.digest(), "{engine}");
        remap.exchange(&place.name, generation).expect("exchanged");
        follower.shadow.promote(NEXT).expect("promoted");
        source.refuse_readers().expect("sent away");
        source.thaw().expect("thawed");
        let mut moved = Application::open(engine, &target.join("tenant.log"));
        moved.write(22).expect("acknowledged");
        let all: Vec<u64> = (0..=22).collect();
        assert_eq!(moved.read(), all, "{engine}");
        let change = landed.poll(8).expect("readable").expect("what was written");
        assert_eq!(change.commits(), 1, "{engine}");
        landed.consume(&change);
        let digest = landed.digest();
        drop(landed);
        assert_eq!(digest, attached(engine, &path).digest(), "{engine}");
    });
}

#[test]
fn what_was_written_before_a_landed_copy_is_attached_is_read_like_any_other() {
    let place = Place::new(Engine::Native);
    let mut source = place.attach();
    let mut follower = Follower::new(&place, &source, &place.root.path().join("target"));
    follower.shadow.prepare_landing(NEXT).expect("prepared");
    source.freeze(BUDGET).run().expect("frozen");
    follower.follow(&mut source);
    let task = follower.shadow.log_task(NEXT).expect("a task");
    let (first, lsn) = task.extent();
    task.run().expect("a log");
    let path = follower.shadow.paths().database().to_owned();
    let mut moved = Application::open(Engine::Native, &path);
    for value in 20..25 {
        moved.write(value).expect("acknowledged");
    }
    let landed = |lsn| Landed {
        hashes: follower.shadow.hashes().to_vec(),
        extent: Extent::Log(first, lsn),
    };
    let engine = options(Engine::Native);
    let elsewhere = Source::attach_landed(&path, &engine, landed(Lsn(lsn.0 - 4096)));
    assert_eq!(elsewhere.expect_err("not its position").kind(), Kind::Retry);
    let mut tail = Source::attach_landed(&path, &engine, landed(lsn)).expect("attached");
    assert_eq!(tail.digest(), source.digest());
    let mut commits = 0;
    while let Some(change) = tail.poll(8).expect("readable") {
        commits += change.commits();
        tail.consume(&change);
    }
    assert_eq!(commits, 5);
    let digest = tail.digest();
    drop(tail);
    assert_eq!(digest, attached(Engine::Native, &path).digest());
}

#[test]
fn a_landing_that_is_given_up_follows_on() {
    each(|engine| {
        let mut place = Place::new(engine);
        let mut source = place.attach();
        let mut follower = Follower::new(&place, &source, &place.root.path().join("gen"));
        for (round, epoch) in (2..5).map(Epoch).enumerate() {
            follower.shadow.prepare_landing(epoch).expect("prepared");
            place
                .application
                .write(20 + 2 * round as u64)
                .expect("acknowledged");
            follower.follow(&mut source);
            follower.shadow.land_sync().expect("synced");
            if engine == Engine::Native {
                follower.shadow.become_log(epoch).expect("a log");
            }
            follower.shadow.abandon_landing().expect("given up");
            place
                .application
                .write(21 + 2 * round as u64)
                .expect("acknowledged");
            follower.follow(&mut source);
        }
        let task = follower
            .shadow
            .checkpoint_task()
            .expect("something to copy");
        follower.shadow.checkpoint_done(task.run()).expect("copied");
        assert_eq!(
            follower.shadow.digest(),
            place_digest(&follower.shadow),
            "{engine}"
        );
    });
}

/// The digest of the pages as they are read.
fn place_digest(shadow: &Shadow) -> wal::Digest {
    let mut image = vec![0; shadow.page_size() as usize];
    let mut digest = wal::Digest::default();
    for page in 1..=shadow.page_count() {
        shadow.read_page(page, &mut image).expect("a page");
        let hash = wal::digest::PageHash::of(page, &image);
        digest = digest.replace(wal::digest::PageHash::ABSENT, hash);
    }
    digest
}

#[test]
fn a_tombstone_is_nothing_to_write_to_and_is_known_for_what_it_is() {
    each(|engine| {
        let place = Place::new(engine);
        let grave = place.root.path().join("live/grave.log");
        let attributes = Attributes::of(&place.path()).expect("there");
        tombstone(engine, &grave, PartitionId(1), &attributes).expect("made");
        assert!(is_tombstone(engine, &grave) && !is_tombstone(engine, &place.path()));
        let mut there = Application::open(engine, &grave);
        there.write(1).expect_err("it moved away");
        assert!(is_tombstone(engine, &grave), "{engine}: and stays one");
    });
}

#[test]
fn a_file_that_was_replaced_is_noticed() {
    each(|engine| {
        let place = Place::new(engine);
        let source = place.attach();
        source.verify_names().expect("the same files");
        let other = place.root.path().join("other");
        std::fs::copy(place.path(), &other).expect("copied");
        std::fs::rename(&other, place.path()).expect("renamed");
        let error = source.verify_names().expect_err("another file");
        assert_eq!(error.kind(), Kind::Fatal, "{engine}");
        let watch = source.cool().expect("cooled");
        assert!(watch.verify_names().is_err(), "{engine}");
    });
}

#[test]
fn a_directory_holds_what_is_of_its_engine() {
    let database = Place::new(Engine::Sqlite);
    let dir = database.root.path().join("live");
    drop(Application::new(Engine::Native, &dir.join("native.log")));
    std::fs::write(dir.join("text.log"), "GET / 200").expect("written");
    std::fs::write(dir.join("empty.log"), "").expect("written");
    let found = |engine| {
        let directory = Directory::new(engine, &dir, "*.log", false, &dir.join(".gen"));
        let listing = directory.expect("a directory").list().expect("listed");
        let names = listing
            .databases
            .into_iter()
            .map(|found| found.name.to_string());
        names.collect::<Vec<String>>()
    };
    assert_eq!(found(Engine::Native), ["native.log"]);
    assert!(found(Engine::Sqlite).contains(&"tenant.log".to_owned()));
    assert!(!sibling(&dir.join("native.log"), "-wal").exists());
}

#[test]
fn two_do_not_tail_one_partition() {
    let place = Place::new(Engine::Native);
    let source = place.attach();
    let began = Instant::now();
    let refused = Source::attach(&place.path(), &options(Engine::Native));
    assert_eq!(refused.expect_err("one sidecar").kind(), Kind::Refused);
    assert!(began.elapsed() < BUDGET);
    drop(source);
    place.attach();
}
