//! `quorate-node`: the storage node of Quorate.
//!
//! This crate is the shell: it moves bytes and time. What a key's owners are, when a write is acknowledged and
//! who is alive is decided in `quorate_replica`, which the simulator drives as well.
#![forbid(unsafe_code)]

mod admin;
mod config;
mod dev;
mod documents;
mod engine;
mod http;
mod identity;
mod inbox;
mod ledger;
mod listen;
mod metrics;
mod node;
mod peers;
mod readers;
mod refusal;
mod resp;
mod room;
mod run;
mod seldom;
mod status;
mod units;
mod users;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use config::{LogFormat, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A node of Quorate, the replicated key-value store that Kubernetes operates.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one node until SIGTERM or Ctrl-C.
    Run {
        /// A YAML file with any of the options below, in camelCase. Flags and environment win over it.
        #[arg(long, env = "QUORATE_CONFIG", value_name = "PATH")]
        config: Option<PathBuf>,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Runs a three-node ring on this machine, to try it out.
    Dev(dev::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quorate-node: {error:#}");
            ExitCode::from(if error.is::<config::Mistakes>() { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    raise_descriptor_limit();
    let result = match command {
        Command::Run { config, options } => {
            let file = config.as_deref().map(Options::from_file).transpose()?;
            let options = options.or(file.unwrap_or_default());
            start_logging(options.log_format());
            runtime.block_on(serve(options.resolve()?))
        }
        Command::Dev(arguments) => {
            start_logging(LogFormat::Text);
            runtime.block_on(dev::run(arguments))
        }
    };
    // Whatever still blocks, such as a name server that does not answer, has no more to say.
    runtime.shutdown_background();
    result
}

/// Connections and the log share the descriptors that the process may open: a low limit, which some shells and
/// service managers set for programs that use `select`, would let clients starve the log.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

async fn serve(config: config::Config) -> anyhow::Result<()> {
    let mut stop = Box::pin(stop_signal()?);
    let mut running = tokio::select! {
        running = run::start(config) => running?,
        // Nothing is promised to anybody yet; a log in the middle of its recovery is as safe as after a crash.
        () = &mut stop => return Ok(()),
    };
    let ended = tokio::select! {
        () = stop => None,
        ended = running.ended() => Some(ended),
    };
    match ended {
        None => running.stop().await,
        Some(run::Ended::Amnesia { known_start }) => return Err(running.give_up(known_start).await),
        Some(run::Ended::Part(part)) => {
            anyhow::bail!("{part} ended by itself, which is a defect; the log above may say why")
        }
    }
    Ok(())
}

/// Resolves at the first SIGTERM or Ctrl-C. A second one then ends the process at once, which loses nothing
/// that was acknowledged.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            eprintln!("quorate-node: stopped at once, at the second signal");
            std::process::exit(130);
        });
    })
}

/// Logs go to standard error, so that `dev` can talk to a person on standard output.
fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("QUORATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
