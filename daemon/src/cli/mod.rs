//! The verbs of `foreshadow`.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`] | the command line as types |
//! | [`ask`] | a verb as the HTTP request that it stands for |
//! | [`client`] | the socket |
//! | [`render`] | answers for people |
//! | [`moves`] | waiting for a move |
//! | [`observed`] | what is seen, for people |
//! | [`forecast`] | what comes and why, for people |
//! | [`run`], [`logs`] | the daemon |
//! | [`model`] | who foretells, and what the model is worth |
//! | [`init`] | a file to start from, and whether it is right |
//! | [`wal_dump`] | the frames of a file |
//! | [`exit`] | exit codes |
//! | `demo` | the main job on this machine, with its own SQLite |
//!
//! Every verb but `run`, `demo`, `init`, `check-config`, `wal` and `model eval` is one HTTP
//! request; `--json` prints the answer as it came.

pub mod args;
pub mod ask;
pub mod client;
#[cfg(feature = "demo")]
pub mod demo;
pub mod exit;
pub mod forecast;
pub mod init;
pub mod logs;
pub mod model;
pub mod moves;
pub mod observed;
pub mod render;
pub mod run;
pub mod wal_dump;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use serde::de::DeserializeOwned;

use self::args::{Arguments, Common, ModelVerb, Verb, WalVerb};
use self::ask::Ask;
use self::client::{Answer, Client, Failure};
use self::exit::Exit;
use self::run::Runtime;
use crate::control::http::version;
use crate::serve::reply::{
    AcceptedReply, DoneReply, EventReply, MoveReply, PlanReply, StatusReply, VerifiedReply,
    VersionReply,
};

/// Reads the command line and does what it says.
pub fn main(runtime: Runtime) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = !matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            // Nobody reads the help: there is nothing else to say.
            let _ = error.print();
            return if usage { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let Arguments { common, verb } = arguments;
    match verb {
        Verb::Run(file) => run::run(&file.config, common.verbose, runtime).into(),
        Verb::CheckConfig(file) => init::check(&file.config, common.json).into(),
        Verb::Init(file) => init::init(&file.config).into(),
        Verb::Wal {
            verb: WalVerb::Dump { file },
        } => wal_dump::dump(&file, common.json).into(),
        Verb::Model {
            verb: ModelVerb::Eval(arguments),
        } => model::evaluate(&arguments, common.json).into(),
        #[cfg(feature = "demo")]
        Verb::Demo(arguments) => demo::run(arguments, common.json),
        verb => ask_daemon(&common, &verb).into(),
    }
}

fn ask_daemon(common: &Common, verb: &Verb) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime needs an epoll descriptor and an eventfd");
    let client = Client::new(&common.socket);
    match runtime.block_on(carry_out(&client, common, verb)) {
        Ok(exit) => exit,
        Err(failure) => {
            // A pipe that was closed has nobody to tell.
            let _ = writeln!(std::io::stderr(), "foreshadow: {failure}");
            Exit::from(&failure)
        }
    }
}

async fn carry_out(client: &Client, common: &Common, verb: &Verb) -> Result<Exit, Failure> {
    let ask = Ask::of(verb).expect("verbs that need no daemon are done by now");
    if let Verb::Events { follow: true } = verb {
        client
            .events(&ask.target, |event| print_event(event, common.json))
            .await?;
        return Ok(Exit::Ok);
    }
    if let Verb::Model {
        verb: ModelVerb::Train { wait: true },
    } = verb
    {
        return model::wait::train(client, ask, common.json).await;
    }
    let answer = match client.send(ask.method, &ask.target, ask.body).await {
        Err(Failure::Unreachable { .. }) if matches!(verb, Verb::Version) => own_version(),
        answer => answer?,
    };
    let wait = match verb {
        Verb::Move(arguments) if arguments.wait && !arguments.dry_run => {
            Some(Duration::from_millis(arguments.timeout))
        }
        Verb::Rollback { wait: true, .. } => Some(moves::ROLLBACK_WAIT),
        _ => None,
    };
    if let Some(limit) = wait {
        let AcceptedReply { id } = answer.read()?;
        return moves::wait(client, id, limit, common.json).await;
    }
    if common.json {
        print(&answer.text);
        return exit_of(verb, &answer);
    }
    print(&show(verb, &answer)?);
    exit_of(verb, &answer)
}

/// A question that was answered may still have a bad answer.
fn exit_of(verb: &Verb, answer: &Answer) -> Result<Exit, Failure> {
    let good = match verb {
        Verb::Verify { .. } => answer.read::<VerifiedReply>()?.equal,
        Verb::Move(arguments) if arguments.dry_run => {
            let possible = answer.read::<PlanReply>()?.possible;
            return Ok(if possible {
                Exit::Ok
            } else {
                Exit::Precondition
            });
        }
        _ => true,
    };
    Ok(if good { Exit::Ok } else { Exit::Error })
}

/// An answer, for people.
fn show(verb: &Verb, answer: &Answer) -> Result<String, Failure> {
    let text = match verb {
        Verb::Status => render::status(&answer.read::<StatusReply>()?),
        Verb::List { .. } => render::partitions(&answer.read::<Vec<_>>()?),
        Verb::Peers => render::peers(&answer.read::<Vec<_>>()?),
        Verb::Events { .. } => answer
            .read::<Vec<EventReply>>()?
            .iter()
            .map(render::event)
            .collect(),
        Verb::Observed { .. } => observed::observed(&answer.read()?),
        Verb::Forecast(_) => forecast::forecasts(&answer.read()?),
        Verb::Explain { .. } => forecast::explanation(&answer.read()?),
        Verb::Model {
            verb: ModelVerb::Show,
        } => model::show::model(&answer.read()?),
        Verb::Model {
            verb: ModelVerb::Log { .. },
        } => model::show::log(&answer.read()?),
        Verb::Verify { .. } => render::verified(&answer.read()?),
        Verb::Version => {
            let daemon: VersionReply = answer.read()?;
            format!("foreshadow {} ({})\n", daemon.version, daemon.target)
        }
        Verb::Move(arguments) if arguments.dry_run => render::plan(&answer.read()?),
        _ => outcome(answer)?,
    };
    Ok(text)
}

/// What became of a command: done, or going on.
fn outcome(answer: &Answer) -> Result<String, Failure> {
    fn read<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
        answer.read().ok()
    }
    if let Some(one) = read::<MoveReply>(answer).filter(|one| !one.partition.is_empty()) {
        return Ok(format!("{}\n", render::one_move(&one)));
    }
    if let Some(AcceptedReply { id }) = read(answer) {
        return Ok(format!(
            "move {id} has begun; `foreshadow events --follow` shows its steps\n"
        ));
    }
    let DoneReply { detail } = answer.read()?;
    Ok(format!("{detail}\n"))
}

fn own_version() -> Answer {
    let text = serde_json::to_string(&version()).expect("text keys only");
    Answer {
        status: 200,
        text: format!("{text}\n"),
    }
}

fn print_event(event: &EventReply, json: bool) -> bool {
    let text = if json {
        let mut line = serde_json::to_string(event).expect("text keys only");
        line.push('\n');
        line
    } else {
        render::event(event)
    };
    print(&text)
}

/// Prints; no when nobody reads any more.
fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}
