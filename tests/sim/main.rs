//! The simulator: many nodes in one thread, one seed, virtual time; the daemon's own shards.
//!
//! | file | what it holds |
//! |---|---|
//! | `asked` | the command line |
//! | `runs` | seeds on all processors, totals, failures |
//! | `shrink` | a smaller run that fails alike |
//! | `broken` | mutations: each has to be found |
//! | `plan` | sizes and faults of a run, drawn from its seed |
//! | `world`, `queue` | virtual time, what is going to happen, the nodes |
//! | `shell`, `engine`, `copies`, `shipping` | the executor of effects |
//! | `start` | what outlives a daemon, and a power cut |
//! | `live`, `disk` | databases, shadows and logs as lists of writes |
//! | `network` | connections and what goes wrong with them |
//! | `keeper` | the coordinator, deciding with the daemon's own function |
//! | `writers`, `ledger` | applications, and what they know of their commits |
//! | `people`, `accidents` | operators; what dies, fails and is cut off |
//! | `invariants` | what must hold after every step, and at the end |

mod accidents;
mod asked;
#[cfg(feature = "mutations")]
mod broken;
mod copies;
mod disk;
mod engine;
mod invariants;
mod keeper;
mod ledger;
mod live;
mod network;
mod people;
mod plan;
mod queue;
mod random;
mod runs;
mod shell;
mod shipping;
mod shrink;
mod start;
mod world;
mod writers;

use std::process::ExitCode;

use asked::Asked;

fn main() -> ExitCode {
    match Asked::read(std::env::args().skip(1)) {
        Ok(asked) if asked.help => {
            println!("{}", asked::USAGE);
            ExitCode::SUCCESS
        }
        #[cfg(feature = "mutations")]
        Ok(asked) if asked.mutations => broken::find_all(&asked),
        #[cfg(feature = "mutations")]
        Ok(asked) if asked.mutation.is_some() => broken::find(&asked),
        Ok(asked) if asked.mutations || asked.mutation.is_some() => {
            eprintln!("sim: this build can't be broken: cargo mutations");
            ExitCode::from(2)
        }
        Ok(asked) => runs::simulate(&asked),
        Err(reason) => {
            eprintln!("sim: {reason}\n{}", asked::USAGE);
            ExitCode::from(2)
        }
    }
}
