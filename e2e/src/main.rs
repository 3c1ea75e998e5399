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
use quorate_e2e::cache::Cache;
use quorate_e2e::cluster::Cluster;
use quorate_e2e::process::Lifetime;
use quorate_e2e::product;
use quorate_e2e::progress::Progress;
use quorate_e2e::target::Target;
use quorate_e2e::tests::{self, Score, World};
use quorate_e2e::up::{how_to_go_on, install_and_show};
use quorate_e2e::volumes;
use tokio::runtime::Runtime;

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
        /// Use the cluster of this kubeconfig context instead of the built-in one.
        #[arg(long, value_name = "NAME")]
        context: Option<String>,
        /// Start Kubernetes alone, without Quorate.
        #[arg(long)]
        bare: bool,
    },
    /// Run end-to-end tests by name, or all, on the cluster that is up, or on one that is brought up for them.
    Test {
        /// Use the cluster of this kubeconfig context.
        #[arg(long, value_name = "NAME")]
        context: Option<String>,
        /// Names of tests.
        names: Vec<String>,
    },
    /// Build the images and say where their archives are.
    Images,
    /// Build Kubernetes and say where its program is.
    Kubernetes,
    /// Say where Go is, and fetch it if the machine has none.
    Go,
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
        Command::Up { context, bare } => up(context.as_deref(), bare, &progress),
        Command::Test { context, names } => test(context, &names, progress),
        Command::Images => images(),
        Command::Kubernetes => kubernetes(&progress),
        Command::Go => go(&progress),
        Command::Down => Ok(Target::down(&progress)?),
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

fn up(context: Option<&str>, bare: bool, progress: &Progress) -> anyhow::Result<()> {
    let target = Target::up(context, &std::env::current_exe()?, progress)?;
    if bare {
        println!("Kubernetes is up. How to go on:\n\n{}", how_to_go_on(&target, None));
    } else {
        let text = install_and_show(&target, &Runtime::new()?, progress)?;
        println!("Quorate is up. How to go on:\n\n{text}");
    }
    Ok(())
}

/// A cluster that was brought up for the tests goes with them, also when they panic.
fn test(context: Option<String>, names: &[String], progress: Progress) -> anyhow::Result<()> {
    tests::check_names(names)?;
    let was_up = Target::running(context.as_deref())?.is_some();
    let result = std::panic::catch_unwind(|| run_tests(context.as_deref(), names, progress));
    if !was_up {
        Target::down(&Progress::start())?;
    }
    match result {
        Ok(Ok(score)) => anyhow::ensure!(score.failed == 0 && score.passed > 0, "end-to-end tests failed"),
        Ok(Err(error)) => return Err(error),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(())
}

fn run_tests(context: Option<&str>, names: &[String], progress: Progress) -> anyhow::Result<Score> {
    let target = Target::up(context, &std::env::current_exe()?, &progress)?;
    product::install(&target, &progress)?;
    let world = World { target, runtime: Runtime::new()?, progress };
    Ok(tests::run(&world, names))
}

fn images() -> anyhow::Result<()> {
    for image in product::images()? {
        println!("{} {}", image.name, image.archive.display());
    }
    Ok(())
}

fn kubernetes(progress: &Progress) -> anyhow::Result<()> {
    println!("{}", quorate_e2e::kubernetes::program(&Cache::of_user()?, progress)?.display());
    Ok(())
}

fn go(progress: &Progress) -> anyhow::Result<()> {
    println!("{}", quorate_e2e::kubernetes::go(&Cache::of_user()?, progress)?.display());
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
