//! Single stories that the rounds meet only by luck: two accidents, or an order of two threads.

use std::fs::File;
use std::time::Duration;

use io::failpoint::{Action, Step};
use rustix::fs::{FlockOperation, flock};

use super::each_engine;
use super::stage::{Stage, Victim};
use super::table::By;
use crate::cluster::until;

/// Starts a stage of each engine, lets `story` happen to a tenant at its owner's or target's node,
/// and judges.
fn told(story: impl Fn(&mut Stage, &str, usize) + Sync) {
    each_engine(|engine| {
        let mut stage = Stage::start(engine, 1, "1s");
        let tenant = stage.tenant_for(By::FirstMove).expect("none moved yet");
        let owner = stage.owner(&tenant);
        story(&mut stage, &tenant, owner);
        let tally = stage.end();
        assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
        assert_eq!(tally.both_open, 0);
    });
}

/// One thread gives the landed files to the applications, another one notes the landing. A target
/// that dies after the one and before the other has landed all the same.
#[test]
fn a_landing_whose_note_is_missing_is_still_a_landing() {
    told(|stage, tenant, owner| {
        let target = 1 - owner;
        let promoted = stage.board(target).passes(Step::RemapPromoted);
        stage.board(owner).arm(Step::NoteIntent, 1, Action::Hold);
        // The target's second note of a move.
        stage.board(target).arm(Step::NoteBegun, 2, Action::Hold);
        stage.ask(tenant, target);
        assert!(stage.fires(owner), "the move came to its intent");
        // The epoch is reserved; nobody else will hear of the landing either.
        let deaf = File::open(stage.cluster.root().join("coordinator/lock")).expect("there");
        flock(&deaf, FlockOperation::LockExclusive).expect("locked");
        stage.board(owner).release();
        assert!(
            stage.fires(target),
            "the move came to the note of its landing"
        );
        until("the files are given away", || {
            (stage.board(target).passes(Step::RemapPromoted) > promoted).then_some(())
        });
        stage.kill(target, Victim::Daemon);
        drop(deaf);
        stage.heal("killed before the note of its landing", tenant);
        assert_eq!(stage.owner(tenant), target, "it was granted");
        stage.moves(tenant, owner);
    });
}

/// A start that dies between the two leaves the same to the next start.
#[test]
fn a_start_that_dies_while_it_settles_a_landing_is_repeated() {
    told(|stage, tenant, owner| {
        let (at, met) = stage.meet(Step::RecoverLanding, Action::Kill, tenant, owner);
        assert!(met, "the start came to the landing");
        stage.bury(at);
        stage.heal("killed again while it started", tenant);
        assert_eq!(stage.owner(tenant), at, "it was granted");
        stage.moves(tenant, owner);
    });
}

/// A start that can't write the note knows of the landing all the same.
#[test]
fn a_landing_that_can_not_be_noted_is_served_all_the_same() {
    told(|stage, tenant, owner| {
        // There and back, so that the coordinator knows this target as an owner of before.
        stage.moves(tenant, 1 - owner);
        stage.heal("moved", tenant);
        let (at, met) = stage.meet(Step::RecoverLanding, Action::Fail, tenant, 1 - owner);
        assert!(met && at == owner, "the start came to the landing");
        stage.heal("the note failed", tenant);
        assert_eq!(stage.owner(tenant), at, "it was granted");
        stage.moves(tenant, 1 - owner);
    });
}

/// A source that comes back before the coordinator knows of the landing attaches its fenced copy
/// once more; whoever opens the route must still come to the new owner.
#[test]
fn a_route_never_leads_back_to_a_fenced_copy() {
    told(|stage, tenant, owner| {
        let target = 1 - owner;
        // The source dies when it has heard that the target serves.
        stage.board(owner).arm(Step::NoteBegun, 2, Action::Kill);
        stage
            .board(target)
            .arm(Step::RouteSubmitted, 1, Action::Hold);
        stage.ask(tenant, target);
        assert!(
            stage.fires(target),
            "the target is about to tell the coordinator"
        );
        assert!(stage.fires(owner), "the source heard of it");
        stage.bury(owner);
        let attached = stage.board(owner).passes(Step::TailAttach);
        stage.cluster.nodes[owner].start().expect("it starts");
        until("the fenced copy is attached", || {
            (stage.board(owner).passes(Step::TailAttach) > attached).then_some(())
        });
        // The other tenants of this node are attached too; a moment for all of them.
        std::thread::sleep(Duration::from_millis(300));
        stage.board(target).release();
        stage.heal("the source came back early", tenant);
        assert_eq!(stage.owner(tenant), target, "it was granted");
        let route = stage.cluster.routes().join(tenant);
        let leads = std::fs::read_link(route).expect("a route");
        let live = stage.cluster.nodes[target].place.live();
        assert!(leads.starts_with(&live), "{leads:?} is not in {live:?}");
        stage.moves(tenant, owner);
    });
}

/// A reverse shadow that failed leaves its files; they must not hide what is served later.
#[test]
fn a_copy_that_was_left_behind_hides_no_database() {
    told(|stage, tenant, owner| {
        let met = stage.meet_in_move(Step::ReverseKept, 1, Action::Fail, tenant, owner);
        assert!(met, "the old copy was about to become a shadow");
        stage.heal("no reverse shadow", tenant);
        stage.moves(tenant, owner);
        stage.heal("moved back", tenant);
        stage.kill(owner, Victim::Daemon);
        stage.heal("started again", tenant);
        assert_eq!(stage.owner(tenant), owner, "it owned the database");
        stage.moves(tenant, 1 - owner);
    });
}

/// A source that died before it put its old copy away must do so when it is back, however quickly
/// the new owner offers it a shadow.
#[test]
fn an_old_copy_is_put_away_though_its_new_owner_is_quicker() {
    told(|stage, tenant, owner| {
        let met = stage.meet_in_move(Step::RetireAdopted, 1, Action::Kill, tenant, owner);
        assert!(met, "the move came to its end");
        stage.bury(owner);
        stage.board(owner).arm(Step::RecoverFound, 1, Action::Hold);
        stage.cluster.nodes[owner].start().expect("it starts");
        assert!(stage.fires(owner), "it lists its directory");
        // The new owner would have offered by now.
        std::thread::sleep(Duration::from_millis(700));
        stage.board(owner).release();
        stage.heal("its listing was slow", tenant);
        stage.moves(tenant, owner);
    });
}
