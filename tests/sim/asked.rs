//! The command line.

use std::time::Duration;

use super::plan::Plan;

pub const USAGE: &str = "\
usage: cargo sim [SEEDS] [options]

Simulates nodes with accidents, one run per seed, and checks every promise after each step.

  SEEDS            how many seeds (200)
  --from N         the first seed (0)
  --seed N         this seed alone
  --minutes M      seeds until so many minutes are over
  --jobs J         threads (all processors)
  --trace          tell every step (with --seed)
  --all            go on after a failure
  --set NAME=N     change a number of every plan; `--set help` lists them
  --mutation NAME  break the machines on purpose; has to fail (cargo mutations)
  --mutations      all of them, one after the other

  cargo sim                       a quick look
  cargo sim 200000                a night's worth
  cargo sim --seed 4711 --trace   what happened there";

const SEEDS: u64 = 200;

/// What the command line says.
pub struct Asked {
    pub first: u64,
    pub count: u64,
    pub time: Option<Duration>,
    pub jobs: usize,
    pub trace: bool,
    pub go_on: bool,
    pub set: Vec<(String, u64)>,
    pub mutation: Option<String>,
    pub mutations: bool,
    pub help: bool,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            first: 0,
            count: SEEDS,
            time: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            trace: false,
            go_on: false,
            set: Vec::new(),
            mutation: None,
            mutations: false,
            help: false,
        }
    }
}

impl Asked {
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut arguments = arguments.filter(|word| word != "--nocapture");
        while let Some(word) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--help" | "-h" => asked.help = true,
                "--seed" => (asked.first, asked.count) = (number(&word, &value()?)?, 1),
                "--from" => asked.first = number(&word, &value()?)?,
                "--jobs" => asked.jobs = number(&word, &value()?)?.clamp(1, 1024) as usize,
                "--minutes" => {
                    asked.time = Some(Duration::from_secs(60 * number(&word, &value()?)?));
                    asked.count = u64::MAX;
                }
                "--trace" => asked.trace = true,
                "--all" => asked.go_on = true,
                "--set" => asked.set.push(setting(&value()?)?),
                "--mutation" => asked.mutation = Some(value()?),
                "--mutations" => asked.mutations = true,
                _ => asked.count = number("SEEDS", &word)?,
            }
        }
        if asked.trace && asked.count > 1 {
            return Err("--trace needs --seed: it tells every step".to_owned());
        }
        Ok(asked)
    }
}

fn number(what: &str, word: &str) -> Result<u64, String> {
    word.parse()
        .map_err(|_| format!("{what}: {word:?} is no number"))
}

fn setting(word: &str) -> Result<(String, u64), String> {
    let known = || format!("known are {}", Plan::NAMES.join(", "));
    let (name, value) = word.split_once('=').ok_or_else(known)?;
    if !Plan::NAMES.contains(&name) {
        return Err(format!("--set: {name:?} is not known; {}", known()));
    }
    Ok((name.to_owned(), number(name, value)?))
}
