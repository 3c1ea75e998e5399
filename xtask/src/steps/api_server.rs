//! The operator, the chart and the examples against a real API server (etcd and kube-apiserver, no nodes).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::generate::CRD;
use crate::http;
use crate::process::Beside;
use crate::shell::Shell;
use crate::step::Outcome;
use crate::steps::cargo::program;
use crate::steps::{chart, manifests, metrics};
use crate::tools::helm::HELMS;

/// What the operator's tests read to find the API server.
const KUBECONFIG: &str = "QUORATE_TEST_KUBECONFIG";
/// How long the operator may take until it is ready.
const START_SECONDS_MAX: u64 = 60;

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    Outcome::of_tests(check(shell), &shell.text().unwrap_or_default())
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let server = ApiServer::start(shell)?;
    let mut tests = shell.workspace.cargo();
    // With the features of the whole workspace: another choice of packages would compile its dependencies anew.
    tests.args(["test", "--workspace", "--features=quorate-operator/api-server-tests", "--test=api_server"]);
    shell.run(tests.env(KUBECONFIG, &server.kubeconfig))?;
    accept_manifests(shell, &server.kubeconfig)?;
    operator_metrics(shell, &server.kubeconfig)
}

/// The operator's own metrics, live.
fn operator_metrics(shell: &Shell<'_>, kubeconfig: &Path) -> Result<()> {
    let listen = metrics::address(metrics::free_ports(1)?);
    let mut command = program(shell, "quorate-operator")?;
    command.args(["run", "--listen", &listen, "--namespace", "quorate-system", "--pod-name", "xtask"]);
    let mut operator = Beside::start(shell, command.env("KUBECONFIG", kubeconfig))?;
    let ready = || http::get(&listen, "/readyz").ok();
    operator.wait_until(Duration::from_secs(START_SECONDS_MAX), ready)?;
    metrics::lint(shell, &http::get(&listen, "/metrics")?)
}

/// The API server itself accepts the CRD, the chart and the examples, unknown fields refused.
fn accept_manifests(shell: &Shell<'_>, kubeconfig: &Path) -> Result<()> {
    let kubectl = HELMS.first().context("no Helm is known")?.kubectl(shell)?;
    let apply = |arguments: &[&str], file: &Path| {
        let mut command = shell.workspace.command(&kubectl);
        command.arg("--kubeconfig").arg(kubeconfig).args(arguments).arg("--filename").arg(file);
        shell.run(&mut command)
    };
    let try_out = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
    let crd = shell.workspace.path(CRD);
    apply(&["apply", "--server-side", "--force-conflicts", "--validate=strict"], &crd)?;
    apply(&["wait", "--for=condition=Established", "--timeout=60s"], &crd)?;
    let chart = manifests::rendered_chart(shell)?.into_iter().find(|path| path.ends_with("default.yaml"));
    let mut namespace = shell.workspace.command(&kubectl);
    namespace.arg("--kubeconfig").arg(kubeconfig).args(["create", "namespace", "quorate-system"]);
    shell.run(&mut namespace)?;
    apply(&try_out, &chart.context("the chart has no default values to try")?)?;
    chart::files(&shell.workspace.path("examples"))?.iter().try_for_each(|file| apply(&try_out, file))
}

/// A running API server; it ends when this is dropped.
struct ApiServer {
    kubeconfig: PathBuf,
    /// Held for its end.
    _process: Beside,
}

impl ApiServer {
    fn start(shell: &Shell<'_>) -> Result<Self> {
        let folder = shell.workspace.target.join("xtask/api-server");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
        }
        let mut command = program(shell, "quorate-e2e")?;
        let mut process = Beside::start_piped(shell, command.arg("apiserver").arg("--dir").arg(&folder))?;
        let output = process.child.stdout.take().context("the API server has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let kubeconfig = PathBuf::from(line.trim());
        anyhow::ensure!(kubeconfig.is_file(), "the API server did not start; its log is that of this step");
        Ok(Self { kubeconfig, _process: process })
    }
}
