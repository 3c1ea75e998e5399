//! `quorate-operator run` reconciles KVClusters, `crd` prints their definition, `check` is for `helm test`.
#![forbid(unsafe_code)]

mod check;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::Client;
use quorate_operator::controller::{self, Context};
use quorate_operator::lease::Candidate;
use quorate_operator::metrics::Metrics;
use quorate_operator::validate::Settings;
use quorate_operator::{crd, server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// The Kubernetes operator of Quorate.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile KVClusters.
    Run(Run),
    /// Print the CustomResourceDefinition.
    Crd,
    /// Check that an operator is ready and that KVClusters are served; for `helm test`.
    Check {
        /// What an operator that is ready answers with 200.
        #[arg(long)]
        url: Option<String>,
        /// Look for KVClusters in this namespace alone; in all, where absent.
        #[arg(long)]
        watch_namespace: Option<String>,
    },
}

#[derive(Args)]
struct Run {
    /// The image of nodes whose KVCluster names none.
    #[arg(long, env = "QUORATE_NODE_IMAGE", default_value = concat!("quorate/node:", env!("CARGO_PKG_VERSION")))]
    node_image: String,
    /// Where /metrics, /healthz and /readyz listen.
    #[arg(long, env = "QUORATE_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// How to log; what, is in QUORATE_LOG.
    #[arg(long, env = "QUORATE_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// The name of this replica for the leader election.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// The namespace of the Lease; its pods may reach the admin API of nodes.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Reconcile the KVClusters of this namespace alone; of all, where absent.
    #[arg(long, env = "QUORATE_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(options) => run(options).await,
        Command::Crd => {
            print!("{}", crd::yaml());
            Ok(())
        }
        Command::Check { url, watch_namespace } => {
            check::check(url.as_deref(), watch_namespace.as_deref()).await
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quorate-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Run) -> anyhow::Result<()> {
    log_to_stderr(options.log_format)?;
    let client =
        Client::try_default().await.context("finding the API server (in a pod, or by KUBECONFIG)")?;
    let metrics = Metrics::new().context("registering metrics")?;
    let (stop, stopped) = watch::channel(false);
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    tokio::spawn(async move {
        let [terminate, interrupt] = &mut signals;
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        // Fails only when everything has ended already.
        let _ = stop.send(true);
    });
    let listener = tokio::net::TcpListener::bind(options.listen).await;
    let listener = listener.with_context(|| format!("listening on {}", options.listen))?;
    tokio::spawn(axum::serve(listener, server::router(metrics.clone())).into_future());
    lead(options, client, metrics, stopped).await
}

/// Leads until the Lease is lost or a signal comes. A replica that lost the Lease ends: it starts again with nothing in
/// memory, as after any crash.
async fn lead(
    options: Run,
    client: Client,
    metrics: Metrics,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let namespace = options.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let identity = options.pod_name.clone().unwrap_or_else(|| format!("process-{}", uuid::Uuid::new_v4()));
    let mut candidate = Candidate::new(client.clone(), &namespace, identity.clone());
    tracing::info!(identity, namespace, version = env!("CARGO_PKG_VERSION"), "waiting to lead");
    tokio::select! {
        () = candidate.lead() => {}
        () = wait(stopped.clone()) => return Ok(()),
    }
    tracing::info!("leading");
    metrics.leader.set(1);
    let settings = Settings { node_image: options.node_image, operator_namespace: options.namespace };
    let context = Arc::new(Context::new(client, settings, metrics.clone(), Some(identity)));
    let controller = controller::run(context, options.watch_namespace.as_deref(), wait(stopped));
    let is_lost = tokio::select! {
        () = controller => false,
        () = candidate.keep() => true,
    };
    metrics.leader.set(0);
    anyhow::ensure!(!is_lost, "lost the lease to another replica");
    candidate.release().await.context("releasing the lease")?;
    tracing::info!("stopped");
    Ok(())
}

/// Resolves when a signal came.
async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that nobody can send any more, which happens only after a signal.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn log_to_stderr(format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().with_env_var("QUORATE_LOG").try_from_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("starting the log: {error}"))
}
