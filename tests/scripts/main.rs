//! Golden conversations: real shards, driven by readable commands, every effect recorded.
//!
//! A script is a story (`#`), commands (`>`) and what they led to (indented). `UPDATE=1 cargo
//! scripts` records again; commit the change only if you can explain each line of it.
//!
//! | file | what it holds |
//! |---|---|
//! | `commands` | what a script can say |
//! | `world` | nodes, links, coordinator; how events and messages travel |
//! | `shell` | a tiny executor of effects: disks and engines of counted writes |
//! | `words` | effects and messages as lines of text |

mod commands;
mod shell;
mod words;
mod world;

use std::path::Path;

fn run(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace");
    let path = root.join(format!("tests/scripts/{name}.txt"));
    let golden = std::fs::read_to_string(&path).expect("a readable script");
    assert!(golden.starts_with("# "), "{name} opens with its story");
    let recorded = replay(&golden);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, recorded).expect("a writable script");
        return;
    }
    let wrong = golden
        .lines()
        .zip(recorded.lines())
        .position(|(one, two)| one != two);
    let at = wrong.unwrap_or_else(|| golden.lines().count().min(recorded.lines().count()));
    assert!(
        golden == recorded,
        "{name}.txt:{}: recorded is\n{}\nUPDATE=1 records it",
        at + 1,
        recorded
            .lines()
            .skip(at.saturating_sub(3))
            .take(8)
            .collect::<Vec<_>>()
            .join("\n")
    );
}

/// The script again, with what its commands lead to now.
fn replay(script: &str) -> String {
    let mut world = world::World::default();
    let mut text = String::new();
    for line in script.lines() {
        if line.starts_with("  ") {
            continue;
        }
        text.push_str(line);
        text.push('\n');
        if let Some(command) = line.strip_prefix("> ") {
            world.obey(command);
            for said in world.log.drain(..) {
                text.push_str(&format!("  {said}\n"));
            }
        }
    }
    text
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_script_is_run() {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
            let entries = std::fs::read_dir(root.join("tests/scripts")).expect("a directory");
            for entry in entries {
                let file = entry.expect("an entry").file_name();
                let file = file.to_string_lossy().into_owned();
                if let Some(name) = file.strip_suffix(".txt") {
                    assert!([$(stringify!($name)),*].contains(&name), "{name} is not run");
                }
            }
        }
    };
}

scripts! {
    first_shadow
    second_move_before_the_first_is_told
    discard_while_the_old_copy_is_put_away
    late_offer_of_the_former_owner
    discard_during_a_landing
    resume_after_a_short_absence
    compare_after_a_long_absence
    move_there_and_back
    abort_by_timeout
    cancel
    crash_between_fence_and_grant
    target_restarts_while_ready
    wrong_cluster
    superseded_owner
    superseded_twice_while_away
    promoted_twice
    takeover_whose_answer_was_lost
    power_cut_right_after_a_takeover
    promoted_while_changes_arrive
    promoted_again_while_away
    promoted_again_while_it_can_not_note
    takeover_found_after_a_crash
    former_owner_offers_before_the_news
    claim_answered_late
    landing_done_again_is_told
    promoted_while_a_grant_is_on_its_way
    promoted_while_a_landing_is_given_up
    landing_given_up_after_a_crash
    moves_before_a_slow_coordinator
    offer_before_the_claim_is_answered
    superseded_source_of_a_landing
    former_owner_asks_for_hashes
    declined_older_epoch
}
