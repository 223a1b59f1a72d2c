//! The command line as types: verbs, their arguments, their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use model::learned::Kind;

use crate::config::{CONFIG_PATH, SOCKET_PATH, units::parse_span};
use crate::predict::target::Kind as Event;

/// Keeps warm copies of live databases on other nodes, and moves a database with a pause of
/// milliseconds.
#[derive(Parser, Debug)]
#[command(name = "foreshadow", version, propagate_version = false, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 error, 2 usage, 3 precondition, 4 rolled back";

/// What every verb takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Print the daemon's answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH", env = "FORESHADOW_SOCKET")]
    #[arg(default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// Say more; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run the daemon
    #[command(after_help = "Examples:\n  foreshadow run --config /etc/foreshadow/foreshadow.toml")]
    Run(ConfigFile),
    /// Show how the node is doing
    #[command(after_help = "Examples:\n  foreshadow status\n  \
                      foreshadow --json status | jq .lag_bytes_max")]
    Status,
    /// List partitions: who owns them, where their shadows are, how far behind
    #[command(after_help = "Examples:\n  foreshadow list\n  foreshadow list tenant42.db")]
    List {
        /// Only this partition
        partition: Option<String>,
    },
    /// Attach a database that discovery did not find
    #[command(after_help = "Examples:\n  foreshadow add /srv/tenants/live/odd-name.sqlite")]
    Add {
        /// The database, below a configured directory
        path: PathBuf,
    },
    /// Let a partition alone: detach from it and forget its shadows
    #[command(after_help = "Examples:\n  foreshadow remove tenant42.db")]
    Remove { partition: String },
    /// Keep a shadow of a partition on another node, or stop keeping it
    #[command(
        after_help = "Examples:\n  foreshadow shadow tenant42.db --to node-b\n  \
                            foreshadow shadow tenant42.db --to node-b --remove"
    )]
    Shadow {
        partition: String,
        /// The other node
        #[arg(long, value_name = "NODE")]
        to: String,
        /// Discard the shadow instead
        #[arg(long)]
        remove: bool,
    },
    /// Bring all shadows of a partition up to its source, now
    #[command(after_help = "Examples:\n  foreshadow sync tenant42.db")]
    Sync { partition: String },
    /// Move a partition to another node
    #[command(
        after_help = "Examples:\n  foreshadow move tenant42.db --to node-b --wait\n  \
                            foreshadow move tenant42.db --to node-b --dry-run"
    )]
    Move(MoveArguments),
    /// Give a move up, as long as that is possible
    #[command(after_help = "Examples:\n  foreshadow cancel 7")]
    Cancel {
        /// The move's number
        id: u64,
    },
    /// Move a partition back to where it came from
    #[command(after_help = "Examples:\n  foreshadow rollback tenant42.db --wait")]
    Rollback {
        partition: String,
        /// Stay until it is done
        #[arg(long)]
        wait: bool,
    },
    /// Take a partition over without its owner: for an owner that is gone
    #[command(
        after_help = "Examples:\n  foreshadow promote tenant42.db\n  foreshadow promote \
                            tenant42.db --force   # accept the loss of writes that never arrived"
    )]
    Promote {
        partition: String,
        /// Accept the loss of writes that never arrived here
        #[arg(long)]
        force: bool,
    },
    /// Show the other nodes and the links to them
    #[command(after_help = "Examples:\n  foreshadow peers")]
    Peers,
    /// Show what happened
    #[command(after_help = "Examples:\n  foreshadow events\n  foreshadow events --follow")]
    Events {
        /// Stay, and show what happens
        #[arg(long, short)]
        follow: bool,
    },
    /// Show what is seen: load, changes, accesses, moves and backups
    #[command(after_help = "Examples:\n  foreshadow observed\n  \
                            foreshadow observed --limit 100 --json | jq .keys")]
    Observed {
        /// Members of each list
        #[arg(long, value_name = "NUMBER", default_value_t = 10)]
        limit: usize,
    },
    /// Show what comes: how likely something happens to an object, and what is expected
    #[command(
        after_help = "Objects:\n  node, tenant42.db, tenant42.db/segment/7, tenant42.db#key, or \
                            #key of no partition\n\nExamples:\n  foreshadow forecast\n  \
                            foreshadow forecast tenant42.db --horizon 6h\n  \
                            foreshadow forecast --kind overload --json | jq .forecasts"
    )]
    Forecast(ForecastArgs),
    /// Say why the forecasts of an object are what they are, and how often they were right
    #[command(after_help = "Examples:\n  foreshadow explain tenant42.db\n  \
                      foreshadow explain 'tenant42.db#user:7' --json | jq .targets[0].inputs")]
    Explain {
        /// node, a partition, partition/segment/NUMBER, partition#key or #key
        object: String,
    },
    /// Foretell instead of the model, for a while: for whoever knows what comes
    #[command(
        after_help = "Examples:\n  foreshadow hint tenant42.db --chance 0.9 --until 2h\n  \
                            foreshadow hint tenant42.db --kind backup --chance 1 \
                            --until 2026-01-31T18:00:00Z\n  \
                            foreshadow hint '#photos/1' --region eu --chance 0 --until 1d"
    )]
    Hint(HintArgs),
    /// Compare the shadows of a partition with their source: position and digest over all pages
    #[command(after_help = "Examples:\n  foreshadow verify tenant42.db")]
    Verify { partition: String },
    /// Check a configuration file without starting anything
    #[command(after_help = "Examples:\n  foreshadow check-config --config ./foreshadow.toml")]
    CheckConfig(ConfigFile),
    /// Write a commented configuration file to start from
    #[command(after_help = "Examples:\n  foreshadow init --config ./foreshadow.toml")]
    Init(ConfigFile),
    /// Look into files of the daemon
    #[command(after_help = "Examples:\n  foreshadow wal dump /var/lib/foreshadow/deltas/1f/0.log")]
    Wal {
        #[command(subcommand)]
        verb: WalVerb,
    },
    /// Look at the model: which one speaks, what became of others, what it is worth
    #[command(after_help = "Examples:\n  foreshadow model show\n  \
                      foreshadow model train --wait\n  \
                      foreshadow model eval --trace requests.csv")]
    Model {
        #[command(subcommand)]
        verb: ModelVerb,
    },
    /// Show the version of this program, and of the daemon if it runs
    #[command(after_help = "Examples:\n  foreshadow version")]
    Version,
    #[cfg(feature = "demo")]
    Demo(super::demo::DemoArgs),
}

/// Where the configuration is.
#[derive(Args, Clone, Debug)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
    pub config: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub struct MoveArguments {
    pub partition: String,
    /// The node that shall serve it
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// Stay until the move is done or given up
    #[arg(long)]
    pub wait: bool,
    /// Only say what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// Give the move up after this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout_ms)]
    pub timeout: u64,
}

#[derive(Subcommand, Debug)]
pub enum WalVerb {
    /// Print the frames of a delta log or journal; a torn tail is shown as such
    #[command(after_help = "Examples:\n  foreshadow wal dump 0000000000000001.log")]
    Dump { file: PathBuf },
}

#[derive(Subcommand, Debug)]
pub enum ModelVerb {
    /// Train on the first part of a trace, walk through the rest, and say how good forecasts were
    #[command(
        after_help = "Examples:\n  foreshadow model eval --trace requests.csv.zst\n  \
                            foreshadow model eval --trace cpu.csv --horizon 6h --json \
                            --plot cpu.svg"
    )]
    Eval(EvalArgs),
    /// Show which model speaks, which one is tried, and when is learned again
    #[command(after_help = "Examples:\n  foreshadow model show\n  \
                      foreshadow model show --json | jq .champion.version")]
    Show,
    /// Show what became of models: tried, promoted, dismissed, deposed
    #[command(after_help = "Examples:\n  foreshadow model log\n  foreshadow model log --limit 5")]
    Log {
        /// Entries, the newest of all
        #[arg(long, value_name = "NUMBER", default_value_t = 50)]
        limit: usize,
    },
    /// Learn anew from what was seen; what is learned is tried before it speaks
    #[command(after_help = "Examples:\n  foreshadow model train --wait")]
    Train {
        /// Stay until it is over
        #[arg(long)]
        wait: bool,
    },
    /// Let the model before this one speak again
    #[command(after_help = "Examples:\n  foreshadow model rollback")]
    Rollback,
}

#[derive(Args, Clone, Debug)]
pub struct ForecastArgs {
    /// Only this one: node, a partition, partition/segment/NUMBER, partition#key or #key
    pub object: Option<String>,
    /// Only what happens like this: access, migration, overload or backup
    #[arg(long, value_name = "KIND", value_parser = event)]
    pub kind: Option<Event>,
    /// The likeliest within this time come first; the next longer horizon of the model is taken
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub horizon: Option<u32>,
    /// Rows
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub limit: usize,
}

#[derive(Args, Clone, Debug)]
pub struct HintArgs {
    /// node, a partition, partition/segment/NUMBER, partition#key or #key
    pub object: String,
    /// How likely it happens, 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = chance)]
    pub chance: f64,
    /// When the model speaks again: a time as in 2026-01-31T18:00:00Z, seconds since 1970, or how
    /// long from now, as in 2h
    #[arg(long, value_name = "TIME")]
    pub until: String,
    /// What happens: access, migration, overload or backup
    #[arg(long, value_name = "KIND", default_value = "access", value_parser = event)]
    pub kind: Event,
    /// From where it is asked for
    #[arg(long)]
    pub region: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// CSV with a header, plain or zstd: time, item and value, or time and key for accesses;
    /// several are evaluated together
    #[arg(long, value_name = "FILE", required = true)]
    pub trace: Vec<PathBuf>,
    /// How far ahead is asked
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    pub horizon: u32,
    /// Length of the bins that the trace is cut into; longer if its own values lie farther apart
    #[arg(long, value_name = "TIME", default_value = "30min", value_parser = seconds)]
    pub bin: u32,
    /// Which forecasters speak: mix, lstm, rnn, moving-average or naive
    #[arg(long, value_name = "KIND", default_value = "mix", value_parser = kind)]
    pub kind: Kind,
    /// How often is learned anew while walking through the last part of the trace
    #[arg(long, value_name = "NUMBER", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=20))]
    pub rounds: u8,
    /// Where the random numbers of the training begin
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Draw forecast against truth, and what was said against what happened
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

fn event(text: &str) -> Result<Event, String> {
    let names = Event::ALL.map(Event::name).join(", ");
    Event::named(text).ok_or_else(|| format!("possible are {names}"))
}

fn chance(text: &str) -> Result<f64, String> {
    let chance = text.parse().ok();
    let chance = chance.filter(|chance| (0.0..=1.0).contains(chance));
    chance.ok_or_else(|| "a number from 0 to 1 is possible".to_owned())
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::named(text).ok_or_else(|| format!("possible are {}", Kind::NAMES.join(", ")))
}

fn seconds(text: &str) -> Result<u32, String> {
    let span = parse_span(text).map_err(|error| error.to_string())?;
    let seconds = u32::try_from(span.0 / 1_000_000_000).unwrap_or(0);
    match seconds {
        1..=31_536_000 => Ok(seconds),
        _ => Err("between 1s and 365 days is possible".to_owned()),
    }
}

fn timeout_ms(text: &str) -> Result<u64, String> {
    match parse_span(text) {
        Ok(span) if span.0 >= 1_000_000 => Ok(span.0 / 1_000_000),
        Ok(_) => Err("at least 1ms is needed".to_owned()),
        Err(error) => Err(format!(
            "{error}; write a number and ms, s or min, as in 30s"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_every_verb_shows_an_example() {
        Arguments::command().debug_assert();
        for verb in Arguments::command().get_subcommands() {
            let help = verb
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let name = verb.get_name();
            assert!(
                help.contains(&format!("foreshadow {name}")) || help.contains(name),
                "{name}"
            );
        }
    }

    #[test]
    fn flags_of_every_verb_may_stand_before_and_after_it() {
        for line in [
            "foreshadow --json --socket /s status",
            "foreshadow status --socket /s --json",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
            assert!(arguments.common.json);
            assert_eq!(arguments.common.socket, PathBuf::from("/s"));
        }
    }

    #[test]
    fn a_chance_is_a_number_from_0_to_1() {
        for text in ["0", "1", "0.9"] {
            assert!(chance(text).is_ok(), "{text}");
        }
        for text in ["-0.1", "1.1", "NaN", "inf", "90%", ""] {
            assert!(chance(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_verb_of_the_model_shows_an_example() {
        let whole = Arguments::command();
        let model = whole.find_subcommand("model").expect("there");
        for verb in model.get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string);
            let example = format!("foreshadow model {}", verb.get_name());
            assert!(
                help.is_some_and(|help| help.contains(&example)),
                "{example}"
            );
        }
    }

    #[test]
    fn a_timeout_has_a_unit() {
        let parse = |timeout: &str| {
            let line = [
                "foreshadow",
                "move",
                "a.db",
                "--to",
                "b",
                "--timeout",
                timeout,
            ];
            Arguments::try_parse_from(line).map(|arguments| match arguments.verb {
                Verb::Move(arguments) => arguments.timeout,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(parse("2min").expect("parses"), 120_000);
        assert!(
            parse("30")
                .expect_err("no unit")
                .to_string()
                .contains("has no unit")
        );
    }
}
