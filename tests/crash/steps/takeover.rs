//! Takeovers: the owner's daemon is dead, its shadow is promoted, and dies at each step on the way
//! to serving, or meets an error there.
//!
//! What was acknowledged since the last delta is lost with an owner that is gone, so the
//! applications stop first and the shadow is equal: then nothing may be lost here either.

use foreshadow::cli::demo::harness::Engine;
use io::failpoint::{Action, Step};
use serde_json::json;

use super::each_engine;
use super::stage::{Stage, Victim};
use super::table::{By, steps_of};
use crate::cluster::{LIMIT, until};
use crate::look::both_open;

/// What a takeover passes at the node that takes over, in order.
const STEPS: [Step; 12] = [
    Step::NoteBegun,
    Step::NoteWritten,
    Step::RemapPreparing,
    Step::RemapPrepared,
    Step::RemapSynced,
    Step::RemapLogWritten,
    Step::RemapLinked,
    Step::RemapExchanged,
    Step::RemapDirSynced,
    Step::RemapPromoted,
    Step::RouteLinked,
    Step::RoutePublished,
];

/// Those that an engine's takeover passes.
fn steps(engine: Engine) -> Vec<Step> {
    let of_engine: Vec<Step> = steps_of(engine).collect();
    let passed = |step: &Step| of_engine.contains(step);
    STEPS.into_iter().filter(passed).collect()
}

impl Stage {
    /// The owner dies at rest; its shadow is promoted and meets `step`. Returns who is who.
    fn promoted(&mut self, step: Step, action: Action, tenant: &str) -> (usize, usize) {
        let owner = self.owner(tenant);
        let target = 1 - owner;
        self.wait_for_shadow(tenant);
        self.stop_writing();
        self.kill(owner, Victim::Daemon);
        self.board(target).arm(step, 1, action);
        let path = format!("/v1/partitions/{tenant}/promote");
        let force = json!({ "force": true });
        // The daemon may be dead before its answer is here.
        let answer = self.cluster.nodes[target].ask("POST", &path, Some(&force));
        if let Ok(answer) = answer {
            assert!(answer.status < 300, "{} {}", answer.status, answer.body);
        }
        assert!(self.fires(target), "the takeover came to {}", step.name());
        (owner, target)
    }

    /// Only the node that took over runs: it must serve without the former owner's word.
    fn serves_alone(&self, said: &str, tenant: &str, target: usize) {
        until(&format!("{said}: the promoted node serves"), || {
            let listed = self.cluster.nodes[target].get("/v1/partitions").ok()?;
            let mut listed = listed.as_array()?.iter();
            let entry = listed.find(|entry| entry["name"] == tenant)?;
            (entry["role"] == "owner").then_some(())
        });
        let route = self.cluster.routes().join(tenant);
        let live = self.cluster.nodes[target].place.live();
        until(&format!("{said}: the route leads there"), || {
            let leads = std::fs::read_link(&route).ok()?;
            leads.starts_with(&live).then_some(())
        });
    }

    /// The former owner comes back. Until then nobody could close its file: whoever promotes
    /// answers for that. Now it has to put it away.
    fn comes_back(&mut self, said: &str, tenant: &str, owner: usize) {
        self.cluster.start_all().expect("they start");
        until(
            &format!("{said}: the former owner's file is closed"),
            || (!both_open(&self.cluster, tenant)).then_some(()),
        );
        self.heal(said, tenant);
        assert_eq!(self.owner(tenant), 1 - owner, "{said}: it was taken over");
        self.cluster.wait_for_shadows(LIMIT).expect("ready shadows");
    }
}

#[test]
fn a_takeover_that_is_killed_at_any_step_is_finished_by_the_next_start() {
    each_engine(|engine| {
        let mut stage = Stage::start(engine, 1, "1s");
        let tenant = stage.tenant_for(By::Move).expect("a tenant");
        for step in steps(engine) {
            let said = format!("a takeover killed at {}", step.name());
            let (owner, target) = stage.promoted(step, Action::Kill, &tenant);
            stage.bury(target);
            stage.cluster.nodes[target].start().expect("it starts");
            stage.serves_alone(&said, &tenant, target);
            stage.comes_back(&said, &tenant, owner);
        }
        let tally = stage.end();
        assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    });
}

#[test]
fn a_takeover_that_meets_an_error_goes_on_without_a_restart() {
    each_engine(|engine| {
        let mut stage = Stage::start(engine, 2, "1s");
        let tenant = stage.tenant_for(By::Move).expect("a tenant");
        for step in steps(engine) {
            let said = format!("a takeover that met an error at {}", step.name());
            let (owner, target) = stage.promoted(step, Action::Fail, &tenant);
            stage.serves_alone(&said, &tenant, target);
            stage.comes_back(&said, &tenant, owner);
        }
        let tally = stage.end();
        assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    });
}
