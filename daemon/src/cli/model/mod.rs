//! `foreshadow model`: what the model is worth.
//!
//! | module | what it does |
//! |---|---|
//! | [`trace`] | reads files of measurements and accesses |
//! | [`plot`] | draws it |
//! | [`eval`] | trains on the first part of a trace and walks through the rest; how good it was |

mod eval;
mod plot;
mod trace;

use super::args::ModelVerb;
use super::exit::Exit;

pub fn run(verb: &ModelVerb, json: bool) -> Exit {
    match verb {
        ModelVerb::Eval(arguments) => eval::run(arguments, json),
    }
}
