//! The Helm chart with every Helm that it must work with: lint, render, the same result from each, typos refused.
//!
//! `charts/quorate/ci/*.yaml` are values that must render; `charts/quorate/ci/refused/*.yaml` are values that must
//! not, and the first line of each says what the answer has to contain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::shell::Shell;
use crate::step::Outcome;
use crate::tools::helm::{HELMS, Helm};

const CHART: &str = "charts/quorate";
/// What the first line of refused values begins with.
const EXPECTED: &str = "# refused: ";

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let mut rendered: Option<BTreeMap<String, String>> = None;
    for helm in HELMS {
        lint(shell, helm)?;
        refuse(shell, helm)?;
        let now = render(shell, helm)?;
        if let Some(before) = rendered.replace(now.clone()) {
            for (values, text) in &before {
                let same = now.get(values).is_some_and(|now| lines(now).eq(lines(text)));
                ensure!(same, "{} renders ci/{values}.yaml differently from the Helm before it", helm.name);
            }
        }
    }
    Ok(())
}

/// The lines that say something: the Helms differ in blank ones.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

fn lint(shell: &Shell<'_>, helm: &Helm) -> Result<()> {
    for values in good_values(shell)? {
        shell.run(chart_command(shell, helm, &["lint", "--strict", CHART])?.arg("--values").arg(values))?;
    }
    Ok(())
}

fn refuse(shell: &Shell<'_>, helm: &Helm) -> Result<()> {
    for values in files(&shell.workspace.path(CHART).join("ci/refused"))? {
        let text = std::fs::read_to_string(&values)?;
        let expected = text.lines().next().and_then(|line| line.strip_prefix(EXPECTED));
        let expected =
            expected.with_context(|| format!("{} does not begin with {EXPECTED:?}", values.display()))?;
        let mut command = chart_command(shell, helm, &["template", "quorate", CHART])?;
        let answer = shell.refused(command.arg("--values").arg(&values))?;
        ensure!(answer.contains(expected), "{}: no {expected:?} in the answer:\n{answer}", values.display());
    }
    Ok(())
}

/// The chart as Helm renders it, for each of the values that must work.
pub(super) fn render(shell: &Shell<'_>, helm: &Helm) -> Result<BTreeMap<String, String>> {
    let one = |values: PathBuf| {
        let name = values.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut command =
            chart_command(shell, helm, &["template", "quorate", CHART, "--namespace", "quorate-system"])?;
        Ok((name, shell.capture(command.arg("--values").arg(values))?))
    };
    good_values(shell)?.into_iter().map(one).collect()
}

fn good_values(shell: &Shell<'_>) -> Result<Vec<PathBuf>> {
    files(&shell.workspace.path(CHART).join("ci"))
}

fn chart_command(shell: &Shell<'_>, helm: &Helm, arguments: &[&str]) -> Result<Command> {
    let mut command = shell.workspace.command(helm.program(shell)?);
    command.args(arguments);
    Ok(command)
}

/// The YAML files of a folder, in order.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "{} holds no YAML file: this step would prove nothing", folder.display());
    Ok(files)
}
