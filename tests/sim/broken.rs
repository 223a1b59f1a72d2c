//! Mutations: the machines are broken on purpose, one way a process, and each has to be found.

use std::process::{Command, ExitCode};

use foreshadow::mutation::{self, Mutation};

use super::asked::Asked;
use super::runs;

/// Seeds in which each has to be found.
const SEEDS: u64 = 2_000;

/// Breaks this process and looks for a seed that notices.
pub fn find(asked: &Asked) -> ExitCode {
    let name = asked.mutation.as_deref().unwrap_or_default();
    let all = Mutation::ALL.iter();
    let Some(mutation) = all.copied().find(|one| format!("{one:?}") == name) else {
        let known: Vec<String> = Mutation::ALL.iter().map(|one| format!("{one:?}")).collect();
        eprintln!(
            "sim: {name:?} is no mutation; known are {}",
            known.join(", ")
        );
        return ExitCode::from(2);
    };
    mutation::choose(mutation);
    std::panic::set_hook(Box::new(|_| {}));
    let wider = Asked {
        count: SEEDS,
        set: asked.set.clone(),
        ..Asked::default()
    };
    let (total, failures) = runs::run_all(&wider, false);
    match failures.first() {
        Some(failure) => {
            println!(
                "{name}: found after {} seeds: {}",
                total.seeds, failure.reason
            );
            ExitCode::SUCCESS
        }
        None => {
            println!("{name}: NOT found in {} seeds", total.seeds);
            ExitCode::FAILURE
        }
    }
}

/// All of them, each in a process of its own.
pub fn find_all(asked: &Asked) -> ExitCode {
    let program = std::env::current_exe().expect("this program");
    let mut missed = 0;
    for mutation in Mutation::ALL {
        let mut command = Command::new(&program);
        command.args(["--mutation", &format!("{mutation:?}")]);
        for (name, value) in &asked.set {
            command.args(["--set", &format!("{name}={value}")]);
        }
        command.stderr(std::process::Stdio::null());
        missed += u32::from(!command.status().is_ok_and(|status| status.success()));
    }
    println!("{} mutations, {missed} not found", Mutation::ALL.len());
    ExitCode::from(u8::from(missed > 0))
}
