//! promtool reads what running programs say of themselves, and docs/metrics.md explains every name of it.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::http;
use crate::process::Beside;
use crate::shell::Shell;
use crate::step::Outcome;
use crate::steps::cargo::program;
use crate::tools::promtool;

/// How long a program may take until it serves.
const START_SECONDS_MAX: u64 = 60;
/// Nodes of the development ring.
pub(super) const NODES: u16 = 3;
/// How often a run of free ports is looked for.
const TRIES_MAX: usize = 100;
/// Where every metric is explained.
const REFERENCE: &str = "docs/metrics.md";

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let folder = shell.workspace.target.join("xtask/metrics");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    let ring = Ring::start(shell, &folder, &[])?;
    let (client, admin) = (address(ring.http), address(ring.admin));
    // A series with labels is there once it has counted something.
    http::put(&client, "/v1/kv/metrics", "value")?;
    http::get(&client, "/v1/kv/metrics")?;
    lint(shell, &http::get(&admin, "/metrics")?)
}

/// A development ring: its first ports of each kind, one a node.
pub(super) struct Ring {
    pub(super) http: u16,
    pub(super) admin: u16,
    pub(super) resp: u16,
    _process: Beside,
}

impl Ring {
    /// Starts one, and waits until it serves. It ends when this is dropped.
    pub(super) fn start(shell: &Shell<'_>, folder: &Path, options: &[&str]) -> Result<Self> {
        let http = free_ports(3 * NODES)?;
        let (admin, resp) = (http + NODES, http + 2 * NODES);
        let mut command = program(shell, "quorate-node")?;
        command.arg("dev").arg("--data-dir").arg(folder).args(options);
        for (flag, port) in [("--http-port", http), ("--peer-port", admin), ("--resp-port", resp)] {
            command.args([flag, &port.to_string()]);
        }
        let mut process = Beside::start(shell, &mut command)?;
        let ready = || http::get(&address(admin), "/readyz").ok();
        process.wait_until(Duration::from_secs(START_SECONDS_MAX), ready)?;
        Ok(Self { http, admin, resp, _process: process })
    }
}

/// Hands the text to `promtool check metrics`, which ends with 3 when it breaks a convention, and looks each name up.
pub(super) fn lint(shell: &Shell<'_>, metrics: &str) -> Result<()> {
    let mut promtool = shell.workspace.command(promtool::program(shell)?);
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(shell.append()?).stderr(shell.append()?);
    let mut child = promtool.spawn().context("cannot start promtool")?;
    child.stdin.take().context("promtool has no input")?.write_all(metrics.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "promtool check metrics ended with {status}:\n{}", shell.text()?);
    let reference = shell.workspace.path(REFERENCE);
    let reference =
        std::fs::read_to_string(&reference).with_context(|| format!("cannot read {REFERENCE}"))?;
    let names = names(metrics);
    ensure!(!names.is_empty(), "there is no metric of ours in:\n{metrics}");
    let missing: Vec<&str> =
        names.into_iter().filter(|name| !reference.contains(&format!("`{name}`"))).collect();
    if missing.is_empty() { Ok(()) } else { bail!("{REFERENCE} does not explain: {}", missing.join(", ")) }
}

/// Our names in an exposition.
fn names(metrics: &str) -> Vec<&str> {
    let helped = metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    helped.filter(|name| name.starts_with("quorate_")).collect()
}

/// An address of this machine.
pub(super) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The first of `count` consecutive ports that nobody listens on at this moment.
pub(super) fn free_ports(count: u16) -> Result<u16> {
    for _ in 0..TRIES_MAX {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let Some(end) = first.checked_add(count) else { continue };
        let taken: Vec<_> = (first..end).map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).collect();
        if taken.iter().all(Result::is_ok) {
            return Ok(first);
        }
    }
    bail!("no {count} free ports in a row on this machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_looked_up() {
        let text = "# HELP quorate_epoch The number.\n# TYPE quorate_epoch gauge\nquorate_epoch 1\n\
                    # HELP process_open_fds Open.\nprocess_open_fds 3\n";
        assert_eq!(names(text), ["quorate_epoch"]);
    }
}
