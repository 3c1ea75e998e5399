//! Strict validation of every manifest against the schemas of Kubernetes and of our own CRD: the rendered chart, the
//! CRD, the examples, and the objects that the operator builds (its golden files). And the chart gives the operator the
//! rights that its tests run with, no more and no less.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell::Shell;
use crate::step::Outcome;
use crate::steps::chart;
use crate::tools::helm::HELMS;
use crate::tools::python;

const VALIDATE: &str = "xtask/scripts/validate_manifests.py";
const CRD: &str = "crds/kvclusters.yaml";
const EXAMPLES: &str = "examples";
const GOLDEN: &str = "operator/tests/golden";
const COMPARE_ROLES: &str = "xtask/scripts/compare_roles.py";
const ROLES: &str = "operator/rbac.yaml";

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let mut files = rendered_chart(shell)?;
    files.push(shell.workspace.path(CRD));
    files.extend(chart::files(&shell.workspace.path(EXAMPLES))?);
    files.extend(chart::files(&shell.workspace.path(GOLDEN))?);
    let python = python::interpreter(shell)?;
    let default = files
        .iter()
        .find(|path| path.ends_with("default.yaml"))
        .context("the chart has no default values")?;
    shell.run(shell.workspace.command(&python).arg(COMPARE_ROLES).arg(ROLES).arg(default))?;
    shell.run(shell.workspace.command(&python).arg(VALIDATE).arg("--crd").arg(CRD).args(files))
}

/// The chart, rendered into files of the build folder.
pub(super) fn rendered_chart(shell: &Shell<'_>) -> Result<Vec<PathBuf>> {
    let folder = shell.workspace.target.join("xtask/chart");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |(name, text): (String, String)| {
        let path = folder.join(format!("{name}.yaml"));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let helm = HELMS.first().context("no Helm is known")?;
    chart::render(shell, helm)?.into_iter().map(write).collect()
}
