//! The command line of the harness.
#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kube::config::KubeConfigOptions;
use quorate_e2e::apiserver::ApiServer;
use quorate_e2e::cluster::{self, Cluster};
use quorate_e2e::process::Lifetime;
use quorate_e2e::progress::Progress;
use quorate_e2e::volumes;

/// How long the reclaimer rests after an error.
const RECLAIM_PAUSE: Duration = Duration::from_secs(2);

/// A real Kubernetes on this machine, Quorate on it, and the tests that run there.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster, install Quorate on it and show that it works; leave it running.
    Up {
        /// Start Kubernetes alone, without Quorate.
        #[arg(long)]
        bare: bool,
    },
    /// Remove the cluster and everything that was made for it.
    Down,
    /// Kill a node of the cluster, or start it again.
    Node {
        /// What to do.
        #[arg(value_enum)]
        what: NodeAction,
        /// The node's name: kn1, kn2 or kn3.
        name: String,
    },
    /// Wipe each volume whose claim is gone and offer it again. The cluster runs this itself.
    #[command(hide = true)]
    Reclaim {
        /// The cluster.
        kubeconfig: PathBuf,
    },
    /// Run etcd and an API server alone, until standard input closes or SIGTERM comes.
    ///
    /// Prints the path of a kubeconfig when it is ready.
    Apiserver {
        /// The folder for its data, certificates and logs.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum NodeAction {
    Kill,
    Start,
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
    let progress = Progress::start();
    match command {
        Command::Up { bare: _ } => {
            let cluster = Cluster::up(&std::env::current_exe()?, &progress)?;
            println!("export KUBECONFIG={}", cluster.layout().kubeconfig().display());
            Ok(())
        }
        Command::Down => Ok(cluster::down(&progress)?),
        Command::Node { what, name } => node(what, &name),
        Command::Reclaim { kubeconfig } => reclaim(&kubeconfig),
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

fn node(what: NodeAction, name: &str) -> anyhow::Result<()> {
    let cluster = Cluster::running()?.context("no cluster is up: start one with `up`")?;
    match what {
        NodeAction::Kill => cluster.kill_node(name)?,
        NodeAction::Start => cluster.start_node(name)?,
    }
    Ok(())
}

/// Errors are written to the log and tried again: nobody else would do this work.
fn reclaim(kubeconfig: &std::path::Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = kube::config::Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config)?;
        loop {
            if let Err(error) = volumes::reclaim(client.clone()).await {
                eprintln!("reclaiming volumes: {error}");
            }
            tokio::time::sleep(RECLAIM_PAUSE).await;
        }
    })
}
