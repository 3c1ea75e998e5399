//! The command line of the harness.
#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use quorate_e2e::apiserver::ApiServer;
use quorate_e2e::process::Lifetime;

/// A real Kubernetes on this machine, Quorate on it, and the tests that run there.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run etcd and an API server alone, until standard input closes or SIGTERM comes.
    ///
    /// Prints the path of a kubeconfig when it is ready.
    Apiserver {
        /// The folder for its data, certificates and logs.
        #[arg(long)]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Apiserver { dir } => apiserver(&dir),
    }
}

/// The kernel kills both processes when this one ends by a signal; otherwise they are ended here.
fn apiserver(folder: &std::path::Path) -> anyhow::Result<()> {
    let server = ApiServer::start_for(folder, Lifetime::WithParent)?;
    println!("{}", server.kubeconfig().display());
    io::stdin().read_to_end(&mut Vec::new()).context("waiting for standard input to close")?;
    Ok(())
}
