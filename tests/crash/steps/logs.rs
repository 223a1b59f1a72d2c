//! Stories of native logs: a landed copy is made a log before it is served, and a seal is true in
//! memory before it is true on the disk. What lies between the two is met here.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use foreshadow::cli::demo::harness::{Engine, Outcome};
use io::engine::shadow::{Shadow, ShadowPaths, Stage as Copy};
use io::failpoint::{Action, Step};
use wal::log::Control;
use wal::log::saved::Ownership;

use super::meet::generations;
use super::stage::{Stage, Victim};
use super::table::By;
use crate::cluster::{LIMIT, until};

/// Longer than an idle target takes to give a landing up.
const A_MOMENT: Duration = Duration::from_millis(300);

/// Starts a stage, lets `story` happen to a tenant and its owner, and judges.
fn told(story: impl FnOnce(&mut Stage, &str, usize)) {
    let mut stage = Stage::start(Engine::Native, 3, "1s");
    let tenant = stage.tenant_for(By::FirstMove).expect("none moved yet");
    let owner = stage.owner(&tenant);
    story(&mut stage, &tenant, owner);
    let tally = stage.end();
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    assert_eq!(tally.both_open, 0);
}

impl Stage {
    /// A move whose target stands where it has made the log, while the source met `action` in
    /// memory's part of its seal.
    fn log_is_made(&mut self, tenant: &str, owner: usize, action: Action) -> String {
        let target = 1 - owner;
        self.board(owner).arm(Step::FencePublished, 1, action);
        self.board(target)
            .arm(Step::RemapLogWritten, 1, Action::Hold);
        let asked = self.ask(tenant, target);
        assert!(self.fires(target), "the log is made");
        assert!(self.fires(owner), "the seal is in memory");
        asked
    }

    /// A move that ends because its source could not make the seal durable. The target still
    /// stands where the log is made.
    fn seal_fails(&mut self, tenant: &str, owner: usize) {
        self.board(owner).arm(Step::FencePublished, 1, Action::Fail);
        self.board(1 - owner)
            .arm(Step::RemapLogWritten, 1, Action::Hold);
        self.wait_for_shadow(tenant);
        let name = self.cluster.nodes[1 - owner].place.name.clone();
        let pending = self.cluster.begin_move(tenant, &name).expect("it begins");
        assert!(self.fires(1 - owner), "the log is made");
        let report = self.cluster.finish_move(&pending, LIMIT).expect("an end");
        assert!(matches!(report.outcome, Outcome::Aborted(_)), "{report:?}");
    }

    /// What the newest copy of a tenant at a node is.
    fn copy_is(&self, at: usize, tenant: &str) -> Copy {
        let all = generations(&self.cluster.nodes[at].place.generations());
        let number = |dir: &PathBuf| -> u64 {
            let name = dir.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.parse().ok()).unwrap_or(0)
        };
        let stages = all.into_iter().filter_map(|dir| {
            let stage = Shadow::stage(&ShadowPaths::new(&dir, tenant)).ok()?;
            dir.join(tenant).is_file().then(|| (number(&dir), stage))
        });
        let newest = stages.max_by_key(|(number, _)| *number);
        newest.expect("a copy of it").1
    }

    /// Whether the log at a node's live path is sealed, in memory and on the disk.
    fn seals(&self, at: usize, tenant: &str) -> (bool, bool) {
        let live = self.cluster.nodes[at].place.live().join(tenant);
        let control = Control::open(&live).expect("a log");
        let saved = control.saved::<Ownership>().expect("saved");
        (control.word().sealed, saved.sealed)
    }
}

/// It was granted while the log was made: the next start syncs what was written before, which
/// nobody had done.
#[test]
fn a_landing_whose_target_died_while_it_made_the_log_is_made_durable() {
    told(|stage, tenant, owner| {
        let target = 1 - owner;
        let granted = stage.board(owner).passes(Step::FenceGrant);
        stage
            .board(target)
            .arm(Step::RemapLogWritten, 1, Action::Hold);
        stage.ask(tenant, target);
        assert!(stage.fires(target), "the log is made");
        until("it is granted", || {
            (stage.board(owner).passes(Step::FenceGrant) > granted).then_some(())
        });
        let made = stage.board(target).passes(Step::RemapLogWritten);
        stage.kill(target, Victim::Daemon);
        stage.heal("killed while the log was made", tenant);
        assert_eq!(stage.owner(tenant), target, "it was granted");
        let syncs = stage.board(target).passes(Step::RemapLogWritten);
        assert!(syncs > made, "each pass is a sync");
        stage.moves(tenant, owner);
    });
}

/// While a helper thread writes the log, and then attaches to it, the copy is not a shadow yet.
#[test]
fn a_landing_is_given_up_only_when_nobody_makes_a_log_of_it_any_more() {
    told(|stage, tenant, owner| {
        let target = 1 - owner;
        stage.seal_fails(tenant, owner);
        sleep(A_MOMENT);
        let copy = stage.copy_is(target, tenant);
        assert!(matches!(copy, Copy::Landing { .. }), "{copy:?}");
        stage.board(target).release();
        until("the copy follows again", || {
            let copy = stage.copy_is(target, tenant);
            (!matches!(copy, Copy::Landing { .. })).then_some(())
        });
        stage.heal("given up after the log was made", tenant);
        assert_eq!(stage.owner(tenant), owner, "the seal was taken back");
        stage.moves(tenant, target);
        stage.heal("moved", tenant);
        stage.moves(tenant, owner);
    });
}

/// Found after a crash, such a copy is beyond its base: it is compared with its owner.
#[test]
fn a_log_that_was_made_in_vain_is_compared_anew_after_a_crash() {
    told(|stage, tenant, owner| {
        let target = 1 - owner;
        stage.seal_fails(tenant, owner);
        let compared = stage.board(target).passes(Step::ShipHashed);
        stage.kill(target, Victim::Daemon);
        stage.heal("killed after its landing was given up", tenant);
        assert_eq!(stage.owner(tenant), owner, "the seal was taken back");
        stage.wait_for_shadow(tenant);
        assert!(stage.board(target).passes(Step::ShipHashed) > compared);
        stage.moves(tenant, target);
        stage.heal("moved", tenant);
        stage.moves(tenant, owner);
    });
}

/// The start of the source alone makes the seal durable, or takes it back: never is it one in
/// memory and another one on the disk for longer than that.
#[test]
fn a_seal_that_was_not_durable_yet_is_made_so_when_source_and_target_died() {
    told(|stage, tenant, owner| {
        let target = 1 - owner;
        stage.log_is_made(tenant, owner, Action::Kill);
        stage.bury(owner);
        stage.kill(target, Victim::Daemon);
        assert_eq!(stage.seals(owner, tenant), (true, false));
        stage.cluster.nodes[owner].start().expect("it starts");
        until("both say the same", || {
            let (memory, disk) = stage.seals(owner, tenant);
            (memory == disk).then_some(())
        });
        stage.heal("both were killed at the seal", tenant);
        let now = stage.owner(tenant);
        stage.moves(tenant, 1 - now);
    });
}

/// The target is alive and waits for its grant, the source dies between the two seals.
#[test]
fn a_source_that_died_before_its_seal_was_durable_ends_the_move_either_way() {
    told(|stage, tenant, owner| {
        stage.log_is_made(tenant, owner, Action::Kill);
        stage.bury(owner);
        stage.board(1 - owner).release();
        stage.heal("the source was killed at the seal", tenant);
        let now = stage.owner(tenant);
        let (memory, disk) = stage.seals(now, tenant);
        assert_eq!(
            (memory, disk),
            (false, false),
            "it is open where it is owned"
        );
        stage.moves(tenant, 1 - now);
    });
}

/// Tombstones, what was put away, reverse shadows and served logs, all found by the same start. The
/// end of a stage looks at what is listed and at what lies beside the logs.
#[test]
fn what_several_moves_left_is_found_again_by_the_next_start() {
    told(|stage, tenant, owner| {
        for target in [1 - owner, owner, 1 - owner] {
            stage.moves(tenant, target);
            stage.heal("moved", tenant);
        }
        for dead in [vec![owner], vec![1 - owner], vec![owner, 1 - owner]] {
            dead.into_iter()
                .for_each(|at| stage.kill(at, Victim::Daemon));
            stage.heal("started again", tenant);
            assert_eq!(stage.owner(tenant), 1 - owner, "a start moves nothing");
            stage.look_around();
        }
        stage.moves(tenant, owner);
    });
}
