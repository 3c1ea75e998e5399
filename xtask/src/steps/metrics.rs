//! promtool reads what a running node says of itself.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::http;
use crate::process::Beside;
use crate::shell::Shell;
use crate::step::Outcome;
use crate::steps::cargo::program;
use crate::tools::promtool;

/// How long a node may take until it answers.
const START_SECONDS_MAX: u64 = 30;

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let folder = shell.workspace.target.join("xtask/metrics");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let secret = folder.join("secret");
    std::fs::write(&secret, "a secret for this step alone").context("cannot write the secret")?;
    let (peer, client) = (free_address()?, free_address()?);

    let mut node = program(shell, "quorate-node")?;
    node.arg("run").arg("--data-dir").arg(folder.join("data")).arg("--secret-file").arg(&secret);
    node.args(["--cluster-id", "5f0c0a52-6a0e-4f3c-9d55-0c1f7f1c6a11", "--name", "metrics"]);
    node.args(["--advertise", &peer, "--peer-listen", &peer, "--http-listen", &client]);
    let mut node = Beside::start(shell, &mut node)?;
    let metrics =
        node.wait_until(Duration::from_secs(START_SECONDS_MAX), || http::get(&peer, "/metrics").ok())?;
    lint(shell, &metrics)
}

/// Hands the text to `promtool check metrics`, which ends with 3 when it breaks a convention.
pub(super) fn lint(shell: &Shell<'_>, metrics: &str) -> Result<()> {
    ensure!(metrics.contains("quorate_"), "there is no metric of ours in:\n{metrics}");
    let mut promtool = shell.workspace.command(promtool::program(shell)?);
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(shell.append()?).stderr(shell.append()?);
    let mut child = promtool.spawn().context("cannot start promtool")?;
    child.stdin.take().context("promtool has no input")?.write_all(metrics.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "promtool check metrics ended with {status}:\n{}", shell.text()?);
    Ok(())
}

/// An address of this machine that nobody listens on at this moment.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}
